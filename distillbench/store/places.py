"""Where rows lie: by their digests in 24 bytes a row, by their numbers in 9."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Digests that are newly added are kept apart until they are so many.
_MOST_APART = 4096


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
        if len(self._apart) >= _MOST_APART:
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
        order = np.argsort(added[:, 0], kind="stable")
        firsts, seconds, old = self._sorted
        at = firsts.searchsorted(added[order, 0], "left")  # what is new stands before what is old of the same digest
        self._sorted = (
            np.insert(firsts, at, added[order, 0]),
            np.insert(seconds, at, added[order, 1]),
            np.insert(old, at, places[order]),
        )
        self._apart = {}


def _halves(digest: str) -> tuple[np.uint64, np.uint64]:
    import numpy as np

    return np.uint64(int(digest[:16], 16)), np.uint64(int(digest[16:], 16))


class Whereabouts:
    """In which of several files each of n rows lies, and where.

    Args:
        n: How many rows there are.
        sources: Each gives the rows at places in its file.

    Attributes:
        n_known: How many rows have been put somewhere.
    """

    def __init__(self, n: int, sources: Sequence[Callable[[Iterable[int]], Iterator[dict[str, Any]]]]) -> None:
        self.n_known = 0
        self._sources = sources
        self._which = array("b", [-1]) * n
        self._places = array("q", [0]) * n

    def __len__(self) -> int:
        return len(self._which)

    def __contains__(self, number: int) -> bool:
        return self._which[number] >= 0

    def put(self, number: int, source: int, place: int) -> None:
        """Says where a row lies now."""
        self.n_known += number not in self
        self._which[number], self._places[number] = source, place

    def forget(self, number: int) -> None:
        """Says that a row is not there."""
        self.n_known -= number in self
        self._which[number] = -1

    def rows(self, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The rows of these numbers, as they lie in their files."""
        where = ((self._which[number], self._places[number]) for number in numbers)
        for which, found in groupby(where, key=itemgetter(0)):
            if which < 0:
                raise LookupError("a row was asked for that lies nowhere")
            yield from self._sources[which](place for _, place in found)
