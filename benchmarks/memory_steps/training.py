"""The way of traces into a trainer: `traces`, `verdict`, `curate`, `render`, and the rows as a trainer takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from distillbench.plan.stage import Stage
from distillbench.protocols import no_progress
from distillbench.stages.curate import Curate
from distillbench.stages.render import Render
from distillbench.stages.traces import Traces
from distillbench.stages.verdict import Verdict
from memory_steps.made import Size, Step
from memory_steps.parts import bench_in, catalog, choice
from memory_steps.tables import STORE

#: Rows that a trainer takes at a time.
BATCH = 8


def traces_stage(size: Size) -> Traces:
    """A teacher's traces."""
    return Traces(teacher=choice("teacher", "made", n=size.n, scale=size.scale))


def verdict_stage(size: Size) -> Verdict:
    """Verdicts on them."""
    grader = choice("benchmark", "number")
    return Verdict(grader=grader, task="t", task_identity="t", traces=traces_stage(size))


def curate_stage(size: Size) -> Curate:
    """One filter."""
    return Curate(traces=traces_stage(size), filters=(choice("filter", "sevenths"),))


def render_stage(size: Size) -> Render:
    """Rows of the tiny student."""
    return Render(kept=curate_stage(size), student=choice("student", "tiny"), renderer=choice("renderer", "qwen3"))


def finished(stage: Stage, folder: Path) -> Mapping[str, Any]:
    """Runs a stage; gives its facts."""
    bench = bench_in(folder)
    bench.store.begin(stage)
    made = stage.run(bench, no_progress)
    bench.store.finish(stage, made, 1.0, {})
    return made.facts


def traces(folder: Path, size: Size) -> int:
    """A reading teacher's rows."""
    return int(finished(traces_stage(size), folder)["traces"])


def curate(folder: Path, size: Size) -> int:
    """One filter over them."""
    finished(curate_stage(size), folder)
    return size.n


def verdict(folder: Path, size: Size) -> int:
    """A grader's verdict on each trace; where there are some already, what is known is kept."""
    return sum(finished(verdict_stage(size), folder)["outcomes"].values())


def render(folder: Path, size: Size) -> int:
    """The kept ones as token ids."""
    return int(finished(render_stage(size), folder)["rows"])


def train_input(folder: Path, size: Size) -> int:
    """Every row once, in no order, through `datasets` as TRL takes them."""
    from datasets import Dataset

    bench = bench_in(folder)
    rows = render_stage(size).rows(bench.store)

    def taken(asked: Mapping[str, Sequence[int]]) -> dict[str, list[list[int]]]:
        return {"input_ids": [rows[number].input_ids.tolist() for number in asked["number"]]}

    numbers = np.random.default_rng(1).permutation(len(rows))
    taken_from = Dataset.from_dict({"number": numbers}).with_transform(taken)
    return sum(len(taken_from[start : start + BATCH]["input_ids"]) for start in range(0, len(rows), BATCH))


@cache
def tokenizer() -> object:
    """What tokenizing takes, however many rows there are."""
    return catalog().build(choice("student", "tiny")).preview_tokenizer()


STEPS = {
    "traces": Step(traces, STORE, ready=catalog),
    "verdict": Step(verdict, STORE, after="traces", ready=catalog),
    "verdict-known": Step(verdict, STORE, after="verdict", ready=catalog),
    "curate": Step(curate, STORE, after="traces", ready=catalog),
    "render": Step(render, STORE, after="curate", ready=tokenizer),
    "train-input": Step(train_input, (*STORE, "datasets"), after="render", ready=tokenizer),
}
