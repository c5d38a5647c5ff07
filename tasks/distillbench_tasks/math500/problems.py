"""MATH-500: 500 problems of the MATH test set."""

from __future__ import annotations

from typing import Any

from distillbench_tasks.data import Doc, Row
from distillbench_tasks.data import load as load_data


def adapt(row: Row) -> Doc:
    """One document; the local copy has the Hub's columns."""
    columns = ("problem", "answer", "subject", "level")
    return {"id": row["unique_id"]} | {column: row[column] for column in columns}


def load(**metadata: Any) -> dict[str, Any]:
    """The problems, for lm-eval's `custom_dataset`."""
    return load_data(metadata, adapt)
