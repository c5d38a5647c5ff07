"""Every number of one checkpoint on one evaluation. All intervals are 95 %."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from distillbench.outcomes import COMPLETED, CORRECT, ERRORS, GENERATION_ERROR, GRADED, WRONG
from distillbench.report.results import CheckpointResult, ResultsError
from distillbench.report.scores import NONE, REASONING_STATES, Scores
from distillbench.report.statistics.intervals import Interval, bootstrap_interval, proportion_interval
from distillbench.report.statistics.values import completed_verdicts, score_values, verdicts

#: Above this share of errors, and above one error, a number is not shown (DESIGN section 3).
INVALID_SHARE = 0.01


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
        accuracy: Correct / scored; None where the grader gives scores.
        accuracy_interval: Wilson, with the effective sample size of `effective_size`.
        accuracy_completed: Correct / samples with a complete answer.
        accuracy_completed_interval: As `accuracy_interval`.
        bounds: Accuracy over all n if every error had been wrong .. right; None without errors.
        by_score: True where the grader gives scores instead of verdicts.
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


def summarise(result: CheckpointResult, by_score: bool | None = None) -> Summary:
    """Every number of one checkpoint on one evaluation.

    Args:
        result: Its samples, in any order.
        by_score: Whether the grader gives scores; None to see it from these samples (which cannot tell when no
            sample holds a complete answer).

    Raises:
        ResultsError: The samples contradict one another.
    """
    scores, counts = result.scores, result.scores.counts()
    n = len(scores)
    errors = sum(counts[outcome] for outcome in ERRORS)
    by_score, invalid = gives_scores(result, by_score), is_invalid(scores)
    scored = n - errors
    completed = sum(counts[outcome] for outcome in COMPLETED)
    numbers = {} if invalid else _score(scores) if by_score else _accuracy(scores)
    return Summary(
        n=n,
        n_problems=len(scores.names),
        counts=counts,
        scored=scored,
        errors=errors,
        invalid=invalid,
        completion_rate=None if invalid or not scored else completed / scored,
        bounds=Interval(counts[CORRECT] / n, (counts[CORRECT] + errors) / n) if errors and not by_score else None,
        by_score=by_score,
        **{**dict.fromkeys(_NUMBERS), **numbers},
        **_shape(scores),
    )


def is_invalid(scores: Scores) -> bool:
    """Whether so many samples failed that no number is given."""
    errors = int(scores.has(ERRORS).sum())
    return errors > 1 and errors > INVALID_SHARE * len(scores)


def gives_scores(result: CheckpointResult, by_score: bool | None) -> bool:
    """Whether a grader gives scores and no verdicts.

    Args:
        result: Its samples.
        by_score: What is known of it; None to see it from the samples.

    Raises:
        ResultsError: The samples say otherwise, or both.
    """
    counts = result.scores.counts()
    by_score = counts[GRADED] > 0 if by_score is None else by_score
    if counts[CORRECT] + counts[WRONG] if by_score else counts[GRADED]:
        raise ResultsError(f"{result.evaluation}: one grader gives both verdicts and scores; split it in two")
    return by_score


_NUMBERS = (
    "accuracy",
    "accuracy_interval",
    "accuracy_completed",
    "accuracy_completed_interval",
    "score",
    "score_interval",
)


def _accuracy(scores: Scores) -> dict[str, Any]:
    scored, completed = verdicts(scores), completed_verdicts(scores)
    return {
        "accuracy": scored.mean(),
        "accuracy_interval": proportion_interval(scored),
        "accuracy_completed": completed.mean(),
        "accuracy_completed_interval": proportion_interval(completed),
    }


def _score(scores: Scores) -> dict[str, Any]:
    values = score_values(scores)
    return {"score": values.mean(), "score_interval": bootstrap_interval(values)}


def _shape(scores: Scores) -> dict[str, Any]:
    """What the completions look like: reasoning, length, running on."""
    present = ~scores.has([GENERATION_ERROR])
    states = np.bincount(scores.reasoning[present & (scores.reasoning != NONE)], minlength=len(REASONING_STATES))
    total = int(states.sum())
    shares = {state: count / total for state, count in zip(REASONING_STATES, states.tolist(), strict=True) if total}
    lengths = np.sort(scores.n_tokens[present & (scores.n_tokens != NONE)])
    n = len(lengths)
    return {
        "reasoning": shares,
        "ran_on": int(scores.ran_on[present].sum()),
        "tokens_median": (int(lengths[(n - 1) // 2]) + int(lengths[n // 2])) / 2 if n else None,
        "tokens_p95": int(lengths[math.ceil(0.95 * n) - 1]) if n else None,
    }
