"""The rows of a report: every checkpoint on every evaluation, with its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distillbench.outcomes import GRADED
from distillbench.report.results import CellResult, CheckpointResult, NllPoint, Results, ResultsError
from distillbench.report.statistics.differences import Difference, compare
from distillbench.report.statistics.repeats import Repeats, can_compare, repeats_of
from distillbench.report.statistics.summary import Summary, summarise

ACCEPTED = "†"


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One checkpoint on one evaluation, with its numbers.

    Attributes:
        result: What it was made from.
        summary: Its numbers.
        difference: To its baseline; None for a baseline, and where no baseline is named.
        nll: The losses at this step; None where there are none.
        repeats: What several completions of a problem are worth together; None where there is one of each.
        axes: The axis values that made the cell.
    """

    result: CheckpointResult
    summary: Summary
    difference: Difference | None
    nll: NllPoint | None
    repeats: Repeats | None = None
    axes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What a person calls it: `cell @step`, or the baseline's name."""
        step = "" if self.result.is_baseline else f" @{self.result.step}"
        return plain(f"{marked_cell(self.result)}{step}")


def marked_cell(result: CheckpointResult) -> str:
    """The cell's name, marked where a preflight finding on it was accepted: its numbers are not to be trusted blindly.

    The note that says what was accepted begins with the same mark.
    """
    return f"{result.cell} {ACCEPTED}" if result.accepted else result.cell


def plain(text: str) -> str:
    """One line without control characters: labels and model text may carry newlines and terminal escapes."""
    return "".join(_printable(char) for char in text)


def _printable(char: str) -> str:
    if char.isprintable():
        return char
    return " " if char.isspace() else "\N{REPLACEMENT CHARACTER}"


def build_rows(results: Results) -> list[Evaluated]:
    """One row per (cell, step, evaluation): by evaluation, baselines first, then cells in the matrix's order, by step.

    Raises:
        ResultsError: Samples contradict one another.
    """
    times = Counter((result.cell, result.step, result.evaluation) for result in results.checkpoints)
    if doubled := [key for key, count in times.items() if count > 1]:
        raise ResultsError(f"{doubled[0]!r} (cell, step, evaluation) is there {times[doubled[0]]} times")
    places = {cell.name: place for place, cell in enumerate(results.cells)}
    by_evaluation: dict[str, list[CheckpointResult]] = {}
    for result in results.checkpoints:
        by_evaluation.setdefault(result.evaluation, []).append(result)

    def place(result: CheckpointResult) -> tuple[bool, int, str, int]:
        return not result.is_baseline, places.get(result.cell, len(places)), result.cell, result.step

    cells = {cell.name: cell for cell in results.cells}
    return [row for mine in by_evaluation.values() for row in _rows(sorted(mine, key=place), cells)]


def _rows(ordered: Sequence[CheckpointResult], cells: Mapping[str, CellResult]) -> Iterator[Evaluated]:
    """The rows of one evaluation."""
    by_score, compares = _gives(ordered)
    first = {result.cell: result for result in reversed(ordered)}
    for result in ordered:
        summary, cell = summarise(result, by_score), cells.get(result.cell)
        yield Evaluated(
            result=result,
            summary=summary,
            difference=_difference(result, first, by_score),
            nll=next((point for point in cell.nll if point.step == result.step), None) if cell else None,
            repeats=repeats_of(result.scores, summary, compares),
            axes=cell.axes if cell else {},
        )


def _gives(checkpoints: Iterable[CheckpointResult]) -> tuple[bool, bool]:
    """Whether the benchmark of an evaluation gives scores, and whether its answers can be compared.

    Asked of the whole evaluation: a checkpoint without one complete answer cannot tell by itself.
    """
    scores = [result.scores for result in checkpoints]
    found = {can_compare(one) for one in scores}
    return any(one.counts()[GRADED] for one in scores), True in found and False not in found


def _difference(result: CheckpointResult, first: Mapping[str, CheckpointResult], by_score: bool) -> Difference | None:
    name = result.baseline
    if result.is_baseline or name is None:
        return None
    if name in first:
        return compare(result, first[name], by_score)
    return Difference(name, n_dropped=len(result.scores.names), reason=f"{name} has no result here")


def group_by_evaluation(rows: Sequence[Evaluated]) -> dict[str, list[Evaluated]]:
    """The rows of each evaluation, in order."""
    groups: dict[str, list[Evaluated]] = {}
    for row in rows:
        groups.setdefault(row.result.evaluation, []).append(row)
    return groups


def last_checkpoints(rows: Sequence[Evaluated]) -> list[Evaluated]:
    """The rows of each cell's last checkpoint."""
    last = {row.result.cell: row.result.step for row in rows}
    return [row for row in rows if row.result.step == last[row.result.cell]]
