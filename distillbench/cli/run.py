"""`distillbench run`: trains every cell, evaluates every checkpoint, reports."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from distillbench.cli.invocation import FAST, JSON, LIMIT, MATRIX, ONLY, UNSAFE, Invocation, print_json, tell_chosen
from distillbench.cli.limits import check_limits
from distillbench.hookspecs import hookimpl
from distillbench.session import Experiment

if TYPE_CHECKING:
    from distillbench.session import Experiment, Report

#: Read by the sandbox in each worker.
UNSAFE_VARIABLE = "DISTILLBENCH_UNSAFE_CODE_EXECUTION"


@click.command(short_help="Train every cell, evaluate every checkpoint, report.")
@MATRIX
@ONLY
@LIMIT
@FAST
@click.option(
    "--frozen",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="LOCK",
    help="Refuse models, data, tasks, files and packages other than those in a report's lock.json.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@UNSAFE
@JSON
@click.pass_context
def run(
    context: click.Context,
    matrix: Path,
    only: tuple[str, ...],
    limit: int | None,
    fast: bool,
    frozen: Path | None,
    dry_run: bool,
    unsafe_code_execution: bool,
    as_json: bool,
) -> int:
    """Train every cell of MATRIX, evaluate every checkpoint, and report.

    What is done already is reused; what was interrupted goes on where it was. A stage that fails blocks what depends on
    it, and the rest goes on.
    """
    allow_unsafe_code(unsafe_code_execution)
    check_limits()
    session: Invocation = context.obj
    loaded = session.load(matrix, only, limit, fast)
    tell_chosen(session, loaded)
    if frozen is not None:
        loaded.refuse_others(frozen)
    if dry_run:
        from distillbench.cli.plan import print_plan

        print_plan(loaded, session, as_json=as_json, show_all=False)
        return 0
    return run_loaded(session, loaded, f"distillbench run {matrix.name}", as_json)


def allow_unsafe_code(is_allowed: bool) -> None:
    """Lets this process's workers run models' code without isolation."""
    if is_allowed:
        os.environ[UNSAFE_VARIABLE] = "1"  # workers inherit it


def run_loaded(
    session: Invocation,
    loaded: Experiment,
    command: str,
    as_json: bool,
    look_beside: bool = False,
    spares_others: bool = False,
) -> int:
    """Runs a matrix, shows how it goes, and prints its results.

    Args:
        session: Says it.
        loaded: The matrix and the chosen cells.
        command: What the user asked for.
        as_json: Whether the results are printed for programs.
        look_beside: As for `Experiment.run`.
        spares_others: As for `Experiment.run`.

    Returns:
        The exit code.
    """
    from rich.console import Console

    from distillbench.cli.progress import Display

    with Display(Console(stderr=True), session.verbosity) as display:
        found = loaded.run(
            display,
            command=command,
            look_beside=look_beside,
            spares_others=spares_others,
            tell=session.tell,
            note=session.note,
        )
    if as_json:
        from distillbench.report.writers.document import summary_json

        print_json(summary_json(found.tables))
    else:
        from distillbench.report.writers.terminal import print_table

        print_table(found.tables, session.console)
        _print_end(session, found)
    return found.exit_code


def _print_end(session: Invocation, found: Report) -> None:
    summary = found.summary
    if summary is None:
        return
    words = {"done": "done now", "reused": "reused", "holes": "with holes", "failed": "FAILED", "blocked": "BLOCKED"}
    counts = [f"{count} {word}" for ending, word in words.items() if (count := summary.count(ending))]
    freed = f"; {summary.freed_bytes / 2**30:.2f} GiB of full checkpoints deleted" if summary.freed_bytes else ""
    session.console.print(f"stages: {', '.join(counts)}{freed}", markup=False)
    session.console.print(f"report: {found.folder / 'report.md'}", markup=False, soft_wrap=True)


@hookimpl
def distillbench_add_commands(group: click.Group) -> None:
    """Adds `run`."""
    group.add_command(run)
