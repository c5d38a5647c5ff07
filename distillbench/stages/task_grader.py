"""The grader that a task's YAML names, for the traces of a teacher whose problems are of it."""

from __future__ import annotations

from distillbench.catalog import Catalog
from distillbench.errors import Mistake, Place
from distillbench.matrix.choices import choice_of
from distillbench.matrix.evaluation_options import TaskSettings, grader_layer, settings_of
from distillbench.records import Choice
from distillbench.stages.mistakes import unknown_grader
from distillbench.tasks.identity import TaskSpec


def grader_of_task(teacher: Choice, spec: TaskSpec, catalog: Catalog) -> Choice | tuple[Mistake, ...]:
    """The grader with the options that the task gives it, or what is wrong with these.

    Args:
        teacher: Whose traces it is to grade.
        spec: The task.
        catalog: The registered components.
    """
    resolved = settings_of(spec)
    settings: TaskSettings | None = resolved.options
    if settings is None:
        return resolved.mistakes
    name, known = settings.grader, catalog.kind("benchmark")
    if name not in known:
        return (unknown_grader(teacher, spec, name, known),)
    place = Place(str(spec.path), keys=("metadata", "distillbench"))
    return choice_of(catalog, "benchmark", name, name, [grader_layer(spec, settings)], place)
