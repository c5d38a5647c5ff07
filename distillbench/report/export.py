"""The report's files: report.md, results.parquet, samples.parquet, budgets.parquet, and lm-eval's own result files.

Equal results give equal bytes: rows have a fixed order, and no time stands in any file but in lm-eval's file names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillbench.report.columns import BUDGET_COLUMNS, REAL, ROW_COLUMNS, SAMPLE_COLUMNS, TEXT, WHOLE, YES_NO, flat_row
from distillbench.report.files import as_json, file_name, put, utf8, whole_file
from distillbench.report.groups import group_notes, group_rows, headline_rows
from distillbench.report.lm_eval_results import by_checkpoint, lm_eval_files, put_lm_eval
from distillbench.report.markdown import render_markdown
from distillbench.report.results import CheckpointResult, Results, Section
from distillbench.report.tables import Row, budget_of, budget_rows, build_rows, conclusions, notes

if TYPE_CHECKING:
    import pyarrow as pa


def write(results: Results, folder: Path, sections: Iterable[Section] = (), now: datetime | None = None) -> list[Path]:
    """Writes every file of the report; each appears whole or not at all.

    An lm-eval file whose content is already there under an earlier time is not written again; one with other content
    is left where it is.

    Args:
        results: What to write.
        folder: Made where it is not there.
        sections: Plugins' sections for report.md.
        now: The time in lm-eval's file names; the clock's, in UTC, where None.

    Returns:
        The files written.

    Raises:
        ResultsError: Samples contradict one another.
        OSError: A file cannot be written.
    """
    rows = build_rows(results)
    folder.mkdir(parents=True, exist_ok=True)
    put(folder / "report.md", utf8(render_markdown(results, sections)))
    _put_table(folder / "results.parquet", ROW_COLUMNS, [[flat_row(row, results) for row in rows]])
    _put_table(folder / "samples.parquet", SAMPLE_COLUMNS, (_sample_rows(row.result) for row in rows))
    written = [folder / name for name in ("report.md", "results.parquet", "samples.parquet")]
    written += _put_budgets(folder / "budgets.parquet", results, rows)
    time = (now or datetime.now(UTC)).replace(tzinfo=None)
    stamp = time.isoformat().replace(":", "-")  # as lm-eval's tracker does
    for (cell, step), group in by_checkpoint(rows).items():
        written += put_lm_eval(folder / "lm_eval" / f"{file_name(cell)}@{step}", lm_eval_files(group, results), stamp)
    return written


def _put_budgets(path: Path, results: Results, rows: Sequence[Row]) -> list[Path]:
    """The budget curves; without any, an earlier report's file goes."""
    found = _budget_rows(results, rows)
    if not found:
        path.unlink(missing_ok=True)
        return []
    _put_table(path, BUDGET_COLUMNS, [found])
    return [path]


def _budget_rows(results: Results, rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {
            "budget": budget_of(row),
            "recomputed_from": None if row.result.budget is None else row.result.settings.get("max_tokens"),
            **flat_row(row, results),
        }
        for curve in budget_rows(results, rows).values()
        for row in curve
    ]


def summary_json(results: Results) -> dict[str, Any]:
    """The report's numbers as plain JSON values, for `distillbench report --json`. No NaN: it becomes null."""
    rows = build_rows(results)
    document = {
        "matrix": results.matrix,
        "provenance": results.provenance,
        "rows": [flat_row(row, results) for row in rows],
        "groups": [flat_row(row, results) for group in group_rows(rows).values() for row in group],
        "budgets": _budget_rows(results, rows),
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
        "conclusions": conclusions(headline_rows(rows)),
        "notes": [*group_notes(rows), *notes(rows, results)],
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


def _sample_rows(result: CheckpointResult) -> list[dict[str, Any]]:
    here = {name: getattr(result, name) for name in ("cell", "step", "evaluation", "task")}
    own = [name for name in SAMPLE_COLUMNS if name not in here and name not in ("scores", "doc")]
    return [
        here
        | {name: getattr(sample, name) for name in own}
        | {"scores": as_json(sample.scores), "doc": as_json(sample.doc)}
        for sample in result.samples
    ]


def _put_table(path: Path, columns: Mapping[str, str], batches: Iterable[Sequence[Mapping[str, Any]]]) -> None:
    """One row group per batch, so that only one checkpoint's samples are held twice."""
    import pyarrow.parquet as pq

    schema = _schema(columns)
    with whole_file(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_table(_arrow(batch, schema))


def _schema(columns: Mapping[str, str]) -> pa.Schema:
    import pyarrow as pa

    types = {TEXT: pa.string(), WHOLE: pa.int64(), REAL: pa.float64(), YES_NO: pa.bool_()}
    return pa.schema([(name, types[kind]) for name, kind in columns.items()])


def _arrow(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    clean = [{key: _storable(value) for key, value in row.items()} for row in rows]
    return pa.Table.from_pylist(clean, schema=schema)


def _storable(value: Any) -> Any:
    # an API may send half a surrogate pair, which is no UTF-8
    return utf8(value).decode() if isinstance(value, str) and not value.isascii() else value
