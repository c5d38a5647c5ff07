"""The traces that a curation keeps."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from distillbench.plan.stage import Stage
from distillbench.records import Trace
from distillbench.store.rows import KEPT, count_rows, iterate, trace_of
from distillbench.store.store import Store


class Kept(Collection[Trace]):
    """The kept traces of a curation, in order, of which a batch at a time is held.

    Args:
        store: Has the result.
        curate: The finished stage.
    """

    def __init__(self, store: Store, curate: Stage) -> None:
        self._path = store.file(curate, KEPT)

    def __iter__(self) -> Iterator[Trace]:
        return map(trace_of, iterate(self._path))

    def __len__(self) -> int:
        return count_rows(self._path)

    def __contains__(self, trace: object) -> bool:
        return any(trace == one for one in self)
