"""What the tasks of a group are worth together: as lm-eval adds them up, with n, interval and outcomes that add up."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_factories import checkpoint, print_table, render_markdown, sample, summary_json
from rich.console import Console

from distillbench.outcomes import OUTCOMES
from distillbench.records import Membership
from distillbench.report.evaluated import build_rows
from distillbench.report.groups import group_notes, groups_of, headline_rows
from distillbench.report.results import CheckpointResult, Results
from distillbench.report.statements import conclusions

VERDICTS = st.sampled_from(["correct", "wrong", "no_answer", "truncated", "loop", "unclosed"])
TASKS = st.lists(st.lists(VERDICTS, min_size=1, max_size=12), min_size=2, max_size=5)


def of_task(task: str, outcomes: list[str], groups: tuple[Membership, ...], **more: Any) -> CheckpointResult:
    made = [sample(f"{task}/{place}", outcome) for place, outcome in enumerate(outcomes)]
    return checkpoint(made, evaluation=f"g.{task}", task=task, groups=groups, **more)


def grouped(
    tasks: list[list[str]], by_size: bool, baselines: list[list[str]] | None = None, size: int | None = None
) -> Results:
    groups = (Membership("g", by_size, size or len(tasks)),)
    made = [of_task(f"t{place}", outcomes, groups) for place, outcomes in enumerate(tasks)]
    for place, outcomes in enumerate(baselines or []):
        made.append(of_task(f"t{place}", outcomes, groups, cell="base-tiny", step=0))
    return Results("m", checkpoints=tuple(made))


@settings(deadline=None)
@given(TASKS, st.booleans())
def test_a_group_is_what_lm_eval_makes_of_it(tasks: list[list[str]], by_size: bool) -> None:
    from lm_eval.api.metrics import aggregate_subtask_metrics

    rows = build_rows(grouped(tasks, by_size))
    [row] = groups_of(rows)["g"].rows
    shares = [outcomes.count("correct") / len(outcomes) for outcomes in tasks]
    theirs = aggregate_subtask_metrics(shares, [len(outcomes) for outcomes in tasks], by_size)
    summary = row.summary
    assert summary.accuracy == pytest.approx(theirs)
    assert summary.n == summary.scored == sum(map(len, tasks)) == sum(summary.counts.values())
    for outcome in OUTCOMES:
        assert summary.counts[outcome] == sum(outcomes.count(outcome) for outcomes in tasks)
    assert summary.accuracy_interval is not None
    assert 0 <= summary.accuracy_interval.low <= summary.accuracy <= summary.accuracy_interval.high <= 1
    if summary.completion_rate:
        assert summary.completion_rate * (summary.accuracy_completed or 0) == pytest.approx(summary.accuracy)


def test_tasks_of_one_size_weigh_the_same_either_way_and_so_do_their_intervals() -> None:
    tasks = [["correct"] * 12 + ["wrong"] * 8, ["correct"] * 10 + ["wrong"] * 10]
    [alike] = groups_of(build_rows(grouped(tasks, False)))["g"].rows
    [by_size] = groups_of(build_rows(grouped(tasks, True)))["g"].rows
    assert alike.summary.accuracy == by_size.summary.accuracy == 0.55
    one, other = alike.summary.accuracy_interval, by_size.summary.accuracy_interval
    assert one is not None and other is not None
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.005)


def test_a_small_task_that_weighs_much_widens_the_interval() -> None:
    tasks = [["correct"] * 2 + ["wrong"] * 2, ["correct", "wrong"] * 200]
    [alike] = groups_of(build_rows(grouped(tasks, False)))["g"].rows
    [by_size] = groups_of(build_rows(grouped(tasks, True)))["g"].rows
    wide, narrow = alike.summary.accuracy_interval, by_size.summary.accuracy_interval
    assert wide is not None and narrow is not None
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    expected = 1.96 * math.sqrt(0.25 / 4 + 0.25 / 400) / 2
    assert (wide.high - wide.low) / 2 == pytest.approx(expected, rel=0.15)


def test_unanimous_tasks_claim_no_certainty() -> None:
    [row] = groups_of(build_rows(grouped([["correct"] * 3, ["correct"] * 300], False)))["g"].rows
    assert row.summary.accuracy_interval is not None and row.summary.accuracy_interval.low < 0.8
    [mixed] = groups_of(build_rows(grouped([["correct"] * 3, ["wrong"] * 300], False)))["g"].rows
    interval = mixed.summary.accuracy_interval
    assert interval is not None and interval.low < 0.3 and interval.high > 0.7


@pytest.mark.parametrize("by_size", [True, False])
def test_a_group_is_paired_with_its_baseline(by_size: bool) -> None:
    ours = [["correct"] * 6 + ["wrong"] * 2, ["correct"] * 2 + ["wrong"] * 2]
    base = [["correct"] * 4 + ["wrong"] * 4, ["correct"] * 1 + ["wrong"] * 3]
    found = {row.result.cell: row for row in groups_of(build_rows(grouped(ours, by_size, base)))["g"].rows}
    difference = found["concise"].difference
    assert difference is not None and difference.interval is not None
    assert difference.value == pytest.approx(3 / 12 if by_size else (2 / 8 + 1 / 4) / 2)
    assert (difference.n_pairs, difference.n_dropped) == (12, 0)
    assert difference.interval.low < difference.value < difference.interval.high
    assert found["base-tiny"].difference is None


def test_what_lacks_a_task_is_not_added_up_and_that_is_said() -> None:
    results = grouped([["correct"], ["wrong"]], True, size=3)
    rows = build_rows(results)
    assert groups_of(rows)["g"].rows == ()
    assert group_notes(rows) == ["concise @100: not added up on g: 1 of 3 tasks have no result."]
    assert "not added up on g" in render_markdown(results)


@pytest.mark.parametrize("by_size", [True, False])
def test_a_group_with_failures_is_invalid_or_bounded_as_any_number(by_size: bool) -> None:
    failed = grouped([["correct"] * 5, ["generation_error"] * 3 + ["wrong"]], by_size)
    [row] = groups_of(build_rows(failed))["g"].rows
    assert row.summary.invalid and row.summary.accuracy is None
    one = grouped([["correct"] * 150 + ["wrong"] * 50, ["correct"] * 150 + ["wrong"] * 49 + ["grader_error"]], by_size)
    [row] = groups_of(build_rows(one))["g"].rows
    assert not row.summary.invalid and row.summary.bounds is not None
    assert (row.summary.bounds.low, row.summary.bounds.high) == pytest.approx((0.75, 0.7525))


def test_reports_show_the_group_first_and_conclude_from_it_alone() -> None:
    inner = Membership("g.inner", True, 2)
    made = [
        of_task(task, outcomes, (Membership("g", False, 3), *([inner] if task != "c" else [])))
        for task, outcomes in (("a", ["correct", "wrong"]), ("b", ["correct"] * 4), ("c", ["wrong"] * 6))
    ]
    alone = replace(checkpoint([sample("x/0", "correct")]), evaluation="alone", task="x")
    results = Results("m", checkpoints=(*made, alone))
    rows = build_rows(results)
    assert [row.result.evaluation for row in headline_rows(rows, groups_of(rows))] == ["alone", "g"]
    assert [line for line in conclusions(headline_rows(rows, groups_of(rows))) if "on g.a" in line] == []
    document = summary_json(results)
    assert [(one["evaluation"], one["n"], one["accuracy"]) for one in document["groups"]] == [
        ("g", 12, pytest.approx(0.5)),
        ("g.inner", 6, pytest.approx(5 / 6)),
    ]
    assert sum(one["n"] for one in document["rows"]) == 13, "nothing counts a sample of a group twice"
    text = render_markdown(results)
    assert text.index("## Group: g\n") < text.index("## Evaluation: g.a")
    assert "3 tasks together, each task alike" in text and "2 tasks together, weighted by size" in text
    console = Console(record=True, width=140, file=io.StringIO())
    print_table(results, console)
    shown = console.export_text()
    assert "g, task by task" in shown and "3 tasks together" in shown and "g.inner" in shown
