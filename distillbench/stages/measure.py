"""Measures: what is costly to find out about traces, once for the set and for all who ask."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from distillbench.plan.stage import Stage
from distillbench.stages.traces import Traces
from distillbench.store.columns import Columns
from distillbench.store.store import Store


class Measure(Stage):
    """Finds something out about every trace of a set.

    Its name is its kind: a filter that `reads` it finds what it says in `trace.measures[NAME]`. Its result has a row
    for each trace, in the order of the traces.

    Attributes:
        columns: What it says of a trace, beside its `trace_id`.
        traces: The traces.
    """

    columns: ClassVar[Columns] = {}

    traces: Traces

    @property
    def file(self) -> str:
        """The name of the file with its rows."""
        return f"{self.kind}.parquet"

    def path(self, store: Store) -> Path:
        """Where its rows are."""
        return store.file(self, self.file)
