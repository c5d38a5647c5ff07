"""Where stages run."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol

from distillbench.protocols.component import Component, OptionsT_co
from distillbench.records import Resources


class Handle(Protocol):
    """A job under way."""

    @property
    def exit_code(self) -> int | None:
        """The exit code once it has ended; negative for a signal, None while it runs."""

    def receive(self) -> list[Any]:
        """The messages that came since the last call, without waiting."""

    def send(self, message: Any) -> None:
        """Sends the job a message. One that has ended meanwhile gets none, and that is no error."""

    def fileno(self) -> int:
        """A descriptor to wait on for messages."""

    def alive(self) -> bool:
        """Whether the job is still running."""

    def terminate(self, patience: float = 5.0) -> None:
        """Ends the job and everything it started; returns when it is gone."""


class Launcher(Component[OptionsT_co]):
    """Where stages run."""

    @abstractmethod
    def capacity(self) -> Resources:
        """What there is to hand out."""

    @abstractmethod
    def start(self, job: Any, resources: Resources) -> Handle:
        """Starts a job in a process of its own.

        That process calls `distillbench.run.worker.main(job, channel)`; the other end of the channel, a two-way
        connection for objects that can be pickled, is what the handle receives from and sends to. Whatever the job is
        to find in its environment, such as the GPUs that it may use, is put into `job.environment` before.

        Args:
            job: A `distillbench.run.worker.Job`, which can be pickled.
            resources: What it may use.
        """
