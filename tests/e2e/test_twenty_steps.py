"""A real training of 20 steps and its evaluation, on whatever transformers is installed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

Start = Callable[..., subprocess.Popen[str]]

pytestmark = [pytest.mark.slow, pytest.mark.twenty_steps]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, small_matrix: Path, start: Start) -> Path:
    store = tmp_path_factory.mktemp("twenty") / "store"
    process = start(store, "run", small_matrix)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return store


def test_every_checkpoint_and_the_untouched_student_are_evaluated(store: Path) -> None:
    rows = pq.read_table(store / "reports/small/results.parquet").to_pylist()
    found = {(row["cell"], row["step"], row["evaluation"]) for row in rows}
    checkpoints = {("concise", step, task) for step in (5, 10, 15, 20) for task in ("coins", "digits")}
    assert found == checkpoints | {("base-tiny", 0, "coins"), ("base-tiny", 0, "digits")}
    assert all(row["n"] == 70 for row in rows)


def test_training_lowers_the_held_out_negative_log_likelihood(store: Path) -> None:
    [path] = (store / "stages/train").glob("*/metrics.jsonl")
    metrics = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in metrics] == [5, 10, 15, 20]
    assert metrics[-1]["held_out_nll"] < 0.9 * metrics[0]["held_out_nll"]


def test_the_student_learns_to_reason(store: Path, samples_with_texts: Callable[..., Any]) -> None:
    rows = samples_with_texts(store, "small")
    last = [row for row in rows if row["cell"] == "concise" and row["step"] == 20]
    untouched = [row for row in rows if row["cell"] == "base-tiny"]
    assert sum("<think>" in row["text"] for row in last) > 0.9 * len(last)
    assert sum("<think>" in row["text"] for row in untouched) < 0.2 * len(untouched)


def test_the_same_command_again_runs_nothing(store: Path, small_matrix: Path, start: Start) -> None:
    manifests = {path: path.stat().st_mtime_ns for path in store.glob("stages/*/*/manifest.json")}
    process = start(store, "run", small_matrix)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "0 to do" in output
    assert {path: path.stat().st_mtime_ns for path in store.glob("stages/*/*/manifest.json")} == manifests
