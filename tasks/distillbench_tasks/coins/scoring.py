"""How the stock `lm_eval` command scores coins: as the `math_boxed` grader does, on the text after the reasoning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distillbench_plugins.benchmarks.math_boxed import is_equal, last_boxed


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """`exact_match`: 1 when the last complete box after the reasoning equals the answer."""
    boxed = last_boxed(answer_part(results[0]))
    return {"exact_match": float(boxed is not None and is_equal(doc["answer"], boxed))}


def answer_part(response: str) -> str:
    """What follows the reasoning; nothing when the reasoning was never closed."""
    _, closed, answer = response.rpartition("</think>")
    return answer if closed or "<think>" not in response else ""
