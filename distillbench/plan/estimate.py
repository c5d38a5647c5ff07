"""How much work a plan still holds: counts that are known, and times that earlier stages of the store suggest."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from distillbench.plan.stages import KINDS, Plan, Stage
from distillbench.records import Evaluation

#: For each kind the role that decides, beside the student, how fast a stage is.
_DECIDING = {"traces": "teacher", "verify": "grader", "train": "trainer", "sample": "engine", "grade": "grader"}
#: Kinds that take nearly all the time of a run: where one is unknown, so is the whole.
_DECISIVE = ("train", "sample")


@dataclass(frozen=True, slots=True)
class Past:
    """How long a finished stage took.

    Attributes:
        seconds: Its own time.
        work: How much it did: optimizer steps, samples times the tokens that one may have, samples to grade; 1 for
            other kinds.
        whose: What decides how fast it was, as `whose` says.
        is_cut: Whether it was of a part of a benchmark's problems.
    """

    seconds: float
    work: float
    whose: str
    is_cut: bool = False


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
    sizes = [_samples(stage) for stage in pending if stage.kind == "sample"]
    known = [size for size in sizes if size is not None]
    speeds = {kind: _speeds(history(kind)) for kind in counts}
    steps = _steps(plan)
    seconds = [(stage.kind, _seconds(stage, steps, speeds[stage.kind])) for stage in pending]
    unknown = {kind for kind, one in seconds if one is None}
    is_known = any(one is not None for _, one in seconds) and not unknown.intersection(_DECISIVE)
    return Estimate(
        stages={kind: counts[kind] for kind in KINDS if counts[kind]},
        samples=sum(n for n, _ in known) if len(known) == len(sizes) else None,
        most_tokens=sum(n * budget for n, budget in known) if len(known) == len(sizes) else None,
        seconds=sum(one for _, one in seconds if one is not None) if is_known else None,
        unknown_kinds=tuple(kind for kind in counts if kind in unknown),
    )


def whose(kind: str, roles: dict[str, Any]) -> str:
    """What decides how fast a stage is: its student, and the component that does the work.

    Args:
        kind: The stage's.
        roles: Its roles, as its manifest has them.
    """
    deciding = roles.get(_DECIDING.get(kind, "")) or {}
    return json.dumps([roles.get("student"), deciding.get("component")], sort_keys=True)


def _speeds(past: Sequence[Past]) -> dict[tuple[str, bool], float]:
    """The median seconds for one unit of work, of stages alike."""
    found: dict[tuple[str, bool], list[float]] = {}
    for one in past:
        if one.work:
            found.setdefault((one.whose, one.is_cut), []).append(one.seconds / one.work)
    return {alike: statistics.median(speeds) for alike, speeds in found.items()}


def _steps(plan: Plan) -> dict[str, int]:
    """The last step of each training that a plan samples; an open plan does not know all of them."""
    found: dict[str, int] = {}
    for stage in plan.stages.values():
        if stage.kind == "sample" and (train := stage.needs.get("train")):
            found[train] = max(stage.params["step"], found.get(train, 0))
    return found


def _seconds(stage: Stage, steps: Mapping[str, int], speeds: Mapping[tuple[str, bool], float]) -> float | None:
    """How long a stage will run, at the median speed of those alike; None where there is none."""
    work, own = _work(stage, steps), _whose(stage)
    evaluation: Evaluation | None = stage.extras.get("evaluation")
    is_cut = evaluation is not None and (evaluation.limit is not None or evaluation.problems is not None)
    speed = speeds.get((own, is_cut))
    return None if speed is None or work is None else speed * work


def _work(stage: Stage, steps: Mapping[str, int]) -> float | None:
    """How much a stage has to do, as in `Past`; None where that is not known yet."""
    if stage.kind == "train":
        return steps.get(stage.key)
    if stage.kind in ("sample", "grade"):
        size = _samples(stage)
        return None if size is None else size[0] * (size[1] if stage.kind == "sample" else 1)
    return 1.0


def _whose(stage: Stage) -> str:
    roles = ("student", _DECIDING.get(stage.kind, ""))
    return _whose_of(stage.kind, tuple((role, stage.roles[role].identity) for role in roles if role in stage.roles))


@lru_cache(maxsize=65536)
def _whose_of(kind: str, identities: tuple[tuple[str, str], ...]) -> str:
    return whose(kind, {role: json.loads(identity) for role, identity in identities})


def _samples(stage: Stage) -> tuple[int, int] | None:
    """Completions of a sample stage, and the budget of one."""
    evaluation: Any = stage.extras["evaluation"]
    named = None if evaluation.problems is None else len(evaluation.problems)
    sizes = [size for size in (evaluation.limit, evaluation.n_docs, named) if size is not None]
    if not sizes:
        return None
    return min(sizes) * evaluation.repeats, evaluation.sampling.max_tokens
