"""The `existing` trainer: checkpoints that are there already, made by any other program."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge

from distillbench.errors import StageError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Context, Trainer, TrainingJob
from distillbench.records import Checkpoint, RowCounts
from distillbench_plugins.models.checkpoint_folders import Found, choose, find

_MOST_SHOWN = 5  # tokens


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


class ExistingTrainer(Trainer[ExistingOptions]):
    """Checkpoints that are there already: LoRA adapters, or full models of the student's architecture.

    A cell with it has no teacher and no filters. Nothing is trained, copied, changed or deleted: the store holds links
    to your files, whose content is part of the key. Of several checkpoints in one folder each becomes a step: the
    `global_step` in its `trainer_state.json`, or the number that follows `step`, `global_step`, `checkpoint` or `iter`
    in its name or in that of a folder it lies in (`global_step_20/actor/huggingface`). Weights that lie beside such
    subfolders are not taken: they are most often the last checkpoint again. The tokenizer is the student's: a
    checkpoint whose own has other tokens is refused.
    """

    name = "existing"
    needs_traces: ClassVar[bool] = False

    def inputs(self) -> Sequence[Path]:
        """The weights of every chosen checkpoint."""
        if not self.options.path.exists():
            return (self.options.path,)
        return [file for one in self._chosen() for file in one.weights()]

    def checkpoint_steps(self, counts: RowCounts | None) -> tuple[int, ...]:
        """The steps of the chosen checkpoints."""
        return self.options.found

    def train(self, job: TrainingJob, context: Context) -> Sequence[Checkpoint]:
        """Leaves a folder `step-N` of links for each checkpoint.

        Raises:
            StageError: They have changed since the matrix was read, or one was trained with other tokens.
        """
        checkpoints = []
        try:
            found = self._chosen()
        except (OSError, ValueError) as error:
            raise StageError(f"the checkpoints have changed since the matrix was read: {error}") from error
        if why := "\n".join(filter(None, (_other_tokens(one.folder, job) for one in found))):
            raise StageError(why)
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


def _other_tokens(folder: Path, job: TrainingJob) -> str:
    """What a checkpoint's own tokenizer has that the student's has not, in words; empty where there is nothing.

    A token for padding does not matter: neither prompts nor completions hold it.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        return ""
    try:
        theirs, padding = _vocabulary(file), _padding(folder / "tokenizer_config.json")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{file} cannot be read: {error}"
    ours = job.student.load_tokenizer(job.built).get_vocab()
    other = [token for token, place in theirs.items() if ours.get(token) != place and token != padding]
    if not other:
        return ""
    shown = ", ".join(map(repr, other[:_MOST_SHOWN])) + (
        f" and {len(other) - _MOST_SHOWN} more" if len(other) > _MOST_SHOWN else ""
    )
    return (
        f"checkpoint {folder} has a tokenizer of its own, with tokens that the student's has not: {shown}; with the "
        f"student's, its texts would be made of other tokens than it learned\n"
        f"    hint: merge it into a full model with this tokenizer, and evaluate that as a model (`--model`, or a "
        f"student of its own); where the student's tokenizer is meant, take {file.name} out of the folder"
    )


def _vocabulary(file: Path) -> dict[str, int]:
    """The ids of a tokenizer.json, by token."""
    content = json.loads(file.read_bytes())
    listed = content.get("model", {}).get("vocab", {})
    own = listed if isinstance(listed, dict) else {token: place for place, (token, _) in enumerate(listed)}
    return own | {one["content"]: one["id"] for one in content.get("added_tokens", ())}


def _padding(config: Path) -> str | None:
    """The token that a tokenizer's configuration pads with."""
    named = json.loads(config.read_bytes()).get("pad_token") if config.is_file() else None
    return named.get("content") if isinstance(named, dict) else named


@hookimpl
def distillbench_trainers() -> Iterable[type[Trainer]]:
    """Checkpoints that are there."""
    return [ExistingTrainer]
