"""What steers the toy plugin, plans with it, and runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillbench.cli.invocation import Invocation
from distillbench.events import Emit, Event, Told
from distillbench.plan.plan import Plan
from distillbench.run.ledger import Summary
from distillbench.run.runner import Runner
from distillbench.session import Experiment
from distillbench.session.reporting import note_stages
from distillbench.session.running import stream


@dataclass(frozen=True)
class Control:
    """The folder that steers and records the toys."""

    folder: Path

    def set(self, name: str, text: str = "") -> None:
        """Writes a steering file."""
        (self.folder / name).write_text(text)

    def unset(self, name: str) -> None:
        """Removes a steering file."""
        (self.folder / name).unlink()

    def log(self, what: str) -> list[str]:
        """What the toys recorded, and forgets it."""
        path = self.folder / f"{what}.log"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@dataclass(frozen=True)
class Toys:
    """Makes plans of the toy matrix in this process, and runs them with real workers."""

    session: Invocation
    matrix: Callable[..., Path]

    def load(
        self, changes: dict[str, Any] | None = None, only: tuple[str, ...] = (), limit: int | None = None
    ) -> Experiment:
        """The matrix, changed, with the cells chosen."""
        return self.session.load(self.matrix(changes), only, limit)

    def plan(self, changes: dict[str, Any] | None = None, **choice: Any) -> Plan:
        """Its plan, compared with the store."""
        return self.load(changes, **choice).plan()

    def run(
        self,
        changes: dict[str, Any] | None = None,
        only: tuple[str, ...] = (),
        limit: int | None = None,
        on_event: Emit | None = None,
    ) -> Summary:
        """Runs its plan with worker processes."""
        loaded = self.load(changes, only, limit)
        runner = Runner(
            loaded.make_plan,
            self.session.store,
            self.session.catalog.build(loaded.matrix.launcher),
            stream(self.session.manager, Heard() if on_event is None else on_event),
            keep=loaded.matrix.keep,
            tasks=loaded.tasks,
        )
        return runner.run(loaded.plan())


def noted(experiment: Experiment) -> None:
    """Notes what a report of a matrix needs."""
    note_stages(experiment, experiment.make_plan())


class Heard(list[Event]):
    """Keeps the events that it is called with."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def of(self, *kinds: type[Event]) -> list[Any]:
        """The events of some kinds, in order."""
        return [event for event in self if isinstance(event, kinds)]

    @property
    def told(self) -> list[str]:
        """What was to be read by whoever looks."""
        return [event.text for event in self.of(Told)]
