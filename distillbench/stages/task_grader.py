"""The grader that a task's YAML names, for the traces of a teacher whose problems are of it."""

from __future__ import annotations

from distillbench.catalog import Catalog
from distillbench.errors import Mistake, Place, nearest
from distillbench.matrix.choices import choice_of
from distillbench.matrix.evaluation_options import TaskSettings, grader_layer, settings_of
from distillbench.matrix.needed import names_in, needing
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
    found = choice_of(catalog, "benchmark", name, name, [grader_layer(spec, settings)], place)
    return _completed(found, catalog, ()) if isinstance(found, Choice) else found


def _completed(owner: Choice, catalog: Catalog, owners: tuple[tuple[str, str], ...]) -> Choice | tuple[Mistake, ...]:
    """A choice with the components that it needs: registered ones, as a task knows no entries of a matrix."""
    found: dict[str, Choice] = {}
    owners = (*owners, (owner.kind, owner.label))
    for name in names_in(owner, catalog):
        if (name.kind, name.label) in owners:
            told = " needs ".join(f"{kind} {label!r}" for kind, label in (*owners, (name.kind, name.label)))
            return (Mistake(name.place, "components that do not need themselves", told),)
        known = catalog.kind(name.kind)
        if name.label not in known:
            wanted = f"a registered {name.kind}, as verdicts on traces know no entries of a matrix"
            return (Mistake(name.place, wanted, repr(name.label), nearest(name.label, known)),)
        one = choice_of(catalog, name.kind, name.label, name.label, [], name.place)
        whole = _completed(one, catalog, owners) if isinstance(one, Choice) else one
        if not isinstance(whole, Choice):
            return whole
        found[name.option] = whole
    return needing(owner, found) if found else owner
