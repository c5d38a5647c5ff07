"""`distillbench run`: trains every cell, evaluates every checkpoint, reports."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from distillbench.cli.limits import check_limits
from distillbench.cli.session import FAST, JSON, LIMIT, MATRIX, ONLY, UNSAFE, Loaded, Session, print_json, tell_chosen
from distillbench.hookspecs import hookimpl

if TYPE_CHECKING:
    from distillbench.plan.plan import Plan
    from distillbench.run.runner import Summary

#: Read by the sandbox in each worker.
UNSAFE_VARIABLE = "DISTILLBENCH_UNSAFE_CODE_EXECUTION"


@click.command(short_help="Train every cell, evaluate every checkpoint, report.")
@MATRIX
@ONLY
@LIMIT
@FAST
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
    session: Session = context.obj
    loaded = session.load(matrix, only, limit, fast)
    tell_chosen(loaded)
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
    session: Session,
    loaded: Loaded,
    command: str,
    as_json: bool,
    look_beside: bool = False,
    spares_others: bool = False,
) -> int:
    """Checks a matrix, runs it and reports.

    Args:
        session: Whose store and plugins.
        loaded: The matrix and the chosen cells.
        command: What the user asked for.
        as_json: Whether the results are printed for programs.
        look_beside: Whether the preflight looks while the run begins already: where nothing is trained, it costs as
            long as an engine takes to load, and what it refuses ends the run all the same.
        spares_others: Whether a benchmark whose documents cannot be had is told and fails alone.

    Returns:
        The exit code.
    """
    from distillbench.cli.preflight import refuse_or_warn
    from distillbench.cli.report import note_stages, write_report
    from distillbench.run.placement import refuse_missing_gpus

    plan = loaded.mended_plan()
    refuse_missing_gpus(plan, session.catalog.build(loaded.matrix.launcher))
    if not look_beside:
        refuse_or_warn(loaded, plan, spares_others)
    note_stages(loaded)
    summary = _run(session, loaded, plan, look_beside, spares_others)
    tables, folder = write_report(session, loaded, command, summary.reasons)
    if as_json:
        from distillbench.report.writers.document import summary_json

        print_json(summary_json(tables))
    else:
        from distillbench.report.writers.terminal import print_table

        print_table(tables, session.console)
        _print_end(session, summary, folder)
    return 1 if summary.count("failed") + summary.count("blocked") else 3 if summary.count("holes") else 0


def _run(session: Session, loaded: Loaded, plan: Plan, look_beside: bool, spares_others: bool) -> Summary:
    from rich.console import Console

    from distillbench.cli.preflight import looking_beside
    from distillbench.cli.progress import ProgressListener
    from distillbench.cli.report import note_stages
    from distillbench.run.runner import Runner

    def make_larger_plan() -> Plan:
        note_stages(loaded)
        return loaded.make_plan()

    with ProgressListener(Console(stderr=True), session.verbosity) as listener:
        runner = Runner(
            make_larger_plan,
            session.store,
            session.catalog.build(loaded.matrix.launcher),
            listener,
            session.manager,
            keep=loaded.matrix.keep,
            blocked=session.blocked,
            tasks=loaded.tasks,
        )
        if not look_beside:
            return runner.run(plan)
        with looking_beside(loaded, plan, runner.stop, spares_others):
            return runner.run(plan)


def _print_end(session: Session, summary: Summary, folder: Path) -> None:
    words = {"done": "done now", "reused": "reused", "holes": "with holes", "failed": "FAILED", "blocked": "BLOCKED"}
    counts = [f"{count} {word}" for ending, word in words.items() if (count := summary.count(ending))]
    freed = f"; {summary.freed_bytes / 2**30:.2f} GiB of full checkpoints deleted" if summary.freed_bytes else ""
    session.console.print(f"stages: {', '.join(counts)}{freed}", markup=False)
    session.console.print(f"report: {folder / 'report.md'}", markup=False, soft_wrap=True)


@hookimpl
def distillbench_add_commands(group: click.Group) -> None:
    """Adds `run`."""
    group.add_command(run)
