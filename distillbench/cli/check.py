"""`distillbench check`: everything about a matrix that can be wrong before a GPU is rented."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from distillbench.cli.preflight import (
    cells_by_pairing,
    preflight_of,
    refused_by_graders,
    subject,
    what_was_looked_at,
    what_was_not_looked_at,
)
from distillbench.cli.session import JSON, MATRIX, Loaded, Session, print_json
from distillbench.errors import DistillbenchError
from distillbench.hookspecs import hookimpl
from distillbench.tasks.loader import LmEvalTasks


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of the answer; `level` is ok, not looked at, warning, accepted or refused."""

    level: str
    subject: str
    text: str
    name: str = ""
    evaluation: str = ""


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
    session: Session = context.obj
    loaded = session.load(matrix)
    tasks = LmEvalTasks(loaded.tasks)
    lines = [*dict.fromkeys(_tasks(loaded, tasks)), *_graders(loaded, tasks), *_fits(loaded)]
    if as_json:
        print_json([{slot: getattr(line, slot) for slot in _Line.__slots__} for line in lines])
    else:
        for line in lines:
            click.echo(f"{line.level:>13}  {line.subject}:{line.text}")
        counts = [f"{_count(lines, level)} {level}" for level in _LEVELS]
        click.echo(f"{len(loaded.cells)} cells: {', '.join(counts)}")
    return 2 if any(line.level == "refused" for line in lines) else 0


_UNSEEN = "not looked at"
_LEVELS = ("refused", "accepted", "warning", _UNSEEN)


def _count(lines: Sequence[_Line], level: str) -> int:
    """How many things are of a level; a line that only heads the findings of its subject is none of its own."""
    alike = [line for line in lines if line.level == level]
    headed = {line.subject for line in alike if line.name}
    return sum(bool(line.name) or line.subject not in headed for line in alike)


def _tasks(loaded: Loaded, tasks: LmEvalTasks) -> Iterator[_Line]:
    """Loads every task of the matrix with lm-eval."""
    for ref in dict.fromkeys(evaluation.ref for cell in loaded.cells for evaluation in cell.evaluations):
        about = f"task {ref.name}" if ref.metadata == "{}" else f"task {ref.name} {ref.metadata}"
        try:
            problems = tasks.problems(ref, "test")
        except DistillbenchError as error:
            yield _Line("refused", about, f" {error}")
        else:
            yield _Line("ok", about, f" {len(problems)} problems")


def _graders(loaded: Loaded, tasks: LmEvalTasks) -> Iterator[_Line]:
    """What the graders refuse."""
    evaluations = [evaluation for cell in loaded.cells for evaluation in cell.evaluations]
    for name, why in refused_by_graders(loaded, evaluations, tasks):
        yield _Line("refused", f"evaluation {name}", f" {why}", evaluation=name)


def _fits(loaded: Loaded) -> Iterator[_Line]:
    """Compares training rows and evaluation prompts, for everything in the matrix that differs."""
    from distillbench.preflight.look import described, merged

    preflight = preflight_of(loaded)
    for one, cells in cells_by_pairing(preflight, loaded.plan()).items():
        about = f"{subject(one)} ({len(cells)} cells)" if len(cells) > 1 else f"{subject(one)} ({cells[0]})"
        try:
            looked = preflight.look(one)
        except DistillbenchError as error:
            yield _Line("refused", about, f" {error}")
            continue
        told = {
            "refused": looked.refused(one.rules),
            "accepted": looked.accepted(one.rules),
            "warning": looked.warnings(one.rules),
        }
        if (seen := what_was_looked_at(one, looked)) or told["refused"]:
            yield _Line("refused" if told["refused"] else "ok", about, f" {seen}")
        if unseen := what_was_not_looked_at(one, looked):
            yield _Line(_UNSEEN, about, f" {unseen}")
        for level, findings in told.items():
            for finding in merged(findings):
                yield _Line(level, about, f"\n{described(finding)}", finding.name, finding.evaluation)


@hookimpl
def distillbench_add_commands(group: click.Group) -> None:
    """Adds `check`."""
    group.add_command(check)
