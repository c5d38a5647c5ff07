"""The `local` launcher: processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import psutil

from distillbench.hookspecs import hookimpl
from distillbench.protocols import Launcher
from distillbench.records import Resources
from distillbench.run import worker
from distillbench.run.family import end_family

_GPU_FOLDER = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class LocalOptions:
    """Options of the `local` launcher.

    Attributes:
        cpus: Processor cores to use; 0 for all.
        gpus: GPUs to use; -1 for all.
    """

    cpus: int = 0
    gpus: int = -1


class LocalLauncher(Launcher[LocalOptions]):
    """Runs stages in processes on this machine, as many at once as cores, GPUs and memory allow."""

    name = "local"

    def __init__(self, options: LocalOptions) -> None:
        super().__init__(options)
        self._free_gpus = _gpu_names()[: options.gpus if options.gpus >= 0 else None]
        self._n_gpus = len(self._free_gpus)

    def capacity(self) -> Resources:
        """The cores, GPUs and memory of this machine that the options allow."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return Resources(
            cpus=min(self.options.cpus or cores, cores),
            gpus=self._n_gpus,
            memory_gb=psutil.virtual_memory().total / 2**30,
        )

    def start(self, job: worker.Job, resources: Resources) -> LocalHandle:
        """Starts a worker process that sees only the GPUs it was granted."""
        granted, self._free_gpus = self._free_gpus[: resources.gpus], self._free_gpus[resources.gpus :]
        environment = {
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, resources.cpus))),
            "RAYON_NUM_THREADS": str(max(1, resources.cpus)),  # threads of tokenizers' batches
            "TOKENIZERS_PARALLELISM": "true" if resources.cpus > 1 else "false",
        }
        if self._n_gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(granted)
        job = replace(job, environment={**job.environment, **environment})
        return LocalHandle(job, lambda: self._free_gpus.extend(granted))


class LocalHandle:
    """A worker process."""

    def __init__(self, job: worker.Job, give_back: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process: SpawnProcess = context.Process(target=worker.main, args=(job, theirs), name=job.stages[0].label)
        with _ctrl_c_waits():
            self._process.start()
        theirs.close()
        self._give_back = give_back

    @property
    def exit_code(self) -> int | None:
        """The process's exit code; negative for a signal, None while it runs."""
        return self._process.exitcode

    def receive(self) -> list[Any]:
        """The messages that came since the last call."""
        messages = []
        try:
            while self._connection.poll():
                messages.append(self._connection.recv())
        except (EOFError, ConnectionResetError):  # the worker has ended and everything it said is read
            self._process.join()
        return messages

    def send(self, message: Any) -> None:
        """Sends the worker a message."""
        with suppress(BrokenPipeError, ConnectionResetError):  # it has just ended, which `alive` tells
            self._connection.send(message)

    def fileno(self) -> int:
        """The descriptor on which messages come."""
        return self._connection.fileno()

    def alive(self) -> bool:
        """Whether the process runs; once it does not, its GPUs are free again."""
        if self._process.is_alive():
            return True
        end_family(self._process.pid)
        if self._give_back:
            self._give_back()
            self._give_back = None
        return False

    def terminate(self, patience: float = 5.0) -> None:
        """Ends the process and its children."""
        family = _family(self._process.pid)
        self._process.terminate()
        self._process.join(patience)
        for process in family:
            if process.is_running():
                process.kill()
        end_family(self._process.pid)
        self._process.join()
        self.alive()


@contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Holds Ctrl-C back, in processes started meanwhile for good: one that still imports would print a traceback."""
    resource_tracker.ensure_running()  # by itself it would start with the process, and let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _family(pid: int | None) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _gpu_names() -> list[str]:
    """The GPUs this process may use, as `CUDA_VISIBLE_DEVICES` names them; no CUDA library is loaded to find out."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip()]
    return [str(number) for number, _ in enumerate(_GPU_FOLDER.iterdir())] if _GPU_FOLDER.is_dir() else []


@hookimpl
def distillbench_launchers() -> Iterable[type[Launcher]]:
    """The local launcher."""
    return [LocalLauncher]
