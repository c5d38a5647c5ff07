"""The published tables: what they print must be possible, and the report must say the same of it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from report_factories import checkpoint, samples

from distillbench.report.statistics.intervals import wilson
from distillbench.report.statistics.summary import summarise

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "published"
pytestmark = pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"the published tables are not at {PUBLISHED}")


def rows(name: str) -> list[dict[str, str]]:
    with (PUBLISHED / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def of_100() -> list[dict[str, str]]:
    """Checkpoints whose three percentages fit whole counts of 100 problems."""
    made = []
    for row in rows("completion_16_02.csv"):
        accuracy, completed = float(row["accuracy_all_pct"]), float(row["completed_pct"])
        right = round(completed * float(row["accuracy_completed_pct"]) / 100)
        if row["declared_n"] == "100" and accuracy == right and completed.is_integer():
            made.append(row)
    return made


def test_some_published_rows_fit_their_declared_n() -> None:
    assert len(of_100()) >= 5


def test_the_report_says_what_was_published_where_the_identity_holds() -> None:
    for row in of_100():
        completed, right = int(float(row["completed_pct"])), int(float(row["accuracy_all_pct"]))
        made = samples({"correct": right, "wrong": completed - right, "truncated": 100 - completed})
        summary = summarise(checkpoint(made))
        assert summary.accuracy == pytest.approx(right / 100)
        assert summary.completion_rate == pytest.approx(completed / 100)
        assert summary.accuracy_completed is not None
        # printed with one decimal
        assert 100 * summary.accuracy_completed == pytest.approx(float(row["accuracy_completed_pct"]), abs=0.051)


def test_published_rows_that_no_count_of_samples_allows_are_still_there() -> None:
    """Accuracy above the completion rate: impossible under our definitions, and why outcomes must add up."""
    impossible = [
        row for row in rows("completion_16_02.csv") if float(row["accuracy_all_pct"]) > float(row["completed_pct"]) + 1
    ]
    assert impossible


def test_a_published_gap_of_fast_scores_is_within_its_interval() -> None:
    """Sonnet on math, steps 100 and 200, 85 and 82 of 100: their intervals hold each other's value."""
    first, second = wilson(85, 100), wilson(82, 100)
    assert first is not None
    assert second is not None
    assert first.low < 0.82 < first.high
    assert second.low < 0.85 < second.high
