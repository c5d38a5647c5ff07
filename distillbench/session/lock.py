"""What a report was made with, and what of it differs here: models, data, tasks, files, components and packages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from platform import python_version_tuple
from typing import TYPE_CHECKING, Any

from distillbench.errors import DamagedError, DistillbenchError
from distillbench.fingerprint import expanded, is_folder
from distillbench.matrix.choices import package_version
from distillbench.records import TaskRef
from distillbench.sealed import read_sealed, write_sealed
from distillbench.session.hub import hub_commit
from distillbench.store.environment import PACKAGES
from distillbench.store.report_folders import LOCK
from distillbench.tasks.data import data_root, data_source

if TYPE_CHECKING:
    from distillbench.plan.plan import Plan
    from distillbench.protocols import Student
    from distillbench.records import Cell, Choice
    from distillbench.session.experiment import Experiment

_FORMAT = 1
_MOST_SHOWN = 3
#: What to do about a thing of each sort that differs; `{name}` and `{locked}` stand for it.
_TO_DO: Mapping[str, str] = {
    "python": "run it with Python {locked}",
    "package": "pip install '{name}=={locked}'",
    "plugin": "pip install '{name}=={locked}'",
    "component": "install the version of the plugin that has it",
    "model": "write `revision: {locked}` where the matrix names the model",
    "data set": "write the revision {locked} where the task names the data set",
    "task": "put its file, and what that includes, back as it was",
    "file": "put the file back that was read then",
}
_INSTALLED = frozenset({"package", "plugin"})
_ANEW = "or run without --frozen, and take the lock.json of that report"

#: By sort and name, in which versions something was used; several where stages were made with several.
Versions = dict[str, dict[str, list[str]]]


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not here what was locked.

    Attributes:
        sort: A key of the lock.
        name: What it is called.
        locked: Its versions in the lock; none where the lock does not have it.
        here: Its versions here; none where it is not here.
    """

    sort: str
    name: str
    locked: tuple[str, ...]
    here: tuple[str, ...]

    def __str__(self) -> str:
        without = f"pip uninstall '{self.name}'" if self.sort in _INSTALLED else "leave it out"
        to_do = _TO_DO[self.sort].format(name=self.name, locked=self.locked[0]) if self.locked else without
        return (
            f"    {self.sort} {self.name}\n"
            f"        locked: {_listed(self.locked) or 'not in the lock'}\n"
            f"        here:   {_listed(self.here) or 'not here'}\n"
            f"        hint:   {to_do}, {_ANEW}"
        )


def _listed(versions: tuple[str, ...]) -> str:
    more = f" and {len(versions) - _MOST_SHOWN} more" if len(versions) > _MOST_SHOWN else ""
    return ", ".join(versions[:_MOST_SHOWN]) + more


def write_lock(loaded: Experiment, plan: Plan, folder: Path) -> None:
    """Writes what the results of a plan were made with into a report's folder.

    Raises:
        OSError: It cannot be written.
    """
    made_with = versions_of(loaded, ask=False)
    made_with["package"] |= _of_results(loaded, plan)
    in_order = {sort: {name: sorted(versions) for name, versions in own.items()} for sort, own in made_with.items()}
    write_sealed(folder / LOCK, {"format": _FORMAT, "matrix": loaded.matrix.name, "versions": in_order}, LOCK)


def refuse_others(loaded: Experiment, path: Path) -> None:
    """Refuses whatever the chosen cells would use that is not what a lock has.

    Args:
        loaded: The matrix and the chosen cells.
        path: The lock.

    Raises:
        DistillbenchError: Something differs, each by its name; or the file is no lock.
    """
    if different := list(differences(read_lock(path), versions_of(loaded, ask=True))):
        told = "\n".join(map(str, different))
        raise DistillbenchError(
            f"--frozen {path}: here is something else than what was locked; nothing has run\n{told}"
        )


