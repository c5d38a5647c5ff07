"""Traces, what is measured of them and what is decided: whatever a teacher or a filter gives."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from core_bench import Control, Toys

from distillbench.bench import Bench
from distillbench.catalog import Catalog
from distillbench.errors import PluginError, StageError
from distillbench.filtering import decided
from distillbench.outcomes import GRADER_ERROR
from distillbench.plan.stage import Stage
from distillbench.protocols import Context, no_progress
from distillbench.records import Choice, Message, Problem, Trace
from distillbench.store.kept import measured
from distillbench.store.rows import TRACES, UNUSABLE, read_rows, write_rows
from distillbench.store.store import Made
from distillbench.tasks.loader import LmEvalTasks

SURE: dict[str, Any] = {"filters": {"sure": {"use": "toy-verdict-filter"}}}


@pytest.fixture
def here(bench: Toys) -> Iterator[Bench]:
    """What stages of the toy matrix work with in this process."""
    bench.session.store.prepare()
    with ExitStack() as stack:
        yield Bench(bench.session.store, bench.session.catalog, LmEvalTasks(bench.load().tasks), stack=stack)


def stages(bench: Toys, changes: dict[str, Any]) -> dict[str, Stage]:
    """A stage of each kind of a changed matrix."""
    return {stage.kind: stage for stage in bench.plan(changes).stages.values()}


def finished(stage: Stage, here: Bench) -> Made:
    """Runs a stage in this process."""
    here.store.begin(stage)
    made = stage.run(here, no_progress)
    here.store.finish(stage, made, 1.0, {})
    return made


# ---------------------------------------------------------------- ids


def test_ids_that_a_teacher_gives_are_its_traces_and_no_two_have_one(bench: Toys, here: Bench) -> None:
    given = {"n": 5, "ids": ["a", "b", "a", "b"], "odd": ["half an id"]}
    traces = stages(bench, {"teachers": {"wise": given}})["traces"]
    made = finished(traces, here)
    ids = [row["trace_id"] for row in read_rows(here.store.file(traces, TRACES))]
    assert ids[:2] == ["a", "b"] and ids[2].startswith("000004-") and len(ids) == 3
    rejected = {"unusable: repeated id": 2, "unusable: control character": 1}
    assert made.facts == {"traces": 3, "rejected": rejected}
    unusable = [json.loads(line) for line in here.store.file(traces, UNUSABLE).read_text().splitlines()]
    assert [row["reason"] for row in unusable] == [
        "repeated id: 'a' is an earlier trace's too",
        "repeated id: 'b' is an earlier trace's too",
        "control character: U+D800 at place 4 of the trace_id",
    ]


def test_ids_are_the_same_when_a_teacher_goes_on_after_a_kill(bench: Toys, here: Bench, control: Control) -> None:
    traces = stages(bench, {})["traces"]
    control.set("fail-teacher-2", "away")
    here.store.begin(traces)
    with pytest.raises(StageError, match="away"):
        traces.run(here, no_progress)
    control.unset("fail-teacher-2")
    control.log("teacher")
    finished(traces, here)
    assert control.log("teacher") == ["2", "3"]
    gone_on = read_rows(here.store.file(traces, TRACES))
    finished(traces, here)
    assert read_rows(here.store.file(traces, TRACES)) == gone_on


# ---------------------------------------------------------------- verdicts


def test_a_verdict_is_kept_with_what_was_said_and_not_with_an_id(bench: Toys, here: Bench, control: Control) -> None:
    """A teacher that is asked again may say something else under the id it gave before."""
    found = stages(bench, SURE | {"teachers": {"wise": {"ids": ["a", "b", "c", "d"]}}})
    finished(found["traces"], here)
    assert finished(found["verdict"], here).facts["correct"] == 4
    assert len(control.log("judged")) == 4
    finished(found["verdict"], here)
    assert control.log("judged") == [], "nothing has changed"
    control.set("salt", "another thought")
    finished(found["traces"], here)
    finished(found["verdict"], here)
    assert control.log("judged") == ["toy/100", "toy/101", "toy/102", "toy/103"]


def test_a_verdict_is_found_wherever_its_trace_stands_now(bench: Toys, here: Bench, control: Control) -> None:
    found = stages(bench, SURE)
    control.set("fail-judge-toy-103", "down")
    finished(found["traces"], here)
    assert finished(found["verdict"], here).holes == 1
    path = here.store.folder(found["traces"]) / TRACES
    rows = read_rows(path)
    here.store.begin(found["traces"])
    moved = [row | {"trace_id": f"moved-{number}"} for number, row in enumerate(reversed(rows))]
    write_rows(here.store.work(found["traces"]) / TRACES, moved)
    here.store.finish(found["traces"], Made((TRACES,), {"traces": 4, "rejected": {}}), 1.0, {})
    control.unset("fail-judge-toy-103")
    control.log("judged")
    assert finished(found["verdict"], here).holes == 0
    assert control.log("judged") == ["toy/103"], "the hole alone"
    verdicts = read_rows(here.store.folder(found["verdict"]) / "verdict.parquet")
    assert [row["trace_id"] for row in verdicts] == [row["trace_id"] for row in moved]
    assert GRADER_ERROR not in {row["outcome"] for row in verdicts}


def test_a_measure_of_other_traces_is_refused(bench: Toys, here: Bench) -> None:
    found = stages(bench, SURE)
    finished(found["traces"], here)
    path = here.store.file(found["traces"], TRACES)
    other = here.store.root / "verdict.parquet"
    rows = [{"trace_id": "other", "outcome": "correct"}] * 4
    write_rows(other, rows, {"trace_id": "string", "outcome": "string"})
    with pytest.raises(StageError, match="measure 'verdict' is of trace 'other' where '000000-"):
        list(measured(path, {"verdict": other}, [True] * 4))


# ---------------------------------------------------------------- filters

PROBLEM = Problem("p", "sums", (Message("user", "1+1?"),), "2")


def odd(catalog: Catalog, gives: str) -> Choice:
    """The odd filter, chosen."""
    options = catalog.kind("filter")["toy-odd-filter"].Options(gives=gives)
    return Choice("filter", "odd", "toy-odd-filter", options, "{}")


def traces_of(n: int, characters: int = 1) -> Iterator[Trace]:
    """Some traces, made as they are asked for."""
    return (Trace(PROBLEM, f"{n} " + "x" * characters, "2", "stop", None, "t", f"row {n}") for n in range(n))


@pytest.mark.parametrize(
    ("gives", "why"),
    [
        ("few", "it decided 2 times on 3 traces"),
        ("none", "it decided 0 times on 3 traces"),
        ("unread", "it decided 1 times on 3 traces"),
        ("many", "it decided 4 times on 3 traces"),
        ("number", "wanted a reason in words, or None for a trace that is kept; got 5"),
        ("half", "half a character"),
        ("nothing", "TypeError: 'NoneType' object is not iterable"),
    ],
)
def test_a_filter_that_decides_what_it_cannot_is_named(catalog: Catalog, tmp_path: Path, gives: str, why: str) -> None:
    with pytest.raises(PluginError) as told:
        list(decided(odd(catalog, gives), catalog, traces_of(3), Context(work=tmp_path)))
    assert why in str(told.value) and "filter 'toy-odd-filter' of plugin" in str(told.value)


def test_a_filter_that_looks_at_all_traces_first_has_none_of_them_held(catalog: Catalog, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        reasons = list(decided(odd(catalog, "whole"), catalog, traces_of(2000, 10_000), Context(work=tmp_path)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reasons == [None] * 2000 and peak < 2e6
