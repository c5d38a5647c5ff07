"""How each kind of stage makes its result. A step reads finished stages, writes into its work folder, and returns.

Every step can be killed and called again: what it journaled is there, and what it makes is the same.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from distillbench.errors import StageError
from distillbench.plan.stages import Stage
from distillbench.protocols import (
    EngineSession,
    FilterContext,
    Progress,
    Renderer,
    Student,
    TrainingJob,
)
from distillbench.records import Checkpoint, Evaluation, Problem, Rendered, Request, Trace
from distillbench.run.bench import MODEL, Bench, Step
from distillbench.run.grade import grade_samples, verify_traces
from distillbench.run.journal import Journal
from distillbench.run.preflight import refuse_mismatch
from distillbench.run.store import SCRATCH, Outcome
from distillbench.run.tables import (
    KEPT,
    REJECTED,
    SAMPLES,
    TRACES,
    UNUSABLE,
    Row,
    problem_row,
    read_rows,
    trace_of,
    trace_row,
    write_rows,
)
from distillbench.traces import why_unusable


def build_student(stage: Stage, bench: Bench, progress: Progress) -> Outcome:
    """student: the model and tokenizer of a student that is made here."""
    student: Student = bench.catalog.build(stage.roles["student"])
    folder = bench.store.work(stage) / MODEL
    folder.mkdir(exist_ok=True)
    student.build(folder, bench.context(stage, progress))
    return Outcome(_weight_files(bench.store.work(stage)), {})


def collect_traces(stage: Stage, bench: Bench, progress: Progress) -> Outcome:
    """traces: the teacher's responses, journaled as they come."""
    teacher = bench.catalog.build(stage.roles["teacher"])
    context = bench.context(stage, progress)
    with Journal(context.work / "traces.jsonl") as journal:
        for trace in teacher.traces(context, start=len(journal.rows)):
            journal.append(trace_row(trace))
            progress(len(journal.rows), None, "traces")
        if not journal.rows:
            raise StageError(f"teacher {stage.label!r} gave no traces")
        return _write_usable(journal.rows, bench.store.work(stage), stage.label)


def _write_usable(rows: Sequence[Row], work: Path, teacher: str) -> Outcome:
    """Writes the usable traces, and apart from them the others: whole, with their reasons."""
    reasons = [why_unusable(trace_of(row)) for row in rows]
    usable = [row for row, reason in zip(rows, reasons, strict=True) if reason is None]
    bad = [row | {"reason": reason} for row, reason in zip(rows, reasons, strict=True) if reason is not None]
    if not usable:
        raise StageError(f"teacher {teacher!r}: none of {len(rows)} traces is usable; {bad[0]['source']}: {reasons[0]}")
    write_rows(work / TRACES, usable)
    (work / UNUSABLE).write_text("".join(json.dumps(row) + "\n" for row in bad), encoding="utf-8")
    counts = Counter(f"unusable: {row['reason'].split(':')[0]}" for row in bad)
    return Outcome((TRACES, UNUSABLE), {"traces": len(usable), "rejected": dict(counts)})


def curate_traces(stage: Stage, bench: Bench, progress: Progress) -> Outcome:
    """curate: the filters in order; every rejected trace leaves its reason."""
    kind, key = next((kind, key) for kind, key in stage.needs.items() if kind in ("traces", "verify"))
    traces = [trace_of(row) for row in read_rows(bench.store.folder_of(kind, key) / TRACES)]
    context = FilterContext(render_all=_render_function(stage, bench))
    rejected: list[Row] = []
    counts: Counter[str] = Counter()
    for choice in stage.roles["filters"]:
        component = bench.catalog.build(choice)
        kept = []
        for trace, reason in zip(traces, component.decide(iter(traces), context), strict=True):
            if reason is None:
                kept.append(trace)
                continue
            counts[f"{choice.label}: {reason.split(':')[0]}"] += 1
            rejected.append(
                {
                    "problem_id": trace.problem.problem_id,
                    "source": trace.source,
                    "filter": choice.label,
                    "reason": reason,
                }
            )
        traces = kept
        progress(len(traces), None, f"kept by {choice.label}")
    if not traces:
        raise StageError(f"no trace is left after the filters: {dict(counts)}")
    write_rows(bench.store.work(stage) / KEPT, (trace_row(trace) for trace in traces))
    write_rows(bench.store.work(stage) / REJECTED, rejected)
    return Outcome((KEPT, REJECTED), {"kept": len(traces), "rejected": dict(counts)})


def train_student(stage: Stage, bench: Bench, progress: Progress) -> Outcome:
    """train: the trainer's checkpoints, and metrics.jsonl."""
    student, renderer, built = _student(stage, bench)
    rows = read_rows(bench.store.folder_of("curate", stage.needs["curate"]) / KEPT)
    traces = [trace_of(row) for row in rows]
    refuse_mismatch(stage, bench, renderer, traces)
    work = bench.store.work(stage)
    job = TrainingJob(student, built, renderer, traces, work)
    trainer = bench.catalog.build(stage.roles["trainer"])
    checkpoints = trainer.train(job, bench.context(stage, progress))
    promised, left = trainer.checkpoint_steps(len(rows)), [checkpoint.step for checkpoint in checkpoints]
    if not set(promised) <= set(left):
        raise StageError(f"the trainer promised checkpoints at steps {list(promised)} and left {left}")
    facts = {
        "checkpoints": [
            asdict(replace(checkpoint, path=checkpoint.path.relative_to(work))) for checkpoint in checkpoints
        ]
    }
    return Outcome(_weight_files(work), json.loads(json.dumps(facts, default=str)))


