"""Runs the stages of one session in a process of its own, and tells the runner how they go."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from filelock import Timeout

from distillbench.catalog import Catalog
from distillbench.errors import DistillbenchError, StageError
from distillbench.manager import make_manager
from distillbench.plan.stages import Finished, Stage
from distillbench.protocols import EngineSession, Progress
from distillbench.records import Resources
from distillbench.run import steps
from distillbench.run.bench import Bench
from distillbench.run.environment import describe
from distillbench.run.store import Store
from distillbench.tasks.identity import TaskIndex
from distillbench.tasks.loader import LmEvalTasks

#: Least time between two progress messages of a stage, in seconds.
_PROGRESS_EVERY = 0.2


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker process is given.

    Attributes:
        stages: The stages of one session, needs first.
        granted: What they may use.
        store: The store's root.
        blocked: Plugins left out.
        tasks: The tasks by name.
        log: Where everything that libraries print goes.
        environment: Set before anything heavy is imported.
    """

    stages: tuple[Stage, ...]
    granted: Resources
    store: Path
    blocked: tuple[str, ...]
    tasks: TaskIndex
    log: Path
    environment: Mapping[str, str]


def main(job: Job, connection: Connection) -> None:
    """The entry point of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the runner, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(job.environment)
    _log_to(job.log)
    catalog = Catalog(make_manager(job.blocked))
    with ExitStack() as stack:
        bench = Bench(Store(job.store), catalog, LmEvalTasks(job.tasks), job.granted, stack)
        worker = _Worker(bench, connection, stack)
        for stage in job.stages:
            worker.run(stage)


class _Worker:
    def __init__(self, bench: Bench, connection: Connection, stack: ExitStack) -> None:
        self.bench = bench
        self.connection = connection
        self.stack = stack
        self.session: EngineSession | None = None
        self.why_closed: str | None = None
        self.about = describe()

    def run(self, stage: Stage) -> None:
        """Runs one stage under its lock, unless its result is there or another process is at it."""
        store = self.bench.store
        if any(not (store.folder_of(kind, key)).exists() for kind, key in stage.needs.items()):
            return  # a stage of this session that it needs has failed; the runner knows
        try:
            with store.lock(stage.key).acquire(timeout=0):
                store.recover(stage)
                if (found := self._fresh(stage)) is not None:
                    self._send("reused", stage, holes=found.holes)
                else:
                    self._run_locked(stage)
        except Timeout:
            self._send("busy", stage)

    def _run_locked(self, stage: Stage) -> None:
        self._send("started", stage)
        begin = time.monotonic()
        try:
            self.bench.store.begin(stage)
            outcome = self._step(stage)
            found = self.bench.store.finish(stage, outcome, time.monotonic() - begin, self.about)
        except DistillbenchError as error:
            self._send("failed", stage, why=str(error))
        except Exception as error:  # a plugin may raise anything: the stage fails, its dependants are blocked
            traceback.print_exc()
            self._send("failed", stage, why=f"{type(error).__name__}: {error}")
        else:
            self._send("finished", stage, holes=found.holes, seconds=found.seconds)

    def _step(self, stage: Stage) -> Any:
        progress = self._progress(stage)
        if stage.kind != "sample":
            return steps.STEPS[stage.kind](stage, self.bench, progress)
        return steps.sample_completions(stage, self.bench, progress, self._open(stage, progress))

    def _open(self, stage: Stage, progress: Progress) -> EngineSession:
        """The engine, opened once for all stages of the session; what kept it from opening is not tried again."""
        if self.why_closed is not None:
            raise StageError(self.why_closed)
        if self.session is None:
            try:
                self.session = self.stack.enter_context(steps.open_session(stage, self.bench, progress))
            except Exception as error:
                self.why_closed = f"the engine could not be opened: {error}"
                raise
        return self.session

    def _fresh(self, stage: Stage) -> Finished | None:
        store = self.bench.store
        own = store.lookup(stage)
        if own is None or own.freed or own.holes:
            return None
        digests = {key: store.digest(kind, key) for kind, key in stage.needs.items()}
        return own if own.inputs == digests else None

    def _progress(self, stage: Stage) -> Progress:
        last = 0.0

        def report(done: int, total: int | None, note: str) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _PROGRESS_EVERY or done == total:
                last = now
                self._send("progress", stage, done=done, total=total, note=note)

        return report

    def _send(self, event: str, stage: Stage, **more: Any) -> None:
        self.connection.send({"event": event, "key": stage.key} | more)


def _end_with_parent() -> None:
    """Ends this process when the runner is gone, so that no orphan holds locks or a GPU."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _log_to(path: Path) -> None:
    """Sends this process's standard output and error, those of C libraries too, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
