"""Whom a teacher asks, and what: the stages behind a teacher that is a model."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from distillbench.errors import nearest
from distillbench.fingerprint import canonical_json, digest_path
from distillbench.protocols import AskingOptions, AskingTeacher, Renderer, Teacher
from distillbench.records import Choice, Questions
from distillbench.stages.build import Build
from distillbench.stages.mistakes import no_file_of_problems, no_such_checkpoint, unfit_for_served
from distillbench.stages.planned import PlannedCell, session_of
from distillbench.stages.sample import Sample
from distillbench.stages.traces import Traces
from distillbench.stages.train import Train

if TYPE_CHECKING:
    from distillbench.stages.planner import Planner


@dataclass(frozen=True, slots=True)
class Whom:
    """A model that is asked.

    Attributes:
        name: What messages call it.
        student: The student.
        renderer: Makes its prompts.
        engine: Generates.
        built: Makes the student.
        train: Leaves the checkpoint; None for the untouched student.
        step: The checkpoint's; 0 for the untouched student.
    """

    name: str
    student: Choice
    renderer: Choice
    engine: Choice
    built: Build | None
    train: Train | None = None
    step: int = 0


def asked_traces(planner: Planner, planned: PlannedCell, teacher: Choice) -> Traces | None:
    """The traces of a teacher that asks a model; what it asks is planned with them.

    Args:
        planner: Plans the cells that it names.
        planned: The cell that is trained on the traces.
        teacher: The teacher.

    Returns:
        None where a mistake is in the way, or where it is not known yet which checkpoints the cell that it asks has.
    """
    component: AskingTeacher[AskingOptions] = planner.component(teacher, Teacher)
    whom = _whom(planner, planned, teacher, component.options)
    if whom is None:
        return None
    problems = None
    if source := teacher.components.get("teacher"):
        problems = planner.traces(planned, source)
        if problems is None:
            return None
    path = component.options.path
    if path is not None and path.is_dir():
        planner.mistakes.append(no_file_of_problems(teacher))
        return None
    spec = planner.task_of(teacher)
    identity = None if spec is None else spec.sample_identity
    sample = _sample(planner, teacher, whom, _questions(component.options, identity), problems)
    parser: Renderer = planner.component(whom.renderer, Renderer)
    traces = planner.one(
        Traces(
            label=teacher.label,
            teacher=_without_name(teacher),
            task=identity,
            samples=sample,
            parser=f"{parser.name} {parser.parser_version}",
            renderer=whom.renderer,
        )
    )
    planned.add(whom.built, problems, sample, traces)
    return traces


def _sample(planner: Planner, teacher: Choice, whom: Whom, asked: Questions, problems: Traces | None) -> Sample:
    """The stage in which a model answers, in the session of its student."""
    return planner.one(
        Sample(
            label=f"{whom.name} for teacher {teacher.label}",
            student=whom.student,
            renderer=whom.renderer,
            engine=whom.engine,
            step=whom.step,
            asked=asked,
            built=whom.built,
            train=whom.train,
            problems=problems,
            group=session_of(whom.student, whom.engine, whom.built),
            resources=planner.resources_of(whom.student, whom.engine),
        )
    )


def _whom(planner: Planner, planned: PlannedCell, teacher: Choice, options: AskingOptions) -> Whom | None:
    cell = planned.cell
    if options.cell is not None:
        return _checkpoint(planner, planned, teacher, options.cell)
    if "student" in teacher.components:
        given = teacher.components
        cell = replace(cell, student=given["student"], renderer=given["renderer"], engine=given["engine"])
    parts = (planner.component(one, Any) for one in (cell.student, cell.renderer, cell.engine))
    mistakes = list(unfit_for_served(cell, *parts))
    planner.mistakes += mistakes
    if mistakes:
        return None
    return Whom(cell.student.label, cell.student, cell.renderer, cell.engine, planner.built(cell.student))


def _checkpoint(planner: Planner, planned: PlannedCell, teacher: Choice, named: str) -> Whom | None:
    """The checkpoint of a cell, by `NAME@STEP` or `NAME@last`."""
    name, _, step = named.rpartition("@")
    if name not in planner.cells:
        hint = f"say which: {named}@last" if named in planner.cells else nearest(name or named, planner.cells)
        planner.mistakes.append(no_such_checkpoint(teacher, named, hint))
        return None
    other = planner.cell(name)
    planned.hangs_on |= other.hangs_on
    steps = (0,) if other.cell.trainer is None else other.steps
    if steps is None:  # they are known once these have run
        planned.add(*(planner.stages[key] for key in other.hangs_on))
        return None
    if not (steps and step == "last") and step not in map(str, steps):
        there = ", ".join(f"{name}@{one}" for one in (*steps, "last"))
        planner.mistakes.append(no_such_checkpoint(teacher, named, f"there are: {there}" if steps else "it has none"))
        return None
    at = max(steps) if step == "last" else int(step)
    cell = other.cell
    built = planner.built(cell.student)
    return Whom(f"{name}@{at}", cell.student, cell.renderer, cell.engine, built, other.train, at)


def _questions(options: AskingOptions, task_identity: str | None) -> Questions:
    """What is asked, so far as the traces whose problems are asked do not say it."""
    if options.teacher is not None:
        return Questions(options.sampling, limit=options.n)
    if options.path is not None:
        return Questions(options.sampling, path=options.path, identity=digest_path(options.path), limit=options.n)
    return Questions(options.sampling, options.task, options.split, identity=task_identity, limit=options.n)


def _without_name(teacher: Choice) -> Choice:
    """The teacher without the name of the cell that it asks: that cell's checkpoint decides, whatever it is called."""
    identity = json.loads(teacher.identity)
    identity["options"].pop("cell", None)
    return replace(teacher, identity=canonical_json(identity))
