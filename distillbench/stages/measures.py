"""The stages that find out what the filters of a cell read of its traces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distillbench.errors import PluginError, nearest
from distillbench.protocols import Filter, Grader
from distillbench.records import Cell, Choice
from distillbench.stages.build import Build
from distillbench.stages.length import Length
from distillbench.stages.measure import Measure
from distillbench.stages.mistakes import without_verdicts
from distillbench.stages.needed import most_needed
from distillbench.stages.task_grader import grader_of_task
from distillbench.stages.traces import Traces
from distillbench.stages.verdict import Verdict

if TYPE_CHECKING:
    from distillbench.stages.planner import Planner


def measures_of(planner: Planner, cell: Cell, traces: Traces, built: Build | None) -> tuple[Measure, ...]:
    """What the filters of a cell read; what cannot be found out is a mistake of the planner's.

    Raises:
        PluginError: A filter reads what nothing measures.
    """
    found: list[Measure | None] = []
    for name in _read(planner, cell):
        is_verdict = name == Verdict.kind
        found.append(_verdict(planner, cell, traces) if is_verdict else _length(planner, cell, traces, built))
    return tuple(measure for measure in found if measure is not None)


def _read(planner: Planner, cell: Cell) -> list[str]:
    names: set[str] = set()
    for choice in cell.filters:
        reads = planner.component(choice, Filter).reads
        if unknown := sorted(reads - {Length.kind, Verdict.kind}):
            told = f"filter {choice.component!r} reads {unknown[0]!r}, which nothing measures"
            raise PluginError(f"{told}; {nearest(unknown[0], [Length.kind, Verdict.kind])}")
        names |= reads
    return sorted(names)


def _length(planner: Planner, cell: Cell, traces: Traces, built: Build | None) -> Length:
    return planner.one(
        Length(
            label=f"{traces.label} for {cell.student.label}",
            traces=traces,
            student=cell.student,
            renderer=cell.renderer,
            built=planner.tokenizer_of(cell.student, built),
        )
    )


def _verdict(planner: Planner, cell: Cell, traces: Traces) -> Verdict | None:
    """The verdicts on traces; None when a mistake is in the way."""
    teacher = traces.teacher
    if not planner.task_name(teacher):
        reading = [choice for choice in cell.filters if Verdict.kind in planner.component(choice, Filter).reads]
        planner.mistakes.append(without_verdicts(teacher, reading))
        return None
    spec = planner.task_of(teacher)
    if spec is None:
        return None
    grader = grader_of_task(teacher, spec, planner.catalog)
    if not isinstance(grader, Choice):
        planner.mistakes += grader
        return None
    return planner.one(
        Verdict(
            label=traces.label,
            grader=grader,
            task=spec.name,
            task_identity=spec.grade_identity,
            traces=traces,
            resources=most_needed(planner, planner.component(grader, Grader).resources(), cell.student, grader),
        )
    )
