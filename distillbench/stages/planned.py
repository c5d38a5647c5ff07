"""What planning has found of one cell."""

from __future__ import annotations

from dataclasses import dataclass, field

from distillbench.fingerprint import key_of
from distillbench.plan.plan import Pairing
from distillbench.plan.stage import Stage
from distillbench.records import Cell, Choice
from distillbench.stages.build import Build
from distillbench.stages.grade import Graded
from distillbench.stages.train import Train


@dataclass(slots=True)
class PlannedCell:
    """The stages of a cell.

    Attributes:
        cell: The cell.
        pairing: What its preflight looks at.
        session: In which its checkpoints are sampled.
        stages: By key, needs first.
        graded: Its checkpoints on its evaluations.
        train: Leaves its checkpoints; None for the untouched student.
        steps: At which there are checkpoints; None while that is not known.
        hangs_on: The keys of stages on whose facts its further stages depend.
    """

    cell: Cell
    pairing: Pairing
    session: str
    stages: dict[str, Stage] = field(default_factory=dict)
    graded: list[Graded] = field(default_factory=list)
    train: Train | None = None
    steps: tuple[int, ...] | None = None
    hangs_on: set[str] = field(default_factory=set)

    def add(self, *stages: Stage | None) -> None:
        """Adds stages that it needs, after those that they need."""
        self.stages.update((stage.key, stage) for stage in stages if stage is not None)


def session_of(student: Choice, engine: Choice, built: Build | None) -> str:
    """Names what is sampled from one loaded student, by one engine."""
    return f"sample {key_of([student.identity, engine.identity, built and built.key])}"
