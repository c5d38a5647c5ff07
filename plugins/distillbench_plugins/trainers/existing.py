"""The `existing` trainer: checkpoints that are there already, made by any other program."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge

from distillbench.errors import StageError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Context, Trainer, TrainingJob
from distillbench.records import Checkpoint
from distillbench_plugins.checkpoint_folders import Found, choose, find


@dataclass(frozen=True)
class ExistingOptions:
    """Options of the `existing` trainer.

    Attributes:
        path: A folder that is a checkpoint (an adapter or a full model), or that has several in folders below it.
        steps: Which of several to take, by their steps; None for all.
    """

    path: Path
    steps: tuple[Annotated[int, Ge(0)], ...] | None = field(default=None, metadata={"key": False})
    #: The steps that were found and chosen: what the names of folders say is no part of their content.
    found: tuple[int, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        """Looks for the checkpoints."""
        if self.path.exists():  # a path that leads nowhere is told with the place that gave it
            found = tuple(one.step for one in choose(find(self.path), self.steps, self.path))
            object.__setattr__(self, "found", found)


class ExistingTrainer(Trainer):
    """Checkpoints that are there already: LoRA adapters, or full models of the student's architecture.

    A cell with it has no teacher and no filters. Nothing is trained, copied, changed or deleted: the store holds links
    to your files, whose content is part of the key. Of several checkpoints in one folder each becomes a step: the
    `global_step` in its `trainer_state.json`, or the number that follows `step`, `global_step`, `checkpoint` or `iter`
    in its name or in that of a folder it lies in (`global_step_20/actor/huggingface`). Weights that lie beside such
    subfolders are not taken: they are most often the last checkpoint again. The tokenizer is the student's, whatever
    lies there.
    """

    name = "existing"
    Options = ExistingOptions
    needs_traces: ClassVar[bool] = False

    def inputs(self) -> Sequence[Path]:
        """The weights of every chosen checkpoint."""
        if not self.options.path.exists():
            return (self.options.path,)
        return [file for one in self._chosen() for file in one.weights()]

    def checkpoint_steps(self, n_traces: int | None) -> tuple[int, ...]:
        """The steps of the chosen checkpoints."""
        steps: tuple[int, ...] = self.options.found
        return steps

    def train(self, job: TrainingJob, context: Context) -> Sequence[Checkpoint]:
        """Leaves a folder `step-N` of links for each checkpoint.

        Raises:
            StageError: They have changed since the matrix was read.
        """
        checkpoints = []
        try:
            found = self._chosen()
        except (OSError, ValueError) as error:
            raise StageError(f"the checkpoints have changed since the matrix was read: {error}") from error
        for one in found:
            folder = job.output / f"step-{one.step}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for file in one.files():
                (folder / file.name).symlink_to(file.resolve())
            checkpoints.append(Checkpoint(folder, one.kind, one.step, samples_seen=0))
        return checkpoints

    def _chosen(self) -> list[Found]:
        return choose(find(self.options.path), self.options.steps, self.options.path)


@hookimpl
def distillbench_trainers() -> Iterable[type[Trainer]]:
    """Checkpoints that are there."""
    return [ExistingTrainer]
