"""Tables whose rows are read by their numbers: in any order from `.arrow` files, nearly in order from others."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

from distillbench.store.columns import Row, rows_of
from distillbench.store.rows import mapped_table


class StoredRows:
    """The rows of a `.parquet` file by their numbers; a batch is held, so that numbers had best be nearly in order.

    Args:
        path: The file.
        columns: Those that are read; all where None.

    Raises:
        OSError: It cannot be read.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        import pyarrow.parquet as pq

        self._columns = None if columns is None else list(columns)
        self._source = pq.ParquetFile(path, pre_buffer=False)
        about = self._source.metadata
        self._ends = list(accumulate(about.row_group(number).num_rows for number in range(about.num_row_groups)))
        self._held: tuple[int, list[Row]] = (-1, [])

    def rows_at(self, numbers: Iterable[int]) -> Iterator[Row]:
        """The rows of these numbers."""
        for number in numbers:
            group = bisect_right(self._ends, number)
            if self._held[0] != group:
                table = self._source.read_row_group(group, self._columns, use_threads=False)
                self._held = group, [row for batch in table.to_batches() for row in rows_of(batch)]
            yield self._held[1][number - self._ends[group]]


class MappedRows(Sequence[Row]):
    """The rows of an `.arrow` file by their numbers, in any order; the file is mapped, and nothing of it is held.

    Token ids are views on the file, which cannot be written to. It survives being sent to another process.

    Args:
        path: The file.
        columns: Those that are read; all where None.

    Raises:
        OSError: It cannot be read.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        self.path = path
        self._columns = columns
        self._open()

    def _open(self) -> None:
        self._batches = mapped_table(self.path, self._columns).to_batches()
        self._ends = list(accumulate(batch.num_rows for batch in self._batches))

    def __reduce__(self) -> tuple[type[Self], tuple[Path, Sequence[str] | None]]:
        return type(self), (self.path, self._columns)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[place] for place in range(*number.indices(len(self)))]
        place = int(number) + len(self) if number < 0 else int(number)
        if not 0 <= place < len(self):
            raise IndexError(f"{self.path} has {len(self)} rows, and none at {number}")
        batch_number = bisect_right(self._ends, place)
        batch = self._batches[batch_number]
        within = place - self._ends[batch_number] + batch.num_rows
        return next(rows_of(batch.slice(within, 1)))
