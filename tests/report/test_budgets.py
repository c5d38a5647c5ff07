"""Budget curves: shown beside the results they were made from, marked as recomputed, and counted nowhere else."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from report_factories import checkpoint, of_samples, print_table, render_markdown, results, samples, summary_json, write
from rich.console import Console

from distillbench.report.curves import budget_rows
from distillbench.report.evaluated import build_rows
from distillbench.report.results import CheckpointResult, Results, ResultsError
from distillbench.report.writers.columns import BUDGET_COLUMNS


def curved(**more: Any) -> Results:
    """Two checkpoints of a cell and the baseline, generated at 160 tokens and cut at 40 and 80."""
    whole = [
        checkpoint(samples({"correct": 30, "wrong": 10}), "base-tiny", 0),
        checkpoint(samples({"correct": 20, "wrong": 20}), step=50),
        checkpoint(samples({"correct": 36, "wrong": 4})),
    ]
    halves = [of_samples(one, samples({"correct": 20, "wrong": 4, "truncated": 16}), budget=80) for one in whole]
    quarters = [of_samples(one, samples({"correct": 8, "truncated": 30, "loop": 2}), budget=40) for one in whole]
    return results(checkpoints=tuple(whole), recomputed=(*halves, *quarters), **more)


def printed(made: Results, width: int = 120) -> str:
    stream = io.StringIO()
    print_table(made, Console(file=stream, width=width, no_color=True))
    return stream.getvalue()


def test_rows_go_from_the_smallest_budget_to_the_generation_itself() -> None:
    made = curved()
    curves = budget_rows(made, build_rows(made))
    found = [(row.result.cell, row.result.step, row.result.budget, row.summary.accuracy) for row in curves["coins"]]
    assert found == [
        ("base-tiny", 0, 40, 0.2),
        ("base-tiny", 0, 80, 0.5),
        ("base-tiny", 0, None, 0.75),
        ("concise", 50, 40, 0.2),
        ("concise", 50, 80, 0.5),
        ("concise", 50, None, 0.5),
        ("concise", 100, 40, 0.2),
        ("concise", 100, 80, 0.5),
        ("concise", 100, None, 0.9),
    ]


def test_nothing_else_counts_them(tmp_path: Path) -> None:
    made = curved()
    without = replace(made, recomputed=())
    assert build_rows(made) == build_rows(without)
    first, second = summary_json(made), summary_json(without)
    for key in ("rows", "conclusions", "notes"):
        assert first[key] == second[key]
    for folder, one in (("with", made), ("without", without)):
        write(one, tmp_path / folder)
    for name in ("results.parquet", "samples.parquet"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()


def test_the_terminal_shows_the_curve_of_last_checkpoints() -> None:
    text = printed(curved())
    about = "coins by budget (recomputed from one generation at 160 tokens; last checkpoints)"
    table = text.partition(about)[2].partition("\n\n")[0]
    lines = [line.split() for line in table.splitlines()]
    rows = [line for line in lines if line and line[0] in ("base-tiny", "concise")]
    assert [row[:5] for row in rows] == [
        ["base-tiny", "base", "40", "40", "0.20"],
        ["base-tiny", "base", "80", "40", "0.50"],
        ["base-tiny", "base", "160", "40", "0.75"],
        ["concise", "100", "40", "40", "0.20"],
        ["concise", "100", "80", "40", "0.50"],
        ["concise", "100", "160", "40", "0.90"],
    ]
    assert [row[7] for row in rows] == ["0.20", "0.60", "1.00", "0.20", "0.60", "1.00"]  # completion
    assert "by budget" not in printed(replace(curved(), recomputed=()))


@pytest.mark.parametrize("width", [30, 60, 80])
def test_a_narrow_terminal_cuts_no_number(width: int) -> None:
    text = printed(curved(), width)
    assert "0.90 [0.77, 0.96]" in text
    assert "…" not in text


def test_markdown_has_every_checkpoint() -> None:
    text = render_markdown(curved())
    part = text.partition("### Budget curve: coins")[2].partition("\n## ")[0]
    assert "recomputed from one generation at 160 tokens" in part
    rows = [line for line in part.splitlines() if line.startswith(("| concise", "| base-tiny"))]
    assert len(rows) == 9
    assert (
        rows[3]
        == "| concise | 50 | 40 | 40 | 40 | 0.200 [0.105, 0.348] | 0.200 | 1.000 [0.676, 1.000] | 8 | 0 | 30 | 2 |"
    )
    assert "Budget curve" not in render_markdown(replace(curved(), recomputed=()))


def test_budgets_parquet_and_json_say_what_was_recomputed(tmp_path: Path) -> None:
    made = curved()
    written = write(made, tmp_path)
    path = tmp_path / "budgets.parquet"
    assert path in written
    table = pq.read_table(path)
    assert table.column_names == list(BUDGET_COLUMNS)
    rows = table.to_pylist()
    assert [(row["budget"], row["recomputed_from"]) for row in rows] == [(40, 160), (80, 160), (160, None)] * 3
    assert [row["n_truncated"] for row in rows[:3]] == [30, 16, 0]
    assert all(row["difference"] is None for row in rows)
    assert summary_json(made)["budgets"] == rows


def test_a_report_without_budgets_leaves_no_file_of_an_earlier_one(tmp_path: Path) -> None:
    write(curved(), tmp_path)
    assert tmp_path / "budgets.parquet" not in write(replace(curved(), recomputed=()), tmp_path)
    assert not (tmp_path / "budgets.parquet").exists()


def test_lm_evals_files_are_of_the_generation_itself(tmp_path: Path) -> None:
    write(curved(), tmp_path)
    assert len(list((tmp_path / "lm_eval").glob("*/results_*.json"))) == 3


def broken(made: Results, how: str) -> tuple[CheckpointResult, ...]:
    first = made.recomputed[0]
    if how == "twice":
        return (*made.recomputed, first)
    if how == "no result":
        return (replace(first, step=77),)
    return (replace(first, budget=None),)


@pytest.mark.parametrize("how", ["twice", "no result", "no budget"])
def test_contradictions_are_told(how: str) -> None:
    made = curved()
    made = replace(made, recomputed=broken(made, how))
    with pytest.raises(ResultsError, match=r"is there twice|no result of its own"):
        budget_rows(made, build_rows(made))
