"""The columns of the report's tables as files, and a row of numbers under their names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distillbench.outcomes import OUTCOMES
from distillbench.report.curves import budget_of
from distillbench.report.evaluated import Evaluated
from distillbench.report.scores import REASONING_STATES
from distillbench.report.statistics.intervals import Interval
from distillbench.report.statistics.repeats import Repeats
from distillbench.report.tables import Tables
from distillbench.report.writers.files import as_json
from distillbench.store.columns import REAL, TEXT, WHOLE, YES_NO, Columns

ROW_COLUMNS: Columns = {
    "cell": TEXT,
    "step": WHOLE,
    **dict.fromkeys(("evaluation", "task"), TEXT),
    "is_baseline": YES_NO,
    **dict.fromkeys(("teacher", "student", "renderer", "trainer", "filters"), TEXT),
    "seed": WHOLE,
    **dict.fromkeys(("axes", "subset", "settings", "grader"), TEXT),
    **dict.fromkeys(("n", "n_problems", *(f"n_{outcome}" for outcome in OUTCOMES), "scored", "errors"), WHOLE),
    **dict.fromkeys(("invalid", "by_score"), YES_NO),
    **dict.fromkeys(("completion_rate", "accuracy", "accuracy_low", "accuracy_high"), REAL),
    **dict.fromkeys(("accuracy_completed", "accuracy_completed_low", "accuracy_completed_high"), REAL),
    **dict.fromkeys(("bound_low", "bound_high", "score", "score_low", "score_high"), REAL),
    "repeats": WHOLE,
    "pass_at_k": TEXT,
    **dict.fromkeys(("maj_at_k", "maj_at_k_low", "maj_at_k_high"), REAL),
    **dict.fromkeys((f"reasoning_{state}" for state in REASONING_STATES), REAL),
    "ran_on": WHOLE,
    "tokens_median": REAL,
    "tokens_p95": WHOLE,
    "baseline": TEXT,
    **dict.fromkeys(("difference", "difference_low", "difference_high", "difference_p"), REAL),
    "difference_method": TEXT,
    **dict.fromkeys(("n_pairs", "n_dropped"), WHOLE),
    "difference_reason": TEXT,
    **dict.fromkeys(("train_loss", "held_out_nll"), REAL),
    "held_out_tokens": WHOLE,
    **dict.fromkeys(("accepted", "device"), TEXT),
}

#: `recomputed_from` is the budget of the generation that was cut; null where the row is that generation itself.
BUDGET_COLUMNS: Columns = {"budget": WHOLE, "recomputed_from": WHOLE, **ROW_COLUMNS}

#: Of texts only what a grader says of them; the others are in the store, under `sample_id` in `samples_in`.
SAMPLE_COLUMNS: Columns = {
    "cell": TEXT,
    "step": WHOLE,
    **dict.fromkeys(("evaluation", "task", "problem_id"), TEXT),
    "repeat": WHOLE,
    **dict.fromkeys(("sample_id", "samples_in", "outcome", "detail", "extracted", "canonical", "scores"), TEXT),
    "reasoning_state": TEXT,
    "n_tokens": WHOLE,
    "ran_on": YES_NO,
    "finish_reason": TEXT,
}


def flat_row(row: Evaluated) -> dict[str, Any]:
    """Every number of a row, under the names of `ROW_COLUMNS`."""
    result, summary, gap, nll = row.result, row.summary, row.difference, row.nll
    plain_fields = ("cell", "step", "evaluation", "task", "is_baseline", "teacher", "student", "renderer", "trainer")
    numbers = ("n", "n_problems", "scored", "errors", "invalid", "by_score", "completion_rate")
    flat = {name: getattr(result, name) for name in (*plain_fields, "seed", "subset", "grader", "device")}
    flat |= {"accepted": ", ".join(result.accepted)}
    flat |= {"filters": ", ".join(result.filters), "axes": as_json(row.axes), "settings": as_json(result.settings)}
    flat |= {name: getattr(summary, name) for name in (*numbers, "ran_on", "tokens_median", "tokens_p95")}
    flat |= {f"n_{outcome}": count for outcome, count in summary.counts.items()}
    flat |= {f"reasoning_{state}": summary.reasoning.get(state) for state in REASONING_STATES}
    flat |= _spread("accuracy", summary.accuracy, summary.accuracy_interval)
    flat |= _spread("accuracy_completed", summary.accuracy_completed, summary.accuracy_completed_interval)
    flat |= _spread("score", summary.score, summary.score_interval)
    flat |= {"repeats": result.scores.repeats()} | _together(row.repeats)
    flat |= {f"bound_{end}": getattr(summary.bounds, end, None) for end in ("low", "high")}
    flat |= _spread("difference", gap.value if gap else None, gap.interval if gap else None)
    flat |= {"baseline": result.baseline, "difference_p": gap.p_value if gap else None}
    flat |= {f"difference_{name}": getattr(gap, name, None) for name in ("method", "reason")}
    flat |= {name: getattr(gap, name, None) for name in ("n_pairs", "n_dropped")}
    flat |= {name: getattr(nll, name, None) for name in ("train_loss", "held_out_nll", "held_out_tokens")}
    return {name: flat[name] for name in ROW_COLUMNS}


def budget_flat_rows(tables: Tables) -> Iterator[dict[str, Any]]:
    """Every row of the budget curves, under the names of `BUDGET_COLUMNS`."""
    for curve in tables.curves.values():
        for row in curve:
            whole = None if row.result.budget is None else row.result.settings.get("max_tokens")
            yield {"budget": budget_of(row), "recomputed_from": whole, **flat_row(row)}


def _together(repeats: Repeats | None) -> dict[str, Any]:
    """pass@k as JSON, because every evaluation has k of its own; maj@k is at `repeats`."""
    if repeats is None:
        return {"pass_at_k": None} | _spread("maj_at_k", None, None)
    found = {
        str(at.k): _spread("value", at.value, at.interval) | {"n_problems": at.n_problems, "n_left_out": at.n_left_out}
        for at in repeats.pass_at
    }
    majority = repeats.majority
    spread = _spread("maj_at_k", majority.value if majority else None, majority.interval if majority else None)
    return {"pass_at_k": as_json(found)} | spread


def _spread(name: str, value: float | None, interval: Interval | None) -> dict[str, float | None]:
    ends = {f"{name}_{end}": getattr(interval, end, None) for end in ("low", "high")}
    return {name: value, **ends}
