"""From a matrix file to cells. Every mistake in the file is collected, and all are told at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pluggy

from distillbench.catalog import Catalog
from distillbench.errors import MatrixError, Mistake
from distillbench.fingerprint import is_folder
from distillbench.manager import ask_each, hook_error
from distillbench.matrix import names
from distillbench.matrix.axes import combine, read_axes
from distillbench.matrix.choices import Choices
from distillbench.matrix.evaluation_options import forced_options
from distillbench.matrix.evaluations import Evaluations, Suite
from distillbench.matrix.expand import Combination
from distillbench.matrix.read import read_document
from distillbench.matrix.sections import Header, Sections, read_sections
from distillbench.protocols import Trainer
from distillbench.records import Cell, Choice, PreflightRules
from distillbench.tasks.identity import TaskIndex

_MOST_ALIKE = 10  # mistakes of one sort; a product with a useless axis makes thousands
_OF_BASELINES = re.compile(r"(student|renderer|engine|evaluation)(\..+)?|evaluations\..+")


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix file, resolved.

    Attributes:
        name: Its name, which can be a folder's.
        path: The file.
        cells: Every cell, the baselines last.
        keep: The big checkpoints that stay after they were evaluated.
        launcher: Where stages run.
        tasks: The benchmarks by name: those of the matrix's `task_paths` and those that plugins bring.
        chosen: What the file leaves open and what was chosen, in words, by what it was chosen for.
    """

    name: str
    path: Path
    cells: list[Cell]
    keep: frozenset[str]
    launcher: Choice
    tasks: TaskIndex
    chosen: Mapping[str, str] = field(default_factory=dict)


#: What else is wrong with cells that can be read.
FurtherMistakes = Callable[[Sequence[Cell], TaskIndex], Sequence[Mistake]]


def load_matrix(
    path: Path,
    catalog: Catalog,
    *,
    limit: int | None = None,
    fast: bool = False,
    further_mistakes: FurtherMistakes = lambda cells, tasks: (),
) -> Matrix:
    """Reads a matrix file and resolves every name and option in it.

    Args:
        path: The file.
        catalog: The registered components.
        limit: Problems of every evaluation, the first ones, whatever the file says.
        fast: 100 problems of every evaluation, shuffled, whatever the file says.
        further_mistakes: Asked of a file with mistakes, about the cells that have none, so that all are told at once.

    Raises:
        MatrixError: With everything that is wrong in the file.
        PluginError: A component's options cannot be resolved, or a plugin's hook left two cells of one name.
    """
    mistakes: list[Mistake] = []
    document = read_document(path, mistakes)
    sections = read_sections(document, mistakes)
    before = len(mistakes)
    axes = read_axes(document, sections, mistakes, _traceless(sections, catalog))
    combinations = combine(axes, mistakes, is_clean=len(mistakes) == before)
    choices = Choices(catalog, sections, axes, mistakes)
    tasks = _task_index(sections.header, catalog)
    evaluations = Evaluations(choices, tasks, forced_options(limit, fast))
    cells = _Builder(choices, evaluations).cells(combinations)
    launcher = _check_all(choices, evaluations)
    if mistakes or sections.header is None or launcher is None or tasks is None:
        raise MatrixError([*mistakes, *(further_mistakes(cells, tasks) if tasks else ())])
    _let_plugins_modify(cells, catalog.manager)
    return Matrix(sections.header.name, path, cells, frozenset(sections.header.keep), launcher, tasks, choices.chosen)


def _let_plugins_modify(cells: list[Cell], manager: pluggy.PluginManager) -> None:
    hook = "distillbench_modify_cells"
    for answer in ask_each(manager, hook, cells=cells):
        if answer.error is not None:
            raise answer.error
        if strange := [cell for cell in cells if not isinstance(cell, Cell)]:
            raise hook_error(manager, answer.plugin, hook, f"left {strange[0]!r} among the cells")
        if doubled := _first_double([cell.name for cell in cells]):
            raise hook_error(manager, answer.plugin, hook, f"left two cells named {doubled!r}")


def _check_all(choices: Choices, evaluations: Evaluations) -> Choice | None:
    choices.check_names()
    choices.check_unused()
    evaluations.check()
    return choices.launcher()


def _task_index(header: Header | None, catalog: Catalog) -> TaskIndex | None:
    """None where a mistake in `task_paths` or `data_root` would make every task of theirs look unknown."""
    if header is None or not all(is_folder(path) for path in (*header.task_paths, header.data_root or Path())):
        return None
    return TaskIndex([*header.task_paths, *catalog.task_roots], header.data_root)


