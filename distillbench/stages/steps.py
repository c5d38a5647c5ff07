"""How each kind of stage makes its result. A step reads finished stages, writes into its work folder, and returns.

Every step can be killed and called again: what it journaled is there, and what it makes is the same.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from reprlib import Repr
from typing import Any

from distillbench.bench import MODEL, Bench, Step
from distillbench.errors import StageError
from distillbench.plan.stages import Stage
from distillbench.preflight.look import decide, refuse_mismatch
from distillbench.protocols import (
    FilterContext,
    Progress,
    Renderer,
    Student,
    TrainingJob,
)
from distillbench.records import Rendered, Trace
from distillbench.stages.grade import grade_samples, verify_traces
from distillbench.store.journal import Journal
from distillbench.store.rows import (
    KEPT,
    REJECTED,
    TRACES,
    UNUSABLE,
    Row,
    read_rows,
    trace_of,
    trace_row,
    write_rows,
)
from distillbench.store.store import SCRATCH, Made
from distillbench.traces import why_malformed, why_unusable

_IN_FULL = Repr()
_IN_FULL.maxother = 1_000_000


def build_student(stage: Stage, bench: Bench, progress: Progress) -> Made:
    """student: the model and tokenizer of a student that is made here."""
    student: Student = bench.catalog.build(stage.roles["student"])
    folder = bench.store.work(stage) / MODEL
    folder.mkdir(exist_ok=True)
    with bench.catalog.blaming(stage.roles["student"]):
        student.build(folder, bench.context(stage, progress))
    return Made(_weight_files(bench.store.work(stage)), {})


def collect_traces(stage: Stage, bench: Bench, progress: Progress) -> Made:
    """traces: the teacher's responses, journaled as they come."""
    teacher = bench.catalog.build(stage.roles["teacher"])
    context = bench.context(stage, progress)
    with Journal(context.work / "traces.jsonl", stage.key, in_order=True) as journal:
        given = teacher.traces(context, start=journal.n_rows)
        for trace in bench.catalog.given_by(stage.roles["teacher"], given):
            journal.append(_row_of(trace, journal.n_rows, stage.label))
            progress(journal.n_rows, None, "traces")
        if not journal.n_rows:
            raise StageError(f"teacher {stage.label!r} gave no traces")
        return _write_usable(list(journal), bench.store.work(stage), stage.label)


def _row_of(given: Any, number: int, teacher: str) -> Row:
    """A trace as columns; of what is none, why it is none, and what was given."""
    reason = why_malformed(given)
    if reason is None:
        return trace_row(given)
    told = given.source if isinstance(given, Trace) and isinstance(given.source, str) else ""
    return {"source": told or f"trace {number} of {teacher}", "given": _IN_FULL.repr(given), "reason": reason}


def _write_usable(rows: Sequence[Row], work: Path, teacher: str) -> Made:
    """Writes the usable traces, and apart from them the others: whole, with their reasons."""
    reasons = [row["reason"] if "reason" in row else why_unusable(trace_of(row)) for row in rows]
    usable = [row for row, reason in zip(rows, reasons, strict=True) if reason is None]
    bad = [row | {"reason": reason} for row, reason in zip(rows, reasons, strict=True) if reason is not None]
    if not usable:
        first = f"{bad[0]['source']}: {reasons[0]}".encode(errors="replace").decode()  # a half of a character, say
        raise StageError(f"teacher {teacher!r}: none of {len(rows)} traces is usable; {first}")
    write_rows(work / TRACES, usable)
    (work / UNUSABLE).write_text("".join(json.dumps(row) + "\n" for row in bad), encoding="utf-8")
    counts = Counter(f"unusable: {row['reason'].split(':')[0]}" for row in bad)
    return Made((TRACES, UNUSABLE), {"traces": len(usable), "rejected": dict(counts)})


def curate_traces(stage: Stage, bench: Bench, progress: Progress) -> Made:
    """curate: the filters in order; every rejected trace leaves its reason."""
    kind, key = next((kind, key) for kind, key in stage.needs.items() if kind in ("traces", "verify"))
    traces = [trace_of(row) for row in read_rows(bench.store.file(kind, key, TRACES))]
    context = FilterContext(render_all=_render_function(stage, bench))
    rejected: list[Row] = []
    counts: Counter[str] = Counter()
    for choice in stage.roles["filters"]:
        decided = decide(choice, bench.catalog, traces, context)
        for trace, reason in decided:
            if reason is None:
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
        traces = [trace for trace, reason in decided if reason is None]
        progress(len(traces), None, f"kept by {choice.label}")
    if not traces:
        raise StageError(f"no trace is left after the filters: {dict(counts)}")
    write_rows(bench.store.work(stage) / KEPT, (trace_row(trace) for trace in traces))
    write_rows(bench.store.work(stage) / REJECTED, rejected)
    return Made((KEPT, REJECTED), {"kept": len(traces), "rejected": dict(counts)})


def train_student(stage: Stage, bench: Bench, progress: Progress) -> Made:
    """train: the trainer's checkpoints, and metrics.jsonl."""
    student, renderer, built = _student(stage, bench)
    traces: list[Trace] = []
    if "curate" in stage.needs:  # else its trainer needs none
        traces = [trace_of(row) for row in read_rows(bench.store.file("curate", stage.needs["curate"], KEPT))]
        refuse_mismatch(stage, bench, renderer, traces)
    work = bench.store.work(stage)
    job = TrainingJob(student, built, renderer, traces, work)
    trainer = bench.catalog.build(stage.roles["trainer"])
    with bench.catalog.blaming(stage.roles["trainer"]):
        checkpoints = trainer.train(job, bench.context(stage, progress))
    promised, left = trainer.checkpoint_steps(len(traces)), [checkpoint.step for checkpoint in checkpoints]
    if not set(promised) <= set(left):
        raise StageError(f"the trainer promised checkpoints at steps {list(promised)} and left {left}")
    facts = {
        "checkpoints": [
            asdict(replace(checkpoint, path=checkpoint.path.relative_to(work))) for checkpoint in checkpoints
        ]
    }
    return Made(_weight_files(work), json.loads(json.dumps(facts, default=str)))


#: Every kind of stage but `sample`, which shares an engine with others (see `grid`).
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
    renderer = bench.renderer(stage.roles["student"], stage.roles["renderer"], stage.needs.get("student"))
    return student, renderer, bench.built(stage.needs.get("student"))


def _render_function(stage: Stage, bench: Bench) -> Callable[[Sequence[Trace]], list[Rendered]] | None:
    return _student(stage, bench)[1].render_all if "renderer" in stage.roles else None


def _weight_files(work: Path) -> tuple[str, ...]:
    """What makes the digest of a model or of checkpoints: weights and tokenizer, not files whose bytes vary."""
    files = (*work.rglob("*.safetensors"), *work.rglob("tokenizer.json"))
    scratch = work / SCRATCH
    found = sorted(path.relative_to(work).as_posix() for path in files if not path.is_relative_to(scratch))
    if not any(name.endswith(".safetensors") for name in found):
        raise StageError("no *.safetensors file was left: weights in other formats would change without being noticed")
    return tuple(found)
