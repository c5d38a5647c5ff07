"""Intervals of one number, and of the difference of two. All are 95 %.

Letters: n samples, m problems, K samples per problem.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pyarrow.compute as pc

from distillbench.report.statistics.values import Values, summed

ALPHA = 0.05
_Z = NormalDist().inv_cdf(1 - ALPHA / 2)
BOOTSTRAP_RESAMPLES = 2000
_BOOTSTRAP_SEED = 0
_BOOTSTRAP_CELLS = 500_000  # bounds memory at so many draws at a time; which are drawn does not depend on it


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval, or the bounds that errors leave open."""

    low: float
    high: float

    def excludes_zero(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0


def wilson(successes: float, n: float) -> Interval | None:
    """The score interval of a proportion; n may be an effective size. None for n = 0.

    Our own six lines, because statsmodels' take 1.3 s to import, half of what a report of finished results takes; a
    test holds them to statsmodels'.

    Source: Wilson (1927), JASA 22:209-212; method 3 of Newcombe (1998), Statistics in Medicine 17:857-872.
    """
    if n <= 0:
        return None
    share, z2 = successes / n, _Z**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * math.sqrt(max(0.0, share * (1 - share)) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Interval(max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)))  # rounding only


def effective_size(values: Values) -> float:
    """How many independent samples the samples of m problems are worth: n / design effect.

    The design effect is the variance of the proportion with problems as clusters over the variance of n independent
    samples: sum over problems of (sum of residuals)^2 / sum of residuals^2. It is 1 with one sample per problem, so
    that the interval is exactly Wilson's, and K when the K samples of a problem always agree. Below 1 it is taken as
    1. Where every sample agrees the data cannot tell it, and the careful answer is m.

    Source: Rao and Scott (1992), Biometrics 48:577-585, without their factor m / (m - 1), which would keep it from
    being 1 at K = 1; Wilson's interval at an effective size: Franco et al. (2019), J. Survey Statistics and
    Methodology 7:334-364.
    """
    m, n, share = len(values), len(values.values), values.mean()
    if m == n or share is None:
        return float(n)
    if m == 1 or share in (0.0, 1.0):
        return float(m)
    residuals = values.values - share
    within = math.fsum((residuals * residuals).tolist())
    between = math.fsum(total**2 for total in summed(residuals, values.sizes).tolist())
    return n / max(1.0, between / within)


def proportion_interval(values: Values) -> Interval | None:
    """Wilson's interval of the mean of 0/1 values, at their effective size. None where there are no values."""
    share = values.mean()
    if share is None:
        return None
    size = effective_size(values)
    return wilson(share * size, size)


def bootstrap_interval(values: Values) -> Interval | None:
    """Percentile bootstrap of the mean over n values, problems resampled whole. None where nothing varies.

    Seeded, and blind to the order of problems and samples.

    Source: Davison and Hinkley (1997), Bootstrap Methods and their Application, sections 2.4, 3.8 and 5.3.
    """
    from scipy.stats import bootstrap

    order = pc.sort_indices(values.problems).to_numpy()
    totals, sizes = values.totals()[order], values.sizes[order]
    if len(sizes) < 2 or np.ptp(totals / sizes) == 0:
        return None  # no spread is no evidence of certainty
    found = bootstrap(
        (totals, sizes),
        lambda total, size, axis: total.sum(axis=axis) / size.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=BOOTSTRAP_RESAMPLES,
        batch=max(1, _BOOTSTRAP_CELLS // len(sizes)),
        confidence_level=1 - ALPHA,
        method="percentile",
        rng=np.random.default_rng(_BOOTSTRAP_SEED),
    ).confidence_interval
    mean = float(totals.sum() / sizes.sum())
    return Interval(min(float(found.low), mean), max(float(found.high), mean))


def newcombe(both: int, gained: int, lost: int, neither: int) -> Interval | None:
    """The score interval of a difference of paired proportions; None without pairs.

    Args:
        both: Problems right on both sides.
        gained: Right here and not in the baseline.
        lost: Right in the baseline and not here.
        neither: Right on neither side.

    Source: Newcombe (1998), Statistics in Medicine 17:2635-2650, method 10 (its correlation with the continuity
    correction). statsmodels 0.15 has no paired interval; its next version brings this one.
    """
    n = both + gained + lost + neither
    ours, theirs = wilson(both + gained, n), wilson(both + lost, n)
    if ours is None or theirs is None:
        return None
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    association = float(both * neither - gained * lost)
    if association > 0:
        association = max(association - n / 2, 0.0)
    correlation = association / math.sqrt(margins) if margins else 0.0
    return square_and_add((both + gained) / n, ours, (both + lost) / n, theirs, correlation)


def square_and_add(p: float, p_in: Interval, q: float, q_in: Interval, correlation: float) -> Interval:
    """Joins the intervals of p and q to one of p - q.

    Source: Newcombe (1998), as above; for any two intervals: Zou and Donner (2008), Statistics in Medicine 27:1693.
    """

    def reach(towards: float, away: float) -> float:
        return math.sqrt(max(0.0, towards**2 - 2 * correlation * towards * away + away**2))

    low = p - q - reach(p - p_in.low, q_in.high - q)
    high = p - q + reach(q - q_in.low, p_in.high - p)
    return Interval(max(-1.0, low), min(1.0, high))


def mean_interval(values: Sequence[float], n_samples: int) -> Interval | None:
    """Wilson's interval of the mean of m values between 0 and 1, at the effective number of samples.

    That is p (1 - p) over the variance of the mean, at most the number of samples, and m where p is 0 or 1: as for an
    accuracy with repeats, so that pass@1 has exactly the accuracy's interval.

    Args:
        values: One for each problem.
        n_samples: How many samples they were made from.

    Source: as in `effective_size`.
    """
    m = len(values)
    if m == 0:
        return None
    mean = math.fsum(values) / m
    spread = math.fsum((value - mean) ** 2 for value in values)
    size = float(m)
    if m > 1 and 0 < mean < 1:
        size = min(float(n_samples), m * m * mean * (1 - mean) / spread) if spread else float(n_samples)
    return wilson(mean * size, size)