def _traceless(sections: Sections, catalog: Catalog) -> frozenset[str]:
    """The names of trainers that need no traces: entries, and registered ones that no entry hides."""
    known = catalog.kind("trainer")
    registered = {name for name, cls in known.items() if issubclass(cls, Trainer) and not cls.needs_traces}
    entries = sections.entries["trainer"]
    named = {label for label, entry in entries.items() if entry.component in registered}
    return frozenset(named | (registered - entries.keys()))


class _Builder:
    """Makes cells from combinations."""

    def __init__(self, choices: Choices, evaluations: Evaluations) -> None:
        header = choices.sections.header
        self.rules = PreflightRules(header.accept, header.max_cut) if header else PreflightRules()
        self.axes = choices.axes
        self.choices = choices
        self.evaluations = evaluations
        self.mistakes = choices.mistakes

    def cells(self, combinations: Sequence[Combination]) -> list[Cell]:
        """Every cell that no mistake is in the way of, with the evaluations of which that is true; baselines last."""
        self._check_given_names(combinations)
        found: list[tuple[Combination, Cell, Suite]] = []
        for combination in combinations:
            suite = self.evaluations.of(combination)
            if cell := self._cell(combination, suite):
                found.append((combination, cell, suite))
        whole = [one for one in found if one[2].is_whole]
        self._refuse_doubles(
            [(combination, _cell_identity(cell, suite.identity)) for combination, cell, suite in whole]
        )
        written = [self.axes.as_written(combination) for combination, _, _ in found]
        cells = _baselines([(cell, suite.identity, row) for (_, cell, suite), row in zip(found, written, strict=True)])
        if self.axes.trains:
            given = [combination.values.get("name") for combination, _, _ in found]
            all_names = _names([cell for _, cell, _ in found], given, written)
            named = [replace(cell, name=name) for (_, cell, _), name in zip(found, all_names, strict=True)]
            cells = [*named, *cells]
        self._refuse_double_names(cells)
        return cells

    def _cell(self, combination: Combination, suite: Suite) -> Cell | None:
        """One cell, not named yet. Everything is resolved even where one thing fails, to find every mistake."""
        student = self.choices.of("student", combination)
        renderer = self.choices.renderer(student, combination) if student else None
        engine = self.choices.engine(student, combination)
        recipe = self._recipe(combination) if self.axes.trains else (None, (), None)
        if not (student and renderer and engine and recipe):
            return None
        teacher, filters, trainer = recipe
        axes = {key: value for key, value in combination.values.items() if key != "name"}
        return Cell(
            name="",
            student=student,
            renderer=renderer,
            engine=engine,
            evaluations=suite.evaluations,
            teacher=teacher,
            filters=filters,
            trainer=trainer,
            seed=combination.values["seed"] if teacher else 0,
            axes=axes,
            rules=self.rules,
        )

    def _recipe(self, combination: Combination) -> tuple[Choice | None, tuple[Choice, ...], Choice] | None:
        if combination.values["trainer"] in self.axes.traceless:
            is_alone = self._is_without_traces(combination)
            trainer = self.choices.of("trainer", combination)
            return (None, (), trainer) if is_alone and trainer else None
        teacher = self.choices.of("teacher", combination)
        filters = self.choices.filters(combination)
        trainer = self.choices.of("trainer", combination)
        return (teacher, filters, trainer) if teacher and filters is not None and trainer else None

    def _is_without_traces(self, combination: Combination) -> bool:
        """Whether a combination whose trainer needs no traces has none; notes it when it has."""
        given = [axis for axis in ("teacher", "filters") if axis in combination.values]
        if given:
            name = combination.values["trainer"]
            place = self.axes.place("trainer", combination.sources["trainer"])
            wanted = f"neither teacher nor filters beside trainer {name!r}, which needs no traces"
            got = f"combinations of it with {' and '.join(f'`{axis}`' for axis in given)}"
            hint = f"take it out of `trainer`, and write `include: [{{trainer: {name}}}]`"
            self.mistakes.append(Mistake(place, wanted, got, hint))
        return not given

    def _check_given_names(self, combinations: Sequence[Combination]) -> None:
        for index, entry in enumerate(self.axes.include):
            if "name" not in entry:
                continue
            place = self.axes.document.place("matrix", "include", index, "name")
            if not names.is_cell_name(entry["name"]):
                wanted = "a name that can be a folder: letters, digits and . _ , = + - ~, letter or digit first"
                self.mistakes.append(Mistake(place, wanted, repr(entry["name"])))
            named = sum(each.sources.get("name") == ("include", index) for each in combinations)
            if named > 1:
                hint = "name axis values in this entry until one combination is left"
                self.mistakes.append(Mistake(place, "a name for one cell", f"a name for {named} cells", hint))

    def _refuse_doubles(self, identities: Sequence[tuple[Combination, tuple[Any, ...]]]) -> None:
        first: dict[tuple[Any, ...], Combination] = {}
        doubles = []
        for combination, identity in identities:
            if identity in first:
                doubles.append(f"{_described(first[identity])} and {_described(combination)}")
            first.setdefault(identity, combination)
        place = self.axes.document.place("matrix")
        hint = "they would be the same cell twice; make them differ, or `exclude` one"
        for both in doubles[:_MOST_ALIKE]:
            self.mistakes.append(Mistake(place, "cells that differ", f"duplicate cells: {both}", hint))
        if len(doubles) > _MOST_ALIKE:
            more = f"duplicate cells: {len(doubles) - _MOST_ALIKE} more"
            self.mistakes.append(Mistake(place, "cells that differ", more, hint))

    def _refuse_double_names(self, cells: Sequence[Cell]) -> None:
        if doubled := _first_double([cell.name for cell in cells]):
            place = self.axes.document.place("matrix")
            hint = "give one of them a `name:` in an `include` entry"
            self.mistakes.append(Mistake(place, "cells with names of their own", f"two named {doubled!r}", hint))


