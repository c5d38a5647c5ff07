"""`distillbench plan`: what would run, what is done already and why not, and how much work that is."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distillbench.cli.invocation import FAST, JSON, LIMIT, MATRIX, ONLY, Invocation, print_json, print_rows, tell_chosen
from distillbench.hookspecs import hookimpl
from distillbench.protocols import AskingTeacher
from distillbench.records import Choice
from distillbench.session import Experiment

if TYPE_CHECKING:
    from distillbench.plan.estimate import Estimate
    from distillbench.plan.plan import Plan

#: Rows of a long table that are shown without `--all`.
_MOST_ROWS = 40


@click.command(short_help="What would run, what is done, how much is left.")
@MATRIX
@ONLY
@LIMIT
@FAST
@click.option("--all", "show_all", is_flag=True, help="Show every cell and every stage.")
@JSON
@click.pass_context
def plan(
    context: click.Context,
    matrix: Path,
    only: tuple[str, ...],
    limit: int | None,
    fast: bool,
    show_all: bool,
    as_json: bool,
) -> None:
    """Show the cells and stages of MATRIX, what is done, and an estimate of the rest. Runs nothing."""
    session: Invocation = context.obj
    loaded = session.load(matrix, only, limit, fast)
    tell_chosen(session, loaded)
    print_plan(loaded, session, as_json=as_json, show_all=show_all)


def print_plan(loaded: Experiment, session: Invocation, *, as_json: bool, show_all: bool) -> None:
    """Prints a plan as tables or as JSON."""
    from distillbench.plan.estimate import estimate
    from distillbench.store.history import history

    made = loaded.plan()
    left = estimate(made, partial(history, session.store))
    if as_json:
        print_json(_as_json(made, left))
        return
    _print_cells(made, session, show_all)
    _print_stages(made, session)
    _print_reasons(made, session, show_all)
    _print_estimate(made, left, session)


def _print_cells(made: Plan, session: Invocation, show_all: bool) -> None:
    from rich.table import Table

    table = Table(title=f"{made.matrix}: {len(made.cells)} cells", title_justify="left", box=None, pad_edge=False)
    for heading in ("cell", "teacher", "student", "renderer", "filters", "trainer", "seed", "stages to do"):
        table.add_column(heading)
    shown = made.cells if show_all else made.cells[:_MOST_ROWS]
    for cell in shown:
        keys = made.cell_stages[cell.name]
        todo = sum(made.statuses[key].state != "done" for key in keys)
        more = "+" if cell.name in made.open_cells else ""
        table.add_row(
            cell.name,
            _teacher(cell.teacher, session),
            cell.student.label,
            cell.renderer.label,
            "+".join(map(_with_needed, cell.filters)) or "-",
            _with_needed(cell.trainer) if cell.trainer else "untouched",
            str(cell.seed) if cell.teacher else "-",
            f"{todo}{more} of {len(keys)}{more}",
        )
    print_rows(session.console, table)
    if len(shown) < len(made.cells):
        session.console.print(f"... and {len(made.cells) - len(shown)} more cells (--all shows them)")
    session.console.print()


def _teacher(choice: Choice | None, session: Invocation) -> str:
    """A teacher, and whom it asks."""
    if choice is None:
        return "-"
    teacher = session.catalog.build(choice)
    return f"{choice.label}, asks {teacher.whom()}" if isinstance(teacher, AskingTeacher) else _with_needed(choice)


def _with_needed(choice: Choice) -> str:
    """A component, and those that it needs."""
    needed = ", ".join(f"{option} {_with_needed(one)}" for option, one in choice.components.items())
    return f"{choice.label} ({needed})" if needed else choice.label


def _print_stages(made: Plan, session: Invocation) -> None:
    from rich.table import Table

    states = ("done", "todo", "waits", "stale", "holes")
    counts: Counter[tuple[str, str]] = Counter(
        (stage.kind, made.statuses[key].state) for key, stage in made.stages.items()
    )
    table = Table(title=f"{len(made.stages)} stages", title_justify="left", box=None, pad_edge=False)
    table.add_column("kind")
    for state in states:
        table.add_column(state, justify="right")
    for kind in dict.fromkeys(stage.kind for stage in made.stages.values()):
        table.add_row(kind, *(str(counts[kind, state] or "-") for state in states))
    print_rows(session.console, table)
    session.console.print()


def _print_reasons(made: Plan, session: Invocation, show_all: bool) -> None:
    """Says why a stage that ran before has to run again."""
    lines = [
        f"{stage.name}: {status.state}, {status.reason}"
        for key, stage in made.stages.items()
        if (status := made.statuses[key]).state in ("stale", "holes", "waits")
        or (status.state == "todo" and (show_all or status.reason != "not run yet"))
    ]
    for line in lines if show_all else lines[:_MOST_ROWS]:
        session.console.print(line, markup=False, soft_wrap=True)
    if lines:
        session.console.print()


def _print_estimate(made: Plan, left: Estimate, session: Invocation) -> None:
    if not left.stages:
        session.console.print("nothing to do" if not made.open_cells else "more stages once traces are rendered")
        return
    least = "at least " if made.open_cells else ""
    counts = ", ".join(f"{count} {kind}" for kind, count in left.stages.items())
    session.console.print(f"to do: {least}{counts}")
    if left.samples:
        session.console.print(f"samples: {least}{left.samples:,}, of at most {left.most_tokens:,} tokens together")
    elif left.samples is None:
        session.console.print("samples: unknown until the tasks are loaded (a task may say `docs` in its metadata)")
    session.console.print(f"time: {_time(left, least)}")
    if made.open_cells:
        names = ", ".join(sorted(made.open_cells)[:3]) + (", ..." if len(made.open_cells) > 3 else "")
        why = f"{len(made.open_cells)} cells ({names}) get their checkpoints once their traces are rendered"
        session.console.print(f"{why}; their samples are not counted yet", markup=False, soft_wrap=True)


def _time(left: Estimate, least: str) -> str:
    unknown = ", ".join(left.unknown_kinds)
    if left.seconds is None:
        return f"unknown until stages like these have run in this store ({unknown})"
    missing = f", without {unknown}" if unknown else ""
    return f"{least}about {_duration(left.seconds)} of one process (median speed of stages like these here{missing})"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _as_json(made: Plan, left: Estimate) -> dict[str, Any]:
    return {
        "matrix": made.matrix,
        "cells": [{"name": cell.name, "axes": dict(cell.axes), "baseline": cell.is_baseline} for cell in made.cells],
        "stages": [
            {
                "key": key,
                "kind": stage.kind,
                "label": stage.label,
                "needs": [need.key for need in stage.needs],
                "state": made.statuses[key].state,
                "reason": made.statuses[key].reason,
                "resources": asdict(stage.resources),
            }
            for key, stage in made.stages.items()
        ],
        "cell_stages": {name: list(keys) for name, keys in made.cell_stages.items()},
        "open_cells": sorted(made.open_cells),
        "estimate": asdict(left),
    }


@hookimpl
def distillbench_add_commands(group: click.Group) -> None:
    """Adds `plan`."""
    group.add_command(plan)
