"""Train and test splits of made-up problems: a question belongs to one of them by a checksum of its text alone.

So the splits are disjoint whatever seeds and sizes they are drawn with, and a student that is pretrained on one stream
of training problems has never seen a test problem.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

#: One question in this many belongs to the test split.
TEST_SHARE = 5

Doc = dict[str, Any]


def is_test(question: str) -> bool:
    """Whether a question belongs to the test split."""
    return zlib.crc32(question.encode()) % TEST_SHARE == 0


def stream(draw: Callable[[random.Random], Doc], name: str, split: str, seed: int) -> Iterator[Doc]:
    """Yields distinct problems of a split (`train` or `test`) without end.

    Args:
        draw: Draws one problem, a mapping with a `question`.
        name: The task's name.
        split: Which split.
        seed: Of the stream.
    """
    rng, seen = random.Random(f"{name}-{split}-{seed}"), set()
    while True:
        doc = draw(rng)
        if is_test(doc["question"]) == (split == "test") and doc["question"] not in seen:
            seen.add(doc["question"])
            yield doc


def datasets_of(draw: Callable[[random.Random], Doc], name: str, n_train: int, n_test: int) -> dict[str, Any]:
    """Both splits as `datasets.Dataset`, as lm-eval's `custom_dataset` wants them."""
    from datasets import Dataset

    sizes = {"train": n_train, "test": n_test}
    return {split: Dataset.from_list(list(islice(stream(draw, name, split, 0), n))) for split, n in sizes.items()}
