"""grade: one outcome for each sample."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from filelock import Timeout

from distillbench.bench import Bench
from distillbench.errors import DamagedError
from distillbench.fingerprint import key_of
from distillbench.outcomes import COMPLETED, GENERATION_ERROR, GRADER_ERROR, decide_all
from distillbench.plan.stage import UNKEYED, Pace, Stage, alike, unkeyed
from distillbench.protocols import Progress
from distillbench.records import Choice, Completion, Evaluation, Verdict
from distillbench.stages.budgets import cut, is_cut
from distillbench.stages.sample import Sample
from distillbench.store.journal import Journal
from distillbench.store.rows import SAMPLES, VERDICTS, Row, problem_of, read_rows, write_rows
from distillbench.store.store import Made

#: In a grade stage's scratch folder: verdicts on samples that came while others were still being made.
_AHEAD = "verdicts.jsonl"


class Grade(Stage):
    """Grades the samples of a stage, whole or cut at a budget.

    Attributes:
        grader: Says which answers are right.
        asked: What was asked, and how it is graded.
        parser: Splits completions, in words with its version.
        sample: Has the samples.
        budget: Where they are cut; None where they are graded whole.
        renderer: Whose parser it is.
        whole: Grades them whole: its verdicts hold where a budget cuts nothing.
    """

    kind = "grade"

    grader: Choice
    asked: Evaluation = field(metadata=UNKEYED)
    parser: str
    sample: Sample
    budget: int | None = None
    renderer: Choice = field(metadata=UNKEYED)
    whole: Grade | None = unkeyed(default=None)

    @property
    def evaluation(self) -> Evaluation:
        """What was asked."""
        return self.asked

    @property
    def until(self) -> tuple[str, ...]:
        """What ends an answer; a stop string is the completion's last text."""
        return (*self.asked.until, *self.asked.sampling.stop)

    def inputs(self) -> dict[str, tuple[Stage, ...]]:
        """The samples; a verdict on whole ones is the same verdict, found sooner."""
        return {"sample": (self.sample,)}

    def key_parts(self) -> dict[str, Any]:
        """Of an evaluation, what decides a verdict."""
        parts = {name: value for name, value in super().key_parts().items() if name != "whole"}
        return parts | {"task": self.asked.grade_identity, "until": list(self.until)}

    def pace(self) -> Pace:
        """Samples."""
        n_samples = self.asked.n_samples
        return Pace(n_samples, f"{alike(self.kind, self.grader)} {self.asked.is_partial}")

    def did(self, facts: Mapping[str, Any], seconds: float) -> tuple[float, float]:
        """Samples."""
        return sum(facts["outcomes"].values()), seconds

    def run(self, bench: Bench, progress: Progress) -> Made:
        """Grades what is not graded yet."""
        return grade_samples(self, bench, progress)


@dataclass(frozen=True, slots=True)
class Graded:
    """One checkpoint of a cell on one evaluation, and the stages that sample and grade it.

    Attributes:
        evaluation: The evaluation.
        step: The checkpoint's.
        sample: Samples it.
        grade: Grades it.
        budget: Tokens at which the completions are cut before they are graded; None where they are graded as they are.
    """

    evaluation: Evaluation
    step: int
    sample: Sample
    grade: Grade
    budget: int | None = None


def grade_samples(stage: Grade, bench: Bench, progress: Progress) -> Made:
    """grade: one outcome for each sample; what is known already of the same samples is kept.

    Where the grader failed nothing is known: these samples are holes, which the next run grades again.
    """
    samples = read_rows(bench.store.file(stage.sample, SAMPLES))
    digests = [_digest(sample) for sample in samples]
    grader = _Grader(stage, bench)
    with Journal(bench.store.scratch(stage) / _AHEAD, stage.key) as journal:
        earlier = [row for row in (*_earlier_verdicts(stage, bench), *journal) if row["outcome"] != GRADER_ERROR]
        known = {row["sample_digest"]: row for row in earlier if row["sample_digest"] in {*digests}}
        known |= _verdicts_at_any_budget(stage, bench, samples, digests)
        new = [(sample, digest) for sample, digest in zip(samples, digests, strict=True) if digest not in known]
        for row in grader.verdicts(new):
            journal.append(row)
            known[row["sample_digest"]] = row
            progress(len(known), len(samples), "graded")
    found = [known[digest] for digest in digests]
    write_rows(bench.store.work(stage) / VERDICTS, found)
    counts = Counter(row["outcome"] for row in found)
    facts = {"outcomes": dict(counts), "grading": dict(grader.grading.facts)}
    return Made((VERDICTS,), facts, holes=counts[GRADER_ERROR])


