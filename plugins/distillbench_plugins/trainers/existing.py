"""The `existing` trainer: checkpoints that are there already, made by any other program."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from distillbench.errors import StageError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Context, Trainer, TrainingJob
from distillbench.records import Checkpoint

_ADAPTER_CONFIG, _CONFIG, _STATE = "adapter_config.json", "config.json", "trainer_state.json"
#: What an engine or an export may want of a checkpoint; optimizer states and the like stay behind.
_SUFFIXES = frozenset({".safetensors", ".json", ".jinja"})
_NUMBER = re.compile(r"\d+")
_OF_ONE = re.compile(r"(?:step|checkpoint|ckpt)s?[-_]?(\d+)$", re.IGNORECASE)


@dataclass(frozen=True)
class ExistingOptions:
    """Options of the `existing` trainer.

    Attributes:
        path: A folder that is a checkpoint (an adapter or a full model), or that has several as subfolders.
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


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint of the user's."""

    folder: Path
    kind: Literal["adapter", "full"]
    step: int

    def files(self) -> list[Path]:
        """The files of it that count: weights, configuration, tokenizer."""
        wanted = (path for path in self.folder.iterdir() if path.suffix in _SUFFIXES and path.name != _STATE)
        return sorted(path for path in wanted if path.is_file())

    def weights(self) -> list[Path]:
        """The files that decide what the checkpoint answers."""
        config = _ADAPTER_CONFIG if self.kind == "adapter" else _CONFIG
        return [path for path in self.files() if path.suffix == ".safetensors" or path.name == config]


class ExistingTrainer(Trainer):
    """Checkpoints that are there already: LoRA adapters, or full models of the student's architecture.

    A cell with it has no teacher and no filters. Nothing is trained, copied, changed or deleted: the store holds links
    to your files, whose content is part of the key. Of several checkpoints in one folder each becomes a step: the
    `global_step` in its `trainer_state.json`, or the last number in its name. Weights that lie beside such subfolders
    are not taken: they are most often the last checkpoint again. The tokenizer is the student's, whatever lies there.
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


def find(path: Path) -> list[Found]:
    """The checkpoints of a folder, by step.

    Raises:
        ValueError: There is none, or it is not clear which step one is.
    """
    if not path.is_dir():
        raise ValueError(f"path: wanted a folder, got the file {path}")
    inside = sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))
    several = [(folder, kind) for folder in inside if (kind := _kind(folder)) is not None]
    if several and (other := next(filter(_is_of_another_format, inside), None)):
        raise ValueError(
            f"path: {other} holds weights that are not read{_what_is_there(other)}; mend it, or move it away, so that "
            f"no checkpoint is left out without a word"
        )
    if several:
        found = [Found(folder, kind, _step(folder, len(several) > 1)) for folder, kind in several]
        return _distinct(sorted(found, key=lambda one: one.step))
    own = _kind(path)
    if own is None:
        raise ValueError(f"path: {path} holds no checkpoint, and none of its subfolders does{_what_is_there(path)}")
    return [Found(path, own, _step(path, is_one_of_several=False))]


def choose(found: Sequence[Found], steps: Sequence[int] | None, path: Path) -> list[Found]:
    """The checkpoints of some steps.

    Raises:
        ValueError: There is none of such a step.
    """
    known = [one.step for one in found]
    if missing := sorted(set(steps or ()) - set(known)):
        raise ValueError(f"steps: {path} has checkpoints at steps {known}, none at {missing}")
    return [one for one in found if steps is None or one.step in steps]


def _kind(folder: Path) -> Literal["adapter", "full"] | None:
    if not any(folder.glob("*.safetensors")):
        return None
    if (folder / _ADAPTER_CONFIG).is_file():
        return "adapter"
    return "full" if (folder / _CONFIG).is_file() else None


def _is_of_another_format(folder: Path) -> bool:
    """Whether a folder is a checkpoint but for the format of its weights."""
    has_config = any((folder / name).is_file() for name in (_ADAPTER_CONFIG, _CONFIG))
    return has_config and _kind(folder) is None and any(one.suffix in (".bin", ".pt") for one in folder.iterdir())


def _step(folder: Path, is_one_of_several: bool) -> int:
    """The step of a checkpoint; 0 for one that stands alone and does not tell.

    Raises:
        ValueError: It is one of several and does not tell.
    """
    state = folder / _STATE
    if state.is_file():
        try:
            return int(json.loads(state.read_bytes())["global_step"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"path: {state} names no `global_step` ({error}); remove it, or mend it") from error
    if not is_one_of_several:
        told = _OF_ONE.search(folder.name)
        return int(told[1]) if told else 0
    numbers = _NUMBER.findall(folder.name)
    if not numbers:
        raise ValueError(
            f"path: {folder} says no step: there is no number in its name and no {_STATE} in it; "
            f"rename it (step-100), or give it a trainer of its own with its folder as `path`"
        )
    return int(numbers[-1])


def _distinct(found: list[Found]) -> list[Found]:
    for one, other in pairwise(found):
        if one.step == other.step:
            raise ValueError(
                f"path: {one.folder} and {other.folder} are both of step {one.step}; "
                f"rename one, or give each a trainer of its own with its folder as `path`"
            )
    return found


def _what_is_there(path: Path) -> str:
    """What to say of a folder without checkpoints."""
    wanted = f"; a checkpoint is {_ADAPTER_CONFIG} or {_CONFIG}, with *.safetensors beside it"
    other = next((file for end in ("*.bin", "*/*.bin", "*.pt", "*/*.pt") for file in path.glob(end)), None)
    return f"{wanted}; {other.relative_to(path)} is another format: save it as safetensors" if other else wanted


@hookimpl
def distillbench_trainers() -> Iterable[type[Trainer]]:
    """Checkpoints that are there."""
    return [ExistingTrainer]
