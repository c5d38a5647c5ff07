"""Finished rows, appended as they arrive, so that a kill loses seconds and not hours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self


class Journal:
    """An append-only file of JSON lines. A line that a kill cut in half is dropped when it is opened again.

    Args:
        path: The file; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = list(_read_whole_lines(path))

    def open(self) -> Self:
        """Makes it ready for `append`."""
        self._stream = self.path.open("a", encoding="utf-8")
        return self

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *unused: object) -> None:
        self.close()

    def append(self, row: dict[str, Any]) -> None:
        """Adds a row and hands it to the operating system, which keeps it when this process is killed."""
        self._stream.write(json.dumps(row, ensure_ascii=True) + "\n")
        self._stream.flush()
        self.rows.append(row)


def _read_whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as stream:
            stream.truncate(len(whole))
    for line in whole.splitlines():
        yield json.loads(line)
