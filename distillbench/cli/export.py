"""`distillbench export`: one checkpoint as a folder that transformers and vLLM load, with a model card."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distillbench.cli.invocation import FAST, LIMIT, MATRIX, Invocation
from distillbench.errors import DistillbenchError, StageError, WriteError
from distillbench.hookspecs import hookimpl
from distillbench.records import Checkpoint
from distillbench.session import Experiment
from distillbench.session.choosing import cells_there_are, choose_cells

if TYPE_CHECKING:
    from distillbench.plan.plan import Plan
    from distillbench.protocols import Student
    from distillbench.records import Cell, ModelSource
    from distillbench.report.writers.card import Exported
    from distillbench.stages.train import Train

#: The files of an adapter that are given away; optimizer states and the like are not.
_SUFFIXES = frozenset({".safetensors", ".json", ".jinja"})
_CARD = "README.md"


@dataclass(frozen=True, slots=True)
class Picked:
    """The checkpoint that is exported, with its cell's plan."""

    cell: Cell
    plan: Plan
    train: Train
    checkpoint: Checkpoint


@click.command(short_help="One checkpoint as a folder that others load, with a model card.")
@MATRIX
@click.argument("checkpoint", metavar="CELL@STEP")
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where it goes: a folder that is empty or not there.",
)
@click.option("--merge", is_flag=True, help="Merge the adapter into the base: a full model with its tokenizer.")
@LIMIT
@FAST
@click.pass_context
def export(
    context: click.Context, matrix: Path, checkpoint: str, target: Path, merge: bool, limit: int | None, fast: bool
) -> None:
    """Write the checkpoint CELL@STEP of MATRIX, named as in reports, into a folder.

    An adapter is copied, or with --merge merged into a full model; a full checkpoint gets the student's tokenizer. The
    model card holds its results: give the same --limit or --fast as the run.
    """
    session: Invocation = context.obj
    _refuse_full_folder(target)
    loaded = session.load(matrix, (), limit, fast)
    picked = _pick(loaded, checkpoint)
    with _whole(target) as folder:
        about = _write(session, picked, merge, folder)
        (folder / _CARD).write_text(_card(session, picked, about), encoding="utf-8")
    click.echo(f"{about.form}: {target}")


def _pick(loaded: Experiment, wanted: str) -> Picked:
    """The checkpoint of a name such as `concise@40`.

    Raises:
        DistillbenchError: There is none, with what there is and what to run.
        DamagedError: Its files are not what was written.
    """
    name, _, step_text = wanted.partition("@")
    cells = {cell.name: cell for cell in loaded.matrix.cells}
    if name not in cells:
        trained = [cell.name for cell in cells.values() if not cell.is_baseline]
        raise DistillbenchError(f"no cell is named {name!r}; {cells_there_are(name, trained)}")
    cell = cells[name]
    if cell.is_baseline:
        raise DistillbenchError(f"{name} is the untouched student: nothing was trained that could be exported")
    from distillbench.stages.train import Train

    plan = replace(loaded, cells=choose_cells(loaded.matrix.cells, (name,))).plan()
    train = next(stage for stage in plan.of_cell(name) if isinstance(stage, Train))
    run = f"distillbench run {loaded.matrix.path} --only {name}"
    found = loaded.session.store.facts(train)
    if found is None:
        raise DistillbenchError(f"{name} has no checkpoints yet\n    hint: {run}")
    entries: dict[str, Any] = {str(entry["step"]): entry for entry in found["checkpoints"]}
    if step_text not in entries:
        got = f"none at {step_text}" if step_text else "and no step was named"
        raise DistillbenchError(
            f"{name} has checkpoints at steps {', '.join(entries)}, {got}\n    hint: {name}@{next(reversed(entries))}"
        )
    entry = entries[step_text]
    folder = loaded.session.store.folder(train)
    checkpoint = Checkpoint(folder / entry["path"], entry["kind"], entry["step"], entry["samples_seen"])
    _refuse_missing(checkpoint, folder, run)
    loaded.session.store.whole(train)
    return Picked(cell, plan, train, checkpoint)


def _refuse_missing(checkpoint: Checkpoint, folder: Path, run: str) -> None:
    if not checkpoint.path.is_dir():
        raise DistillbenchError(
            f"the checkpoint at step {checkpoint.step} was deleted after its evaluation\n"
            f"    hint: train it again: write `keep: [full]` in the matrix, remove {folder}, then {run}"
        )
    if gone := [path for path in checkpoint.path.iterdir() if not path.exists()]:
        raise DistillbenchError(
            f"{gone[0]} is a link to {gone[0].readlink()}, which is not there any more\n"
            f"    hint: put it back; the store has links to checkpoints that were there already, and no copies"
        )


def _refuse_full_folder(target: Path) -> None:
    if target.is_dir() and any(target.iterdir()):
        raise DistillbenchError(f"--to {target}: the folder is not empty, and nothing in it is overwritten")


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A folder beside the target that takes its place once everything is in it."""
    target = target.absolute()
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.replace(target)
    except OSError as error:
        raise WriteError(f"--to {target} cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(session: Invocation, picked: Picked, merge: bool, folder: Path) -> Exported:
    """Writes the weights; gives what the card is to say of them."""
    from distillbench.bench import MODEL
    from distillbench.report.writers.card import Exported

    student: Student = session.catalog.build(picked.cell.student)
    made = picked.train.built
    built = session.store.whole(made) / MODEL if made else None
    form = "merged" if merge and picked.checkpoint.kind == "adapter" else picked.checkpoint.kind
    if form == "adapter":
        for path in picked.checkpoint.path.iterdir():
            if path.suffix in _SUFFIXES and path.name != "trainer_state.json":
                shutil.copyfile(path, folder / path.name)
    else:
        student.merge(built, picked.checkpoint, folder)
    source = _source(student, built)
    manifest = session.store.manifest(picked.train) or {}
    return Exported(
        cell=picked.cell,
        step=picked.checkpoint.step,
        form=form,
        base=source.name if source else picked.cell.student.label,
        is_public=source is not None and not Path(source.name).is_absolute(),
        dtype=source.dtype if source else "auto",
        rank=_rank(picked.checkpoint.path) if form == "adapter" else None,
        versions=manifest.get("about", {}).get("packages", {}),
    )


def _source(student: Student, built: Path | None) -> ModelSource | None:
    try:
        return student.source(built)
    except StageError:  # a student without files of its own: the card names its label
        return None


def _rank(adapter: Path) -> int | None:
    """The largest rank of an adapter."""
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_bytes()) if path.is_file() else {}
    ranks = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
    return max((rank for rank in ranks if isinstance(rank, int)), default=None)


def _card(session: Invocation, picked: Picked, about: Exported) -> str:
    from distillbench.report.collect import collect
    from distillbench.report.writers.card import render_card

    results = collect(picked.plan, session.store, "distillbench export")
    if not any((one.cell, one.step) == (picked.cell.name, picked.checkpoint.step) for one in results.checkpoints):
        click.echo("the card has no results: give the same --limit or --fast as the run", err=True)
    return render_card(about, results)


@hookimpl
def distillbench_add_commands(group: click.Group) -> None:
    """Adds `export`."""
    group.add_command(export)
