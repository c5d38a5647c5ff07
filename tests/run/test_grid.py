"""One session for the grid: order, streaming, proof of checkpoints, what an engine may do wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from core_bench import Control, Heard, Toys

from distillbench.errors import StageError
from distillbench.events import Event, Graded, Sampled, Waiting
from distillbench.records import Checkpoint, Prompt
from distillbench.run.proof import Proof, largest_change
from distillbench.store.rows import SAMPLES, VERDICTS, read_rows

GRID = {
    "trainers": {"fit": {"steps": [1, 2, 3]}},
    "evaluations": {"toy": {}, "again": {"benchmark": "toy", "max_tokens": 12}},
}
PROMPTS = [Prompt(np.array([1, 2], dtype=np.int32), ""), Prompt(np.array([3], dtype=np.int32), "")]
ONE = Checkpoint(Path("step-1"), "adapter", 1, 1)


class Session:
    """An engine whose checkpoints change the first token's log-probabilities by so much."""

    facts: Mapping[str, Any] = {"engine": "made"}

    def __init__(self, change: float, noise: float = 0.0, base: float = -1.0) -> None:
        self.change, self.noise, self.base = change, noise, base
        self.calls: list[Checkpoint | None] = []

    def prepare(self, checkpoint: Checkpoint) -> Mapping[str, Any]:
        return {"rank": 4}

    def first_token_logprobs(self, prompts: Sequence[Prompt], checkpoint: Checkpoint | None) -> Any:
        self.calls.append(checkpoint)
        more = self.change if checkpoint else self.noise * len(self.calls)
        return [{7: self.base + more, 8: -2.0} for _ in prompts]

    def generate(self, batches: Any) -> Any:
        raise NotImplementedError

    def loglikelihood(self, batch: Any) -> Any:
        raise NotImplementedError


def test_a_checkpoint_that_changes_the_model_is_proven() -> None:
    facts = Proof(Session(change=0.5)).of(ONE, PROMPTS)
    assert facts == {"rank": 4, "first_token_change": 0.5, "engine_noise": 0.0, "prompts": 2}


@pytest.mark.parametrize(
    ("change", "noise"), [(0.0, 0.0), (5e-6, 0.0), (0.05, 0.01)], ids=["none", "rounding", "noise"]
)
def test_a_checkpoint_that_changes_nothing_is_refused_by_name(change: float, noise: float) -> None:
    with pytest.raises(StageError, match="checkpoint step-1 changes nothing") as raised:
        Proof(Session(change, noise)).of(ONE, PROMPTS)
    assert "it is not scored" in str(raised.value)


@pytest.mark.parametrize(
    ("session", "who"),
    [(Session(change=math.nan), "checkpoint step-1"), (Session(0.5, base=math.nan), "the untouched student")],
)
def test_what_computes_no_numbers_is_refused(session: Session, who: str) -> None:
    with pytest.raises(StageError, match=f"{who} computes no numbers"):
        Proof(session).of(ONE, PROMPTS)


def test_an_untouched_student_is_asked_once_where_nothing_is_compared_with_it() -> None:
    session = Session(change=0.5)
    assert Proof(session).of(None, PROMPTS) == {}
    assert session.calls == [None]
    with pytest.raises(StageError, match="the untouched student computes no numbers"):
        Proof(Session(0.5, base=math.nan)).of(None, PROMPTS)


def test_the_untouched_student_is_asked_twice_for_the_same_prompts_and_no_more() -> None:
    session = Session(change=0.5)
    proof = Proof(session)
    proof.of(ONE, PROMPTS)
    proof.of(Checkpoint(Path("step-2"), "adapter", 2, 2), PROMPTS)
    proof.of(None, PROMPTS[:1])
    assert [one is None for one in session.calls] == [True, True, False, False]


def test_sets_of_tokens_that_share_none_differ_without_bound() -> None:
    assert largest_change([{1: -1.0}], [{2: -1.0}]) == float("inf")
    assert largest_change([{1: -1.0}, {3: -2.0, 4: -3.0}], [{1: -1.5}, {3: -2.0, 5: -9.0}]) == 0.5


def samples(bench: Toys, plan: Any) -> dict[str, list[dict[str, Any]]]:
    """The rows of every sample stage, by label."""
    store = bench.session.store
    return {
        stage.label: read_rows(store.folder(stage) / SAMPLES)
        for stage in plan.stages.values()
        if stage.kind == "sample"
    }


def test_one_session_serves_every_checkpoint_and_benchmark(bench: Toys, control: Control) -> None:
    summary = bench.run(GRID)
    assert len(control.log("sessions")) == 1
    found = samples(bench, summary.plan)
    assert len(found) == 8, "three checkpoints and the untouched student on two benchmarks"
    for rows in found.values():
        assert [row["sample_id"] for row in rows] == [f"toy/{number}#0" for number in range(len(rows))]
        assert all(row["n_tokens"] == len(row["token_ids"]) for row in rows)


def test_what_is_known_of_a_sample_stage_is_kept(bench: Toys) -> None:
    summary = bench.run(GRID)
    for stage in summary.plan.stages.values():
        if stage.kind == "sample":
            facts = bench.session.store.facts(stage) or {}
            assert facts["engine"] == {"engine": "toy"}
            assert ("checkpoint" in facts) == ("train" in stage.inputs())
            assert facts["tokens"] > 0


