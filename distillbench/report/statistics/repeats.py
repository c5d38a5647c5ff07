"""What K completions of one problem are worth together: pass@k and maj@k. avg@k is the accuracy.

Letters: n scored samples of a problem, c of them correct, K samples asked of each problem.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cache
from statistics import stdev
from typing import TYPE_CHECKING

import numpy as np

from distillbench.outcomes import COMPLETED, CORRECT, ERRORS
from distillbench.report.scores import Scores
from distillbench.report.statistics.intervals import Interval, mean_interval
from distillbench.report.statistics.summary import Summary
from distillbench.report.statistics.values import Values, verdicts

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class AtK:
    """A mean over problems, each worth between 0 and 1.

    Attributes:
        k: Completions together.
        value: None where no problem is left.
        interval: Wilson's, at the effective number of samples of `mean_interval`.
        stderr: Of the mean over problems; None below two.
        n_problems: Problems in the mean.
        n_left_out: Problems with too few scored samples.
    """

    k: int
    value: float | None
    interval: Interval | None
    stderr: float | None
    n_problems: int
    n_left_out: int


@dataclass(frozen=True, slots=True)
class Repeats:
    """The numbers of a checkpoint that was asked each problem more than once.

    Attributes:
        asked: The most completions of a problem, K.
        pass_at: For k = 1, 2, 4, ... and K.
        majority: maj@K; None where the grader cannot compare answers.
    """

    asked: int
    pass_at: tuple[AtK, ...]
    majority: AtK | None


def repeats_of(scores: Scores, summary: Summary, compares: bool) -> Repeats | None:
    """pass@k and maj@k; None without repeats, and where there is no verdict to count.

    Args:
        scores: Of one checkpoint on one evaluation.
        summary: Their other numbers.
        compares: Whether the grader can compare the answers of this evaluation.
    """
    asked = scores.repeats()
    if asked < 2 or summary.by_score or summary.invalid:
        return None
    scored = verdicts(scores)
    pass_at = tuple(_at(k, pass_values(scored, k), scored.sizes[scored.sizes >= k], summary) for k in _ks(asked))
    majority = _at(asked, majority_values(scores), scored.sizes, summary) if compares else None
    return Repeats(asked, pass_at, majority)


@cache
def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that k of n samples, drawn without putting back, hold one of the c that are correct.

    Its mean over many draws of the n samples is the chance that k new samples hold a correct one: it is unbiased.

    Source: Chen et al. (2021), "Evaluating Large Language Models Trained on Code", equation 1.
    """
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def pass_values(scored: Values, k: int) -> list[float]:
    """pass@k of every problem that has k scored samples or more, each from its own (n, c)."""
    counts = zip(scored.sizes.tolist(), scored.totals().tolist(), strict=True)
    return [pass_at_k(n, int(c), k) for n, c in counts if n >= k]


def majority_values(scores: Scores) -> list[float]:
    """For each problem with a scored sample, whether the answer with the most votes is correct.

    A sample without a complete answer votes for nothing; a problem without any vote is worth 0. Where several answers
    have the most votes, the problem is worth the mean over them, as if one were drawn.
    """
    places = np.flatnonzero(~scores.has(ERRORS))
    ordered = places[np.argsort(scores.problem[places], kind="stable")]
    votes = np.where(scores.has(COMPLETED), scores.form, 0)
    correct = scores.has([CORRECT])
    return [
        _winners(votes[of_problem].tolist(), correct[of_problem].tolist())
        for of_problem in np.split(ordered, np.flatnonzero(np.diff(scores.problem[ordered])) + 1)
        if of_problem.size
    ]


def _winners(votes: list[int], correct: list[bool]) -> float:
    """What the answers with the most votes are worth; 0 is no vote."""
    times = Counter(vote for vote in votes if vote)
    right = Counter(vote for vote, is_right in zip(votes, correct, strict=True) if is_right)
    most = max(times.values(), default=0)
    # a grader may judge two samples of one form differently, so an answer is as right as its samples are
    first = [right[vote] / most for vote, count in times.items() if count == most]
    return math.fsum(first) / len(first) if first else 0.0


def can_compare(scores: Scores) -> bool | None:
    """Whether the grader gave every complete answer a form to compare it in; None where there is no complete answer."""
    completed = scores.has(COMPLETED)
    return bool((scores.form[completed] != 0).all()) if completed.any() else None


def _ks(asked: int) -> list[int]:
    powers = [2**power for power in range(asked.bit_length()) if 2**power <= asked]
    return sorted({*powers, asked})


def _at(k: int, values: list[float], sizes: NDArray[np.int64], summary: Summary) -> AtK:
    """A mean over problems, from the value and the number of scored samples of each."""
    return AtK(
        k=k,
        value=math.fsum(values) / len(values) if values else None,
        interval=mean_interval(values, int(sizes.sum())),
        stderr=stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None,
        n_problems=len(values),
        n_left_out=summary.n_problems - len(values),
    )
