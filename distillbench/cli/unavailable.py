"""Benchmarks that cannot be had: they are named, and do not stop the others of one command."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distillbench.errors import Mistake, Place, TaskError

if TYPE_CHECKING:
    from distillbench.tasks.identity import TaskIndex


def by_benchmark(
    mistakes: Sequence[Mistake], names: Collection[str], tasks: TaskIndex
) -> Mapping[str, list[Mistake]] | None:
    """The mistakes by the benchmark that each is about; None where one is about anything else.

    Args:
        mistakes: What is wrong with a matrix.
        names: Its evaluations, each named as its benchmark.
        tasks: Where the benchmarks' files are.
    """
    paths = {name: path for name in names if (path := _path(name, tasks))}
    found: dict[str, list[Mistake]] = {}
    for mistake in mistakes:
        name = _benchmark(mistake.place, names, paths)
        if name is None:
            return None
        found.setdefault(name, []).append(mistake)
    return found


def _benchmark(place: Place, names: Collection[str], paths: Mapping[str, Path]) -> str | None:
    if len(place.keys) > 1 and place.keys[0] == "evaluations":
        return str(place.keys[1]) if place.keys[1] in names else None
    return next((name for name, path in paths.items() if place.file == str(path)), None)


def _path(name: str, tasks: TaskIndex) -> Path | None:
    try:
        return tasks.find(name).path
    except TaskError:
        return None
