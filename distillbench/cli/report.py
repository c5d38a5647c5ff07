"""`distillbench report`: what the store holds of a matrix, as tables and files. Runs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from distillbench.cli.invocation import FAST, JSON, LIMIT, MATRIX, ONLY, Invocation, print_json
from distillbench.errors import DistillbenchError
from distillbench.hookspecs import hookimpl
from distillbench.sealed import write_json

if TYPE_CHECKING:
    pass


#: In a folder that `--output` has written a report into.
_MARK = ".distillbench-report.json"


@click.command(short_help="Tables and files of what is finished.")
@MATRIX
@ONLY
@LIMIT
@FAST
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write it there, and nothing into the store, which may be read-only.",
)
@JSON
@click.pass_context
def report(
    context: click.Context,
    matrix: Path,
    only: tuple[str, ...],
    limit: int | None,
    fast: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Print and write the report of MATRIX from what is finished, also while a run is going on.

    What is damaged in the store is named and left out; the next run makes it again.
    """
    session: Invocation = context.obj
    loaded = session.load(matrix, only, limit, fast)
    if output is not None:
        _refuse_other_files(output)
    found = loaded.report(output, command=f"distillbench report {matrix.name}")
    if output is not None:
        write_json(output / _MARK, {"matrix": str(matrix.resolve())})
    if as_json:
        from distillbench.report.writers.document import summary_json

        print_json(summary_json(found.tables))
        return
    from distillbench.report.writers.terminal import print_table

    print_table(found.tables, session.console)
    session.console.print(f"report: {found.folder / 'report.md'}", markup=False, soft_wrap=True)


def _refuse_other_files(folder: Path) -> None:
    """Refuses a folder whose files a report might overwrite.

    Raises:
        DistillbenchError: It holds something, and no earlier report.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).exists():
        raise DistillbenchError(
            f"--output {folder}: the folder holds other files\n    wanted: a folder that is empty or not there, or one "
            f"that an earlier --output wrote a report into"
        )


@hookimpl
def distillbench_add_commands(group: click.Group) -> None:
    """Adds `report`."""
    group.add_command(report)
