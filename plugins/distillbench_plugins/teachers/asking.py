"""The `self` teacher: a student, untouched or trained, whose own answers become traces."""

from __future__ import annotations

from collections.abc import Iterable

from distillbench.hookspecs import hookimpl
from distillbench.protocols import AskingOptions, AskingTeacher, Teacher


class SelfTeacher(AskingTeacher[AskingOptions]):
    """A model that is asked here: the untouched student, another one, or the checkpoint of a cell."""

    name = "self"


@hookimpl
def distillbench_teachers() -> Iterable[type[Teacher]]:
    """One that asks."""
    return [SelfTeacher]
