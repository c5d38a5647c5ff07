"""Reads the questions that lie beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset

HERE = Path(__file__).parent


def philosophy(**metadata: Any) -> dict[str, Dataset]:
    """The questions of philosophy. lm-eval passes the task's `metadata`."""
    return _read("philosophy-v1.jsonl")


def weird(**metadata: Any) -> dict[str, Dataset]:
    """The weird questions."""
    return _read("weird-v1.jsonl")


def future(**metadata: Any) -> dict[str, Dataset]:
    """The questions about futuristic technology."""
    return _read("future-v1.jsonl")


def _read(name: str) -> dict[str, Dataset]:
    return {"test": Dataset.from_json(str(HERE / name))}
