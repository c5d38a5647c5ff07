"""What makes the digest of a model or of checkpoints."""

from __future__ import annotations

from pathlib import Path

from distillbench.errors import StageError
from distillbench.store.store import SCRATCH


def weight_files(work: Path) -> tuple[str, ...]:
    """Weights and tokenizers below a work folder, not files whose bytes vary.

    Raises:
        StageError: There are no weights, or not in a format that is compared.
    """
    files = (*work.rglob("*.safetensors"), *work.rglob("tokenizer.json"))
    scratch = work / SCRATCH
    found = sorted(path.relative_to(work).as_posix() for path in files if not path.is_relative_to(scratch))
    if not any(name.endswith(".safetensors") for name in found):
        raise StageError("no *.safetensors file was left: weights in other formats would change without being noticed")
    return tuple(found)
