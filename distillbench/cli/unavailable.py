"""Benchmarks that cannot be had: they are named, and do not stop the others of one command."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from distillbench.errors import DistillbenchError, Mistake, Place, TaskError

if TYPE_CHECKING:
    from distillbench.plan.plan import Plan
    from distillbench.preflight.look import Preflight
    from distillbench.records import Evaluation
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


def tell_missing(missing: Mapping[str, str]) -> None:
    """Says which benchmarks are not evaluated; quiet runs too, because something that was asked is not done."""
    for name, why in missing.items():
        click.echo(f"not evaluated: {name}: {in_a_line(why)}", err=True)


def in_a_line(why: str) -> str:
    """What is wrong, on one line, with a semicolon where a line ended."""
    lines = (" ".join(line.split()) for line in why.splitlines())
    return "; ".join(line for line in lines if line)


def without_data(look: Preflight, plan: Plan) -> Iterator[tuple[Evaluation, str]]:
    """The evaluations that still have to be sampled and whose documents cannot be had, each once, and why."""
    from distillbench.stages.sample import Sample

    pending = (stage.evaluation for stage in plan.pending() if isinstance(stage, Sample))
    for evaluation in {one.name: one for one in pending}.values():
        try:
            look.bench.tasks.evaluation_problems(replace(evaluation, limit=1, subset="first"))
        except DistillbenchError as error:
            yield evaluation, str(error)
