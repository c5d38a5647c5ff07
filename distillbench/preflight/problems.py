"""What can be wrong with a grader's problems, whoever answers them: their gold answers and their examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distillbench.preflight.material import counted
from distillbench.protocols import Grader
from distillbench.records import Message, Problem

_MOST_NAMED = 3  # problems


def check_problems(grader: Grader, problems: Sequence[Problem], place: Path) -> list[tuple[str, str]]:
    """Gold answers by which nothing can be judged, and problems that stand among their own examples.

    Args:
        grader: The component that grades.
        problems: Every problem that is asked.
        place: The task's file.

    Returns:
        Names of findings, with words.
    """
    reasons = grader.unusable_golds(problems)
    golds = [f"{one.problem_id}: {why}" for one, why in zip(problems, reasons, strict=True) if why is not None]
    shown = [one.problem_id for one in problems if _is_own_example(one.messages)]
    found = []
    for name, named, what in (
        ("unusable_gold", golds, "have a gold answer by which no answer can be judged"),
        ("own_example", shown, "stand among their own examples, with the answer"),
    ):
        if named:
            more = f" and {len(named) - _MOST_NAMED:,} more" if len(named) > _MOST_NAMED else ""
            first = "; ".join(named[:_MOST_NAMED])
            found.append((name, f"{place}: {counted(len(named), len(problems), 'problems')} {what}: {first}{more}"))
    return found


def _is_own_example(messages: Sequence[Message]) -> bool:
    """Whether what is asked last was asked before, and answered."""
    turns = [(number, one.content.strip()) for number, one in enumerate(messages) if one.role == "user"]
    if not turns or not turns[-1][1]:
        return False
    answered = {text for number, text in turns[:-1] if messages[number + 1].role == "assistant"}
    return turns[-1][1] in answered
