"""Rows that a seed makes: as many as are asked for, with lengths as real traces have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Tokens of a row at the mean, the width of the logarithm, and characters of a token.
MEAN_TOKENS, SIGMA, CHARACTERS = 3000, 0.6, 3.4
WORDS = "so let us check the sum again wait we have to compute x squared plus three times y over two".split()  # noqa: SIM905


@dataclass(frozen=True)
class Size:
    """How many rows, and how long."""

    n: int
    scale: float = 1.0


@dataclass(frozen=True)
class Step:
    """Something that is done to rows.

    Attributes:
        run: Does it, in a folder; gives the number of rows.
        imports: What it needs, whose memory is not its own.
        after: The step whose result it reads.
        ready: Makes what a process makes once, however many rows there are; counts as imports do.
    """

    run: Callable[[Path, Size], int]
    imports: tuple[str, ...] = ()
    after: str | None = None
    ready: Callable[[], object] = tuple


class Text:
    """Texts and token ids of any length, cut from a block so that making them takes no time."""

    def __init__(self, size: Size) -> None:
        self.rng = np.random.default_rng(0)
        self.block = " ".join(self.rng.choice(WORDS, 200_000))
        self.ids: NDArray[np.int32] = self.rng.integers(0, 150_000, 200_000).astype(np.int32)
        self.size = size

    def lengths(self) -> Iterator[int]:
        """The number of tokens of each row."""
        middle = np.log(MEAN_TOKENS * self.size.scale) - SIGMA**2 / 2
        for _ in range(self.size.n):
            yield int(np.clip(self.rng.lognormal(middle, SIGMA), 8, 40_000))

    def text(self, n_tokens: int) -> str:
        """A text of so many tokens."""
        n = int(n_tokens * CHARACTERS)
        start = int(self.rng.integers(0, len(self.block) - n))
        return self.block[start : start + n]

    def token_ids(self, n_tokens: int) -> NDArray[np.int32]:
        """So many token ids."""
        start = int(self.rng.integers(0, len(self.ids) - n_tokens))
        return self.ids[start : start + n_tokens]
