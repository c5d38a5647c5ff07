"""`distillbench check`: everything about a matrix that can be wrong before a GPU is rented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from distillbench.cli.invocation import JSON, MATRIX, Invocation, print_json
from distillbench.hookspecs import hookimpl

if TYPE_CHECKING:
    from distillbench.session.checking import Checked


@click.command(short_help="Find mistakes before anything runs.")
@MATRIX
@JSON
@click.pass_context
def check(context: click.Context, matrix: Path, as_json: bool) -> int:
    """Check MATRIX: options, names, files and tasks, and that training and evaluation fit together.

    For every student, renderer, teacher and benchmark, real training rows and real prompts are rendered and compared
    token by token. A finding that is meant can be accepted by its name in the matrix: `accept: [prefilled_tag]`. `run`
    makes the same checks before anything starts, and once more, with every row, before each training. What could not be
    looked at yet is named so, with what will look at it.
    """
    session: Invocation = context.obj
    loaded = session.load(matrix)
    lines = loaded.check()
    if as_json:
        print_json([asdict(line) for line in lines])
    else:
        for line in lines:
            click.echo(f"{line.level:>13}  {line.subject}:{line.text}")
        from distillbench.session.checking import LEVELS

        counts = [f"{_count(lines, level)} {level}" for level in LEVELS]
        click.echo(f"{len(loaded.cells)} cells: {', '.join(counts)}")
    return 2 if any(line.level == "refused" for line in lines) else 0


def _count(lines: Sequence[Checked], level: str) -> int:
    """How many things are of a level; a line that only heads the findings of its subject is none of its own."""
    alike = [line for line in lines if line.level == level]
    headed = {line.subject for line in alike if line.name}
    return sum(bool(line.name) or line.subject not in headed for line in alike)


@hookimpl
def distillbench_add_commands(group: click.Group) -> None:
    """Adds `check`."""
    group.add_command(check)
