"""Writes full models from checkpoints, for every student that transformers loads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from distillbench.errors import StageError
from distillbench.protocols import Student
from distillbench.records import Checkpoint

#: In the names of an adapter's own weights.
_OF_ADAPTERS = ("lora_", "modules_to_save")


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
        StageError: The adapter does not fit the student.
    """
    if checkpoint.kind == "full":
        for path in checkpoint.path.iterdir():
            if path.suffix in {".safetensors", ".json"} and not path.name.startswith("trainer_state"):
                shutil.copyfile(path, folder / path.name)
    else:
        merged(student.load_model(built, "cpu"), checkpoint.path).save_pretrained(folder)
    student.load_tokenizer(built).save_pretrained(folder)


def merged(base: Any, adapter: Path) -> Any:
    """A model with an adapter merged into its weights. The base is used up.

    Raises:
        StageError: The adapter has other weights than the model takes.
    """
    from peft import PeftConfig, get_peft_model, load_peft_weights, set_peft_model_state_dict

    try:
        model = get_peft_model(base, PeftConfig.from_pretrained(str(adapter)))
        loaded = set_peft_model_state_dict(model, load_peft_weights(str(adapter), device="cpu"))
    except (ValueError, RuntimeError, KeyError, OSError) as error:  # no target module, other shapes, spoiled files
        raise StageError(f"the adapter {adapter} does not fit the student: {error}") from error
    missing = [name for name in loaded.missing_keys if any(part in name for part in _OF_ADAPTERS)]
    if wrong := [*missing, *loaded.unexpected_keys]:
        raise StageError(
            f"the adapter {adapter} does not fit the student: {len(missing)} weights are missing and "
            f"{len(loaded.unexpected_keys)} are of no use, {wrong[0]} among them"
        )
    return model.merge_and_unload(safe_merge=True)
