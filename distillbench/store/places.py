"""Where rows lie, by their digests: 24 bytes a row, however many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Digests that are newly added are kept apart until they are so many, or a quarter of all.
_LEAST_APART = 4096


class Places:
    """A place for each digest; the newest where one is added again."""

    def __init__(self) -> None:
        import numpy as np

        self._apart: dict[str, int] = {}
        #: Sorted by the first: both halves of a digest, and its place.
        self._sorted: tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]] = (
            np.zeros(0, np.uint64),
            np.zeros(0, np.uint64),
            np.zeros(0, np.int64),
        )

    def add(self, digest: str, place: int) -> None:
        """Notes where the row of a digest (32 hex digits) lies."""
        self._apart[digest] = place
        if len(self._apart) >= max(_LEAST_APART, len(self._sorted[0]) // 4):
            self._merge()

    def get(self, digest: str) -> int | None:
        """The place of a digest; None where it has none."""
        if digest in self._apart:
            return self._apart[digest]
        firsts, seconds, places = self._sorted
        first, second = _halves(digest)
        start, end = firsts.searchsorted(first, "left"), firsts.searchsorted(first, "right")
        for number in range(int(start), int(end)):
            if seconds[number] == second:
                return int(places[number])
        return None

    def _merge(self) -> None:
        import numpy as np

        added = np.array([_halves(digest) for digest in self._apart], np.uint64)
        places = np.fromiter(self._apart.values(), np.int64, len(self._apart))
        # what is new stands before what is old of the same digest, because the order is stable
        firsts = np.concatenate([added[:, 0], self._sorted[0]])
        order = np.argsort(firsts, kind="stable")
        seconds = np.concatenate([added[:, 1], self._sorted[1]])
        self._sorted = firsts[order], seconds[order], np.concatenate([places, self._sorted[2]])[order]
        self._apart = {}


def _halves(digest: str) -> tuple[np.uint64, np.uint64]:
    import numpy as np

    return np.uint64(int(digest[:16], 16)), np.uint64(int(digest[16:], 16))
