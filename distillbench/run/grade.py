"""How `verify` and `grade` stages make their results: one outcome for each trace or sample."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from distillbench.fingerprint import key_of
from distillbench.outcomes import CORRECT, GENERATION_ERROR, GRADER_ERROR, decide_all
from distillbench.plan.stages import Stage
from distillbench.protocols import Benchmark, Grading, Progress, Renderer, Student
from distillbench.records import Completion, Evaluation, Problem, Trace, Verdict
from distillbench.run.bench import Bench
from distillbench.run.store import Outcome
from distillbench.run.tables import SAMPLES, TRACES, VERDICTS, Row, problem_of, read_rows, trace_of, write_rows


def verify_traces(stage: Stage, bench: Bench, progress: Progress) -> Outcome:
    """verify: the task's grader says which traces are right; without a complete answer none is."""
    benchmark, grading = bench.grading(stage.roles["grader"], stage.params["task"])
    rows = read_rows(bench.store.folder_of("traces", stage.needs["traces"]) / TRACES)
    verdicts = decide_all((_as_sample(trace_of(row)) for row in rows), benchmark, grading)
    for number, (row, verdict) in enumerate(zip(rows, verdicts, strict=True)):
        row["correct"] = None if verdict.outcome == GRADER_ERROR else verdict.outcome == CORRECT
        progress(number + 1, len(rows), "verified")
    write_rows(bench.store.work(stage) / TRACES, rows)
    n_correct = sum(row["correct"] is True for row in rows)
    return Outcome((TRACES,), {"correct": n_correct, "traces": len(rows), "grading": dict(grading.facts)})


def grade_samples(stage: Stage, bench: Bench, progress: Progress) -> Outcome:
    """grade: one outcome for each sample; what an earlier result says of the same samples is kept."""
    evaluation: Evaluation = stage.extras["evaluation"]
    benchmark, grading = bench.grading(stage.roles["grader"], evaluation.ref)
    student: Student = bench.catalog.build(stage.extras["student"])
    renderer = bench.bound(stage.extras["renderer"], student, bench.built(stage.extras["built"]))
    samples = read_rows(bench.store.folder_of("sample", stage.needs["sample"]) / SAMPLES)
    digests = [key_of(sample) for sample in samples]
    rows = {row["sample_digest"]: row for row in _earlier_verdicts(stage, bench) if row["sample_digest"] in {*digests}}
    new = [(sample, digest) for sample, digest in zip(samples, digests, strict=True) if digest not in rows]
    for row in _verdict_rows(new, renderer, benchmark, grading, evaluation.until):
        rows[row["sample_digest"]] = row
        progress(len(rows), len(samples), "graded")
    found = [rows[digest] for digest in digests]
    write_rows(bench.store.work(stage) / VERDICTS, found)
    counts = dict(Counter(row["outcome"] for row in found))
    return Outcome((VERDICTS,), {"outcomes": counts, "grading": dict(grading.facts)})


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


def _earlier_verdicts(stage: Stage, bench: Bench) -> list[Row]:
    path = bench.store.folder(stage) / VERDICTS
    return read_rows(path) if path.exists() else []


def _verdict_rows(
    samples: Sequence[tuple[Row, str]],
    renderer: Renderer,
    benchmark: Benchmark,
    grading: Grading,
    until: tuple[str, ...],
) -> Iterator[Row]:
    """The verdicts of samples that come with their digests, in order."""
    parsed = [(sample, digest, _completion(sample, renderer)) for sample, digest in samples]
    asked = ((completion, problem_of(sample)) for sample, _, completion in parsed if completion is not None)
    verdicts = decide_all(asked, benchmark, grading, until)
    for sample, digest, completion in parsed:
        failed = completion is None
        verdict = Verdict(GENERATION_ERROR, detail=sample["error"]) if failed else next(verdicts)
        yield _verdict_row(sample, digest, verdict, None if completion is None else completion.reasoning_state)


def _completion(sample: Row, renderer: Renderer) -> Completion | None:
    """A sample, parsed; None where its generation failed."""
    if sample["error"] is not None:
        return None
    return renderer.parse(tuple(sample["token_ids"]), sample["text"], sample["finish_reason"], sample["prefill"])


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
        "n_tokens": len(sample["token_ids"]),
        "sample_digest": digest,
    }