def test_a_checkpoint_that_changes_nothing_is_never_scored(bench: Toys, control: Control) -> None:
    control.set("no-op", "2")
    summary = bench.run(GRID)
    ends = {(stage.kind, stage.label): summary.endings[key] for key, stage in summary.plan.stages.items()}
    assert {label for (kind, label), ending in ends.items() if kind == "sample" and ending == "failed"} == {
        "wise@2 on toy",
        "wise@2 on again",
    }
    assert ends["grade", "wise@2 on toy"] == "blocked" and ends["grade", "wise@3 on toy"] == "done"
    assert any("changes nothing" in why for why in summary.reasons.values())
    assert not [line for line in control.log("asked") if line.endswith(" 2")], "it was sampled all the same"


def test_an_untouched_student_that_computes_no_numbers_is_never_scored(bench: Toys, control: Control) -> None:
    """Also where there is no checkpoint to be compared with it: a diverged model reads as one that knows nothing."""
    control.set("nan", "yes")
    summary = bench.run(GRID, only=("base-*",))
    ends = {(stage.kind, summary.endings[key]) for key, stage in summary.plan.stages.items()}
    assert ends == {("student", "done"), ("sample", "failed"), ("grade", "blocked")}
    assert any("the untouched student computes no numbers" in why for why in summary.reasons.values())
    assert not control.log("asked")


def test_a_checkpoint_over_which_the_engine_breaks_fails_alone(bench: Toys, control: Control) -> None:
    control.set("break-checkpoint", "2")
    summary = bench.run(GRID)
    ends = {stage.label: summary.endings[key] for key, stage in summary.plan.stages.items() if stage.kind == "sample"}
    names = [
        f"{step} on {name}" for step in ("wise@1", "wise@2", "wise@3", "base-small@0") for name in GRID["evaluations"]
    ]
    assert ends == {name: "failed" if name.startswith("wise@2") else "done" for name in names}
    assert any("step-2 cannot be used: IndexError: " in why for why in summary.reasons.values())


def test_what_cannot_be_stored_is_an_error_of_its_sample(bench: Toys, control: Control) -> None:
    """It would be journaled, and then keep the stage from ever being finished."""
    control.set("odd", "toy/1#0")
    summary = bench.run()
    for rows in samples(bench, summary.plan).values():
        assert ["cannot be stored" in (row["error"] or "") for row in rows] == [n == 1 for n in range(len(rows))]
    control.unset("odd")
    filled = bench.run()
    assert filled.count("done") == 6
    assert all(row["error"] is None for rows in samples(bench, filled.plan).values() for row in rows)


def test_samples_that_another_process_makes_are_graded_when_it_is_done(bench: Toys, control: Control) -> None:
    """Where an earlier run left holes, the old verdicts are not those of the new samples."""
    control.set("errors", "toy/1#0 toy/4#0")
    plan = bench.run().plan
    control.unset("errors")
    (stage,) = [one for one in plan.stages.values() if (one.kind, one.label) == ("sample", "base-small@0 on toy")]
    lock = bench.session.store.lock(stage.key)
    lock.acquire(timeout=0)

    def release(event: Event) -> None:
        if isinstance(event, Waiting):
            lock.release()

    summary = bench.run(on_event=release)
    grades = [one for one in summary.plan.stages.values() if one.kind == "grade"]
    found = [row["outcome"] for one in grades for row in read_rows(bench.session.store.folder(one) / VERDICTS)]
    assert summary.count("done") == 6 and "generation_error" not in found


def test_prompts_that_cannot_be_made_fail_their_own_stages_alone(bench: Toys, control: Control) -> None:
    bench.run()  # trains, which looks at prompts too
    control.set("fail-prompt-think", "no such prompt")
    more = {"first": {"benchmark": "toy", "prefill": "think"}, "second": {"benchmark": "toy", "max_tokens": 12}}
    summary = bench.run({"evaluations": more})
    ends = {stage.label: summary.endings[key] for key, stage in summary.plan.stages.items() if stage.kind == "sample"}
    steps = ("base-small@0", "wise@1", "wise@2")
    expected = {"toy": "reused", "first": "failed", "second": "done"}
    assert ends == {f"{step} on {name}": ending for step in steps for name, ending in expected.items()}


def test_samples_are_graded_while_others_are_made(bench: Toys, control: Control) -> None:
    """The verdicts on the first 64 samples are journaled before the last sample has come."""
    control.set("sleep-sample-toy-5#10", "3")  # time for the grading thread
    control.set("kill-sample-toy-5#11")
    changes = {"evaluations": {"toy": {"repeats": 12}}}
    assert bench.run(changes).count("failed") == 3
    store = bench.session.store
    journals = [path.read_text().splitlines() for path in (store.root / "work").glob("*/scratch/verdicts.jsonl")]
    assert {len(lines) for lines in journals} == {64}, "the first 64 of 72 samples of the stage that was killed"
    ahead = {json.loads(line)["sample_digest"] for lines in journals for line in lines}
    control.unset("kill-sample-toy-5#11")
    control.unset("sleep-sample-toy-5#10")
    summary = bench.run(changes)
    grades = [stage for stage in summary.plan.stages.values() if stage.kind == "grade"]
    found = [read_rows(store.folder(stage) / VERDICTS) for stage in grades]
    assert [len(rows) for rows in found] == [72] * 3
    assert ahead <= {row["sample_digest"] for rows in found for row in rows}, "they are of the samples that were kept"


def test_events_tell_of_samples_and_outcomes(bench: Toys) -> None:
    heard = Heard()
    bench.run(GRID, on_event=heard)
    assert heard.of(Sampled) and [one for one in heard.of(Graded) if one.is_whole]
