"""What is checked before a GPU is rented: that a student is trained on what it will be asked to continue.

Everything here needs a tokenizer and no model. `check` renders real rows and real prompts and compares them:

- `prompts`: each evaluation's own prompts; `rows`: each training row, against the prompts of the evaluations;
- `boundary`, `tags`, `marks`: what can be wrong with one row;
- `sets`: what can only be said of all rows together;
- `problems`: a benchmark's gold answers and examples;
- `show`: tokens as a person reads them.
"""

from __future__ import annotations

from collections.abc import Sequence

from distillbench.findings import KINDS, Finding
from distillbench.preflight.material import Asked, Trained, evenly, sample_evenly
from distillbench.preflight.problems import check_problems
from distillbench.preflight.prompts import PromptMaker, check_prompts, told_of
from distillbench.preflight.rows import check_rows
from distillbench.preflight.sets import check_sets
from distillbench.preflight.show import Piece, escaped, pieces
from distillbench.protocols import Renderer

__all__ = [
    "Asked",
    "Piece",
    "Trained",
    "check",
    "check_problems",
    "check_unbuilt",
    "escaped",
    "evenly",
    "pieces",
    "sample_evenly",
]


def check(renderer: Renderer, asked: Sequence[Asked], trained: Trained | None) -> list[Finding]:
    """Everything that is wrong with a cell before it runs.

    Args:
        renderer: Bound to the student's tokenizer.
        asked: The cell's evaluations.
        trained: The cell's training rows; None for a baseline, whose prompts alone are checked.

    Returns:
        At most one finding for each name and evaluation, in the order of `KINDS`, then of `asked`.

    Raises:
        StageError: The renderer gives another number of rows than it was given traces.
    """
    maker = PromptMaker(renderer)
    found = check_prompts(renderer, maker, asked)
    if trained is not None:
        of_rows, lengths = check_rows(renderer, maker, asked, trained)
        found += of_rows + check_sets(maker, asked, trained, lengths)
    return _in_order(found, [one.evaluation.name for one in asked])


def check_unbuilt(asked: Sequence[Asked]) -> list[Finding]:
    """What is wrong with the evaluations of a cell that has no tokenizer yet."""
    return _in_order(told_of(asked), [one.evaluation.name for one in asked])


def _in_order(found: Sequence[Finding], evaluations: Sequence[str]) -> list[Finding]:
    """Sorted, with the first of those that share name and evaluation."""
    kinds, places = list(KINDS), ["", *evaluations]
    first = {(one.name, one.evaluation): one for one in reversed(found)}
    return sorted(first.values(), key=lambda one: (kinds.index(one.name), places.index(one.evaluation)))
