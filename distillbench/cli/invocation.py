"""What the commands share: the session of one command line, how much it says and where, and common options."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pluggy

from distillbench.session import Session

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from distillbench.session import Experiment

#: Columns of tables that go into a file or another program, where a row is one line, however long.
PIPED_WIDTH = 100_000
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


class Invocation(Session):
    """One invocation of the command line: a session, and how it speaks.

    Args:
        manager: The plugins.
        blocked: Names of those left out.
        store: Where results are.
        verbosity: -1 quiet, 0 normal, 1 and more verbose.
    """

    def __init__(self, manager: pluggy.PluginManager, blocked: tuple[str, ...], store: Path, verbosity: int) -> None:
        super().__init__(store, blocked=blocked, manager=manager)
        self.verbosity = verbosity

    @cached_property
    def console(self) -> Console:
        """Where results are printed."""
        from rich.console import Console

        found = Console(highlight=False)
        return found if found.is_terminal else Console(highlight=False, width=PIPED_WIDTH)

    def load(
        self, path: Path | str, only: Sequence[str] = (), limit: int | None = None, fast: bool = False
    ) -> Experiment:
        """As for a session; the two options that cut benchmarks exclude each other.

        Raises:
            MatrixError: It has mistakes.
        """
        if limit is not None and fast:
            raise click.UsageError("--limit and --fast exclude each other")
        return super().load(path, only, limit, fast)

    def tell(self, text: str) -> None:
        """Says what must be said, however quiet."""
        click.echo(text, err=True)

    def note(self, text: str) -> None:
        """Says what a person may want to know."""
        if self.verbosity >= 0:
            click.echo(text, err=True)


def print_rows(console: Console, table: Table) -> None:
    """Prints a table whose words stay whole: where the terminal is too narrow for them, its lines are longer."""
    from rich.measure import Measurement

    least = Measurement.get(console, console.options.update(width=PIPED_WIDTH), table).minimum
    console.print(table, width=max(console.width, least), crop=False, soft_wrap=least > console.width)


def tell_chosen(invocation: Invocation, experiment: Experiment) -> None:
    """Says what the matrix leaves open and what was chosen for the cells that were."""
    for subject, text in experiment.matrix.chosen.items():
        invocation.note(f"{subject}: {text}")


def print_json(value: Any) -> None:
    """Prints a value as JSON."""
    import json

    click.echo(json.dumps(value, indent=2, sort_keys=True, default=str))
