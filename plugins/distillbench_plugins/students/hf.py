"""The `hf` student: any causal language model that transformers loads, from the Hub or a folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from distillbench.errors import StageError
from distillbench.fingerprint import expanded
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Student
from distillbench.records import Checkpoint, ModelSource, Resources

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Adapters on MoE experts are applied unfaithfully by engines (vLLM #18120, #40005).
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
Dtype = Literal["bfloat16", "float16", "float32"]


@dataclass(frozen=True)
class HfOptions:
    """Options of the `hf` student.

    Attributes:
        model: A Hub id (`meta-llama/Llama-3.1-8B-Instruct`) or a folder.
        revision: A commit, tag or branch on the Hub. Pin a commit: a branch moves, and a key does not notice.
        dtype: The number format it is trained and evaluated in.
        lora_targets: Module names that get an adapter; None for every linear layer.
        renderer: The renderer a matrix gets when it names none. Where this is left out too, the one that fits the
            model's chat template is taken.
        gpus: GPUs that training and sampling take. A machine that has fewer is refused before anything runs.
        device: `cpu` to train and sample without a GPU, whatever `gpus` says.
        memory_gb: Main memory that they take, in GiB.
    """

    model: str
    revision: str | None = None
    dtype: Dtype = "bfloat16"
    lora_targets: tuple[str, ...] | None = None
    renderer: str = "chat-template"
    gpus: int = field(default=1, metadata={"key": False})
    device: Literal["cuda", "cpu"] = field(default="cuda", metadata={"key": False})
    memory_gb: float = field(default=16.0, metadata={"key": False})


HfOptionsT_co = TypeVar("HfOptionsT_co", bound=HfOptions, covariant=True)


class HfStudent(Student[HfOptionsT_co]):
    """A causal language model from the Hugging Face Hub or from a folder."""

    name = "hf"

    def inputs(self) -> Sequence[Path]:
        """The model's folder, when it is one; also when it is written as one, so that a missing one is told early."""
        is_written_as_one = self.options.model.startswith(("./", "../", "/", "~"))
        return (expanded(self.options.model),) if is_written_as_one or self._folder() else ()

    def renderer(self) -> str:
        """The renderer named in the options."""
        return self.options.renderer

    def load_tokenizer(self, built: Path | None) -> PreTrainedTokenizerBase:
        """The model's own tokenizer."""
        from transformers import AutoTokenizer

        tokenizer = self._loaded(AutoTokenizer.from_pretrained, self._source(), revision=self.options.revision)
        if not tokenizer.encode("a", add_special_tokens=False):  # transformers 5 makes an empty one and says nothing
            raise StageError(f"student {self.options.model!r} has no tokenizer: its vocabulary is empty")
        return tokenizer

    def load_model(self, built: Path | None, device: str, weights: Path | None = None) -> Any:
        """The model in its dtype; remote code is never run.

        Raises:
            StageError: It cannot be loaded, or lacks weights, which transformers would draw at random with a warning.
        """
        import torch
        from transformers import AutoModelForCausalLM

        where = {"revision": self.options.revision} if weights is None else {}
        model, report = self._loaded(
            AutoModelForCausalLM.from_pretrained,
            str(weights or self._source()),
            dtype=getattr(torch, self.options.dtype),
            output_loading_info=True,
            **where,
        )
        if missing := sorted(report["missing_keys"]):
            raise StageError(
                f"student {self.options.model!r} cannot be loaded: {weights or self._source()} lacks {len(missing)} "
                f"weights, {missing[0]} among them"
            )
        return model.to(device)

    def source(self, built: Path | None) -> ModelSource:
        """The folder or Hub id in the options."""
        return ModelSource(self._source(), self.options.dtype, self.options.revision)

    def merge(self, built: Path | None, checkpoint: Checkpoint, folder: Path) -> None:
        """A full model, as transformers saves it."""
        from distillbench_plugins.models.merging import write_full

        write_full(self, built, checkpoint, folder)

    def lora_targets(self) -> str | list[str]:
        """The modules named in the options, or every linear layer."""
        return list(self.options.lora_targets) if self.options.lora_targets else "all-linear"

    def resources(self) -> Resources:
        """What the options say."""
        gpus = 0 if self.options.device == "cpu" else self.options.gpus
        return Resources(cpus=4, gpus=gpus, memory_gb=self.options.memory_gb)

    def _folder(self) -> Path | None:
        folder = expanded(self.options.model)
        return folder if self.options.model and folder.is_dir() else None

    def _source(self) -> str:
        """The folder, or the Hub id."""
        return str(self._folder() or self.options.model)

    def _loaded(self, load: Any, source: str, **more: Any) -> Any:
        try:
            return load(source, **more)
        except Exception as error:  # transformers, safetensors and torch each raise their own when files are spoiled
            hint = f"\n    hint:   `hf download {source}` shows whether this machine reaches it"
            raise StageError(
                f"student {self.options.model!r} cannot be loaded from {source}: {error}\n"
                f"    wanted: a folder with config.json, tokenizer and weights, or a Hub id that you may read"
                f"{'' if Path(source).is_dir() else hint}"
            ) from error


@dataclass(frozen=True)
class Qwen3BaseOptions(HfOptions):
    """Options of `qwen3-30b-a3b-base`: those of `hf`."""

    model: str = "Qwen/Qwen3-30B-A3B-Base"
    renderer: str = "qwen3-base"
    lora_targets: tuple[str, ...] | None = ATTENTION


class Qwen3Base(HfStudent[Qwen3BaseOptions]):
    """Qwen3-30B-A3B-Base; adapters on its attention, because vLLM cannot be trusted with adapters on MoE experts."""

    name = "qwen3-30b-a3b-base"


@dataclass(frozen=True)
class Qwen3InstructOptions(HfOptions):
    """Options of `qwen3-30b-a3b-instruct-2507`: those of `hf`."""

    model: str = "Qwen/Qwen3-30B-A3B-Instruct-2507"
    renderer: str = "qwen3-instruct-2507"
    lora_targets: tuple[str, ...] | None = ATTENTION


class Qwen3Instruct(HfStudent[Qwen3InstructOptions]):
    """Qwen3-30B-A3B-Instruct-2507; adapters on its attention, as for the base model."""

    name = "qwen3-30b-a3b-instruct-2507"


@dataclass(frozen=True)
class LlamaOptions(HfOptions):
    """Options of `llama-3.1-8b-instruct`: those of `hf`."""

    model: str = "meta-llama/Llama-3.1-8B-Instruct"
    renderer: str = "llama3"


class Llama(HfStudent[LlamaOptions]):
    """Llama-3.1-8B-Instruct."""

    name = "llama-3.1-8b-instruct"


@dataclass(frozen=True)
class Qwen35Options(HfOptions):
    """Options of `qwen3.5-4b`: those of `hf`."""

    model: str = "Qwen/Qwen3.5-4B"
    renderer: str = "qwen3.5"


class Qwen35(HfStudent[Qwen35Options]):
    """Qwen3.5-4B."""

    name = "qwen3.5-4b"


@hookimpl
def distillbench_students() -> Iterable[type[Student]]:
    """Any Hugging Face model, and four by a short name."""
    return [HfStudent, Qwen3Base, Qwen3Instruct, Llama, Qwen35]
