"""How much work a plan still holds: counts that are known, and times that earlier stages of the store suggest."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distillbench.plan.stages import KINDS, Plan, Stage

#: The seconds that earlier stages of a kind took.
History = Callable[[str], list[float]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is left to do.

    Attributes:
        stages: Stages to run, by kind.
        samples: Completions to generate; None when a task does not say how many problems it has.
        most_tokens: The most tokens these completions can have.
        seconds: One process's time, from the median of earlier stages of each kind; None when there are none.
        unknown_kinds: Kinds of stages that have never run in this store.
    """

    stages: dict[str, int]
    samples: int | None
    most_tokens: int | None
    seconds: float | None
    unknown_kinds: tuple[str, ...]


def estimate(plan: Plan, history: History) -> Estimate:
    """Adds up what a plan with statuses still has to do."""
    pending = plan.pending()
    counts = Counter(stage.kind for stage in pending)
    sizes = [_samples(stage) for stage in pending if stage.kind == "sample"]
    known = [size for size in sizes if size is not None]
    medians = {kind: statistics.median(times) for kind in counts if (times := history(kind))}
    return Estimate(
        stages={kind: counts[kind] for kind in KINDS if counts[kind]},
        samples=sum(n for n, _ in known) if len(known) == len(sizes) else None,
        most_tokens=sum(n * budget for n, budget in known) if len(known) == len(sizes) else None,
        seconds=sum(medians[kind] * counts[kind] for kind in medians) if medians else None,
        unknown_kinds=tuple(kind for kind in counts if kind not in medians),
    )


def _samples(stage: Stage) -> tuple[int, int] | None:
    """Completions of a sample stage, and the budget of one."""
    evaluation: Any = stage.extras["evaluation"]
    named = None if evaluation.problems is None else len(evaluation.problems)
    sizes = [size for size in (evaluation.limit, evaluation.n_docs, named) if size is not None]
    if not sizes:
        return None
    return min(sizes) * evaluation.repeats, evaluation.sampling.max_tokens
