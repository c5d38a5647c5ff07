"""The report's files: report.md, results.parquet, samples.parquet, budgets.parquet, and lm-eval's own result files.

Equal results give equal bytes: rows have a fixed order, and no time stands in any file but in lm-eval's file names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from distillbench.report.results import CheckpointResult, Section
from distillbench.report.tables import Tables
from distillbench.report.writers.columns import (
    BUDGET_COLUMNS,
    ROW_COLUMNS,
    SAMPLE_COLUMNS,
    budget_flat_rows,
    flat_row,
)
from distillbench.report.writers.files import BUDGETS, RESULTS, SAMPLES, as_json, file_name, put, utf8, whole_file
from distillbench.report.writers.lm_eval import by_checkpoint, put_lm_eval
from distillbench.report.writers.markdown import render_markdown
from distillbench.store.columns import Columns
from distillbench.store.report_folders import REPORT
from distillbench.store.rows import write_rows


def write(tables: Tables, folder: Path, sections: Iterable[Section] = ()) -> list[Path]:
    """Writes every file of the report; each appears whole or not at all.

    The files of lm-eval's kind bear the time at which the last of their results was graded, so that one result is there
    once however often it is reported. Those of other results stay, and share the room of samples that did not change.

    Args:
        tables: What to write.
        folder: Made where it is not there.
        sections: Plugins' sections for report.md.

    Returns:
        The files written.

    Raises:
        OSError: A file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    put(folder / REPORT, utf8(render_markdown(tables, sections)))
    _put_table(folder / RESULTS, ROW_COLUMNS, map(flat_row, tables.rows))
    samples = (sample for row in tables.rows for sample in _sample_rows(row.result))
    _put_table(folder / SAMPLES, SAMPLE_COLUMNS, samples)
    written = [folder / name for name in (REPORT, RESULTS, SAMPLES)]
    written += _put_budgets(folder / BUDGETS, tables)
    for (cell, step), rows in by_checkpoint(tables.rows).items():
        written += put_lm_eval(folder / "lm_eval" / f"{file_name(cell)}@{step}", rows, tables.results)
    return written


def _put_budgets(path: Path, tables: Tables) -> list[Path]:
    """The budget curves; without any, an earlier report's file goes."""
    if not tables.curves:
        path.unlink(missing_ok=True)
        return []
    _put_table(path, BUDGET_COLUMNS, budget_flat_rows(tables))
    return [path]


def _sample_rows(result: CheckpointResult) -> Iterator[dict[str, Any]]:
    here = {name: getattr(result, name) for name in ("cell", "step", "evaluation", "task", "samples_in")}
    own = [name for name in SAMPLE_COLUMNS if name not in here and name != "scores"]
    for sample in result.samples():
        yield here | {name: getattr(sample, name) for name in own} | {"scores": as_json(sample.scores)}


def _put_table(path: Path, columns: Columns, rows: Iterable[Mapping[str, Any]]) -> None:
    with whole_file(path) as temporary:
        write_rows(temporary, ({name: _storable(value) for name, value in row.items()} for row in rows), columns)


def _storable(value: Any) -> Any:
    # an API may send half a surrogate pair, which is no UTF-8
    return utf8(value).decode() if isinstance(value, str) and not value.isascii() else value
