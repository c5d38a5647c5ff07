"""Finished rows, appended as they arrive, so that a kill loses seconds and not hours."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from distillbench.errors import DamagedError
from distillbench.sealed import sealed, unsealed
from distillbench.writing import naming

Row = dict[str, Any]


def _ignore(place: int, row: Row) -> None:
    """Takes no notice."""


class Journal:
    """An append-only file of JSON lines, each with its seal, of which nothing is held: rows are read where they lie.

    A line that a kill cut in half is dropped when the journal is made ready; one that is damaged does not count.

    Args:
        path: The file; made when it is not there.
        whose: The key of the stage it belongs to: another stage's rows do not count.
        in_order: Whether a row's place matters. Then what follows a damaged line does not count either, and is moved
            into a file beside.
        found: Is told each row that is there already, with the place at which `rows_at` finds it.

    Attributes:
        n_rows: The number of rows that count.
    """

    def __init__(
        self, path: Path, whose: str = "", in_order: bool = False, found: Callable[[int, Row], None] = _ignore
    ) -> None:
        self.path = path
        self.whose = whose
        self.n_rows = 0
        self._in_order = in_order
        self._end = 0
        if path.exists():
            self._mend(found)

    def open(self) -> Self:
        """Makes it ready for `append`."""
        self._stream = self.path.open("ab")
        return self

    def close(self) -> None:
        """Closes the file."""
        with naming(self.path):
            self._stream.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *unused: object) -> None:
        self.close()

    @property
    def is_current(self) -> bool:
        """Whether the open file is still the one of this name, and nobody else has written to it."""
        try:
            named, own = self.path.stat(), os.fstat(self._stream.fileno())
        except FileNotFoundError:
            return False
        return (named.st_dev, named.st_ino, named.st_size) == (own.st_dev, own.st_ino, self._end)

    def append(self, row: Row) -> int:
        """Adds a row and hands it to the operating system, which keeps it when this process is killed.

        Returns:
            The place at which `rows_at` finds it.
        """
        place, line = self._end, json.dumps(sealed(row, self.whose), ensure_ascii=True).encode() + b"\n"
        with naming(self.path):
            self._stream.write(line)
            self._stream.flush()
        self._end += len(line)
        self.n_rows += 1
        return place

    def __iter__(self) -> Iterator[Row]:
        """The rows that count, from the file.

        Raises:
            DamagedError: Of rows whose place matters, one has been damaged since the journal was made ready.
        """
        if not self.path.exists():
            return
        with self.path.open("rb") as stream:
            for line in stream:
                try:
                    yield unsealed(line, self.whose)
                except ValueError as error:
                    if self._in_order:
                        raise self._damaged(error) from error

    def rows_at(self, places: Iterable[int]) -> Iterator[Row]:
        """The rows at these places.

        Raises:
            FileNotFoundError: The file is not there any more.
            DamagedError: A row has been damaged since it was written.
        """
        with self.path.open("rb") as stream:
            for place in places:
                stream.seek(place)
                try:
                    yield unsealed(stream.readline(), self.whose)
                except ValueError as error:
                    raise self._damaged(error) from error

    def _damaged(self, error: ValueError) -> DamagedError:
        return DamagedError(self.path, f"has been damaged while it was used: {error}")

    def _mend(self, found: Callable[[int, Row], None]) -> None:
        """Reads what is there once; cuts off half a line, and what follows a damaged one where places matter."""
        with self.path.open("rb") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                try:
                    row = unsealed(line, self.whose)
                except ValueError:
                    if self._in_order:
                        self._put_aside(self._end)
                        break
                else:
                    found(self._end, row)
                    self.n_rows += 1
                self._end += len(line)
        if self._end < self.path.stat().st_size:
            os.truncate(self.path, self._end)

    def _put_aside(self, start: int) -> None:
        with self.path.open("rb") as stream, self.path.with_name(f"{self.path.name}.damaged").open("wb") as aside:
            stream.seek(start)
            shutil.copyfileobj(stream, aside)
