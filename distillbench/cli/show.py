"""`distillbench show`: every resolved option of a cell, and where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import click

from distillbench.cli.invocation import JSON, MATRIX, Invocation, print_json, print_rows
from distillbench.errors import DEFAULT, DistillbenchError, Place
from distillbench.hookspecs import hookimpl
from distillbench.records import Cell, Choice, Evaluation
from distillbench.session.choosing import cells_there_are


@click.command(short_help="Every resolved option of a cell.")
@MATRIX
@click.argument("cell", required=False)
@JSON
@click.pass_context
def show(context: click.Context, matrix: Path, cell: str | None, as_json: bool) -> None:
    """Print every resolved option of a CELL of MATRIX and where it came from; without CELL, the names of the cells."""
    session: Invocation = context.obj
    cells = session.load(matrix).cells
    if cell is None:
        for one in cells:
            click.echo(one.name)
        return
    names = {one.name: one for one in cells}
    if cell not in names:
        raise DistillbenchError(f"no cell is named {cell!r}; {cells_there_are(cell, names)}")
    if as_json:
        print_json(_as_json(names[cell]))
    else:
        _print_cell(names[cell], session)


def _print_cell(cell: Cell, session: Invocation) -> None:
    from rich.table import Table

    table = Table(title=cell.name, title_justify="left", box=None, pad_edge=False)
    for heading in ("option", "value", "from"):
        table.add_column(heading)
    table.add_row("seed", str(cell.seed), "")
    for option, value, origin in _rows(cell):
        table.add_row(option, value, origin)
    print_rows(session.console, table)


def _rows(cell: Cell) -> Iterator[tuple[str, str, str]]:
    for role, choice in _choices(cell):
        yield role, f"{choice.label} ({choice.component})", ""
        for entry in fields(choice.options):
            value = getattr(choice.options, entry.name)
            yield f"  {role}.{entry.name}", str(value), str(choice.origins.get(entry.name, DEFAULT))
    for evaluation in cell.evaluations:
        yield f"evaluations.{evaluation.name}", f"{evaluation.task} ({evaluation.task_path})", ""
        for name, value in _settings(evaluation).items():
            yield f"  evaluations.{evaluation.name}.{name}", str(value), str(evaluation.origins.get(name, DEFAULT))


def _choices(cell: Cell) -> Iterator[tuple[str, Choice]]:
    """The components of a cell; those that one needs follow it, under its own role and the option that names them."""
    roles: list[tuple[str, Choice | None]] = [
        ("teacher", cell.teacher),
        ("student", cell.student),
        ("renderer", cell.renderer),
        *((f"filters.{choice.label}", choice) for choice in cell.filters),
        ("trainer", cell.trainer),
        ("engine", cell.engine),
    ]
    for role, choice in roles:
        if choice is not None:
            yield role, choice
            yield from _needed(role, choice)
    for evaluation in cell.evaluations:
        yield from _needed(f"evaluations.{evaluation.name}.grader", evaluation.grader)


def _needed(role: str, owner: Choice) -> Iterator[tuple[str, Choice]]:
    for option, choice in owner.components.items():
        yield f"{role}.{option}", choice
        yield from _needed(f"{role}.{option}", choice)


def _settings(evaluation: Evaluation) -> dict[str, Any]:
    return evaluation.settings | {"grader": evaluation.grader.component}


def _told(origins: Mapping[str, Place]) -> dict[str, str]:
    return {name: str(origin) for name, origin in origins.items()}


def _as_json(cell: Cell) -> dict[str, Any]:
    return {
        "name": cell.name,
        "axes": dict(cell.axes),
        "seed": cell.seed,
        "baseline": cell.is_baseline,
        "choices": {
            role: {
                "label": choice.label,
                "component": choice.component,
                "options": asdict(choice.options),
                "origins": _told(choice.origins),
            }
            for role, choice in _choices(cell)
        },
        "evaluations": {
            one.name: {"task": one.task, "settings": _settings(one), "origins": _told(one.origins)}
            for one in cell.evaluations
        },
    }


@hookimpl
def distillbench_add_commands(group: click.Group) -> None:
    """Adds `show`."""
    group.add_command(show)
