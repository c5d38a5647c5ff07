"""Groups and tags as benchmarks of a matrix: one evaluation for each task, added up in the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from core_bench import Toys
from core_factories import keys

from distillbench.errors import MatrixError
from distillbench.records import Membership
from distillbench.report.collect import collect
from distillbench.report.evaluated import build_rows
from distillbench.report.groups import groups_of

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
tag: letters
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: [], do_sample: false, max_gen_toks: 16}}
metric_list: [{{metric: exact_match}}]
metadata: {{version: 1, distillbench: {{grader: toy-grader, docs: {size}}}}}
"""
GROUP = """
group: {name}
task: {members}
aggregate_metric_list: [{{metric: exact_match, weight_by_size: {by_size}}}]
"""
SIZES = {"small": 2, "large": 5}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tasks, of two and of five problems, a group of them, a group around that, and their tag."""
    made = tmp_path / "tasks"
    made.mkdir()
    for name, size in SIZES.items():
        file = made / f"{name}.jsonl"
        file.write_text("".join(f'{{"question": "Say {n}", "answer": "{n}"}}\n' for n in range(size)))
        (made / f"{name}.yaml").write_text(TASK.format(name=name, file=file, size=size))
    (made / "both.yaml").write_text(GROUP.format(name="both", members="[large, small]", by_size="true"))
    (made / "outer.yaml").write_text(GROUP.format(name="outer", members="[both]", by_size="false"))
    return made


@pytest.fixture
def asks(bench: Toys, folder: Path) -> Callable[..., dict[str, Any]]:
    """Changes of the toy matrix that ask a group."""
    return lambda **entry: {"task_paths": [str(folder)], "evaluations": {"toy": None, "ours": entry}}


def test_a_group_becomes_its_tasks(bench: Toys, asks: Callable[..., dict[str, Any]]) -> None:
    cell = bench.load(asks(benchmark="outer", max_tokens=9)).cells[0]
    assert [(one.name, one.task, one.sampling.max_tokens) for one in cell.evaluations] == [
        ("ours.large", "large", 9),
        ("ours.small", "small", 9),
    ]
    assert {one.groups for one in cell.evaluations} == {
        (Membership("ours", False, 2), Membership("ours.both", True, 2))
    }
    tagged = bench.load(asks(benchmark="letters")).cells[0]
    assert [(one.task, one.groups) for one in tagged.evaluations] == [("large", ()), ("small", ())]


def test_a_task_of_a_group_has_the_keys_that_it_has_alone(bench: Toys, asks: Callable[..., dict[str, Any]]) -> None:
    grouped = bench.plan(asks(benchmark="both"))
    alone = bench.plan(asks(benchmark="large"))
    assert set(keys(alone, "sample")) < set(keys(grouped, "sample"))
    assert set(keys(alone, "grade")) < set(keys(grouped, "grade"))


def test_axes_reach_all_tasks_of_a_group(bench: Toys, asks: Callable[..., dict[str, Any]]) -> None:
    plan = bench.plan(asks(benchmark="both") | {"matrix": {"engine": "talk", "evaluations.ours.repeats": [1, 2]}})
    assert sorted({tuple(one.repeats for one in cell.evaluations) for cell in plan.cells}) == [(1, 1), (2, 2)]


def test_named_problems_of_a_group(bench: Toys, asks: Callable[..., dict[str, Any]]) -> None:
    cell = bench.load(asks(benchmark="both", problems=["large/3", "small/0", "large/1"])).cells[0]
    assert [(one.task, one.problems) for one in cell.evaluations] == [("large", (1, 3)), ("small", (0,))]
    one = bench.load(asks(benchmark="both", problems=["large/3"])).cells[0]
    assert [(found.task, found.groups[0].size) for found in one.evaluations] == [("large", 1)]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"benchmark": "both", "problems": [3]}, "such as large/0"),
        ({"benchmark": "both", "problems": ["large/9"]}, "it has 5"),
        ({"benchmark": "both", "problems": []}, "leave it out to ask all"),
        ({"benchmark": "both", "max_tokens": 0}, "a whole number >= 1"),
        ({"benchmark": "bothh"}, "no task is named 'bothh'"),
    ],
)
def test_mistakes_about_a_group_are_told_once(
    bench: Toys, asks: Callable[..., dict[str, Any]], entry: dict[str, Any], words: str
) -> None:
    with pytest.raises(MatrixError) as caught:
        bench.plan(asks(**entry))
    assert len(caught.value.mistakes) == 1 and words in str(caught.value)


@pytest.mark.slow
def test_a_group_is_run_and_added_up(bench: Toys, asks: Callable[..., dict[str, Any]]) -> None:
    summary = bench.run(asks(benchmark="outer"))
    assert not summary.reasons
    rows = build_rows(collect(bench.plan(asks(benchmark="outer")), bench.session.store, "test"))
    grouped = {name: group.rows for name, group in groups_of(rows).items()}
    assert list(grouped) == ["ours", "ours.both"]
    for row in grouped["ours.both"]:
        assert row.summary.n == 7 == sum(row.summary.counts.values())
        of = [one for one in rows if (one.result.cell, one.result.step) == (row.result.cell, row.result.step)]
        assert row.summary.counts["correct"] == sum(one.summary.counts["correct"] for one in of)
    trained = [row for row in grouped["ours"] if not row.result.is_baseline]
    assert trained and all(row.difference is not None and row.difference.n_pairs == 7 for row in trained)
