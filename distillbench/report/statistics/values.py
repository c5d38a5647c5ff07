"""The values of scored samples, problem by problem: what every mean, interval and difference is made of.

Letters: n values, m problems that have one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from distillbench.outcomes import COMPLETED, CORRECT, ERRORS, GRADED
from distillbench.report.results import ResultsError
from distillbench.report.scores import Scores

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """Some values, those of one problem side by side.

    Attributes:
        problems: The problems that have a value [m], each once.
        sizes: How many values each has [m].
        values: All of them [n], in the order of `problems`.
    """

    problems: pa.StringArray
    sizes: NDArray[np.int64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.sizes)

    def mean(self) -> float | None:
        """Over the n values; None where there are none."""
        # fsum rounds once, so that the order of the samples changes no digit
        return math.fsum(self.values.tolist()) / len(self.values) if len(self.values) else None

    def totals(self) -> NDArray[np.float64]:
        """The sum of each problem's values [m]."""
        return summed(self.values, self.sizes)

    def means(self) -> NDArray[np.float64]:
        """The mean of each problem's values [m]."""
        return self.totals() / self.sizes

    def take(self, places: NDArray[np.int64]) -> Values:
        """Those of some problems, in the order of these."""
        sizes = self.sizes[places]
        firsts = (np.cumsum(self.sizes) - self.sizes)[places]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return Values(self.problems.take(pa.array(places)), sizes, self.values[np.repeat(firsts, sizes) + within])


def summed(values: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sum of every run of values, each rounded once."""
    if len(values) == len(sizes):  # one each
        return values
    ends = np.cumsum(sizes)
    runs = zip((ends - sizes).tolist(), ends.tolist(), strict=True)
    return np.array([math.fsum(values[start:end].tolist()) for start, end in runs], np.float64)


def verdicts(scores: Scores) -> Values:
    """1 for every correct and 0 for every other scored sample."""
    return _values(scores, ~scores.has(ERRORS), scores.has([CORRECT]).astype(np.float64))


def completed_verdicts(scores: Scores) -> Values:
    """1 for every correct and 0 for every other sample with a complete answer."""
    return _values(scores, scores.has(COMPLETED), scores.has([CORRECT]).astype(np.float64))


def score_values(scores: Scores) -> Values:
    """The scores of the graded samples.

    Raises:
        ResultsError: A graded sample has no finite `score`.
    """
    values = np.full(len(scores), np.nan)
    if (score := scores.metrics.get("score")) is not None:
        values[score.places] = score.values
    graded = scores.has([GRADED])
    if (broken := np.flatnonzero(graded & ~np.isfinite(values))).size:
        raise ResultsError(_no_score(scores, int(broken[0])))
    return _values(scores, graded, values)


def _no_score(scores: Scores, place: int) -> str:
    found = {
        name: float(metric.values[metric.places == place][0])
        for name, metric in scores.metrics.items()
        if (metric.places == place).any()
    }
    problem = scores.names[int(scores.problem[place])].as_py()
    return f"graded sample {problem!r} has no finite 'score': {found}"


def _values(scores: Scores, which: NDArray[np.bool_], values: NDArray[np.float64]) -> Values:
    places = np.flatnonzero(which)
    ordered = places[np.argsort(scores.problem[places], kind="stable")]
    sizes = np.bincount(scores.problem[places], minlength=len(scores.names))
    present = np.flatnonzero(sizes)
    return Values(scores.names.take(pa.array(present)), sizes[present], values[ordered])
