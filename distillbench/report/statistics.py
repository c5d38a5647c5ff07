"""Every number a report shows, with its interval. All intervals are 95 %.

Letters: n samples, m problems, K samples per problem.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median, stdev
from typing import Any

from distillbench.outcomes import COMPLETED, CORRECT, ERRORS, GENERATION_ERROR, GRADED, OUTCOMES, WRONG
from distillbench.report.results import CheckpointResult, GradedSample, ResultsError

ALPHA = 0.05
_Z = NormalDist().inv_cdf(1 - ALPHA / 2)
#: Above this share of errors, and above one error, a number is not shown (DESIGN section 3).
INVALID_SHARE = 0.01
BOOTSTRAP_RESAMPLES = 2000
_BOOTSTRAP_SEED = 0
_BOOTSTRAP_BATCH = 100  # bounds memory at 100 x m
REASONING_STATES = ("absent", "open", "closed")

#: For each problem, the values of its scored samples.
Groups = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval, or the bounds that errors leave open."""

    low: float
    high: float

    def excludes_zero(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Summary:
    """Every number of one checkpoint on one evaluation. None where there is none, or where the result is invalid.

    Attributes:
        n: Samples.
        n_problems: Problems among them.
        counts: Samples per outcome, every outcome; they add up to n.
        scored: Samples without the errors.
        errors: `generation_error` and `grader_error`.
        invalid: More than one error, and more than 1 % of n: no number but the bounds is given.
        completion_rate: Share of scored samples that hold a complete answer.
        accuracy: Correct / scored; None where the benchmark gives scores.
        accuracy_interval: Wilson, with the effective sample size of `effective_size`.
        accuracy_completed: Correct / samples with a complete answer.
        accuracy_completed_interval: As `accuracy_interval`.
        bounds: Accuracy over all n if every error had been wrong .. right; None without errors.
        by_score: True where the benchmark gives scores instead of verdicts.
        score: Mean score of the samples with a complete answer.
        score_interval: Bootstrap over problems.
        reasoning: Shares of absent, open and closed reasoning among the samples that have a completion.
        ran_on: Samples that went on after their complete answer.
        tokens_median: Over the samples that have a completion.
        tokens_p95: Over the samples that have a completion; nearest rank.
    """

    n: int
    n_problems: int
    counts: Mapping[str, int]
    scored: int
    errors: int
    invalid: bool
    completion_rate: float | None
    accuracy: float | None
    accuracy_interval: Interval | None
    accuracy_completed: float | None
    accuracy_completed_interval: Interval | None
    bounds: Interval | None
    by_score: bool
    score: float | None
    score_interval: Interval | None
    reasoning: Mapping[str, float]
    ran_on: int
    tokens_median: float | None
    tokens_p95: int | None


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


def count_outcomes(samples: Collection[GradedSample]) -> dict[str, int]:
    """Samples per outcome, every outcome, in the order of reports.

    Raises:
        ResultsError: A sample is there twice or has an unknown outcome: the counts would not add up to n.
    """
    seen = Counter((sample.problem_id, sample.repeat) for sample in samples)
    if doubled := [key for key, times in seen.items() if times > 1]:
        raise ResultsError(f"sample {doubled[0]!r} (problem, repeat) is there {seen[doubled[0]]} times")
    found = Counter(sample.outcome for sample in samples)
    counts = {outcome: found[outcome] for outcome in OUTCOMES}
    if sum(counts.values()) != len(samples):
        raise ResultsError(f"unknown outcomes {sorted(set(found) - set(OUTCOMES))}; known: {', '.join(OUTCOMES)}")
    return counts


def summarise(result: CheckpointResult, by_score: bool | None = None) -> Summary:
    """Every number of one checkpoint on one evaluation.

    Args:
        result: Its samples, in any order.
        by_score: Whether the benchmark gives scores; None to see it from these samples (which cannot tell when no
            sample holds a complete answer).

    Raises:
        ResultsError: The samples contradict one another.
    """
    counts = count_outcomes(result.samples)
    n = len(result.samples)
    errors = sum(counts[outcome] for outcome in ERRORS)
    invalid = errors > 1 and errors > INVALID_SHARE * n
    by_score = counts[GRADED] > 0 if by_score is None else by_score
    if counts[CORRECT] + counts[WRONG] if by_score else counts[GRADED]:
        raise ResultsError(f"{result.evaluation}: one benchmark gives both verdicts and scores; split it in two")
    scored = n - errors
    completed = sum(counts[outcome] for outcome in COMPLETED)
    numbers = {} if invalid else _score(result.samples) if by_score else _accuracy(result.samples)
    return Summary(
        n=n,
        n_problems=len({sample.problem_id for sample in result.samples}),
        counts=counts,
        scored=scored,
        errors=errors,
        invalid=invalid,
        completion_rate=None if invalid or not scored else completed / scored,
        bounds=Interval(counts[CORRECT] / n, (counts[CORRECT] + errors) / n) if errors and not by_score else None,
        by_score=by_score,
        **{**dict.fromkeys(_NUMBERS), **numbers},
        **_shape(result.samples),
    )


_NUMBERS = (
    "accuracy",
    "accuracy_interval",
    "accuracy_completed",
    "accuracy_completed_interval",
    "score",
    "score_interval",
)


def _accuracy(samples: Collection[GradedSample]) -> dict[str, Any]:
    scored = verdicts(samples)
    completed = _grouped((s.problem_id, float(s.outcome == CORRECT)) for s in samples if s.outcome in COMPLETED)
    return {
        "accuracy": _mean(scored),
        "accuracy_interval": proportion_interval(scored),
        "accuracy_completed": _mean(completed),
        "accuracy_completed_interval": proportion_interval(completed),
    }


def _score(samples: Collection[GradedSample]) -> dict[str, Any]:
    groups = scores(samples)
    return {"score": _mean(groups), "score_interval": bootstrap_interval(groups)}


def _shape(samples: Collection[GradedSample]) -> dict[str, Any]:
    """What the completions look like: reasoning, length, running on."""
    present = [sample for sample in samples if sample.outcome != GENERATION_ERROR]
    states: Counter[str] = Counter(sample.reasoning_state for sample in present if sample.reasoning_state)
    total = states.total()
    lengths = sorted(sample.n_tokens for sample in present if sample.n_tokens is not None)
    return {
        "reasoning": {state: states[state] / total for state in REASONING_STATES} if total else {},
        "ran_on": sum(sample.ran_on for sample in present),
        "tokens_median": float(median(lengths)) if lengths else None,
        "tokens_p95": lengths[math.ceil(0.95 * len(lengths)) - 1] if lengths else None,
    }


def verdicts(samples: Collection[GradedSample]) -> Groups:
    """For each problem, 1 for every correct and 0 for every other scored sample."""
    return _grouped((s.problem_id, float(s.outcome == CORRECT)) for s in samples if s.outcome not in ERRORS)


def scores(samples: Collection[GradedSample]) -> Groups:
    """For each problem, the scores of its graded samples.

    Raises:
        ResultsError: A graded sample has no finite `score`.
    """
    graded = [sample for sample in samples if sample.outcome == GRADED]
    for sample in graded:
        if not math.isfinite(sample.scores.get("score", math.nan)):
            raise ResultsError(f"graded sample {sample.problem_id!r} has no finite 'score': {dict(sample.scores)}")
    return _grouped((sample.problem_id, float(sample.scores["score"])) for sample in graded)


def _grouped(pairs: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for problem_id, value in pairs:
        groups.setdefault(problem_id, []).append(value)
    return groups


def _mean(groups: Groups) -> float | None:
    # fsum rounds once, so that the order of the samples changes no digit
    n = sum(map(len, groups.values()))
    return math.fsum(value for values in groups.values() for value in values) / n if n else None


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


def effective_size(groups: Groups) -> float:
    """How many independent samples the samples of m problems are worth: n / design effect.

    The design effect is the variance of the proportion with problems as clusters over the variance of n independent
    samples: sum over problems of (sum of residuals)^2 / sum of residuals^2. It is 1 with one sample per problem, so
    that the interval is exactly Wilson's, and K when the K samples of a problem always agree. Below 1 it is taken as
    1. Where every sample agrees the data cannot tell it, and the careful answer is m.

    Source: Rao and Scott (1992), Biometrics 48:577-585, without their factor m / (m - 1), which would keep it from
    being 1 at K = 1; Wilson's interval at an effective size: Franco et al. (2019), J. Survey Statistics and
    Methodology 7:334-364.
    """
    m, n = len(groups), sum(map(len, groups.values()))
    share = _mean(groups)
    if m == n or share is None:
        return float(n)
    residuals = [[value - share for value in values] for values in groups.values()]
    within = math.fsum(r * r for rs in residuals for r in rs)
    if m == 1 or share in (0.0, 1.0):
        return float(m)
    between = math.fsum(math.fsum(rs) ** 2 for rs in residuals)
    return n / max(1.0, between / within)


def proportion_interval(groups: Groups) -> Interval | None:
    """Wilson's interval of the mean of 0/1 values, at their effective size. None where there are no values."""
    share = _mean(groups)
    if share is None:
        return None
    size = effective_size(groups)
    return wilson(share * size, size)


def bootstrap_interval(groups: Groups) -> Interval | None:
    """Percentile bootstrap of the mean over n values, problems resampled whole. None where nothing varies.

    Seeded, and blind to the order of problems and samples.

    Source: Davison and Hinkley (1997), Bootstrap Methods and their Application, sections 2.4, 3.8 and 5.3.
    """
    import numpy as np
    from scipy.stats import bootstrap

    totals = np.array([math.fsum(groups[problem]) for problem in sorted(groups)])
    sizes = np.array([len(groups[problem]) for problem in sorted(groups)])
    if len(sizes) < 2 or np.ptp(totals / sizes) == 0:
        return None  # no spread is no evidence of certainty
    found = bootstrap(
        (totals, sizes),
        lambda total, size, axis: total.sum(axis=axis) / size.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=BOOTSTRAP_RESAMPLES,
        batch=_BOOTSTRAP_BATCH,
        confidence_level=1 - ALPHA,
        method="percentile",
        rng=np.random.default_rng(_BOOTSTRAP_SEED),
    ).confidence_interval
    mean = float(totals.sum() / sizes.sum())
    return Interval(min(float(found.low), mean), max(float(found.high), mean))


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
    """
    here, there = summarise(result, by_score), summarise(baseline, by_score)
    asked = {sample.problem_id for side in (result, baseline) for sample in side.samples}
    for side, name in ((here, "this checkpoint"), (there, baseline.cell)):
        if side.invalid:
            return Difference(baseline.cell, n_dropped=len(asked), reason=f"{name} is INVALID")
    values = scores if here.by_score or there.by_score else verdicts
    ours, theirs = values(result.samples), values(baseline.samples)
    pairs = sorted(ours.keys() & theirs.keys())
    dropped = len(asked) - len(pairs)
    if not pairs:
        return Difference(baseline.cell, n_dropped=dropped, reason=f"no problem is scored here and in {baseline.cell}")
    ours, theirs = {p: ours[p] for p in pairs}, {p: theirs[p] for p in pairs}
    once = all(len(ours[p]) == len(theirs[p]) == 1 for p in pairs)
    paired = _scores_paired if values is scores else _once_paired if once else _repeats_paired
    return Difference(baseline.cell, n_pairs=len(pairs), n_dropped=dropped, **paired(ours, theirs))


def _once_paired(ours: Groups, theirs: Groups) -> dict[str, Any]:
    table = Counter((ours[p][0] == 1, theirs[p][0] == 1) for p in ours)
    both, gained, lost, neither = (table[key] for key in ((True, True), (True, False), (False, True), (False, False)))
    return {
        "value": (gained - lost) / len(ours),
        "interval": newcombe(both, gained, lost, neither),
        "p_value": mcnemar(gained, lost),
        "method": "Newcombe method 10",
    }


def _repeats_paired(ours: Groups, theirs: Groups) -> dict[str, Any]:
    value, interval = _t_interval(ours, theirs)
    if interval is not None:
        clipped = Interval(max(-1.0, interval.low), min(1.0, interval.high))
        return {"value": value, "interval": clipped, "method": "t on problems' means"}
    # Every problem moved by the same amount (often: by nothing). A t interval of width zero would claim certainty.
    first, second = proportion_interval(ours), proportion_interval(theirs)
    p, q = _mean(ours) or 0.0, _mean(theirs) or 0.0
    interval = _square_and_add(p, first, q, second, correlation=0.0) if first and second else None
    return {"value": value, "interval": interval, "method": "square-and-add, clustered Wilson"}


def _scores_paired(ours: Groups, theirs: Groups) -> dict[str, Any]:
    value, interval = _t_interval(ours, theirs)
    reason = "" if interval else "no interval: no spread between problems"
    return {"value": value, "interval": interval, "method": "t on problems' means", "reason": reason}


def _t_interval(ours: Groups, theirs: Groups) -> tuple[float, Interval | None]:
    """The mean of m per-problem differences of means, with Student's interval where they differ at all."""
    from scipy.special import stdtrit

    gaps = [math.fsum(ours[p]) / len(ours[p]) - math.fsum(theirs[p]) / len(theirs[p]) for p in ours]
    m, mean = len(gaps), math.fsum(gaps) / len(gaps)
    if m < 2 or min(gaps) == max(gaps):
        return mean, None
    half = float(stdtrit(m - 1, 1 - ALPHA / 2)) * stdev(gaps) / math.sqrt(m)
    return mean, Interval(mean - half, mean + half)


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
    return _square_and_add((both + gained) / n, ours, (both + lost) / n, theirs, correlation)


def _square_and_add(p: float, p_in: Interval, q: float, q_in: Interval, correlation: float) -> Interval:
    """Joins the intervals of p and q to one of p - q.

    Source: Newcombe (1998), as above; for any two intervals: Zou and Donner (2008), Statistics in Medicine 27:1693.
    """

    def reach(towards: float, away: float) -> float:
        return math.sqrt(max(0.0, towards**2 - 2 * correlation * towards * away + away**2))

    low = p - q - reach(p - p_in.low, q_in.high - q)
    high = p - q + reach(q - q_in.low, p_in.high - p)
    return Interval(max(-1.0, low), min(1.0, high))


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided McNemar test: are gains and losses equally likely?

    Source: McNemar (1947), Psychometrika 12:153-157; binomial form: Agresti (2013), Categorical Data Analysis, 11.1.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))
