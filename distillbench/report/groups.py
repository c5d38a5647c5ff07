"""What the tasks of a group are worth together, as lm-eval adds them up: by size, or each task alike.

By size is what all samples are worth together, so every number of a checkpoint can be had. Alike is the mean over the
tasks of each task's own number; outcomes and n are those of all samples in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from distillbench.outcomes import CORRECT
from distillbench.records import Membership
from distillbench.report.evaluated import Evaluated, plain
from distillbench.report.results import CheckpointResult, GradedSample
from distillbench.report.scores import Scores
from distillbench.report.statistics.differences import Difference, compare
from distillbench.report.statistics.intervals import Interval, effective_size, wilson
from distillbench.report.statistics.repeats import can_compare, repeats_of
from distillbench.report.statistics.summary import Summary, summarise
from distillbench.report.statistics.values import verdicts

_Checkpoint = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Group:
    """A group of evaluations.

    Attributes:
        how: How its tasks are added up.
        rows: One for each checkpoint that has every task of it.
        members: The rows of its tasks, where it is the outermost group that they are in.
    """

    how: Membership
    rows: tuple[Evaluated, ...]
    members: tuple[Evaluated, ...]

    @property
    def about(self) -> str:
        """How its rows were made, in words."""
        weighting = "weighted by size" if self.how.weight_by_size else "each task alike"
        return f"{self.how.size} tasks together, {weighting}"


def groups_of(rows: Sequence[Evaluated]) -> dict[str, Group]:
    """Every group under its name.

    Args:
        rows: Those of the tasks.
    """
    members: dict[str, list[Evaluated]] = {}
    for row in rows:
        if row.result.groups:
            members.setdefault(row.result.groups[0].group, []).append(row)
    return {
        name: Group(how, tuple(_rows(name, how, of)), tuple(members.get(name, ())))
        for (name, how), of in _members(rows).items()
    }


def headline_rows(rows: Sequence[Evaluated], groups: Mapping[str, Group]) -> list[Evaluated]:
    """What there is to conclude from: evaluations that stand alone, and outermost groups in place of their tasks."""
    alone = [row for row in rows if not row.result.groups]
    return alone + [row for group in groups.values() if group.members for row in group.rows]


def group_notes(rows: Sequence[Evaluated]) -> list[str]:
    """Which checkpoints are not added up, and why."""
    lines = []
    for (name, how), checkpoints in _members(rows).items():
        for members in checkpoints.values():
            why = _why_not(how, members)
            if why:
                lines.append(f"{members[0].name}: not added up on {plain(name)}: {why}.")
    return lines


def _members(rows: Sequence[Evaluated]) -> dict[tuple[str, Membership], dict[_Checkpoint, list[Evaluated]]]:
    """The rows of each group's tasks, by checkpoint."""
    found: dict[tuple[str, Membership], dict[_Checkpoint, list[Evaluated]]] = {}
    for row in rows:
        for how in row.result.groups:
            of = found.setdefault((how.group, how), {})
            of.setdefault((row.result.cell, row.result.step), []).append(row)
    return found


def _why_not(how: Membership, members: Sequence[Evaluated]) -> str:
    if len(members) < how.size:
        return f"{how.size - len(members)} of {how.size} tasks have no result"
    if len({row.summary.by_score for row in members}) > 1:
        return "some tasks give verdicts, others scores"
    return ""


def _rows(name: str, how: Membership, checkpoints: Mapping[_Checkpoint, list[Evaluated]]) -> Iterator[Evaluated]:
    whole = {key: members for key, members in checkpoints.items() if not _why_not(how, members)}
    results = {key: _together(name, members) for key, members in whole.items()}
    baselines = {result.cell: result for result in results.values() if result.is_baseline}
    for key, members in whole.items():
        result, by_score = results[key], members[0].summary.by_score
        pooled = summarise(result, by_score)
        summary = pooled if how.weight_by_size else _alike(pooled, members)
        difference = None
        if result.baseline is not None and not result.is_baseline:
            difference = _difference(result, baselines.get(result.baseline), how, members, by_score)
        compares = can_compare(result.scores) is True
        repeats = repeats_of(result.scores, summary, compares) if how.weight_by_size else None
        yield Evaluated(result, summary, difference, members[0].nll, repeats, members[0].axes)


