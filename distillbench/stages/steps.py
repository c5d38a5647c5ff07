"""Which checkpoints of a cell an evaluation is asked of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from distillbench.errors import DEFAULT, Mistake, Place
from distillbench.records import Cell, Evaluation, Every


def chosen_steps(evaluation: Evaluation, steps: Sequence[int]) -> tuple[int, ...]:
    """The steps of a training that an evaluation is asked at.

    Args:
        evaluation: The evaluation.
        steps: Every step that has a checkpoint.
    """
    asked = evaluation.steps
    if asked == "all":
        return tuple(steps)
    if asked == "none":
        return ()
    if asked == "last":
        return tuple(sorted(steps)[-1:])
    if isinstance(asked, Every):
        return tuple(step for step in steps if step % asked.every == 0)
    return tuple(step for step in steps if step in asked)


def steps_mistake(cell: Cell, evaluation: Evaluation, steps: Sequence[int]) -> Mistake | None:
    """What is wrong with the steps that an evaluation names, beside those that a cell's training leaves."""
    asked, known = evaluation.steps, ", ".join(map(str, steps)) or "none"
    origin = evaluation.origins.get("steps", DEFAULT)
    named = replace(Place() if origin == DEFAULT else origin, words=f"evaluation {evaluation.name!r}")
    wanted = f"steps at which cell {cell.name!r} has checkpoints: {known}"
    hint = "`steps: last`, `{every: N}` and `all` fit trainings of any length"
    if isinstance(asked, tuple) and (missing := sorted(set(asked) - set(steps))):
        return Mistake(named, wanted, ", ".join(map(str, missing)), hint)
    if isinstance(asked, Every) and steps and not chosen_steps(evaluation, steps):
        return Mistake(named, wanted, f"{{every: {asked.every}}}, which divides none of them", hint)
    return None
