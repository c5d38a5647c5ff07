"""Finished rows, appended as they arrive, so that a kill loses seconds and not hours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from distillbench.sealed import sealed, unsealed
from distillbench.writing import naming


class Journal:
    """An append-only file of JSON lines, each with its seal.

    A line that a kill cut in half is dropped when it is opened again; one that is damaged does not count.

    Args:
        path: The file; made when it is not there.
        whose: The key of the stage it belongs to: another stage's rows do not count.
        in_order: Whether a row's place matters. Then what follows a damaged line does not count either, and is moved
            into a file beside.
    """

    def __init__(self, path: Path, whose: str = "", in_order: bool = False) -> None:
        self.path = path
        self.whose = whose
        self.rows: list[dict[str, Any]] = list(_read(path, whose, in_order))

    def open(self) -> Self:
        """Makes it ready for `append`."""
        self._stream = self.path.open("a", encoding="utf-8")
        return self

    def close(self) -> None:
        """Closes the file."""
        with naming(self.path):
            self._stream.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *unused: object) -> None:
        self.close()

    def append(self, row: dict[str, Any]) -> None:
        """Adds a row and hands it to the operating system, which keeps it when this process is killed."""
        with naming(self.path):
            self._stream.write(json.dumps(sealed(row, self.whose), ensure_ascii=True) + "\n")
            self._stream.flush()
        self.rows.append(row)


def _read(path: Path, whose: str, in_order: bool) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        _cut(path, end)
    n_read = 0
    for line in content[:end].splitlines(keepends=True):
        try:
            row = unsealed(line, whose)
        except ValueError:
            if in_order:
                path.with_name(f"{path.name}.damaged").write_bytes(content[n_read:])
                _cut(path, n_read)
                return
        else:
            yield row
        n_read += len(line)


def _cut(path: Path, length: int) -> None:
    with path.open("r+b") as stream:
        stream.truncate(length)
