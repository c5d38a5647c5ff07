"""`distillbench data`: what data each benchmark needs, where it would come from, and what is there already."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from distillbench.cli.invocation import JSON, Invocation, print_json, print_rows
from distillbench.errors import DistillbenchError, nearest
from distillbench.hookspecs import hookimpl
from distillbench.tasks.data import DATA_ROOT, DataSource, data_root, data_source
from distillbench.tasks.identity import TaskIndex, TaskSpec


@dataclass(frozen=True, slots=True)
class _Needed:
    """The data that some tasks share.

    Attributes:
        tasks: Their names.
        source: Where it comes from.
        licence: Its licence.
        files: The copy's files below the data root; none where it is not there.
        is_cached: Whether the Hub's files are in the local cache.
    """

    tasks: tuple[str, ...]
    source: DataSource
    licence: str
    files: tuple[Path, ...]
    is_cached: bool

    @property
    def state(self) -> str:
        """What is there already, in words."""
        if self.files:
            return f"{self.source.file} ({sum(file.stat().st_size for file in self.files) / 2**10:,.0f} KiB)"
        cached = "; in the Hub's cache" if self.is_cached else ""
        return f"{self.source.file or 'no copy'}: not there{cached}"


@click.command(short_help="What data the benchmarks need and what is there.")
@click.argument("names", metavar="[TASK]...", nargs=-1)
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    envvar=DATA_ROOT,
    show_envvar=True,
    help="Folder of copies, in a matrix `data_root`.",
)
@click.option(
    "--task-path",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Also the tasks of this folder. May be repeated.",
)
@JSON
@click.pass_context
def data(
    context: click.Context, names: tuple[str, ...], data_root: Path | None, folders: tuple[Path, ...], as_json: bool
) -> None:
    """List the data of each benchmark: rows, licence, source, and whether a copy is there. Downloads nothing.

    A copy below the data root is read where there is one; else the pinned source, through Hugging Face datasets.
    """
    session: Invocation = context.obj
    index = TaskIndex([*folders, *session.catalog.task_roots], data_root)
    needed = list(_needed(index, names, data_root))
    if as_json:
        print_json([_as_json(one) for one in needed])
        return
    _print(session, needed, data_root)


def _needed(index: TaskIndex, names: Sequence[str], given: Path | None) -> Iterator[_Needed]:
    """What the tasks need; those that share it, together.

    Raises:
        DistillbenchError: A name is no task with data.
    """
    found = {name: source for name in index.names if (source := _source(index.find(name)))}
    for name in names:
        if name not in found:
            raise DistillbenchError(f"no task with data is named {name!r}; {nearest(name, found)}")
    root = data_root(given)
    sharing: dict[tuple[DataSource, str], list[str]] = {}
    for name in names or found:
        licence = str(index.find(name).settings.get("licence", ""))
        sharing.setdefault((found[name], licence), []).append(name)
    for (source, licence), tasks in sharing.items():
        files = tuple(source.local_files(root))
        cached = source.is_pinned and is_cached(source.hub, source.revision)
        yield _Needed(tuple(tasks), source, licence, files, cached)


def _source(spec: TaskSpec) -> DataSource | None:
    metadata = spec.config.get("metadata")
    return data_source(metadata, f"{spec.path}: metadata") if isinstance(metadata, dict) else None


def is_cached(hub: str, revision: str) -> bool:
    """Whether the Hub's cache holds files of this very revision of a data set; of any, where none is named."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    folder = cache / f"datasets--{hub.replace('/', '--')}" / "snapshots" / revision
    return bool(hub) and folder.is_dir()


def _as_json(needed: _Needed) -> dict[str, Any]:
    source = needed.source
    return {
        "tasks": list(needed.tasks),
        "rows": source.rows,
        "licence": needed.licence,
        "source": source.pinned,
        "pinned": source.is_pinned,
        "urls": source.addresses,
        "file": source.file,
        "file_rows": source.file_rows or source.rows,
        "local": [str(file) for file in needed.files],
        "bytes": sum(file.stat().st_size for file in needed.files),
        "cached": needed.is_cached,
    }


def _print(session: Invocation, needed: Sequence[_Needed], given: Path | None) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("tasks", "rows", "licence", "source", "copy"):
        table.add_column(heading, justify="right" if heading == "rows" else "left")
    for one in needed:
        table.add_row(", ".join(one.tasks), f"{one.source.rows:,}", one.licence, one.source.pinned, one.state)
    print_rows(session.console, table)
    root = data_root(given)
    session.console.print(f"\ndata root: {root or f'none; set {DATA_ROOT}, or data_root in a matrix'}", markup=False)


@hookimpl
def distillbench_add_commands(group: click.Group) -> None:
    """Adds `data`."""
    group.add_command(data)
