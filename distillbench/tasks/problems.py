"""The ids of problems: the task's name and the problem's place in its split, from 0, as `math500/17`."""

from __future__ import annotations

from collections.abc import Iterable

_MOST_SHOWN = 5


def problem_id(task: str, place: int) -> str:
    """The id of the problem at a place."""
    return f"{task}/{place}"


def place_of(name: str | int, task: str) -> int | None:
    """The place that an id or a number names; None where it names no problem of this task."""
    if isinstance(name, int):
        return name
    owner, _, number = name.rpartition("/")
    is_number = number.isascii() and number.isdecimal()
    return int(number) if is_number and owner in ("", task) else None


def unknown_problems(task: str, places: Iterable[int], n_docs: int) -> str:
    """What to say of places that a task of so many problems has not."""
    wanted = [problem_id(task, place) for place in places]
    more = f" and {len(wanted) - _MOST_SHOWN} more" if len(wanted) > _MOST_SHOWN else ""
    told = f"task {task!r} has no problem {', '.join(wanted[:_MOST_SHOWN])}{more}"
    if n_docs == 0:
        return f"{told}; it has none at all"
    return f"{told}; it has {n_docs}: {problem_id(task, 0)} .. {problem_id(task, n_docs - 1)}"