def grade_ahead(stage: Grade, bench: Bench, samples: Sequence[Row]) -> list[Row]:
    """Verdicts on some samples of a stage that is still being sampled, left where `grade_samples` finds them.

    Nothing is graded, and nothing returned, while another process runs the grade stage.
    """
    lock = bench.store.lock(stage.key)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return []
    try:
        with Journal(bench.store.scratch(stage) / _AHEAD, stage.key) as journal:
            known = {row["sample_digest"] for row in journal}
            own = [sample for sample in samples if _needs_verdict(sample, stage)]
            named = [(sample, digest) for sample in own if (digest := _digest(sample)) not in known]
            verdicts = []
            for row in _Grader(stage, bench).verdicts(named):
                journal.append(row)
                verdicts.append(row)
            return verdicts
    finally:
        lock.release()


class _Grader:
    """What a grade stage grades with."""

    def __init__(self, stage: Grade, bench: Bench) -> None:
        self.evaluation, self.until, self.budget = stage.asked, stage.until, stage.budget
        self.benchmark, self.grading = bench.grading(stage.grader, self.evaluation.ref)
        self.renderer = bench.renderer(stage.sample.student, stage.renderer, stage.sample.built)

    def verdicts(self, samples: Sequence[tuple[Row, str]]) -> Iterator[Row]:
        """The verdicts of samples that come with their digests, in order."""
        held = [(self._within_budget(sample), digest) for sample, digest in samples]
        parsed = [(sample, digest, self._completion(sample)) for sample, digest in held]
        asked = ((completion, problem_of(sample)) for sample, _, completion in parsed if completion is not None)
        verdicts = decide_all(asked, self.benchmark, self.grading, self.until)
        for sample, digest, completion in parsed:
            failed = completion is None
            verdict = Verdict(GENERATION_ERROR, detail=sample["error"]) if failed else next(verdicts)
            row = _verdict_row(sample, digest, verdict, None if completion is None else completion.reasoning_state)
            yield row | {"canonical": self._canonical(verdict, sample)}

    def _canonical(self, verdict: Verdict, sample: Row) -> str | None:
        """The complete answer in the form that answers are compared in."""
        if verdict.outcome not in COMPLETED or verdict.extracted is None:
            return None
        return self.benchmark.canonical(verdict.extracted, problem_of(sample))

    def _within_budget(self, sample: Row) -> Row:
        return sample if self.budget is None else cut(sample, self.budget, self.renderer)

    def _completion(self, sample: Row) -> Completion | None:
        """A sample, parsed; None where its generation failed."""
        if sample["error"] is not None:
            return None
        if self.evaluation.output_type != "generate_until":  # log-likelihoods, which hold no reasoning
            text = sample["text"]
            return Completion(text, (), "stop", sample["prefill"], None, text, "absent")
        return self.renderer.parse(
            tuple(map(int, sample["token_ids"])), sample["text"], sample["finish_reason"], sample["prefill"]
        )


def _earlier_verdicts(stage: Grade | None, bench: Bench) -> list[Row]:
    """The verdicts of an earlier result of a grade stage; none where there is none, or it is damaged."""
    if stage is None:
        return []
    try:
        return read_rows(bench.store.file(stage, VERDICTS))
    except DamagedError:
        return []


def _needs_verdict(sample: Row, stage: Grade) -> bool:
    """False where the verdict of the whole sample is the budget's too, because the budget cuts nothing."""
    return stage.budget is None or is_cut(sample, stage.budget)


def _verdicts_at_any_budget(
    stage: Grade, bench: Bench, samples: Sequence[Row], digests: Sequence[str]
) -> dict[str, Row]:
    """The verdicts on samples that a budget does not cut, from the stage that grades them whole, where it has run.

    A judge is not paid twice for the same answer, and cannot say two things of it.
    """
    if stage.budget is None:
        return {}
    uncut = {digest for sample, digest in zip(samples, digests, strict=True) if not _needs_verdict(sample, stage)}
    rows = _earlier_verdicts(stage.whole, bench)
    return {row["sample_digest"]: row for row in rows if row["sample_digest"] in uncut}


def _digest(sample: Row) -> str:
    return key_of(sample | {"token_ids": [int(token) for token in sample["token_ids"]]})


def _verdict_row(sample: Row, digest: str, verdict: Verdict, reasoning_state: str | None) -> Row:
    return {
        "sample_id": sample["sample_id"],
        "problem_id": sample["problem_id"],
        "repeat": sample["repeat"],
        "outcome": verdict.outcome,
        "detail": verdict.detail,
        "extracted": verdict.extracted,
        "scores": json.dumps(verdict.scores, sort_keys=True),
        "reasoning_state": reasoning_state,
        "ran_on": verdict.ran_on,
        "n_tokens": sample["n_tokens"],
        "sample_digest": digest,
    }
