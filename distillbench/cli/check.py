"""`distillbench check`: everything about a matrix that can be wrong before a GPU is rented."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from distillbench.cli.session import JSON, MATRIX, Loaded, Session, print_json
from distillbench.errors import DistillbenchError
from distillbench.hookspecs import hookimpl

if TYPE_CHECKING:
    from distillbench.records import Cell


@click.command(short_help="Find mistakes before anything runs.")
@MATRIX
@JSON
@click.pass_context
def check(context: click.Context, matrix: Path, as_json: bool) -> int:
    """Check MATRIX: options, names and files; that lm-eval loads every task; that every tokenizer renders its prompts.

    A student that is built in a stage of its own is checked once it is built.
    """
    session: Session = context.obj
    loaded = session.load(matrix)
    loaded.make_plan()
    findings = [*_check_tasks(loaded), *_check_prompts(loaded)]
    if as_json:
        print_json([{"subject": subject, "ok": ok, "text": text} for subject, ok, text in findings])
    else:
        for subject, ok, text in findings:
            click.echo(f"{'ok' if ok else 'NOT OK':>6}  {subject}: {text}")
        click.echo(f"{len(loaded.cells)} cells, {sum(not ok for _, ok, _ in findings)} findings")
    return 0 if all(ok for _, ok, _ in findings) else 2


def _check_tasks(loaded: Loaded) -> list[tuple[str, bool, str]]:
    """Loads every task of the matrix with lm-eval."""
    from distillbench.tasks.loader import LmEvalTasks

    tasks = LmEvalTasks(loaded.tasks)
    names = dict.fromkeys(evaluation.task for cell in loaded.cells for evaluation in cell.evaluations)
    findings = []
    for name in names:
        try:
            problems = tasks.problems(name, "test")
        except DistillbenchError as error:
            findings.append((f"task {name}", False, str(error)))
        else:
            findings.append((f"task {name}", True, f"{len(problems)} problems"))
    return findings


def _check_prompts(loaded: Loaded) -> list[tuple[str, bool, str]]:
    """Renders the first prompt of every evaluation under every renderer whose student's tokenizer is there."""
    seen: dict[tuple[str, str], Cell] = {}
    for cell in loaded.cells:
        seen.setdefault((cell.student.identity, cell.renderer.identity), cell)
    return [finding for cell in seen.values() for finding in _check_cell(loaded, cell)]


def _check_cell(loaded: Loaded, cell: Cell) -> list[tuple[str, bool, str]]:
    from distillbench.tasks.loader import LmEvalTasks

    catalog = loaded.session.catalog
    subject = f"{cell.student.label} with {cell.renderer.label}"
    student = catalog.build(cell.student)
    plan = loaded.plan()
    built = next((key for key in plan.cell_stages[cell.name] if plan.stages[key].kind == "student"), None)
    if built is not None and plan.statuses[built].state != "done":
        return [(subject, True, "its tokenizer is made in a stage of its own, which has not run yet")]
    folder = loaded.session.store.folder_of("student", built) / "model" if built else None
    tasks = LmEvalTasks(loaded.tasks)
    try:
        renderer = catalog.build(cell.renderer).bind(student.load_tokenizer(folder))
        for evaluation in cell.evaluations:
            prompt = renderer.prompt(tasks.problems(evaluation.task, "test", 1)[0].messages, evaluation.prefill)
    except DistillbenchError as error:
        return [(subject, False, str(error))]
    return [(subject, True, f"prompts render, the last in {len(prompt.input_ids)} tokens")]


@hookimpl
def distillbench_add_commands(group: click.Group) -> None:
    """Adds `check`."""
    group.add_command(check)
