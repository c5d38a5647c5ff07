"""The `tiny-qwen3` student: a Qwen3 of 0.3 M parameters, pretrained on first use from a seeded recipe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Gt

from distillbench.hookspecs import hookimpl
from distillbench.protocols import Context, Student
from distillbench.records import Checkpoint, ModelSource, Resources

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TinyQwen3Options:
    """Options of the `tiny-qwen3` student.

    Attributes:
        seed: Of its weights and of the text it is pretrained on. Not the seed of a cell, which is the training seed.
        steps: Optimizer steps of its pretraining; the default takes about a minute of one core.
    """

    seed: Annotated[int, Ge(0)] = 0
    steps: Annotated[int, Gt(0)] = 260


class TinyQwen3(Student[TinyQwen3Options]):
    """A Qwen3 architecture of 0.3 M parameters with its own tokenizer, pretrained here in a minute.

    It has seen worked coins problems as plain text, but in chat only direct answers: the skill is there for a teacher
    to bring out. For the quick start, for tests, and for trying a matrix before a GPU is rented.
    """

    name = "tiny-qwen3"
    builds = True

    def renderer(self) -> str:
        """The Qwen3 renderer."""
        return "qwen3"

    def build(self, folder: Path, context: Context) -> None:
        """Pretrains the model; its tokenizer is trained on the same text."""
        from distillbench_plugins.students.tiny_qwen3.pretrain import pretrain

        model, tokenizer = pretrain(
            self.options.seed,
            self.options.steps,
            lambda step, loss: context.progress(step, self.options.steps, f"loss {loss:.2f}"),
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    def preview_tokenizer(self) -> PreTrainedTokenizerBase:
        """Trains the tokenizer, as `build` does."""
        from distillbench_plugins.students.tiny_qwen3.corpus import tokenizer_texts
        from distillbench_plugins.students.tiny_qwen3.tokenizer import train_tokenizer

        return train_tokenizer(tokenizer_texts(self.options.seed))

    def load_tokenizer(self, built: Path | None) -> PreTrainedTokenizerBase:
        """The tokenizer that was trained with it."""
        from transformers import AutoTokenizer

        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(built))
        return tokenizer

    def load_model(self, built: Path | None, device: str, weights: Path | None = None) -> Any:
        """The model in float32."""
        import torch
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(str(weights or built), dtype=torch.float32).to(device)

    def source(self, built: Path | None) -> ModelSource:
        """The folder that `build` made."""
        return ModelSource(str(built), "float32")

    def merge(self, built: Path | None, checkpoint: Checkpoint, folder: Path) -> None:
        """A full model, as transformers saves it."""
        from distillbench_plugins.models.merging import write_full

        write_full(self, built, checkpoint, folder)

    def resources(self) -> Resources:
        """One core; a GPU would not help."""
        return Resources(cpus=1, gpus=0, memory_gb=1.0)


@hookimpl
def distillbench_students() -> Iterable[type[Student]]:
    """The tiny student."""
    return [TinyQwen3]