def sample_completions(stage: Stage, bench: Bench, progress: Progress, session: EngineSession) -> Outcome:
    """sample: completions of one checkpoint on one evaluation. Failed ones are holes, to be filled by the next run."""
    _, renderer, _ = _student(stage, bench)
    evaluation: Evaluation = stage.extras["evaluation"]
    asked = list(_requests(evaluation, bench.tasks.evaluation_problems(evaluation), renderer))
    requests = [request for _, request in asked]
    progress(0, len(requests), "samples")
    with Journal(bench.store.scratch(stage) / "samples.jsonl") as journal:
        found = {row["sample_id"]: row for row in (*_earlier_samples(stage, bench), *journal.rows)}
        found = {sample_id: row for sample_id, row in found.items() if row["error"] is None}
        for generation in session.generate(requests, _checkpoint(stage, bench), frozenset(found)):
            row = {
                "sample_id": generation.sample_id,
                "token_ids": list(generation.token_ids),
                "text": generation.text,
                "finish_reason": generation.finish_reason,
                "error": generation.error,
            }
            journal.append(row)
            found[generation.sample_id] = row
            progress(len(found), len(requests), "samples")
    missing = [request.sample_id for request in requests if request.sample_id not in found]
    if missing:
        raise StageError(f"the engine gave nothing for {len(missing)} samples, {missing[0]!r} among them")
    rows = [_sample_row(problem, request, found[request.sample_id], renderer) for problem, request in asked]
    write_rows(bench.store.work(stage) / SAMPLES, rows)
    return Outcome((SAMPLES,), {"samples": len(rows)}, holes=sum(row["error"] is not None for row in rows))


def open_session(stage: Stage, bench: Bench, progress: Progress) -> AbstractContextManager[EngineSession]:
    """The engine with the base model of a sample stage, for it and all others of its session."""
    student: Student = bench.catalog.build(stage.roles["student"])
    engine = bench.catalog.build(stage.roles["engine"])
    opened: AbstractContextManager[EngineSession] = engine.open(
        student, bench.built(stage.needs.get("student")), bench.context(stage, progress)
    )
    return opened


#: Every kind of stage but `sample`, whose step also takes the engine that it shares.
STEPS: Mapping[str, Step] = {
    "student": build_student,
    "traces": collect_traces,
    "verify": verify_traces,
    "curate": curate_traces,
    "train": train_student,
    "grade": grade_samples,
}


def _student(stage: Stage, bench: Bench) -> tuple[Student, Renderer, Path | None]:
    student: Student = bench.catalog.build(stage.roles["student"])
    built = bench.built(stage.needs.get("student"))
    return student, bench.bound(stage.roles["renderer"], student, built), built


def _render_function(stage: Stage, bench: Bench) -> Callable[[Sequence[Trace]], list[Rendered]] | None:
    return _student(stage, bench)[1].render_all if "renderer" in stage.roles else None


def _requests(
    evaluation: Evaluation, problems: Sequence[Problem], renderer: Renderer
) -> Iterator[tuple[Problem, Request]]:
    """Every (problem, repeat), each under a seed that no other sample, checkpoint or benchmark changes."""
    for problem in problems:
        prompt = renderer.prompt(problem.messages, evaluation.prefill)
        for repeat in range(evaluation.repeats):
            seed = hashlib.sha256(f"{evaluation.task}\0{problem.problem_id}\0{repeat}".encode()).digest()[:6]
            yield (
                problem,
                Request(
                    sample_id=f"{problem.problem_id}#{repeat}",
                    prompt=prompt,
                    sampling=evaluation.sampling,
                    stop_token_ids=renderer.stop_token_ids(),
                    seed=int.from_bytes(seed, "big"),
                ),
            )


def _earlier_samples(stage: Stage, bench: Bench) -> list[Row]:
    """The samples of an earlier result with holes; none when its inputs have changed since."""
    path = bench.store.folder(stage) / SAMPLES
    earlier = bench.store.lookup(stage)
    if earlier is None or any(
        earlier.inputs[key] != bench.store.digest(kind, key) for kind, key in stage.needs.items()
    ):
        return []
    return read_rows(path, ("sample_id", "token_ids", "text", "finish_reason", "error"))


def _checkpoint(stage: Stage, bench: Bench) -> Checkpoint | None:
    if "train" not in stage.needs:
        return None
    folder = bench.store.folder_of("train", stage.needs["train"])
    facts = bench.store.facts("train", stage.needs["train"]) or {"checkpoints": []}
    for found in facts["checkpoints"]:
        if found["step"] == stage.params["step"]:
            return Checkpoint(folder / found["path"], found["kind"], found["step"], found["samples_seen"])
    steps = [found["step"] for found in facts["checkpoints"]]
    raise StageError(f"the trainer promised a checkpoint at step {stage.params['step']} and left {steps}")


def _sample_row(problem: Problem, request: Request, found: Mapping[str, Any], renderer: Renderer) -> Row:
    return (
        problem_row(problem)
        | dict(found)
        | {
            "repeat": int(request.sample_id.rpartition("#")[2]),
            "prompt": renderer.tokenizer.decode(request.prompt.input_ids),
            "prefill": request.prompt.prefill,
            "seed": request.seed,
        }
    )


def _weight_files(work: Path) -> tuple[str, ...]:
    """What makes the digest of a model or of checkpoints: weights and tokenizer, not files whose bytes vary."""
    files = (*work.rglob("*.safetensors"), *work.rglob("tokenizer.json"))
    scratch = work / SCRATCH
    found = sorted(path.relative_to(work).as_posix() for path in files if not path.is_relative_to(scratch))
    if not any(name.endswith(".safetensors") for name in found):
        raise StageError("no *.safetensors file was left: weights in other formats would change without being noticed")
    return tuple(found)
