"""`distillbench run`: trains every cell, evaluates every checkpoint, reports."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from distillbench.cli.session import FAST, JSON, LIMIT, MATRIX, ONLY, Loaded, Session, print_json
from distillbench.hookspecs import hookimpl

if TYPE_CHECKING:
    from distillbench.plan.stages import Plan
    from distillbench.run.runner import Summary

#: Read by the sandbox in each worker.
UNSAFE_VARIABLE = "DISTILLBENCH_UNSAFE_CODE_EXECUTION"


@click.command(short_help="Train every cell, evaluate every checkpoint, report.")
@MATRIX
@ONLY
@LIMIT
@FAST
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option(
    "--unsafe-code-execution",
    is_flag=True,
    help="Run models' code even where nothing isolates it from your files: only on a machine to throw away.",
)
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
    from distillbench.cli.preflight import refuse_or_warn
    from distillbench.cli.report import write_report

    if unsafe_code_execution:
        os.environ[UNSAFE_VARIABLE] = "1"  # workers inherit it
    session: Session = context.obj
    loaded = session.load(matrix, only, limit, fast)
    if dry_run:
        from distillbench.cli.plan import print_plan

        print_plan(loaded, session, as_json=as_json, show_all=False)
        return 0
    plan = loaded.plan()
    refuse_or_warn(loaded, plan)
    summary = _run(session, loaded, plan)
    results, folder = write_report(session, loaded, f"distillbench run {matrix.name}", summary.reasons)
    if as_json:
        from distillbench.report.export import summary_json

        print_json(summary_json(results))
    else:
        from distillbench.report.tables import print_table

        print_table(results, session.console)
        _print_end(session, summary, folder)
    return 1 if summary.count("failed") + summary.count("blocked") else 3 if summary.count("holes") else 0


def _run(session: Session, loaded: Loaded, plan: Plan) -> Summary:
    from rich.console import Console

    from distillbench.cli.progress import ProgressListener
    from distillbench.run.runner import Runner

    session.store.prepare()
    with ProgressListener(Console(stderr=True), session.verbosity) as listener:
        runner = Runner(
            loaded.make_plan,
            session.store,
            session.catalog.build(loaded.matrix.launcher),
            listener,
            session.manager,
            keep=loaded.matrix.keep,
            blocked=session.blocked,
            tasks=loaded.tasks,
        )
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
