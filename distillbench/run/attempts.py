"""Claims stages, one process at a time, records how they end, and tells the runner.

Of every stage that it is given the runner hears one of two: how it ended, or that it was returned.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from filelock import FileLock, Timeout

from distillbench.errors import DistillbenchError, PluginError
from distillbench.events import DONE, FAILED, HOLES, REUSED, Ended, Event, Progressed, StageEvent, Started
from distillbench.plan.plan import Finished
from distillbench.plan.stage import Stage
from distillbench.protocols import Progress
from distillbench.run.orders import Idle, Returned
from distillbench.store.failures import note_failure
from distillbench.store.store import Made, Store
from distillbench.writing import refused_by_disk

#: Least time between two progress messages of a stage, in seconds.
_PROGRESS_EVERY = 0.2

Send = Callable[[Event | Returned | Idle], None]


class Attempts:
    """The stages that this process has claimed.

    Args:
        store: Where results go.
        send: Sends one message to the runner.
        about: Versions, host and the like, for manifests.

    Attributes:
        failed: The keys of stages that have failed here.
        returned: The keys of stages that were given back.
    """

    def __init__(self, store: Store, send: Send, about: Mapping[str, Any]) -> None:
        self.store = store
        self.about = about
        self._send = send
        self.failed: set[str] = set()
        self.returned: set[str] = set()
        self._sending = threading.Lock()
        self._held: dict[str, tuple[FileLock, float]] = {}
        self._told: dict[str, float] = {}

    def start(self, stage: Stage) -> bool:
        """Claims a stage.

        Returns:
            False when there is nothing to do: its result is there, another process is at it, or what it needs is not.
        """
        self.returned.discard(stage.key)
        self.failed.discard(stage.key)
        if any(not self.store.folder(need).exists() for need in stage.needs):
            self.give_back(stage)
            return False
        lock = self.store.lock(stage.key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.give_back(stage, is_busy=True)
            return False
        except OSError as error:
            self.fail(stage, error)
            return False
        self._held[stage.key] = lock, time.monotonic()
        try:
            self.store.recover(stage)
            found = self._fresh(stage)
            if found is None:
                self.store.begin(stage)
        except (DistillbenchError, OSError) as error:
            self.fail(stage, error)
            return False
        if found is not None:
            self._release(stage)
            self.tell(Ended(stage=stage.about, ending=REUSED))
            return False
        self.tell(Started(stage=stage.about))
        return True

    def give_back(self, stage: Stage, is_busy: bool = False) -> None:
        """Leaves a stage to the runner: another process runs it, or what it needs is not there."""
        self.returned.add(stage.key)
        self.tell(Returned(stage.key, is_busy))

    def succeed(self, stage: Stage, made: Made) -> None:
        """Makes what a stage left its result."""
        _, begin = self._held[stage.key]
        try:
            found = self.store.finish(stage, made, time.monotonic() - begin, self.about)
        except (DistillbenchError, OSError) as error:
            self.fail(stage, error)
            return
        self._release(stage)
        why = f"{found.holes} samples failed" if found.holes else ""
        self.tell(Ended(stage=stage.about, ending=HOLES if found.holes else DONE, why=why, seconds=found.seconds))

    def fail(self, stage: Stage, error: Exception) -> None:
        """Records why a stage has no result; what it journaled stays."""
        is_meant = isinstance(error, DistillbenchError)
        if not is_meant or isinstance(error, PluginError):
            with suppress(OSError):  # the disk that refused a result may refuse a log too
                traceback.print_exception(error)
                sys.stderr.flush()
        why = str(error) if is_meant else f"{type(error).__name__}: {error}"
        why = refused_by_disk(error, self.store.root) or why
        note_failure(self.store, stage, why)
        self._release(stage)
        self.failed.add(stage.key)
        self.tell(Ended(stage=stage.about, ending=FAILED, why=why))

    def run(self, stage: Stage, step: Callable[[Progress], Made]) -> None:
        """Claims a stage, runs it and records how it ended."""
        if not self.start(stage):
            return
        try:
            made = step(self.progress(stage))
        except Exception as error:  # a plugin may raise anything: the stage fails, its dependants are blocked
            self.fail(stage, error)
        else:
            self.succeed(stage, made)

    def progress(self, stage: Stage) -> Progress:
        """What a step calls as it gets on."""

        def report(done: int, total: int | None, note: str) -> None:
            event = Progressed(stage=stage.about, done=done, total=total, note=note)
            self.tell_now_and_then(event, is_last=done == total)

        return report

    def tell_now_and_then(self, event: StageEvent, is_last: bool) -> None:
        """Tells the runner, unless it was told a moment ago; the last of such messages always goes out."""
        key = event.stage.key
        if is_last or event.at - self._told.get(key, 0.0) >= _PROGRESS_EVERY:
            self._told[key] = event.at
            self.tell(event)

    def tell(self, message: Event | Returned | Idle) -> None:
        """Tells the runner something; from any thread."""
        with self._sending:
            self._send(message)

    def _release(self, stage: Stage) -> None:
        if held := self._held.pop(stage.key, None):
            held[0].release()

    def _fresh(self, stage: Stage) -> Finished | None:
        own = self.store.lookup(stage)
        if own is None or own.freed or own.holes:
            return None
        digests = {need.key: self.store.digest(need) for need in stage.needs}
        return own if own.inputs == digests else None
