"""Runs the stages of one session in a process of its own, and tells the runner how they go."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path

from distillbench.bench import Bench
from distillbench.catalog import Catalog
from distillbench.manager import make_manager
from distillbench.plan.stage import Stage
from distillbench.records import Resources
from distillbench.run.attempts import Attempts
from distillbench.run.grid import Grid
from distillbench.stages.grade import Grade
from distillbench.stages.sample import Sample
from distillbench.store.environment import describe
from distillbench.store.store import Store
from distillbench.tasks.identity import TaskIndex
from distillbench.tasks.loader import LmEvalTasks


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
        about = describe() | {"granted": asdict(job.granted)}
        attempts = Attempts(bench.store, connection.send, about)
        samples = [stage for stage in job.stages if isinstance(stage, Sample)]
        grades = [stage for stage in job.stages if isinstance(stage, Grade)]
        for stage in job.stages:
            if not samples or not isinstance(stage, Sample | Grade):
                attempts.run(stage, partial(stage.run, bench))
        if samples:
            Grid(bench, attempts).run(samples, grades)


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
