"""How much work a plan still holds: counts that are known, and times that earlier stages of the store suggest."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from distillbench.plan.plan import Plan
from distillbench.plan.stage import Pace


@dataclass(frozen=True, slots=True)
class Past:
    """How long a finished stage took.

    Attributes:
        work: How much it did, as `Pace` counts it.
        seconds: How long that took.
        alike: What decides how fast it was, as `Pace` says.
    """

    work: float
    seconds: float
    alike: str


#: The earlier stages of a kind.
History = Callable[[str], Sequence[Past]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is left to do. Where a plan is open, each number is the least that it may be.

    Attributes:
        stages: Stages to run, by kind.
        samples: Completions to generate; None when a task does not say how many problems it has.
        most_tokens: The most tokens these completions can have.
        seconds: One process's time, from the median speed of earlier stages alike; None where no training or sampling
            alike has run.
        unknown_kinds: Kinds of stages of which at least one has nothing alike in this store.
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
    sizes = [size for stage in pending if (size := stage.completions()) is not None]
    known = [(n, most) for n, most in sizes if n is not None]
    speeds = {kind: _speeds(history(kind)) for kind in counts}
    seconds = [(stage, _seconds(stage.pace(), speeds[stage.kind])) for stage in pending]
    unknown = {stage.kind for stage, one in seconds if one is None}
    is_known = any(one is not None for _, one in seconds) and not any(
        stage.is_long for stage, one in seconds if one is None
    )
    return Estimate(
        stages=dict(counts),
        samples=sum(n for n, _ in known) if len(known) == len(sizes) else None,
        most_tokens=sum(n * most for n, most in known) if len(known) == len(sizes) else None,
        seconds=sum(one for _, one in seconds if one is not None) if is_known else None,
        unknown_kinds=tuple(kind for kind in counts if kind in unknown),
    )


def _speeds(past: Sequence[Past]) -> dict[str, float]:
    """The median seconds for one unit of work, of stages alike."""
    found: dict[str, list[float]] = {}
    for one in past:
        found.setdefault(one.alike, []).append(one.seconds / one.work)
    return {alike: statistics.median(speeds) for alike, speeds in found.items()}


def _seconds(pace: Pace, speeds: Mapping[str, float]) -> float | None:
    """How long a stage will run, at the median speed of those alike; None where there is none."""
    speed = speeds.get(pace.alike)
    return None if speed is None or pace.work is None else speed * pace.work
