"""Which checkpoints of a cell an evaluation is asked of."""

from __future__ import annotations

from collections.abc import Sequence

from distillbench.records import Evaluation, Every


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
