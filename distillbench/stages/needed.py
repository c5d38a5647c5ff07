"""What the components that components need ask of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from distillbench.protocols import Engine, Grader, Student
from distillbench.records import Choice, Resources

if TYPE_CHECKING:
    from distillbench.stages.planner import Planner


def most_needed(planner: Planner, own: Resources, student: Choice, *choices: Choice) -> Resources:
    """The most that a stage's own work and what its components need ask for.

    Args:
        planner: Builds the components.
        own: What the work asks for by itself.
        student: The cell's: a needed engine is asked about it where no student is needed beside the engine.
        choices: The components that the stage runs.
    """
    needed = (one for choice in choices for one in _needed(planner, choice, planner.component(student, Student)))
    return Resources.most([own, *needed])


def _needed(planner: Planner, owner: Choice, student: Student) -> Iterator[Resources]:
    """What each component asks for that one needs, at any depth."""
    components = [planner.component(one, object) for one in owner.components.values()]
    students = [one for one in components if isinstance(one, Student)]
    for one in components:
        if isinstance(one, Student | Grader):
            yield one.resources()
        elif isinstance(one, Engine):
            yield from map(one.resources, students or [student])
    for choice in owner.components.values():
        yield from _needed(planner, choice, next(iter(students), student))
