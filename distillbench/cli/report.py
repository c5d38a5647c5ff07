"""`distillbench report`: what the store holds of a matrix, as tables and files. Runs nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from distillbench.cli.preflight import preflight_of
from distillbench.cli.session import FAST, JSON, LIMIT, MATRIX, ONLY, Loaded, Session, print_json
from distillbench.errors import DamagedError, DistillbenchError, StoreError
from distillbench.hookspecs import hookimpl
from distillbench.sealed import read_sealed, write_json
from distillbench.store.garbage import STAGES

if TYPE_CHECKING:
    from distillbench.report.tables import Tables


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
    session: Session = context.obj
    loaded = session.load(matrix, only, limit, fast)
    if output is not None:
        _refuse_other_files(output)
    tables, folder = write_report(session, loaded, f"distillbench report {matrix.name}", output=output)
    if as_json:
        from distillbench.report.writers.document import summary_json

        print_json(summary_json(tables))
        return
    from distillbench.report.writers.terminal import print_table

    print_table(tables, session.console)
    session.console.print(f"report: {folder / 'report.md'}", markup=False, soft_wrap=True)


def write_report(
    session: Session,
    loaded: Loaded,
    command: str,
    reasons: Mapping[str, str] | None = None,
    output: Path | None = None,
) -> tuple[Tables, Path]:
    """Collects the results of a matrix and writes its report.

    Args:
        session: Whose store and plugins.
        loaded: The matrix and the chosen cells.
        command: What the user asked for.
        reasons: By key, why stages of the last run failed or were blocked.
        output: The folder of the report; the store's own where None.

    Returns:
        What the report shows, and its folder.
    """
    from distillbench.report.collect import collect
    from distillbench.report.sections import with_sections
    from distillbench.report.tables import tables_of
    from distillbench.report.writers.folder import write

    if output is None:
        note_stages(loaded)
    plan, preflight = loaded.plan(), preflight_of(loaded)
    looked = {name: preflight.known(pairing) for name, pairing in plan.pairings.items()}
    found = collect(plan, session.store, command, reasons, looked)
    results, sections = with_sections(found, session.manager)
    folder = session.store.reports(loaded.matrix.name) if output is None else output
    tables = tables_of(results)
    write(tables, folder, sections)
    if output is not None:
        write_json(output / _MARK, {"matrix": str(loaded.matrix.path.resolve())})
    return tables, folder


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


def note_stages(loaded: Loaded) -> None:
    """Writes the keys of every stage that a report of this matrix needs: `gc` frees none of these.

    They are those of all its cells, whichever were chosen, and also those of the whole matrix where the command line
    cuts the number of problems, so that a quick look at a few problems gives nothing up.
    """
    from distillbench.sealed import write_sealed

    plans = [replace(loaded, cells=tuple(loaded.matrix.cells)).make_plan()]
    if loaded.is_cut:
        plans.append(loaded.session.load(loaded.matrix.path).make_plan())
    stages = {key: stage.kind for plan in plans for key, stage in plan.stages.items()}
    session, matrix = loaded.session, loaded.matrix
    of_matrix = claim_report(session, matrix.name, matrix.path)
    named = {"stages": stages, "matrix": of_matrix, "keep": sorted(matrix.keep)}
    write_sealed(session.store.reports(matrix.name) / STAGES, named, STAGES)


def claim_report(session: Session, name: str, matrix: Path) -> str:
    """Makes sure that the report of this name is no other matrix's, which would be overwritten.

    Args:
        session: Whose store.
        name: The report's.
        matrix: The file.

    Returns:
        The file as the report names it: seen from the store, so that both may move together.

    Raises:
        StoreError: Another file, which is still there, has a report of this name.
    """
    root = session.store.root
    path = root / "reports" / name / STAGES
    own = os.path.relpath(matrix.resolve(), root)
    try:
        other = read_sealed(path, STAGES).get("matrix", own)
    except (FileNotFoundError, DamagedError):  # there is none, or what it said is not known
        return own
    if isinstance(other, str) and other != own and (root / other).is_file():
        raise StoreError(
            f"{path.parent} is the report of another matrix, {os.path.normpath(root / other)}\n"
            f"    wanted: one report for each matrix, so that none is overwritten\n"
            f"    got:    the same `name`, {name!r}, in {matrix}\n"
            f"    hint:   give one of them another `name`, or another --store"
        )
    return own


@hookimpl
def distillbench_add_commands(group: click.Group) -> None:
    """Adds `report`."""
    group.add_command(report)
