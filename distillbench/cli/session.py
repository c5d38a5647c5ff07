"""What the commands share: the plugins, the store, and how a matrix becomes a plan."""

from __future__ import annotations

import difflib
import fnmatch
import itertools
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pluggy

from distillbench.errors import DistillbenchError

if TYPE_CHECKING:
    from rich.console import Console

    from distillbench.catalog import Catalog
    from distillbench.matrix.resolve import Matrix
    from distillbench.plan.plan import Plan
    from distillbench.records import Cell
    from distillbench.store.store import Store
    from distillbench.tasks.identity import TaskIndex

_MOST_NAMES = 40
_LEAST_ALIKE = 0.75
_NUMBERS = re.compile(r"[0-9][0-9.,_]*(?:[eE][-+]?[0-9]+)?")
#: Columns of tables that go into a file or another program, where nothing says how wide a line may be.
PIPED_WIDTH = 160
MATRIX = click.argument("matrix", type=click.Path(path_type=Path, dir_okay=False))
ONLY = click.option(
    "--only",
    multiple=True,
    metavar="CELL",
    help="Only this cell (and the untouched students it is compared with). May hold * and be repeated.",
)
LIMIT = click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N problems of each benchmark."
)
FAST = click.option("--fast", is_flag=True, help="Only 100 problems of each benchmark, a fixed shuffle; marked so.")
UNSAFE = click.option(
    "--unsafe-code-execution",
    is_flag=True,
    help="Run models' code even where nothing isolates it from your files: only on a machine to throw away.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@dataclass(frozen=True)
class Session:
    """One invocation of the command line.

    Attributes:
        manager: The plugins.
        blocked: Names of those left out.
        store_path: Where results are.
        verbosity: -1 quiet, 0 normal, 1 and more verbose.
    """

    manager: pluggy.PluginManager
    blocked: tuple[str, ...]
    store_path: Path
    verbosity: int

    @cached_property
    def catalog(self) -> Catalog:
        """The components of all plugins."""
        from distillbench.catalog import Catalog

        return Catalog(self.manager)

    @cached_property
    def store(self) -> Store:
        """The store; its folder is made when it is not there."""
        from distillbench.store.store import Store

        return Store(self.store_path)

    @cached_property
    def console(self) -> Console:
        """Where results are printed."""
        from rich.console import Console

        found = Console(highlight=False)
        return found if found.is_terminal else Console(highlight=False, width=PIPED_WIDTH)

    def load(self, path: Path, only: Sequence[str] = (), limit: int | None = None, fast: bool = False) -> Loaded:
        """Reads a matrix and chooses cells of it.

        Raises:
            MatrixError: It has mistakes.
        """
        from distillbench.matrix.resolve import load_matrix
        from distillbench.stages.planner import planning_mistakes

        if limit is not None and fast:
            raise click.UsageError("--limit and --fast exclude each other")
        further = partial(planning_mistakes, catalog=self.catalog)
        matrix = load_matrix(path, self.catalog, limit=limit, fast=fast, further_mistakes=further)
        is_cut = limit is not None or fast
        return Loaded(self, matrix, choose_cells(matrix.cells, only), matrix.tasks, is_cut)


@dataclass(frozen=True)
class Loaded:
    """A matrix that was read, and the cells chosen from it; `is_cut` where the command line says how many problems."""

    session: Session
    matrix: Matrix
    cells: tuple[Cell, ...]
    tasks: TaskIndex
    is_cut: bool = False

    def plan(self) -> Plan:
        """The stages of the chosen cells, compared with the store."""
        from distillbench.plan.inspect import with_statuses

        store = self.session.store
        return with_statuses(self.make_plan(), store.lookup, store.damage)

    def mended_plan(self) -> Plan:
        """As `plan`, after what is damaged in the store has been moved aside, which is told."""
        from distillbench.store.mend import mended

        return mended(self.make_plan, self.session.store, _tell_damage)

    def make_plan(self) -> Plan:
        """The stages of the chosen cells, without statuses."""
        from distillbench.stages.planner import build_plan

        return build_plan(self.matrix.name, self.cells, self.session.catalog, self.tasks, self.session.store.facts)


def _tell_damage(told: str) -> None:
    click.echo(f"damaged: {told}", err=True)


def choose_cells(cells: Sequence[Cell], only: Sequence[str]) -> tuple[Cell, ...]:
    """The cells whose names match, with the baselines they are compared with.

    Raises:
        DistillbenchError: A name matches nothing.
    """
    if not only:
        return tuple(cells)
    names = [cell.name for cell in cells]
    chosen: set[str] = set()
    for pattern in only:
        matching = set(fnmatch.filter(names, pattern)) | ({pattern} & set(names))
        if not matching:
            raise DistillbenchError(f"--only {pattern!r} matches no cell; {cells_there_are(pattern, names)}")
        chosen |= matching
    setups = {cell.setup for cell in cells if cell.name in chosen}
    return tuple(cell for cell in cells if cell.name in chosen or (cell.is_baseline and cell.setup in setups))


def tell_chosen(loaded: Loaded) -> None:
    """Says what the matrix leaves open and what was chosen for the cells that were."""
    if loaded.session.verbosity >= 0:
        for subject, text in loaded.matrix.chosen.items():
            click.echo(f"{subject}: {text}", err=True)


def cells_there_are(wanted: str, names: Iterable[str]) -> str:
    """What to say where no cell has a name: the one that was mistyped, and the names there are.

    A name with another number, or another of the values that cells have, is no mistyped one: who asks for `seed=3`
    where there are 0, 1 and 2 did not mean 2.
    """
    there = sorted(set(names))
    values = {part for name in there for part in name.split(",")}
    meant = next((name for name in there if _is_mistyped(wanted, name, values)), None)
    shown = ", ".join(there[:_MOST_NAMES])
    more = f", and {len(there) - _MOST_NAMES:,} more: `distillbench show MATRIX` lists all"
    hint = f"did you mean {meant!r}? " if meant else ""
    return f"{hint}one of: {shown}{more if len(there) > _MOST_NAMES else ''}"


def _is_mistyped(wanted: str, name: str, values: Collection[str]) -> bool:
    """Whether a name differs in nothing but letters of parts that no cell has."""
    pairs = list(itertools.zip_longest(wanted.split(","), name.split(","), fillvalue=""))
    return all(
        own not in values
        and _NUMBERS.findall(own) == _NUMBERS.findall(other)
        and difflib.SequenceMatcher(None, own, other).ratio() >= _LEAST_ALIKE
        for own, other in pairs
        if own != other
    )


def print_json(value: Any) -> None:
    """Prints a value as JSON."""
    import json

    click.echo(json.dumps(value, indent=2, sort_keys=True, default=str))
