"""What a runner and its workers say to each other, beside events."""

from __future__ import annotations

from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Protocol

from distillbench.plan.stage import Stage


@dataclass(frozen=True, slots=True)
class Take:
    """To a session: stages that have become ready."""

    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Close:
    """To a session: nothing more comes, or others need what it uses."""


@dataclass(frozen=True, slots=True)
class Returned:
    """From a worker: a stage that it was given and has not run.

    Attributes:
        key: The stage's.
        is_busy: Whether another process runs it; otherwise what it needs is not there.
    """

    key: str
    is_busy: bool


@dataclass(frozen=True, slots=True)
class Idle:
    """From a session: there is nothing left to sample of what it was given.

    Attributes:
        n_taken: How many orders it had read by then.
    """

    n_taken: int


class Channel(Protocol):
    """One end of a two-way connection, such as a `multiprocessing` Connection."""

    def send(self, message: object) -> None:
        """Sends a message, which can be pickled."""

    def recv(self) -> object:
        """Waits for a message. Raises EOFError when the other end is gone."""


class Intake:
    """The stages that a session is given while it is open.

    Args:
        channel: Where the runner's orders come from.
        first: The stages that it begins with.

    Attributes:
        n_taken: How many orders have been read; the first stages count as one.
    """

    def __init__(self, channel: Channel, first: tuple[Stage, ...]) -> None:
        self.n_taken = 0
        self._is_closed = False
        self._orders: SimpleQueue[Take | Close] = SimpleQueue()
        self._orders.put(Take(first))
        Thread(target=self._read, args=(channel,), name="orders", daemon=True).start()

    def wait(self) -> tuple[Stage, ...] | None:
        """The next stages; None when the session is to end."""
        return None if self._is_closed else self._taken(self._orders.get())

    def now(self) -> tuple[Stage, ...]:
        """Stages that have come meanwhile, without waiting."""
        try:
            return () if self._is_closed else self._taken(self._orders.get_nowait()) or ()
        except Empty:
            return ()

    def _taken(self, order: Take | Close) -> tuple[Stage, ...] | None:
        if isinstance(order, Close):
            self._is_closed = True
            return None
        self.n_taken += 1
        return order.stages

    def _read(self, channel: Channel) -> None:
        while True:
            try:
                order = channel.recv()
            except (EOFError, OSError):  # the runner is gone, and this process ends with it
                return
            if isinstance(order, Take | Close):
                self._orders.put(order)
