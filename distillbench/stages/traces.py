"""traces: a teacher's responses, journaled as they come, or the answers of a model that it had asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from reprlib import Repr
from typing import TYPE_CHECKING, Any

from distillbench.bench import Bench
from distillbench.errors import StageError
from distillbench.fingerprint import key_of
from distillbench.plan.stage import Pace, Stage, alike, unkeyed
from distillbench.protocols import AskingOptions, AskingTeacher, Progress, Teacher
from distillbench.records import Choice, Trace
from distillbench.store.columns import Row
from distillbench.store.journal import Journal
from distillbench.store.places import Places
from distillbench.store.rows import SAMPLES, TRACES, UNUSABLE, RowWriter, count_rows, iterate, trace_of, trace_row
from distillbench.store.samples import sample_of
from distillbench.store.store import Made
from distillbench.traces import why_malformed, why_unusable

if TYPE_CHECKING:
    from distillbench.stages.sample import Sample

#: Rendered as a row its reasoning would be closed, which the model did not do.
_UNENDED = "open reasoning: the model ended its turn within its reasoning"

_IN_FULL = Repr()
_IN_FULL.maxother = 1_000_000


class Traces(Stage):
    """Asks a teacher for its traces.

    Attributes:
        teacher: Whose.
        task: The identity of the task that it answers; None where it names none.
        samples: The answers of the model that it asks; None for a teacher that has its traces.
        parser: Name and version of what splits the answers; empty without.
        renderer: Splits them.
    """

    kind = "traces"

    teacher: Choice
    task: str | None = None
    samples: Sample | None = None
    parser: str = ""
    renderer: Choice | None = unkeyed(default=None)

    def pace(self) -> Pace:
        """One teacher."""
        return Pace(1.0, alike(self.kind, self.teacher))

    def run(self, bench: Bench, progress: Progress) -> Made:
        """Journals what the teacher gives, and writes what can be used of it."""
        if self.samples is not None:
            return self._of_answers(self.samples, bench, progress)
        teacher: Teacher = bench.catalog.build(self.teacher)
        context = bench.context(self, self.teacher, progress)
        with Journal(context.work / "traces.jsonl", self.key, in_order=True) as journal:
            given = teacher.traces(context, start=journal.n_rows)
            for trace in bench.catalog.given_by(self.teacher, given):
                journal.append(_row_of(trace, journal.n_rows, self.label))
                progress(journal.n_rows, None, "traces")
            if not journal.n_rows:
                raise StageError(f"teacher {self.label!r} gave no traces")
            return _write_usable(journal, bench.store.work(self), self.label)

    def _of_answers(self, samples: Sample, bench: Bench, progress: Progress) -> Made:
        """Writes what can be used of the answers.

        Raises:
            StageError: Some problems have no answer, and the teacher's options want all.
        """
        teacher: AskingTeacher[AskingOptions] = bench.catalog.build(self.teacher)
        path = bench.store.file(samples, SAMPLES)
        errors = [row["error"] for row in iterate(path, ("error",)) if row["error"] is not None]
        if errors and teacher.options.unanswered == "error":
            told = f"{len(errors)} of {count_rows(path)} problems have no answer yet: {errors[0]}"
            raise StageError(
                f"teacher {self.label!r}: {told}\n"
                f"    hint: run again, and only these are asked; `unanswered: drop` makes traces without them"
            )
        made = _write_usable(self._answers(teacher, samples, bench, progress), bench.store.work(self), self.label)
        return replace(made, holes=len(errors))

    def _answers(
        self, teacher: AskingTeacher[AskingOptions], samples: Sample, bench: Bench, progress: Progress
    ) -> Iterator[Row]:
        renderer = bench.renderer(samples.student, self.renderer or samples.renderer, samples.built)
        path = bench.store.file(samples, SAMPLES)
        n_all = count_rows(path)
        for number, sample in enumerate(map(sample_of, iterate(path))):
            if sample.error is None:
                reason = sample.finish_reason or "length"
                ids = sample.token_ids.tolist()
                completion = renderer.parse(ids, sample.text, reason, sample.prefill)
                row = _row_of(teacher.trace(sample, completion), number, self.label)
                is_unended = reason == "stop" and completion.reasoning_state == "open"
                yield row | ({"reason": _UNENDED} if is_unended else {})
            progress(number + 1, n_all, "answers")


def _row_of(given: Any, number: int, teacher: str) -> Row:
    """A trace as columns; of what is none, why it is none, and what was given."""
    reason = why_malformed(given)
    if reason is None:
        row = trace_row(given)
        return row | {"trace_id": given.trace_id or _id_of(row, number)}
    told = given.source if isinstance(given, Trace) and isinstance(given.source, str) else ""
    return {"source": told or f"trace {number} of {teacher}", "given": _IN_FULL.repr(given), "reason": reason}


def _id_of(row: Row, number: int) -> str:
    """Tells a trace from all others of its teacher, and from what it was before its text changed."""
    return f"{number:06d}-{key_of([row['problem_id'], row['messages'], row['reasoning'], row['answer']])[:12]}"


def _why_repeated(row: Row, number: int, places: Places) -> str | None:
    """Why a trace cannot be told from an earlier one of its teacher; None for the first of an id, which is noted."""
    if row["trace_id"] == _id_of(row, number):  # its number is in it, so that there is nothing to note
        return None
    digest = key_of(row["trace_id"])
    if places.get(digest) is not None:
        return f"repeated id: {row['trace_id']!r} is an earlier trace's too"
    places.add(digest, 0)
    return None


def _write_usable(rows: Iterable[Row], work: Path, teacher: str) -> Made:
    """Writes the usable traces, and apart from them the others: whole, with their reasons."""
    counts: Counter[str] = Counter()
    first, places, number = "", Places(), -1
    with RowWriter(work / TRACES) as usable, (work / UNUSABLE).open("w", encoding="utf-8") as bad:
        for number, row in enumerate(rows):
            reason = row.get("reason") or why_unusable(trace_of(row)) or _why_repeated(row, number, places)
            if reason is None:
                usable.append(row)
                continue
            first = first or f"{row['source']}: {reason}"
            counts[f"unusable: {reason.split(':')[0]}"] += 1
            bad.write(json.dumps(row | {"reason": reason}) + "\n")
    if not usable.n_rows:
        told = first.encode(errors="replace").decode()  # a half of a character, say
        raise StageError(f"teacher {teacher!r}: none of {number + 1} traces is usable; {told}")
    return Made((TRACES, UNUSABLE), {"traces": usable.n_rows, "rejected": dict(counts)})
