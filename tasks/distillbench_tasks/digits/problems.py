"""Look-ups in a short list of digits: the largest, the smallest, the first or the last."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from distillbench_tasks.splits import Doc, datasets_of

PICK: dict[str, Callable[[list[int]], int]] = {
    "largest": max,
    "smallest": min,
    "first": lambda digits: digits[0],
    "last": lambda digits: digits[-1],
}
LENGTHS = (3, 4, 5)
N_TRAIN, N_TEST = 1000, 200


def draw(rng: random.Random) -> Doc:
    """Draws one problem: `{question, answer, digits, which}`."""
    digits = [rng.randint(0, 9) for _ in range(rng.choice(LENGTHS))]
    which = rng.choice(tuple(PICK))
    question = f"Digits: {', '.join(map(str, digits))}. Which is the {which}?"
    return {"question": question, "answer": str(PICK[which](digits)), "digits": digits, "which": which}


def load(**metadata: Any) -> dict[str, Any]:
    """Both splits, for lm-eval's `custom_dataset`."""
    return datasets_of(draw, "digits", N_TRAIN, N_TEST)
