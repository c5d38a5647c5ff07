"""Runs a stage, or all of a session's, in a process of its own, and tells the runner how they go."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from distillbench.bench import Bench
from distillbench.catalog import Catalog
from distillbench.manager import make_manager
from distillbench.plan.stage import Stage
from distillbench.records import Resources
from distillbench.run.attempts import Attempts
from distillbench.run.family import lead_family
from distillbench.run.grid import Grid
from distillbench.run.orders import Channel, Intake
from distillbench.stages.train import Train
from distillbench.store.environment import describe
from distillbench.store.store import Store
from distillbench.tasks.identity import TaskIndex
from distillbench.tasks.loader import LmEvalTasks


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker process is given.

    Attributes:
        stages: The stage; or those that a session begins with, needs first.
        is_session: Whether more are given to it as they become ready.
        awaited: Trainings whose checkpoints a session will be given.
        granted: What they may use.
        store: The store's root.
        blocked: Plugins left out.
        tasks: The tasks by name.
        log: Where everything that libraries print goes.
        environment: Set before anything heavy is imported.
    """

    stages: tuple[Stage, ...]
    is_session: bool
    awaited: tuple[Train, ...]
    granted: Resources
    store: Path
    blocked: tuple[str, ...]
    tasks: TaskIndex
    log: Path
    environment: Mapping[str, str]


def main(job: Job, channel: Channel) -> None:
    """The entry point of a worker process, which a launcher has to start for every job.

    Args:
        job: What is to be done.
        channel: Its end of a two-way connection. Events go out, and the orders of `Handle.send` come in. The process
            ends by itself when everything is done, or when a session was told to close.
    """
    lead_family()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the runner, which ends its workers
    os.environ.update(job.environment)
    _log_to(job.log)
    catalog = Catalog(make_manager(job.blocked))
    with ExitStack() as stack:
        bench = Bench(Store(job.store), catalog, LmEvalTasks(job.tasks), job.granted, stack)
        about = describe() | {"granted": asdict(job.granted)}
        attempts = Attempts(bench.store, channel.send, about)
        if job.is_session:
            Grid(bench, attempts, Intake(channel, job.stages), job.awaited).run()
        else:
            for stage in job.stages:
                attempts.run(stage, partial(stage.run, bench))


def _log_to(path: Path) -> None:
    """Sends this process's standard output and error, those of C libraries too, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
