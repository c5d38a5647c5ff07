"""A plan: the stages of a matrix, what each cell has of them, and what of it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from distillbench.plan.stage import Stage
from distillbench.records import Cell, Choice, Evaluation, PreflightRules

if TYPE_CHECKING:
    from distillbench.stages.grade import Graded

State = Literal["done", "todo", "stale", "holes", "waits"]


@dataclass(frozen=True, slots=True)
class Finished:
    """What the store knows of a finished stage.

    Attributes:
        digest: Of its outputs.
        inputs: The digests its inputs had, by key.
        holes: Samples whose generation failed, or whose grader did.
        freed: True when its large checkpoints were deleted after their evaluation.
        seconds: How long it ran.
        facts: Plain values that later stages or reports read, such as the number of kept traces.
    """

    digest: str
    inputs: Mapping[str, str]
    holes: int = 0
    freed: bool = False
    seconds: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Status:
    """Whether a stage has to run, and why."""

    state: State
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Pairing:
    """What a preflight looks at together: how a cell's rows are made, and how it is asked. Seeds do not matter.

    Attributes:
        student: The student, with its tokenizer.
        renderer: The renderer.
        evaluations: What it is asked.
        rules: What the matrix lets pass.
        teacher: Whose traces become rows; None for a baseline.
        filters: What traces go through.
        trainer: Who cuts rows, and how; None for a baseline.
        built: Makes the student; None where nothing has to.
        traces: Gives the traces.
        kept: Decides which are kept.
        rows: Makes rows of these.
    """

    student: Choice
    renderer: Choice
    evaluations: tuple[Evaluation, ...]
    rules: PreflightRules
    teacher: Choice | None = None
    filters: tuple[Choice, ...] = ()
    trainer: Choice | None = None
    built: Stage | None = None
    traces: Stage | None = None
    kept: Stage | None = None
    rows: Stage | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages of a matrix, needs first, and which cells share them.

    Attributes:
        matrix: The matrix's name.
        cells: The planned cells.
        stages: By key, in an order in which they can run.
        cell_stages: For each cell the keys of its stages.
        graded: For each cell its checkpoints on its evaluations.
        growing: Cells whose further stages are known only from the facts of stages that have not ended yet, and the
            keys of these.
        sessions: For each cell the session in which its checkpoints are sampled.
        pairings: For each cell what its preflight looks at.
        statuses: By key.
    """

    matrix: str
    cells: tuple[Cell, ...]
    stages: Mapping[str, Stage]
    cell_stages: Mapping[str, tuple[str, ...]]
    graded: Mapping[str, tuple[Graded, ...]]
    growing: Mapping[str, frozenset[str]] = field(default_factory=dict)
    sessions: Mapping[str, str] = field(default_factory=dict)
    pairings: Mapping[str, Pairing] = field(default_factory=dict)
    statuses: Mapping[str, Status] = field(default_factory=dict)

    @property
    def open_cells(self) -> frozenset[str]:
        """The cells whose further stages are not known yet."""
        return frozenset(self.growing)

    def of_cell(self, name: str) -> list[Stage]:
        """The stages of a cell, needs first."""
        return [self.stages[key] for key in self.cell_stages[name]]

    def pending(self) -> list[Stage]:
        """The stages that are not known to be done."""
        return [stage for key, stage in self.stages.items() if self.statuses[key].state != "done"]
