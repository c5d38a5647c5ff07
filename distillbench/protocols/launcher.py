"""Where stages run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

from distillbench.protocols.component import Component, OptionsT_co
from distillbench.records import Resources


class Handle(Protocol):
    """A job under way."""

    @property
    def exit_code(self) -> int | None:
        """The exit code once it has ended; negative for a signal, None while it runs."""

    def receive(self) -> list[Mapping[str, Any]]:
        """The messages that came since the last call, without waiting."""

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
        """Starts a `distillbench.run.worker.Job` in a process of its own."""