def read_lock(path: Path) -> Versions:
    """The versions in a lock.

    Raises:
        DistillbenchError: The file is not there, or is no lock, or not any more what was written.
    """
    try:
        found: dict[str, Any] = read_sealed(path, LOCK)
    except (FileNotFoundError, DamagedError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else error.why
        raise DistillbenchError(
            f"--frozen {path}\n    wanted: the {LOCK} of a report, as it was written\n    got:    {why}"
        ) from error
    if found.get("format") != _FORMAT:
        got = f"    got:    format {found.get('format')}\n    hint:   run without --frozen, and take the new one"
        raise DistillbenchError(f"--frozen {path}\n    wanted: a lock of format {_FORMAT}\n{got}")
    versions: Versions = found["versions"]
    return versions


def differences(locked: Versions, here: Versions) -> Iterator[Difference]:
    """What is used here and was not locked so, and what was installed then and is not here."""
    for sort, own in here.items():
        had = locked.get(sort, {})
        for name in sorted({*own, *had} if sort in _INSTALLED else own):
            then, now = had.get(name), own.get(name)
            is_unknown = then == []  # which commit it was could not be told
            if not is_unknown and not (then and now and {*now} <= {*then}):
                yield Difference(sort, name, tuple(then or ()), tuple(now or ()))


def versions_of(loaded: Experiment, ask: bool) -> Versions:
    """What the chosen cells use, as it is here.

    Args:
        loaded: The matrix and the chosen cells.
        ask: Whether the Hub is asked for the commits of what is not pinned.
    """
    found: Versions = {sort: {} for sort in _TO_DO}
    _add(found, "python", "itself", ".".join(python_version_tuple()[:2]))
    for name, distribution in sorted(getattr(loaded.session.manager, "distributions", {}).items()):
        if name in {plugin for plugin, _ in loaded.session.manager.list_name_plugin()}:
            _add(found, "plugin", distribution, version(distribution))
    for package in PACKAGES:
        _add(found, "package", package, package_version(package))
    for choice in _choices(loaded.cells):
        _add_choice(found, choice)
        if choice.kind == "student":
            _add_model(found, loaded, choice, ask)
    for ref in _tasks(loaded):
        _add_task(found, loaded, ref, ask)
    return found


def _add(found: Versions, sort: str, name: str, value: str | None) -> None:
    """Notes a version of a thing; a thing of which none is known is noted by its name alone, but for packages."""
    if value is not None or sort not in _INSTALLED:
        known = found[sort].setdefault(name, [])
        if value is not None and value not in known:
            known.append(value)


def _of_results(loaded: Experiment, plan: Plan) -> dict[str, list[str]]:
    """The packages that the finished stages of a plan were made with."""
    found: Versions = {"package": {}}
    for stage in plan.stages.values():
        about = (loaded.session.store.usable(stage) or {}).get("about", {})
        for name, value in about.get("packages", {}).items():
            _add(found, "package", name, value)
    return found["package"]


def _choices(cells: Iterable[Cell]) -> Iterator[Choice]:
    """Every component of some cells, and those that these need."""
    waiting: dict[Choice, None] = {}
    for cell in cells:
        graders = [one.grader for one in cell.evaluations]
        every = (cell.student, cell.renderer, cell.engine, cell.teacher, cell.trainer, *cell.filters, *graders)
        waiting |= dict.fromkeys(one for one in every if one is not None)
    seen: set[tuple[str, str]] = set()
    while waiting:
        choice, _ = waiting.popitem()
        waiting |= dict.fromkeys(choice.components.values())
        if (choice.label, choice.identity) not in seen:
            seen.add((choice.label, choice.identity))
            yield choice


def _add_choice(found: Versions, choice: Choice) -> None:
    """A component's version, the packages that decide what it does, and the content of the files that it reads."""
    identity, kind = json.loads(choice.identity), "grader" if choice.kind == "benchmark" else choice.kind
    _add(found, "component", f"{kind} {choice.component}", str(identity["version"]))
    for package, value in identity["packages"].items():
        _add(found, "package", package, value)
    times: dict[str, int] = {}
    for name, digest in identity["inputs"]:
        times[name] = times.get(name, 0) + 1
        number = f" ({times[name]})" if times[name] > 1 else ""
        _add(found, "file", f"{name}{number} of {kind} {choice.label}", digest)


def _add_model(found: Versions, loaded: Experiment, choice: Choice, ask: bool) -> None:
    """The commit of a student that is on the Hub; folders are files, and one that is built here has its component."""
    student: Student = loaded.session.catalog.build(choice)
    if student.builds or not student.has_tokenizer:
        return
    try:
        with loaded.session.catalog.blaming(choice):
            source = student.source(None)
    except DistillbenchError:  # it does not say where its files are
        return
    if not is_folder(expanded(source.name)):
        _add(found, "model", source.name, hub_commit(source.name, source.revision, "model", ask))


def _tasks(loaded: Experiment) -> list[TaskRef]:
    """The tasks that are evaluated, and those whose problems teachers answer."""
    asked = [one.ref for cell in loaded.cells for one in cell.evaluations]
    teachers = (choice for choice in _choices(loaded.cells) if choice.kind == "teacher")
    named = (loaded.session.catalog.build(choice).task() for choice in teachers)
    return list(dict.fromkeys([*asked, *(TaskRef(name) for name in named if name)]))


def _add_task(found: Versions, loaded: Experiment, ref: TaskRef, ask: bool) -> None:
    """What of a task reaches prompts and verdicts, local data included, and the commit of a data set on the Hub."""
    about, spec = ref.name if ref.metadata == "{}" else f"{ref.name} {ref.metadata}", loaded.tasks.find(ref)
    _add(found, "task", f"{about} (its prompts)", spec.sample_identity)
    _add(found, "task", f"{about} (its grading)", spec.grade_identity)
    metadata = spec.config.get("metadata")
    source = data_source(metadata, f"{spec.path}: metadata") if isinstance(metadata, Mapping) else None
    if source is not None:
        is_here = bool(source.local_files(data_root(loaded.tasks.data_root)))
        name, revision = ("" if is_here else source.hub), source.revision
    else:
        given = spec.config.get("dataset_path")
        name = given if isinstance(given, str) and given.count("/") == 1 and not Path(given).exists() else ""
        options = spec.config.get("dataset_kwargs")
        revision = str(options.get("revision", "")) if isinstance(options, Mapping) else ""
    if name:
        _add(found, "data set", name, hub_commit(name, revision or None, "dataset", ask))
