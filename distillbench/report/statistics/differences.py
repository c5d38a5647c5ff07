"""A checkpoint against its baseline, paired by problem. All intervals are 95 %."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import stdev
from typing import Any

import numpy as np
import pyarrow.compute as pc

from distillbench.report.results import CheckpointResult
from distillbench.report.scores import NONE
from distillbench.report.statistics.intervals import (
    ALPHA,
    Interval,
    newcombe,
    proportion_interval,
    square_and_add,
)
from distillbench.report.statistics.summary import gives_scores, is_invalid
from distillbench.report.statistics.values import Values, score_values, verdicts


@dataclass(frozen=True, slots=True)
class Difference:
    """A checkpoint minus its baseline, on the problems that both have scored.

    Attributes:
        baseline: The name of the cell compared with.
        value: The difference of the accuracies (or mean scores) on the pairs; None where there is none.
        interval: None where there is none.
        n_pairs: Problems scored in both.
        n_dropped: Problems asked in either and not scored in both.
        p_value: Exact McNemar test; None with repeats or scores.
        method: Which interval it is.
        reason: Why there is no value or no interval; empty when both are there.
    """

    baseline: str
    value: float | None = None
    interval: Interval | None = None
    n_pairs: int = 0
    n_dropped: int = 0
    p_value: float | None = None
    method: str = ""
    reason: str = ""


def compare(result: CheckpointResult, baseline: CheckpointResult, by_score: bool | None = None) -> Difference:
    """A checkpoint minus a baseline, paired by problem.

    Verdicts with one sample per problem on both sides: `newcombe` and `mcnemar`. With repeats, and for scores: the
    differences of the problems' means with a t interval.

    Args:
        result: The checkpoint.
        baseline: What it is compared with, on the same evaluation.
        by_score: As in `summarise`.

    Returns:
        The difference, or a reason why there is none.

    Raises:
        ResultsError: The samples contradict one another.
    """
    is_scored = [gives_scores(side, by_score) for side in (result, baseline)]
    n_asked = _n_asked(result, baseline)
    for side, name in ((result, "this checkpoint"), (baseline, baseline.cell)):
        if is_invalid(side.scores):
            return Difference(baseline.cell, n_dropped=n_asked, reason=f"{name} is INVALID")
    values = score_values if any(is_scored) else verdicts
    ours, theirs = _paired(values(result.scores), values(baseline.scores))
    dropped = n_asked - len(ours)
    if not len(ours):
        return Difference(baseline.cell, n_dropped=dropped, reason=f"no problem is scored here and in {baseline.cell}")
    once = len(ours) == len(ours.values) == len(theirs.values)
    paired = _scores_paired if any(is_scored) else _once_paired if once else _repeats_paired
    return Difference(baseline.cell, n_pairs=len(ours), n_dropped=dropped, **paired(ours, theirs))


def _n_asked(result: CheckpointResult, baseline: CheckpointResult) -> int:
    """Problems asked in either."""
    ours, theirs = result.scores.names, baseline.scores.names
    return len(ours) + len(theirs) - int(pc.sum(pc.is_in(ours, value_set=theirs)).as_py() or 0)


def _paired(ours: Values, theirs: Values) -> tuple[Values, Values]:
    """The values of the problems that both have, in one order."""
    found = pc.fill_null(pc.index_in(ours.problems, value_set=theirs.problems), NONE).to_numpy(zero_copy_only=False)
    here = np.flatnonzero(found != NONE)
    return ours.take(here), theirs.take(found[here].astype(np.int64))


def _once_paired(ours: Values, theirs: Values) -> dict[str, Any]:
    here, there = ours.values == 1, theirs.values == 1
    both, gained, lost = (int(which.sum()) for which in (here & there, here & ~there, ~here & there))
    return {
        "value": (gained - lost) / len(ours),
        "interval": newcombe(both, gained, lost, len(ours) - both - gained - lost),
        "p_value": mcnemar(gained, lost),
        "method": "Newcombe method 10",
    }


def _repeats_paired(ours: Values, theirs: Values) -> dict[str, Any]:
    value, interval = _t_interval(ours, theirs)
    if interval is not None:
        clipped = Interval(max(-1.0, interval.low), min(1.0, interval.high))
        return {"value": value, "interval": clipped, "method": "t on problems' means"}
    # Every problem moved by the same amount (often: by nothing). A t interval of width zero would claim certainty.
    first, second = proportion_interval(ours), proportion_interval(theirs)
    p, q = ours.mean() or 0.0, theirs.mean() or 0.0
    interval = square_and_add(p, first, q, second, correlation=0.0) if first and second else None
    return {"value": value, "interval": interval, "method": "square-and-add, clustered Wilson"}


def _scores_paired(ours: Values, theirs: Values) -> dict[str, Any]:
    value, interval = _t_interval(ours, theirs)
    reason = "" if interval else "no interval: no spread between problems"
    return {"value": value, "interval": interval, "method": "t on problems' means", "reason": reason}


def _t_interval(ours: Values, theirs: Values) -> tuple[float, Interval | None]:
    """The mean of m per-problem differences of means, with Student's interval where they differ at all."""
    from scipy.special import stdtrit

    gaps = (ours.means() - theirs.means()).tolist()
    m, mean = len(gaps), math.fsum(gaps) / len(gaps)
    if m < 2 or min(gaps) == max(gaps):
        return mean, None
    half = float(stdtrit(m - 1, 1 - ALPHA / 2)) * stdev(gaps) / math.sqrt(m)
    return mean, Interval(mean - half, mean + half)


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided McNemar test: are gains and losses equally likely?

    Source: McNemar (1947), Psychometrika 12:153-157; binomial form: Agresti (2013), Categorical Data Analysis, 11.1.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))
