"""Makes results for the tests of the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st
from rich.console import Console

from distillbench.outcomes import ERRORS, OUTCOMES
from distillbench.report.results import CellResult, CheckpointResult, GradedSample, NllPoint, Results, Section
from distillbench.report.scores import Scores
from distillbench.report.statistics.values import Values
from distillbench.report.tables import tables_of
from distillbench.report.writers import document, folder, markdown, terminal


def render_markdown(made: Results, sections: Iterable[Section] = ()) -> str:
    return markdown.render_markdown(tables_of(made), sections)


def print_table(made: Results, console: Console) -> None:
    terminal.print_table(tables_of(made), console)


def summary_json(made: Results) -> dict[str, Any]:
    return document.summary_json(tables_of(made))


def write(made: Results, to: Path, sections: Iterable[Section] = ()) -> list[Path]:
    return folder.write(tables_of(made), to, sections)


VERDICT_OUTCOMES = [outcome for outcome in OUTCOMES if outcome != "graded"]


def sample(problem: str, outcome: str, repeat: int = 0, **more: Any) -> GradedSample:
    there = outcome != "generation_error"
    answered = outcome in ("correct", "wrong", "graded")
    made: dict[str, Any] = {
        "extracted": "3" if answered else None,
        "reasoning_state": ("open" if outcome in ("truncated", "loop", "unclosed") else "closed") if there else None,
        "n_tokens": 10 + len(problem) if there else None,
        "finish_reason": "stop" if there else None,
        "text": f"<think>{problem}</think> \\boxed{{3}}" if there else "",
        "prompt": f"Q: {problem}",
        "gold": "3",
        "doc": {"question": problem, "answer": 3},
    }
    return GradedSample(problem, repeat, outcome, **(made | more))


def samples(counts: Mapping[str, int]) -> tuple[GradedSample, ...]:
    outcomes = [outcome for outcome, count in counts.items() for _ in range(count)]
    return tuple(sample(f"p{place:04d}", outcome) for place, outcome in enumerate(outcomes))


def repeated(groups: Sequence[Sequence[str]]) -> tuple[GradedSample, ...]:
    return tuple(
        sample(f"p{place:04d}", outcome, repeat)
        for place, group in enumerate(groups)
        for repeat, outcome in enumerate(group)
    )


#: When results were graded: 2026-02-16T12:30:15Z.
GRADED_AT = 1771245015


def checkpoint(made: Sequence[GradedSample], cell: str = "concise", step: int = 100, **more: Any) -> CheckpointResult:
    base: dict[str, Any] = {
        "evaluation": "coins",
        "task": "coins_word",
        "student": "tiny",
        "renderer": "qwen3",
        "settings": {"temperature": 0.0, "max_tokens": 160},
        "grader": "math_boxed",
        "is_baseline": step == 0,
        "baseline": None if step == 0 else "base-tiny",
        "teacher": None if step == 0 else cell,
        "graded_at": GRADED_AT,
    }
    return CheckpointResult.of(made, cell=cell, step=step, **(base | more))


def results(**more: Any) -> Results:
    """Two evaluations, a baseline, a good cell, one that is cut off, and one that is INVALID."""
    checkpoints = (
        checkpoint(samples({"correct": 248, "wrong": 8})),
        checkpoint(samples({"correct": 140, "wrong": 100, "no_answer": 16}), step=20),
        checkpoint(samples({"correct": 115, "wrong": 130, "no_answer": 11}), "base-tiny", 0),
        checkpoint(samples({"correct": 30, "wrong": 20, "truncated": 170, "loop": 32, "unclosed": 4}), "verbose"),
        checkpoint(samples({"correct": 200, "wrong": 36, "generation_error": 15, "grader_error": 5}), "flaky"),
        checkpoint(scored(range(7, 37)), "base-tiny", 0, evaluation="judge", task="judged"),
        checkpoint(scored(range(9, 39)), evaluation="judge", task="judged"),
    )
    cells = (
        CellResult("base-tiny", is_baseline=True),
        CellResult(
            "concise",
            axes={"lr": 1e-3},
            nll=(NllPoint(20, 1.1, 0.91234, 5000), NllPoint(100, 0.5, 0.412, 5000)),
            traces={"kept": 900, "length: longer than 160 tokens": 100},
        ),
        CellResult("verbose"),
        CellResult("flaky", problems=("train: CUDA out of memory",), missing=("coins @60",)),
    )
    provenance = {"versions": {"torch": "2.13.0"}, "git_hash": "abc1234", "command": "distillbench run m.yaml"}
    return Results(
        **({"matrix": "m.yaml", "cells": cells, "checkpoints": checkpoints, "provenance": provenance} | more)
    )


def scored(values: Sequence[int]) -> tuple[GradedSample, ...]:
    """Graded samples whose scores are 0-9 and differ from problem to problem."""
    return tuple(
        sample(f"j{place:03d}", "graded", scores={"score": value * value % 10 / 1.0})
        for place, value in enumerate(values)
    )


def any_samples(most: int = 30, repeats: int = 3) -> st.SearchStrategy[tuple[GradedSample, ...]]:
    """Any verdicts, with any number of repeats per problem."""
    group = st.lists(st.sampled_from(VERDICT_OUTCOMES), min_size=1, max_size=repeats)
    return st.lists(group, max_size=most).map(repeated)


def of_samples(result: CheckpointResult, made: Sequence[GradedSample], **more: Any) -> CheckpointResult:
    """A result with other samples."""
    held = tuple(made)
    return replace(result, scores=Scores.of(held), read=lambda: held, **more)


def of_problems(groups: Mapping[str, Sequence[float]]) -> Values:
    """The values of each problem."""
    sizes = [len(of_problem) for of_problem in groups.values()]
    each = [value for of_problem in groups.values() for value in of_problem]
    return Values(pa.array(groups, pa.string()), np.array(sizes, np.int64), np.array(each, np.float64))


def without_errors(made: Sequence[GradedSample]) -> tuple[GradedSample, ...]:
    return tuple(one for one in made if one.outcome not in ERRORS)
