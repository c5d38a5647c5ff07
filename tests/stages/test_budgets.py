"""Budgets through the whole run: nothing is sampled again, each is graded by itself, and the report holds the curve."""

from __future__ import annotations

from typing import Any

import pytest
from core_bench import Control, Toys
from core_factories import keys, merged

from distillbench.report.collect import collect
from distillbench.report.results import Results
from distillbench.run.runner import Summary
from distillbench.store.rows import VERDICTS, read_rows

pytestmark = pytest.mark.slow

#: The toy engine writes a letter, `=`, a number (one digit where it is right, `-1` where it is wrong) and the end.
BUDGETS = {"evaluations": {"toy": {"budgets": [1, 3, 4]}}}


@pytest.fixture
def bench(bench: Toys) -> Toys:
    """A student that no stage builds, and one checkpoint."""
    fewer = {"students": {"small": {"use": "toy-hub-student"}}, "trainers": {"fit": {"steps": [1]}}}
    return Toys(bench.session, lambda changes=None: bench.matrix(merged(fewer, changes or {})))


def results(bench: Toys, summary: Summary) -> Results:
    return collect(summary.plan, bench.session.store, "a test")


def curve(found: Results, cell: str = "base-small") -> dict[int | None, dict[str, int]]:
    """The outcomes by budget that occur."""
    mine = [one for one in (*found.recomputed, *found.checkpoints) if one.cell == cell]
    return {one.budget: {name: n for name, n in one.scores.counts().items() if n} for one in mine}


def test_the_curve_of_a_run(bench: Toys) -> None:
    found = results(bench, bench.run(BUDGETS))
    assert {one.budget for one in found.checkpoints} == {None}
    assert curve(found) == {
        1: {"truncated": 6},
        3: {"correct": 3, "wrong": 3},  # `=4` and `=-`
        4: {"correct": 3, "wrong": 3},
        None: {"correct": 3, "wrong": 3},
    }
    cut = {one.budget: {s.problem_id: s for s in one.samples()} for one in found.recomputed if one.cell == "base-small"}
    assert {s.n_tokens for s in cut[1].values()} == {1}
    assert all(s.ran_on for s in cut[3].values())  # nothing that is cut ended by itself
    assert sorted(s.ran_on for s in cut[4].values()) == [False] * 3 + [True] * 3  # `=4` and its end fit
    assert {s.text for s in cut[1].values()} == {""}


def test_what_a_budget_does_not_cut_is_not_graded_twice(bench: Toys, control: Control) -> None:
    """With a judge that is paid, and may say something else the second time."""
    bench.run(BUDGETS)
    whole, at_1, at_3, at_4 = 6, 0, 6, 3  # answers of a checkpoint; `=4` and its end fit into 4 tokens, `=-1` does not
    assert len(control.log("judged")) == 2 * (whole + at_1 + at_3 + at_4)


def test_budgets_that_are_added_sample_nothing(bench: Toys, control: Control) -> None:
    bench.run()
    assert control.log("asked")
    summary = bench.run(BUDGETS)
    assert control.log("asked") == []
    ended = {summary.plan.stages[key].kind: set[str]() for key in summary.endings}
    for key, ending in summary.endings.items():
        ended[summary.plan.stages[key].kind].add(ending)
    assert ended["sample"] == {"reused"}
    assert ended["grade"] == {"reused", "done"}
    assert len(curve(results(bench, summary))) == 4


def test_a_sample_that_failed_is_a_hole_at_every_budget(bench: Toys, control: Control) -> None:
    control.set("errors", "toy/0#0")
    summary = bench.run(BUDGETS)
    errors = {budget: found["generation_error"] for budget, found in curve(results(bench, summary)).items()}
    assert errors == dict.fromkeys([1, 3, 4, None], 1)
    control.unset("errors")
    mended = curve(results(bench, bench.run(BUDGETS)))
    assert all("generation_error" not in found for found in mended.values())


def test_a_grader_that_cannot_compare_answers_stores_no_form(bench: Toys) -> None:
    summary = bench.run({"evaluations": {"toy": {"repeats": 2}}})
    grade = summary.plan.stages[keys(summary.plan, "grade")[0]]
    rows: list[dict[str, Any]] = read_rows(bench.session.store.folder(grade) / VERDICTS)
    assert [row["repeat"] for row in rows] == [0, 1] * 6
    assert {row["canonical"] for row in rows} == {None}


def test_a_stop_string_is_cut_from_the_answer_that_holds_it(bench: Toys) -> None:
    """The engine's text ends with the stop string, so `4` is right only where grading cuts there."""
    found = results(bench, bench.run({"evaluations": {"toy": {"stop": ["4"], "limit": 6}}}))
    samples = {s.problem_id: s for one in found.checkpoints if one.cell == "base-small" for s in one.samples()}
    assert samples["toy/4"].outcome == "no_answer"
    assert samples["toy/2"].outcome == "correct"
