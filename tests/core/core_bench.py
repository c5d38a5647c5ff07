"""What steers the toy plugin, plans with it, and runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillbench.cli.invocation import Invocation
from distillbench.plan.plan import Plan
from distillbench.run.runner import Runner, Summary
from distillbench.session import Experiment
from distillbench.session.reporting import note_stages


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
        listener: Any = None,
    ) -> Summary:
        """Runs its plan with worker processes."""
        loaded = self.load(changes, only, limit)
        runner = Runner(
            loaded.make_plan,
            self.session.store,
            self.session.catalog.build(loaded.matrix.launcher),
            listener or Listener(),
            self.session.manager,
            keep=loaded.matrix.keep,
            tasks=loaded.tasks,
        )
        return runner.run(loaded.plan())


def noted(experiment: Experiment) -> None:
    """Notes what a report of a matrix needs."""
    note_stages(experiment, experiment.make_plan())


class Listener:
    """A listener that keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def planned(self, plan: Plan) -> None:
        self.said.append(("planned", str(len(plan.stages))))

    def started(self, stage: Any) -> None:
        self.said.append(("started", stage.kind))

    def progressed(self, stage: Any, done: int, total: int | None, note: str) -> None:
        self.said.append(("progressed", stage.kind))

    def sampled(self, stage: Any, done: int, total: int, tokens: int) -> None:
        self.said.append(("sampled", stage.kind))

    def graded(self, stage: Any, outcomes: Any) -> None:
        self.said.append(("graded", stage.kind))

    def ended(self, stage: Any, ending: str, why: str) -> None:
        self.said.append((ending, stage.kind))

    def told(self, text: str) -> None:
        self.said.append(("told", text))

    def waiting(self, stage: Any) -> None:
        self.said.append(("waiting", stage.kind))
