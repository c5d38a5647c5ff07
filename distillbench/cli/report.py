"""`distillbench report`: what the store holds of a matrix, as tables and files. Runs nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from distillbench.cli.preflight import preflight_of
from distillbench.cli.session import FAST, JSON, LIMIT, MATRIX, ONLY, Loaded, Session, print_json
from distillbench.errors import StoreError
from distillbench.hookspecs import hookimpl
from distillbench.run.garbage import STAGES

if TYPE_CHECKING:
    from distillbench.report.results import Results


@click.command(short_help="Tables and files of what is finished.")
@MATRIX
@ONLY
@LIMIT
@FAST
@JSON
@click.pass_context
def report(
    context: click.Context, matrix: Path, only: tuple[str, ...], limit: int | None, fast: bool, as_json: bool
) -> None:
    """Print and write the report of MATRIX from what is finished, also while a run is going on."""
    session: Session = context.obj
    loaded = session.load(matrix, only, limit, fast)
    results, folder = write_report(session, loaded, command=f"distillbench report {matrix.name}")
    if as_json:
        from distillbench.report.export import summary_json

        print_json(summary_json(results))
        return
    from distillbench.report.terminal import print_table

    print_table(results, session.console)
    session.console.print(f"report: {folder / 'report.md'}", markup=False, soft_wrap=True)


def write_report(
    session: Session, loaded: Loaded, command: str, reasons: Mapping[str, str] | None = None
) -> tuple[Results, Path]:
    """Collects the results of a matrix and writes its report.

    Args:
        session: Whose store and plugins.
        loaded: The matrix and the chosen cells.
        command: What the user asked for.
        reasons: By key, why stages of the last run failed or were blocked.

    Returns:
        The results, and the folder of the report.
    """
    from distillbench.report.collect import collect
    from distillbench.report.export import write

    note_stages(loaded)
    plan, preflight = loaded.plan(), preflight_of(loaded)
    looked = {name: preflight.known(check) for name, check in plan.checks.items()}
    results = collect(plan, session.store, command, reasons, looked)
    groups = session.manager.hook.distillbench_report_sections(results=results)
    sections = [section for group in groups for section in group]
    folder = session.store.reports(loaded.matrix.name)
    write(results, folder, sections)
    return results, folder


def note_stages(loaded: Loaded) -> None:
    """Writes the keys of every stage that a report of this matrix needs: `gc` frees none of these.

    They are those of all its cells, whichever were chosen, and also those of the whole matrix where the command line
    cuts the number of problems, so that a quick look at a few problems gives nothing up.
    """
    from distillbench.run.store import write_json

    plans = [replace(loaded, cells=tuple(loaded.matrix.cells)).make_plan()]
    if loaded.is_cut:
        plans.append(loaded.session.load(loaded.matrix.path).make_plan())
    stages = {key: stage.kind for plan in plans for key, stage in plan.stages.items()}
    session, matrix = loaded.session, loaded.matrix
    of_matrix = claim_report(session, matrix.name, matrix.path)
    named = {"stages": stages, "matrix": of_matrix, "keep": sorted(matrix.keep)}
    write_json(session.store.reports(matrix.name) / STAGES, named)


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
        other = json.loads(path.read_bytes()).get("matrix", own)
    except (OSError, ValueError, AttributeError):  # there is none, or `gc` will say what is wrong with it
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
