"""`distillbench tasks`: the benchmarks there are: ours, a user's, and lm-eval's."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from distillbench.cli.data import is_cached
from distillbench.cli.invocation import JSON, Invocation, print_json, print_rows
from distillbench.errors import DistillbenchError, TaskError, nearest
from distillbench.hookspecs import hookimpl
from distillbench.tasks.data import DATA_ROOT, data_root, data_source
from distillbench.tasks.groups import find_group, known_groups, stock_tasks
from distillbench.tasks.identity import TaskIndex, TaskSpec, read_task

#: So many of lm-eval's are read; each takes some milliseconds.
_MOST_READ = 300


@dataclass(frozen=True, slots=True)
class _Known:
    """A benchmark, as its file describes it.

    Attributes:
        name: Its name.
        kind: `task`, `group` or `tag`.
        grader: What grades it; empty for several tasks.
        problems: How many it has; None where the file does not say. Of several tasks, how many tasks.
        source: Where its data comes from.
        data: Whether they are here, in words.
    """

    name: str
    kind: str
    grader: str
    problems: int | None
    source: str
    data: str


@click.command(short_help="List benchmarks: name, grader, source, whether their data are here.")
@click.argument("pattern", required=False)
@click.option("--all", "show_all", is_flag=True, help="Also those that lm-eval ships, some 13,000.")
@click.option(
    "--task-path",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Also the tasks of this folder. May be repeated.",
)
@click.option("--data-root", "root", type=click.Path(path_type=Path), envvar=DATA_ROOT, help="Folder of copies.")
@JSON
@click.pass_context
def tasks(
    context: click.Context,
    pattern: str | None,
    show_all: bool,
    folders: tuple[Path, ...],
    root: Path | None,
    as_json: bool,
) -> None:
    """List the benchmarks whose name holds PATTERN (which may hold * and ?), lm-eval's own among them.

    Without PATTERN: those of plugins and of --task-path. A group or a tag stands for several tasks.
    """
    session: Invocation = context.obj
    index = TaskIndex([*folders, *session.catalog.task_roots], root)
    has_stock = show_all or pattern is not None
    paths = _paths(index, has_stock)
    groups = {name: kind for name, kind in known_groups(index, has_stock).items() if name not in paths}
    chosen = [name for name in (*paths, *sorted(groups)) if _fits(name, pattern)]
    if not chosen:
        raise DistillbenchError(f"no benchmark's name holds {pattern!r}; {nearest(pattern or '', [*paths, *groups])}")
    if len(chosen) > _MOST_READ and not as_json:
        _print_names(session, chosen)
        return
    found = [_group(name, groups[name], index) if name in groups else _task(name, paths[name], root) for name in chosen]
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        _print(session, found, has_stock)


def _paths(index: TaskIndex, has_stock: bool) -> Mapping[str, Path]:
    """The file of every task, ours first."""
    ours = {name: index.path_of(name) for name in index.names}
    return (
        ours | {name: path for name, path in sorted(stock_tasks().items()) if name not in ours} if has_stock else ours
    )


def _fits(name: str, pattern: str | None) -> bool:
    if pattern is None:
        return True
    is_glob = any(sign in pattern for sign in "*?[")
    return fnmatch.fnmatchcase(name.lower(), pattern.lower()) if is_glob else pattern.lower() in name.lower()


def _task(name: str, path: Path, root: Path | None) -> _Known:
    try:
        spec = read_task(path, None, root)
    except TaskError as error:
        return _Known(name, "task", "", None, str(path), f"cannot be read: {' '.join(str(error).split())}")
    source, here = _data(spec, root)
    docs = spec.settings.get("docs")
    grader = str(spec.settings.get("grader", "lm_eval"))
    return _Known(name, "task", grader, docs if isinstance(docs, int) else None, source, here)


def _group(name: str, kind: str, index: TaskIndex) -> _Known:
    try:
        group = find_group(name, index)
    except TaskError as error:
        return _Known(name, kind, "", None, "", f"cannot be used: {' '.join(str(error).split())}")
    members = group.tasks if group else ()
    shown = ", ".join(members[:3]) + (", ..." if len(members) > 3 else "")
    return _Known(name, kind, "", len(members), shown, "")


def _data(spec: TaskSpec, root: Path | None) -> tuple[str, str]:
    """Where a task's data comes from, and whether it is here."""
    metadata = spec.config.get("metadata")
    source = data_source(metadata, f"{spec.path}: metadata") if isinstance(metadata, Mapping) else None
    if source is not None:
        if source.local_files(data_root(root)):
            return source.pinned, "copy"
        return source.pinned, "cached" if is_cached(source.hub, source.revision) else "not here"
    dataset = spec.config.get("dataset_path")
    if not isinstance(dataset, str):
        return "made by the task's own code", "-"
    config = spec.config.get("dataset_name")
    where = f"{dataset} ({config})" if config else dataset
    if Path(dataset).exists() or dataset in _OWN_FILES:
        return where, "local files"
    return where, "cached" if is_cached(dataset, "") else "not here"


#: What `datasets` calls files that a task names itself.
_OWN_FILES = frozenset({"json", "csv", "parquet", "text", "arrow"})


def _print_names(session: Invocation, names: list[str]) -> None:
    for name in names:
        click.echo(name)
    session.console.print(f"\n{len(names):,} benchmarks; a longer pattern shows more of each", markup=False)


def _print(session: Invocation, found: list[_Known], has_stock: bool) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "kind", "grader", "n", "source", "data"):
        table.add_column(heading, justify="right" if heading == "n" else "left")
    for one in found:
        size = "" if one.problems is None else f"{one.problems:,}"
        table.add_row(*_escaped((one.name, one.kind, one.grader, size, one.source, one.data)))
    print_rows(session.console, table)
    more = "" if has_stock else "; `distillbench tasks PATTERN` searches lm-eval's own too"
    session.console.print(f"\n{len(found)} benchmarks{more}", markup=False)


def _escaped(cells: tuple[str, ...]) -> Iterator[Any]:
    from rich.text import Text

    return (Text(cell) for cell in cells)


@hookimpl
def distillbench_add_commands(group: click.Group) -> None:
    """Adds `tasks`."""
    group.add_command(tasks)
