"""How the stock `lm_eval` command scores coins: as the `math_boxed` grader does, on the text after the reasoning."""

from __future__ import annotations

import atexit
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from distillbench.errors import GraderError
from distillbench_plugins.grading.mathematics.boxes import last_boxed
from distillbench_plugins.grading.mathematics.checker import MathChecker
from distillbench_plugins.renderers.reasoning import split_reasoning


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """`exact_match`: 1 when the last complete box after the reasoning equals the answer; NaN when the grader fails."""
    _, answer, _ = split_reasoning(results[0])  # nothing when the reasoning was never closed
    boxed = last_boxed(answer)
    try:
        return {"exact_match": float(boxed is not None and _checker().is_equal(doc["answer"], boxed))}
    except GraderError:  # stock lm_eval has no outcome for it: NaN shows in its mean, and ends no run
        return {"exact_match": math.nan}


@cache
def _checker() -> MathChecker:
    """One for all samples: lm-eval gives a scoring function nothing to hold it in, and a process is slow to start."""
    checker = MathChecker()
    atexit.register(checker.close)
    return checker
