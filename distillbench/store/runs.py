"""The logs of runs: one line of JSON for each event, `<store>/runs/<time>-<matrix>-<process>.jsonl`.

A run holds its log locked while it lives, so that whoever reads it knows whether it still does.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TextIO

from distillbench.events import Event, Graded, Progressed, Sampled, StageEvent, from_line, to_line
from distillbench.store.store import Store

#: A stage that gets on writes a line at most this often, in seconds.
_LINE_EVERY = 5.0
_NOW_AND_THEN = (Progressed, Sampled, Graded)


class RunLog:
    """Writes the log of a run.

    Args:
        store: Where.
        matrix: The matrix's name.

    Raises:
        WriteError: The store cannot be written.
    """

    def __init__(self, store: Store, matrix: str) -> None:
        begun = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self.path = store.runs() / f"{begun}-{matrix}-{os.getpid()}.jsonl"
        self._written: dict[tuple[str, type[Event]], float] = {}
        self._held: dict[tuple[str, type[Event]], Event] = {}
        self._stream: TextIO = self.path.open("a", encoding="utf-8")
        fcntl.flock(self._stream, fcntl.LOCK_EX)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        with suppress(OSError):  # a disk that took no line does not take it now
            self._stream.close()

    def write(self, event: Event) -> None:
        """Writes a line; of a stage that gets on, one now and then and the last one."""
        if isinstance(event, _NOW_AND_THEN):
            place = (event.stage.key, type(event))
            if event.at - self._written.get(place, 0.0) < _LINE_EVERY:
                self._held[place] = event
                return
            self._written[place] = event.at
            self._held.pop(place, None)
        elif isinstance(event, StageEvent):
            for kind in _NOW_AND_THEN:
                if (last := self._held.pop((event.stage.key, kind), None)) is not None:
                    self._stream.write(to_line(last))
        self._stream.write(to_line(event))
        self._stream.flush()


@dataclass(frozen=True, slots=True)
class Run:
    """A run of which there is a log.

    Attributes:
        path: The log.
        is_alive: Whether it still runs.
    """

    path: Path
    is_alive: bool

    @property
    def matrix(self) -> str:
        """The matrix's name."""
        return self.path.stem.partition("-")[2].rpartition("-")[0]

    def events(self) -> Iterator[Event]:
        """What happened, in order; a last line that is half-written is left out.

        Raises:
            ValueError: A line holds no event.
        """
        with self.path.open(encoding="utf-8", errors="replace") as stream:
            for number, line in enumerate(stream, 1):
                if not line.endswith("\n"):
                    return
                try:
                    yield from_line(line)
                except ValueError as error:
                    raise ValueError(f"{self.path}, line {number}: {error}") from error


def runs_of(store: Store) -> list[Run]:
    """The runs of which a store has a log, the oldest first."""
    return [Run(path, _is_locked(path)) for path in sorted((store.root / "runs").glob("*.jsonl"))]


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
