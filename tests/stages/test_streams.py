"""Samples and verdicts stream: nothing of a finished sample is held but where it lies, and nothing is read again."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from core_bench import Control, Toys

from distillbench.bench import Bench
from distillbench.errors import StageError
from distillbench.outcomes import GRADER_ERROR
from distillbench.protocols import no_progress
from distillbench.records import Generation
from distillbench.sealed import unsealed
from distillbench.stages.grade import GradeRun
from distillbench.stages.sample import Requests, SampleRun
from distillbench.store import journal
from distillbench.store.rows import SAMPLES, VERDICTS, iterate
from distillbench.store.samples import sample_of
from distillbench.tasks.loader import LmEvalTasks

MANY = {"evaluations": {"toy": {"repeats": 20}}}


@pytest.fixture
def here(bench: Toys) -> Iterator[Bench]:
    """What stages of the toy matrix work with in this process."""
    with ExitStack() as stack:
        yield Bench(bench.session.store, bench.session.catalog, LmEvalTasks(bench.load().tasks), stack=stack)


@pytest.fixture
def unsealings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Notes every row that is read from a journal."""
    found: list[Any] = []

    def noted(line: bytes, whose: str) -> Any:
        found.append(line)
        return unsealed(line, whose)

    monkeypatch.setattr(journal, "unsealed", noted)
    return found


def of_kind(plan: Any, kind: str) -> Any:
    """The stage of a kind that the untouched student's cell has."""
    return next(stage for stage in plan.stages.values() if stage.kind == kind and stage.label.startswith("base"))


def test_grading_beside_the_engine_reads_no_verdict_twice(bench: Toys, here: Bench, unsealings: list[Any]) -> None:
    """So it is linear in the samples; opened anew for every batch it was quadratic."""
    plan = bench.run(MANY).plan
    sample, grade = of_kind(plan, "sample"), of_kind(plan, "grade")
    samples = [sample_of(row) for row in iterate(here.store.folder(sample) / SAMPLES)]
    finished = (here.store.folder(grade) / VERDICTS).read_bytes()
    run = GradeRun(grade, here)
    found = [verdict for number in range(0, 120, 3) for verdict in run.ahead(samples[number : number + 3])]
    assert [one.sample_id for one in found] == [one.sample_id for one in samples]
    assert unsealings == []
    assert run.ahead(samples) == [], "they are known"
    made = run.finish(no_progress)
    run.close()
    assert len(unsealings) == 120, "to be written in the order of the samples"
    assert (here.store.work(grade) / VERDICTS).read_bytes() == finished
    assert sum(made.facts["outcomes"].values()) == 120 and made.holes == 0
    del unsealings[:]
    with_rest = GradeRun(grade, here)
    assert with_rest.ahead(samples) == [] and len(unsealings) == 120, "once, where an earlier process left them"
    with_rest.close()


def test_what_another_process_graded_meanwhile_is_found(bench: Toys, here: Bench, control: Control) -> None:
    plan = bench.run(MANY).plan
    sample, grade = of_kind(plan, "sample"), of_kind(plan, "grade")
    samples = [sample_of(row) for row in iterate(here.store.folder(sample) / SAMPLES)]
    one, other = GradeRun(grade, here), GradeRun(grade, here)
    assert len(one.ahead(samples[:5])) == 5
    assert len(other.ahead(samples[:9])) == 4
    assert len(one.ahead(samples[:12])) == 3
    lock = here.store.lock(grade.key)
    lock.acquire(timeout=0)
    assert one.ahead(samples) == [], "another process runs the stage"
    lock.release()
    for run in (one, other):
        run.close()


def test_what_is_known_is_kept_and_only_holes_are_graded_again(bench: Toys, here: Bench, control: Control) -> None:
    control.set("fail-judge-toy-1", "down")
    plan = bench.run(MANY).plan
    grade = of_kind(plan, "grade")
    before = list(iterate(here.store.folder(grade) / VERDICTS))
    assert [row["sample_id"] for row in before if row["outcome"] == GRADER_ERROR] == [f"toy/1#{n}" for n in range(20)]
    control.unset("fail-judge-toy-1")
    control.log("judged")
    run = GradeRun(grade, here)
    made = run.finish(no_progress)
    run.close()
    assert control.log("judged") == ["toy/1"] * 20 and made.holes == 0
    after = list(iterate(here.store.work(grade) / VERDICTS))
    assert [row for row in after if row["problem_id"] != "toy/1"] == [
        row for row in before if row["problem_id"] != "toy/1"
    ]
    assert GRADER_ERROR not in made.facts["outcomes"]


def test_samples_that_have_come_are_not_held(bench: Toys, here: Bench) -> None:
    """60 MB of text come in; what is held after each is not their sum, nor is it while they are written."""
    sample = of_kind(bench.plan(MANY), "sample")
    here.store.begin(sample)
    run = SampleRun(sample, None, Requests(here))
    batch = run.open()
    text = "so " * 166_000
    tracemalloc.start()
    try:
        for number, request in enumerate(batch.requests):
            given = Generation(request.sample_id, tuple(range(20)), f"{number} {text}", "stop", effective={"top_p": 1})
            run.take(given)
        held, _ = tracemalloc.get_traced_memory()
        assert (run.n_done, run.size) == (120, 120)
        some = run.samples(run.hand_over()[3:6])
        assert [one.text.partition(" ")[0] for one in some] == ["3", "4", "5"]
        del some
        tracemalloc.reset_peak()
        made = run.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 5e6 and peak < 25e6
    rows = list(iterate(here.store.work(sample) / SAMPLES, ("sample_id", "text")))
    assert [row["sample_id"] for row in rows] == [request.sample_id for request in batch.requests]
    assert [row["text"].partition(" ")[0] for row in rows] == [str(number) for number in range(120)]
    assert made.holes == 0 and run.samples([1]) == []


def test_a_sample_that_was_not_asked_for_is_named(bench: Toys, here: Bench) -> None:
    sample = of_kind(bench.plan(), "sample")
    here.store.begin(sample)
    run = SampleRun(sample, None, Requests(here))
    run.open()
    with pytest.raises(StageError, match="gave sample 'other#0', which it was not asked for"):
        run.take(Generation("other#0", (1,), "x", "stop"))
    run.close()
