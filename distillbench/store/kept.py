"""Traces of a store, as they stream from their file: all of a set, or those that a curation keeps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from distillbench.errors import StageError
from distillbench.plan.stage import Stage
from distillbench.records import Trace
from distillbench.store.columns import Row
from distillbench.store.rows import DECISIONS, TRACES, count_rows, iterate, read_column, trace_of
from distillbench.store.store import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Whole(Collection[Trace]):
    """The traces of a set, in order, of which a batch at a time is held.

    Args:
        store: Has the result.
        traces: The finished stage.
    """

    def __init__(self, store: Store, traces: Stage) -> None:
        self._path = store.file(traces, TRACES)

    def __iter__(self) -> Iterator[Trace]:
        return map(trace_of, iterate(self._path))

    def __len__(self) -> int:
        return count_rows(self._path)

    def __contains__(self, trace: object) -> bool:
        return any(trace == one for one in self)


class Kept(Whole):
    """The traces of a set that a curation keeps, in order.

    Args:
        store: Has both results.
        traces: The finished stage with the traces.
        curate: The finished stage that decided.
    """

    def __init__(self, store: Store, traces: Stage, curate: Stage) -> None:
        super().__init__(store, traces)
        self.is_kept = kept_rows(store.file(curate, DECISIONS))

    def __iter__(self) -> Iterator[Trace]:
        return (trace_of(row) for row, is_kept in zip(iterate(self._path), self.is_kept, strict=True) if is_kept)

    def __len__(self) -> int:
        return int(self.is_kept.sum())


def kept_rows(decisions: Path) -> NDArray[np.bool_]:
    """Which rows of the traces are kept: bool[rows]."""
    import numpy as np

    rows, kept = (read_column(decisions, name).to_numpy() for name in ("row", "kept"))
    mask = np.zeros(len(rows), np.bool_)
    mask[rows] = kept
    return mask


def measured(path: Path, measures: Mapping[str, Path], wanted: Iterable[bool]) -> Iterator[Trace]:
    """The wanted traces of a file, each with what was measured of it.

    Args:
        path: The traces.
        measures: By name, a file with a row for each trace, in the same order.
        wanted: Whether a trace is wanted, for each.

    Raises:
        StageError: A measure is of other traces.
    """
    files = [iterate(one) for one in measures.values()]
    for row, is_wanted, *found in zip(iterate(path), wanted, *files, strict=True):
        if is_wanted:
            yield trace_of(row, {name: _of(row, one, name) for name, one in zip(measures, found, strict=True)})


def _of(row: Row, measure: Row, name: str) -> Row:
    if row["trace_id"] != measure["trace_id"]:
        raise StageError(f"measure {name!r} is of trace {measure['trace_id']!r} where {row['trace_id']!r} stands")
    return measure
