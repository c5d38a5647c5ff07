"""Documents of coding tasks without lm-eval: what graders of code look rows up in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from distillbench.records import Problem


@dataclass(frozen=True)
class Documents:
    """The part of an lm-eval task that a grader reads."""

    rows: Sequence[Mapping[str, Any]]

    def test_docs(self) -> Dataset:
        return Dataset.from_list([dict(row) for row in self.rows])

    def problem(self, row_id: str) -> Problem:
        """A problem as it is stored with a sample: without what only the grader reads."""
        row = next(row for row in self.rows if row["id"] == row_id)
        stored = {key: row[key] for key in ("id", "entry_point") if key in row}
        return Problem(row_id, "task", (), "", {"doc": stored})
