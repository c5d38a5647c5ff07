"""What an evaluation asked, in words and plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from distillbench.plan.sampling import effective_sampling
from distillbench.records import Evaluation

#: What says which checkpoints and which problems are asked, and where completions are cut: it is told elsewhere.
_ELSEWHERE = ("budgets", "steps", "limit", "subset", "problems")
#: Places of problems.
_MOST_NAMED = 10


def settings_of(evaluation: Evaluation) -> dict[str, Any]:
    """How completions were drawn; what changed nothing is None or not there."""
    drawn = effective_sampling(evaluation.sampling)
    without = {"repetition_penalty", "presence_penalty"} - drawn.penalties.keys()
    said = {name: value for name, value in evaluation.settings.items() if name not in (*_ELSEWHERE, *asdict(drawn))}
    return (
        {name: value for name, value in asdict(drawn).items() if name not in without}
        | said
        | {
            "system": evaluation.system or None,
            "n_docs": evaluation.n_docs,
            "metadata": None if evaluation.metadata == "{}" else evaluation.metadata,
        }
    )


def subset_of(evaluation: Evaluation, n_problems: int) -> str:
    """Which problems were asked, in words; empty where all were.

    Args:
        evaluation: What was to be asked.
        n_problems: How many were.
    """
    named = "" if evaluation.problems is None else _named(evaluation.problems)
    if evaluation.limit is None or n_problems < evaluation.limit:
        return named
    cut = f"first {evaluation.limit} problems"
    if evaluation.subset == "shuffled":
        cut = f"{evaluation.limit} problems, fixed shuffle"
    return f"{cut} of {named}" if named else cut


def _named(places: Sequence[int]) -> str:
    shown = ", ".join(map(str, places[:_MOST_NAMED]))
    more = f" and {len(places) - _MOST_NAMED} more" if len(places) > _MOST_NAMED else ""
    return f"{len(places)} named problem{'s' if len(places) > 1 else ''} ({shown}{more})"
