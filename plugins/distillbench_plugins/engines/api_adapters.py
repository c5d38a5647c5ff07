"""LoRA adapters for `vllm serve`, which loads them while it runs."""

from __future__ import annotations

from distillbench.errors import StageError
from distillbench.records import Checkpoint, ModelSource
from distillbench_plugins.models.adapters import Adapter, content_digest, read_adapter


def read(checkpoint: Checkpoint, source: ModelSource) -> Adapter:
    """Reads an adapter and makes sure that a server can apply all of it.

    Raises:
        StageError: The checkpoint is no adapter of this student, or more than a server can add to the weights.
    """
    if checkpoint.kind == "full":
        raise StageError(
            f"checkpoint {checkpoint.path} holds a whole model, and a server serves the one that it was started with\n"
            f"    hint: `vllm serve {checkpoint.path}` and evaluate that as a student, or sample with `engine: vllm`"
        )
    adapter = read_adapter(checkpoint.path, source)
    if adapter.why_merge:
        raise StageError(
            f"adapter {checkpoint.path} must be merged into the weights ({adapter.why_merge}); a server does not\n"
            f"    hint: sample with `engine: vllm` or `engine: transformers`"
        )
    return adapter


def served_name(adapter: Adapter) -> str:
    """A name made of its content, so that a server that has the name has the adapter."""
    return f"distillbench-{content_digest(adapter.path)[:16]}"


def not_loaded(adapter: Adapter, error: Exception) -> StageError:
    """What to say when a server does not load an adapter."""
    return StageError(
        f"the server does not load the adapter {adapter.path}: {error}\n"
        f"    wanted: a server on this machine or file system, started as\n"
        f"            VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve MODEL --enable-lora "
        f"--max-lora-rank {adapter.rank}\n"
        f"    hint:   or sample with a local engine: `engine: vllm` or `engine: transformers`"
    )
