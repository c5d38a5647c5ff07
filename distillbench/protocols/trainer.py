"""What fits a student to training rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from distillbench.protocols.component import Component, Context, OptionsT_co
from distillbench.protocols.renderer import Renderer
from distillbench.protocols.student import Student
from distillbench.records import AdapterShape, Checkpoint, RowCounts, TrainingRow

#: What a row does that is longer than the most tokens of a row: it is left out, its end is cut off, the stage fails.
Overlong = Literal["drop", "truncate", "error"]


class TrainingRows(Sequence[TrainingRow]):
    """The rows of a training. They may be more than memory holds: take what you need, when you need it."""

    def problem_ids(self) -> Sequence[str]:
        """The problem of each row."""
        return [row.problem_id for row in self]

    def without_loss(self) -> Sequence[str]:
        """Where the rows come from that carry no loss."""
        return [row.source for row in self if not row.loss_mask.any()]


class ListedRows(list[TrainingRow], TrainingRows):
    """A few training rows in memory."""


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """Everything a trainer needs.

    Attributes:
        student: The student, and in `built` the folder its own stage made (None where there is none).
        renderer: Bound to the student's tokenizer.
        rows: The training rows, in order; none for a trainer that needs no traces.
        output: Where `step-N` folders and `metrics.jsonl` go.
    """

    student: Student
    built: Path | None
    renderer: Renderer
    rows: TrainingRows
    output: Path


class Trainer(Component[OptionsT_co]):
    """Fits a student to traces and leaves checkpoints.

    Attributes:
        needs_traces: False for one whose cells have no teacher and no filters: its job has no rows, and its
            `checkpoint_steps` knows the steps without them.
        masks_pad_token: True when its loss leaves out every token that has the pad token's id.
    """

    needs_traces: ClassVar[bool] = True
    masks_pad_token: ClassVar[bool] = False

    def max_length(self) -> int | None:
        """The most tokens of a row; `overlong` says what a longer one does. None where there is no such limit."""
        return None

    def overlong(self) -> Overlong:
        """What a row does that is longer than `max_length`."""
        return "error"

    @abstractmethod
    def checkpoint_steps(self, counts: RowCounts | None) -> tuple[int, ...] | None:
        """The steps at which checkpoints are written.

        Args:
            counts: How much there is to train on; None while that is not known.

        Returns:
            None where it depends on that.
        """

    def adapter_shape(self, student: Student) -> AdapterShape | None:
        """What its adapters will be like, so that an engine makes room before they are there; None where not known."""
        return None

    @abstractmethod
    def train(self, job: TrainingJob, context: Context) -> Sequence[Checkpoint]:
        """Trains; after a kill, goes on from what lies in `context.work`."""
