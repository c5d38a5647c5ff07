"""How `verify` and `grade` stages make their results: one outcome for each trace or sample."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from filelock import Timeout

from distillbench.bench import Bench
from distillbench.errors import DamagedError
from distillbench.fingerprint import key_of
from distillbench.outcomes import COMPLETED, CORRECT, GENERATION_ERROR, GRADER_ERROR, decide_all
from distillbench.plan.stages import Stage
from distillbench.protocols import Progress
from distillbench.records import Completion, Evaluation, Problem, Trace, Verdict
from distillbench.stages.budgets import cut, is_cut
from distillbench.store.journal import Journal
from distillbench.store.rows import SAMPLES, TRACES, VERDICTS, Row, problem_of, read_rows, trace_of, write_rows
from distillbench.store.store import Made

#: In a grade stage's scratch folder: verdicts on samples that came while others were still being made.
_AHEAD = "verdicts.jsonl"


def verify_traces(stage: Stage, bench: Bench, progress: Progress) -> Made:
    """verify: the task's grader says which traces are right; without a complete answer none is."""
    benchmark, grading = bench.grading(stage.roles["grader"], stage.params["task"])
    rows = read_rows(bench.store.file("traces", stage.needs["traces"], TRACES))
    verdicts = decide_all((_as_sample(trace_of(row)) for row in rows), benchmark, grading)
    for number, (row, verdict) in enumerate(zip(rows, verdicts, strict=True)):
        row["correct"] = None if verdict.outcome == GRADER_ERROR else verdict.outcome == CORRECT
        progress(number + 1, len(rows), "verified")
    write_rows(bench.store.work(stage) / TRACES, rows)
    n_correct = sum(row["correct"] is True for row in rows)
    return Made((TRACES,), {"correct": n_correct, "traces": len(rows), "grading": dict(grading.facts)})


def grade_samples(stage: Stage, bench: Bench, progress: Progress) -> Made:
    """grade: one outcome for each sample; what is known already of the same samples is kept.

    Where the grader failed nothing is known: these samples are holes, which the next run grades again.
    """
    samples = read_rows(bench.store.file("sample", stage.needs["sample"], SAMPLES))
    digests = [_digest(sample) for sample in samples]
    grader = _Grader(stage, bench)
    with Journal(bench.store.scratch(stage) / _AHEAD, stage.key) as journal:
        earlier = [row for row in (*_earlier_verdicts(stage.key, bench), *journal) if row["outcome"] != GRADER_ERROR]
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


def grade_ahead(stage: Stage, bench: Bench, samples: Sequence[Row]) -> list[Row]:
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

    def __init__(self, stage: Stage, bench: Bench) -> None:
        self.evaluation: Evaluation = stage.extras["evaluation"]
        self.until: tuple[str, ...] = tuple(stage.params["until"])
        self.budget: int | None = stage.params.get("budget")
        self.benchmark, self.grading = bench.grading(stage.roles["grader"], self.evaluation.ref)
        self.renderer = bench.renderer(stage.extras["student"], stage.extras["renderer"], stage.extras["built"])

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


def _as_sample(trace: Trace) -> tuple[Completion, Problem]:
    """A trace as a completion that was parsed."""
    completion = Completion(
        text=trace.answer,
        token_ids=(),
        finish_reason=trace.finish_reason,
        prefill="",
        reasoning=trace.reasoning,
        answer=trace.answer,
        reasoning_state="absent" if trace.reasoning is None else "closed",
    )
    return completion, trace.problem


def _earlier_verdicts(key: str, bench: Bench) -> list[Row]:
    """The verdicts of an earlier result of a grade stage; none where there is none, or it is damaged."""
    try:
        return read_rows(bench.store.file("grade", key, VERDICTS))
    except DamagedError:
        return []


def _needs_verdict(sample: Row, stage: Stage) -> bool:
    """False where the verdict of the whole sample is the budget's too, because the budget cuts nothing."""
    budget = stage.params.get("budget")
    return budget is None or is_cut(sample, budget)


def _verdicts_at_any_budget(
    stage: Stage, bench: Bench, samples: Sequence[Row], digests: Sequence[str]
) -> dict[str, Row]:
    """The verdicts on samples that a budget does not cut, from the stage that grades them whole, where it has run.

    A judge is not paid twice for the same answer, and cannot say two things of it.
    """
    if stage.params.get("budget") is None:
        return {}
    uncut = {digest for sample, digest in zip(samples, digests, strict=True) if not _needs_verdict(sample, stage)}
    rows = _earlier_verdicts(stage.extras["whole"], bench)
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
