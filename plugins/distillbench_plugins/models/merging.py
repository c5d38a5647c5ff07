"""Writes full models from checkpoints, for every student that transformers loads."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

from distillbench.errors import StageError
from distillbench.protocols import Student
from distillbench.records import Checkpoint, ModelSource
from distillbench_plugins.models.adapters import (
    adapter_config,
    adapter_shapes,
    module_name,
    read_adapter,
    tied_weights,
    told,
)


def write_full(student: Student, built: Path | None, checkpoint: Checkpoint, folder: Path) -> None:
    """Writes a full model and the student's tokenizer into a folder.

    The weights of a full checkpoint are copied as they are. An adapter is merged in the student's own dtype, so that a
    merged bfloat16 model is rounded once more than the base with its adapter beside it.

    Args:
        student: The student.
        built: The folder its own stage made; None where there is none.
        checkpoint: An adapter or a full model.
        folder: Is there, and empty.

    Raises:
        StageError: The adapter is refused, or cannot be merged.
    """
    if checkpoint.kind == "adapter":
        _write_merged(checkpoint.path, student.source(built), folder)
        return
    for path in checkpoint.path.iterdir():
        if path.suffix in {".safetensors", ".json"} and not path.name.startswith("trainer_state"):
            shutil.copyfile(path, folder / path.name)
    student.load_tokenizer(built).save_pretrained(folder)


def merged(path: Path, source: ModelSource, folder: Path) -> Path:
    """Adds an adapter to the student's weights and writes a full checkpoint with its tokenizer.

    Args:
        path: The adapter's folder.
        source: The student.
        folder: Where to; what lies there already is taken as it is, because it is renamed into place when complete.

    Returns:
        The folder.

    Raises:
        StageError: The adapter is refused, or cannot be merged.
    """
    if folder.exists():
        return folder
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _write_merged(path, source, partial)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write_merged(path: Path, source: ModelSource, folder: Path) -> None:
    read_adapter(path, source)
    _refuse_to_merge(path, source)
    with told(f"adapter {path} cannot be merged into {source.name}"):
        _merge(path, source, folder)


def _merge(path: Path, source: ModelSource, folder: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(
        source.name, revision=source.revision, dtype=getattr(torch, source.dtype)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = PeftModel.from_pretrained(base, str(path), is_trainable=False)
    adapted.merge_and_unload(safe_merge=True).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source.name, revision=source.revision).save_pretrained(folder)


def _refuse_to_merge(path: Path, source: ModelSource) -> None:
    """What is not the sum of the student's weights and something else cannot be merged into them."""
    config = adapter_config(path)
    ends = {"lm_head", "embed_tokens"}
    touched = {name.rpartition(".")[2] for name in map(module_name, adapter_shapes(path))} | set(
        config.get("modules_to_save") or ()
    )
    reasons = (
        ("activated LoRA depends on the tokens before it", bool(config.get("alora_invocation_tokens"))),
        ("replicated layers make it another model", bool(config.get("layer_replication"))),
        ("the student's embeddings are its output layer, and only one of them is changed",
         bool(ends & touched) and bool(tied_weights(source))),
    )  # fmt: skip
    for reason, holds in reasons:
        if holds:
            raise StageError(f"adapter {path} cannot be merged into {source.name}: {reason}")
