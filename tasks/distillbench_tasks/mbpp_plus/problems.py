"""MBPP+ as EvalPlus releases it."""

from __future__ import annotations

from typing import Any

from distillbench_tasks.data import load as load_data
from distillbench_tasks.evalplus_rows import adapt


def load(**metadata: Any) -> dict[str, Any]:
    """The problems, for lm-eval's `custom_dataset`."""
    return load_data(metadata, adapt)
