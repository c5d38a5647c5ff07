"""The model that is trained."""

from __future__ import annotations

import json
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from distillbench.errors import StageError
from distillbench.protocols.component import Component, Context, OptionsT_co
from distillbench.records import Checkpoint, ModelSource, Resources

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Student(Component[OptionsT_co]):
    """The model that is trained, or evaluated untouched."""

    #: True when `build` makes the model in a stage of its own.
    builds: ClassVar[bool] = False
    #: False for a model that is only reached through a server: `load_tokenizer` raises StageError then.
    has_tokenizer: ClassVar[bool] = True

    def renderer(self) -> str | None:
        """The renderer a matrix gets when it names none; None to make every matrix name one."""
        return None

    @classmethod
    def lacks(cls) -> list[str]:
        """The methods that a student of this class still has to be given."""
        return super().lacks() + (["build"] if cls.builds and cls.build is Student.build else [])

    def build(self, folder: Path, context: Context) -> None:
        """Writes the model and its tokenizer into `folder`; to be written where `builds`."""

    def preview_tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The very tokenizer that `build` leaves, where it can be had in seconds before that; None where it cannot."""
        return None if self.builds else self.load_tokenizer(None)

    @classmethod
    def previews_tokenizer(cls) -> bool:
        """Whether the tokenizer can be had before `build` has run, so that rows are rendered and looked at first."""
        return not cls.builds or cls.preview_tokenizer is not Student.preview_tokenizer

    @abstractmethod
    def load_tokenizer(self, built: Path | None) -> PreTrainedTokenizerBase:
        """The student's own tokenizer."""

    @abstractmethod
    def load_model(self, built: Path | None, device: str, weights: Path | None = None) -> Any:
        """The student's model on a device, in the dtype it is trained and evaluated in.

        Args:
            built: The folder its own stage made; None where there is none.
            device: `cpu`, `cuda` or the like.
            weights: A full checkpoint to load instead of the untouched weights.
        """

    def source(self, built: Path | None) -> ModelSource:
        """Where its files are, for engines that load models themselves, and to read adapters by.

        Where the student was built here, that is the folder, in the number format that its config.json names. Any
        other student says it by writing this method.

        Raises:
            StageError: It has none.
        """
        if built is None or not (built / "config.json").is_file():
            raise StageError(
                f"student {self.name!r} does not say where its files are, so that no checkpoint of it can be compared "
                f"with it\n    hint: its class is to be given `source`, which returns a ModelSource"
            )
        config = json.loads((built / "config.json").read_bytes())
        return ModelSource(str(built), config.get("dtype") or config.get("torch_dtype") or "float32")

    def served_name(self, built: Path | None) -> str:
        """What a server that has the model calls it; `vllm serve` calls it as its files are called."""
        return self.source(built).name

    def merge(self, built: Path | None, checkpoint: Checkpoint, folder: Path) -> None:
        """Writes a full model and its tokenizer into `folder`: a checkpoint's weights, an adapter merged into the base.

        Raises:
            StageError: It cannot be done.
        """
        raise StageError(f"student {self.name!r} cannot write a full model: it has no `merge`")

    def lora_targets(self) -> str | list[str]:
        """Peft's `target_modules`."""
        return "all-linear"

    def resources(self) -> Resources:
        """What training or sampling it needs."""
        return Resources()