def _together(name: str, members: Sequence[Evaluated]) -> CheckpointResult:
    """The samples of all tasks of a checkpoint, with what is said of all of them alike."""
    results = [row.result for row in members]
    first = results[0]
    subsets = list(dict.fromkeys(result.subset for result in results))
    of_each = f"{first.subset}, of each task" if first.subset else ""
    return replace(
        first,
        evaluation=name,
        task=name,
        scores=Scores.joined([result.scores for result in results]),
        read=partial(_each, results),
        samples_in="",
        subset=of_each if len(subsets) == 1 else "; ".join(filter(None, subsets)),
        settings=_common([result.settings for result in results]),
        grading=_common([result.grading for result in results]),
        accepted=tuple(dict.fromkeys(one for result in results for one in result.accepted)),
        groups=(),
    )


def _each(results: Sequence[CheckpointResult]) -> Iterator[GradedSample]:
    for result in results:
        yield from result.samples()


def _common(several: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        name: value
        for name, value in several[0].items()
        if name != "n_docs" and all(name in one and one[name] == value for one in several)
    }


def _alike(pooled: Summary, members: Sequence[Evaluated]) -> Summary:
    """The numbers of a group whose tasks count alike; completion rate x accuracy (completed) stays the accuracy."""
    summaries = [row.summary for row in members]
    numbers = [one.score if pooled.by_score else one.accuracy for one in summaries]
    values = [number for number in numbers if number is not None]
    nothing = dict.fromkeys(("completion_rate", "accuracy", "accuracy_interval", "accuracy_completed"))
    nothing |= dict.fromkeys(("accuracy_completed_interval", "score", "score_interval"))
    if pooled.invalid or len(values) < len(members):  # a task that is INVALID, or has nothing scored
        return replace(pooled, invalid=pooled.invalid or any(one.invalid for one in summaries), **nothing)  # type: ignore[arg-type]
    mean, completion = _mean(values), _mean([one.completion_rate or 0.0 for one in summaries])
    if pooled.by_score:
        halves = [_half(one.score_interval) for one in summaries]
        return replace(pooled, completion_rate=completion, score=mean, score_interval=_around(mean, halves))
    return replace(
        pooled,
        completion_rate=completion,
        accuracy=mean,
        accuracy_interval=_mean_interval(values, members),
        accuracy_completed=mean / completion if completion else None,
        accuracy_completed_interval=None,
        bounds=_bounds(summaries) if pooled.errors else None,
    )


def _mean_interval(values: Sequence[float], members: Sequence[Evaluated]) -> Interval | None:
    """Wilson's interval of a mean over tasks, at the size that gives it the variance of that mean.

    Where no task's own samples differ among themselves they cannot tell it, and the size is that of equal shares.
    """
    sizes = [effective_size(verdicts(row.result.scores)) for row in members]
    mean, k = _mean(values), len(values)
    equal = k * k / math.fsum(1 / size for size in sizes)
    spread = math.fsum(p * (1 - p) / size for p, size in zip(values, sizes, strict=True)) / (k * k)
    size = min(math.fsum(sizes), mean * (1 - mean) / spread) if spread else equal
    return wilson(mean * size, size)


def _bounds(summaries: Sequence[Summary]) -> Interval:
    """The mean where every error had been wrong .. right."""
    lows = [one.counts[CORRECT] / one.n for one in summaries]
    highs = [(one.counts[CORRECT] + one.errors) / one.n for one in summaries]
    return Interval(_mean(lows), _mean(highs))


def _difference(
    result: CheckpointResult,
    baseline: CheckpointResult | None,
    how: Membership,
    members: Sequence[Evaluated],
    by_score: bool,
) -> Difference:
    name = result.baseline or ""
    if baseline is None:
        n_asked = len(result.scores.names)
        return Difference(name, n_dropped=n_asked, reason=f"{name} has not every task of it")
    if how.weight_by_size:
        return compare(result, baseline, by_score)
    found = [row.difference for row in members if row.difference is not None]
    values = [one.value for one in found if one.value is not None]
    n_pairs, n_dropped = sum(one.n_pairs for one in found), sum(one.n_dropped for one in found)
    if len(values) < len(members):
        return Difference(name, n_pairs=n_pairs, n_dropped=n_dropped, reason="some tasks cannot be compared")
    halves = [_half(one.interval) for one in found]
    method = "mean of the tasks' differences, normal"
    return Difference(name, _mean(values), _around(_mean(values), halves), n_pairs, n_dropped, None, method)


def _around(mean: float, halves: Sequence[float | None]) -> Interval | None:
    """A normal interval from those of independent parts; None where one is missing."""
    known = [half for half in halves if half is not None]
    if len(known) < len(halves):
        return None
    half = math.sqrt(math.fsum(one * one for one in known)) / len(known)
    return Interval(mean - half, mean + half)


def _half(interval: Interval | None) -> float | None:
    return None if interval is None else (interval.high - interval.low) / 2


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