def _names(found: Sequence[Cell], given: Sequence[str | None], written: Sequence[Mapping[str, Any]]) -> list[str]:
    """The name of each cell: the user's, or what tells it apart, or its teacher's.

    Cells without a teacher are told apart from one another, so that one more of them renames no trained cell.

    Args:
        found: The cells, not named yet.
        given: What the user calls each.
        written: The axis values of each, as the user wrote them.
    """
    with_renderer = any("renderer" in cell.axes for cell in found)
    named: dict[int, str] = {}
    for is_trained in (True, False):
        numbers = [number for number, cell in enumerate(found) if (cell.teacher is not None) == is_trained]
        rows = [_without(written[number], "name") for number in numbers]
        if with_renderer:
            rows = [
                {**row, "renderer": found[number].renderer.label} for number, row in zip(numbers, rows, strict=True)
            ]
        for number, parts in zip(numbers, names.distinguish(rows), strict=True):
            named[number] = given[number] or names.join(_parts(found[number], parts))
    return [named[number] for number in range(len(found))]


def _parts(cell: Cell, parts: list[str]) -> list[str]:
    """The parts of a cell's name, given those that tell it apart."""
    if cell.teacher is None and cell.trainer is not None:
        return parts if cell.trainer.label in parts else [cell.trainer.label, *parts]
    return parts or [cell.teacher.label if cell.teacher else ""]


def _baselines(cells: Sequence[tuple[Cell, str, Mapping[str, Any]]]) -> list[Cell]:
    """The untouched students, one for each student, renderer, engine and evaluations that the cells use.

    Args:
        cells: The cells, with what tells their evaluations apart and their axis values as the user wrote them.
    """
    distinct: dict[tuple[str, ...], tuple[Cell, Mapping[str, Any]]] = {}
    for cell, suite, written in cells:
        key = (cell.student.identity, cell.renderer.identity, cell.engine.identity, suite)
        distinct.setdefault(key, (cell, _of_baselines(written)))
    bases = list(distinct.values())
    others: list[dict[str, Any]] = [{} for _ in bases]
    if len({cell.student.label for cell, _ in bases}) < len(bases):
        others = [{**_without(row, "student"), "renderer": cell.renderer.label} for cell, row in bases]
    return [
        Cell(
            name=names.join([f"base-{cell.student.label}", *parts]),
            student=cell.student,
            renderer=cell.renderer,
            engine=cell.engine,
            evaluations=cell.evaluations,
            axes=_of_baselines(cell.axes),
            rules=cell.rules,
        )
        for (cell, _), parts in zip(bases, names.distinguish(others), strict=True)
    ]


def _of_baselines(axes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in axes.items() if _OF_BASELINES.fullmatch(key)}


def _without(row: Mapping[str, Any], axis: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != axis}


def _cell_identity(cell: Cell, suite: str) -> tuple[Any, ...]:
    parts = (cell.student, cell.renderer, cell.engine, cell.teacher, cell.trainer, *cell.filters)
    return (*(part and part.identity for part in parts), cell.seed, suite)


def _described(combination: Combination) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in combination.values.items()) + "}"


def _first_double(texts: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for text in texts:
        if text in seen:
            return text
        seen.add(text)
    return None
