"""The report's numbers as one JSON document."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from distillbench.report.tables import Tables
from distillbench.report.writers.columns import budget_flat_rows, flat_row


def summary_json(tables: Tables) -> dict[str, Any]:
    """The report's numbers as plain JSON values, for `distillbench report --json`. No NaN: it becomes null."""
    results = tables.results
    document = {
        "matrix": results.matrix,
        "provenance": results.provenance,
        "rows": [flat_row(row) for row in tables.rows],
        "groups": [flat_row(row) for group in tables.groups.values() for row in group.rows],
        "budgets": list(budget_flat_rows(tables)),
        "cells": [
            {
                "name": cell.name,
                "is_baseline": cell.is_baseline,
                "axes": cell.axes,
                "nll": [{name: getattr(point, name) for name in point.__slots__} for point in cell.nll],
                "traces": cell.traces,
                "problems": cell.problems,
                "missing": cell.missing,
                "preflight": cell.preflight,
            }
            for cell in results.cells
        ],
        "conclusions": tables.conclusions,
        "notes": tables.notes,
    }
    finite: dict[str, Any] = _finite(document)
    return finite


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
