"""Budget curves: what the same completions are worth where they are cut earlier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from distillbench.report.evaluated import Evaluated
from distillbench.report.results import CheckpointResult, Results, ResultsError
from distillbench.report.statistics.repeats import repeats_of
from distillbench.report.statistics.summary import summarise


def budget_rows(results: Results, rows: Sequence[Evaluated]) -> dict[str, list[Evaluated]]:
    """For each evaluation with recomputed results, every checkpoint at every budget, the generation's own last.

    Args:
        results: What the report shows.
        rows: As `build_rows` gives them.

    Raises:
        ResultsError: A budget is there twice, or without the result that it was made from.
    """
    cut: dict[tuple[str, int, str], dict[int | None, CheckpointResult]] = {}
    for result in results.recomputed:
        budgets = cut.setdefault((result.cell, result.step, result.evaluation), {})
        if result.budget is None or result.budget in budgets:
            raise ResultsError(f"{result.cell!r} at budget {result.budget} on {result.evaluation!r} is there twice")
        budgets[result.budget] = result
    curves: dict[str, list[Evaluated]] = {}
    for row in rows:
        budgets = cut.pop((row.result.cell, row.result.step, row.result.evaluation), {})
        if budgets:
            ordered = [budgets[budget] for budget in sorted(filter(None, budgets))]
            cut_rows = [_cut_row(one, row) for one in ordered]
            curves.setdefault(row.result.evaluation, []).extend([*cut_rows, replace(row, difference=None, nll=None)])
    if cut:
        raise ResultsError(f"{next(iter(cut))!r} (cell, step, evaluation) has budgets, and no result of its own")
    return curves


def _cut_row(result: CheckpointResult, whole: Evaluated) -> Evaluated:
    """A recomputed result, with what the grader gives from the result it was made of."""
    summary = summarise(result, whole.summary.by_score)
    compares = whole.repeats is not None and whole.repeats.majority is not None
    return Evaluated(result, summary, None, None, repeats_of(result.scores, summary, compares), whole.axes)


def budget_of(row: Evaluated) -> int | None:
    """The budget that a row of a curve is about."""
    return row.result.settings.get("max_tokens") if row.result.budget is None else row.result.budget


def curve_label(rows: Sequence[Evaluated]) -> str:
    """What a budget curve is made of."""
    most = sorted({row.result.settings["max_tokens"] for row in rows if "max_tokens" in row.result.settings})
    return f"recomputed from one generation at {' or '.join(map(str, most))} tokens"
