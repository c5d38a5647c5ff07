"""What K completions of one problem are worth together: pass@k and maj@k. avg@k is the accuracy.

Letters: n scored samples of a problem, c of them correct, K samples asked of each problem.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev

from distillbench.outcomes import COMPLETED, CORRECT, ERRORS
from distillbench.report.results import GradedSample
from distillbench.report.statistics import Interval, Summary, verdicts, wilson


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


def repeats_of(samples: Collection[GradedSample], summary: Summary, compares: bool) -> Repeats | None:
    """pass@k and maj@k; None without repeats, and where there is no verdict to count.

    Args:
        samples: Of one checkpoint on one evaluation.
        summary: Their other numbers.
        compares: Whether the grader can compare the answers of this evaluation.
    """
    asked = most_repeats(samples)
    if asked < 2 or summary.by_score or summary.invalid:
        return None
    counts = {problem: (len(values), int(sum(values))) for problem, values in verdicts(samples).items()}
    pass_at = tuple(_at(k, pass_values(counts, k), counts, summary) for k in _ks(asked))
    majority = _at(asked, majority_values(samples), counts, summary) if compares else None
    return Repeats(asked, pass_at, majority)


def most_repeats(samples: Iterable[GradedSample]) -> int:
    """The most completions that a problem has; 0 without any."""
    return max(Counter(sample.problem_id for sample in samples).values(), default=0)


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that k of n samples, drawn without putting back, hold one of the c that are correct.

    Its mean over many draws of the n samples is the chance that k new samples hold a correct one: it is unbiased.

    Source: Chen et al. (2021), "Evaluating Large Language Models Trained on Code", equation 1.
    """
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def pass_values(counts: Mapping[str, tuple[int, int]], k: int) -> dict[str, float]:
    """pass@k of every problem that has k scored samples or more, each from its own (n, c)."""
    return {problem: pass_at_k(n, c, k) for problem, (n, c) in counts.items() if n >= k}


def majority_values(samples: Iterable[GradedSample]) -> dict[str, float]:
    """For each problem with a scored sample, whether the answer with the most votes is correct.

    A sample without a complete answer votes for nothing; a problem without any vote is worth 0. Where several answers
    have the most votes, the problem is worth the mean over them, as if one were drawn.
    """
    votes: dict[str, dict[str, list[bool]]] = {}
    for sample in samples:
        if sample.outcome in ERRORS:
            continue
        of_problem = votes.setdefault(sample.problem_id, {})
        if sample.outcome in COMPLETED and sample.canonical is not None:
            of_problem.setdefault(sample.canonical, []).append(sample.outcome == CORRECT)
    return {problem: _winners(answers) for problem, answers in votes.items()}


def _winners(answers: Mapping[str, list[bool]]) -> float:
    most = max(map(len, answers.values()), default=0)
    # a grader may judge two samples of one form differently, so an answer is as right as its samples are
    first = [sum(found) / most for found in answers.values() if len(found) == most]
    return math.fsum(first) / len(first) if first else 0.0


def can_compare(samples: Iterable[GradedSample]) -> bool | None:
    """Whether the grader gave every complete answer a form to compare it in; None where there is no complete answer."""
    found = [sample.canonical is not None for sample in samples if sample.outcome in COMPLETED]
    return all(found) if found else None


def _ks(asked: int) -> list[int]:
    powers = [2**power for power in range(asked.bit_length()) if 2**power <= asked]
    return sorted({*powers, asked})


def _at(k: int, values: Mapping[str, float], counts: Mapping[str, tuple[int, int]], summary: Summary) -> AtK:
    found = list(values.values())
    return AtK(
        k=k,
        value=math.fsum(found) / len(found) if found else None,
        interval=mean_interval(found, sum(counts[problem][0] for problem in values)),
        stderr=stdev(found) / math.sqrt(len(found)) if len(found) > 1 else None,
        n_problems=len(found),
        n_left_out=summary.n_problems - len(found),
    )


def mean_interval(values: Sequence[float], n_samples: int) -> Interval | None:
    """Wilson's interval of the mean of m values between 0 and 1, at the effective number of samples.

    That is p (1 - p) over the variance of the mean, at most the number of samples, and m where p is 0 or 1: as for an
    accuracy with repeats, so that pass@1 has exactly the accuracy's interval.

    Args:
        values: One for each problem.
        n_samples: How many samples they were made from.

    Source: as in `statistics.effective_size`.
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
