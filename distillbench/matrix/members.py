"""The evaluations that a group of tasks becomes: one for each task, each a member of the group and of those in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from distillbench.errors import Mistake
from distillbench.options import Given
from distillbench.records import Membership
from distillbench.tasks.groups import TaskGroup


@dataclass(frozen=True, slots=True)
class Member:
    """One evaluation of an entry.

    Attributes:
        label: Its name.
        benchmark: Its task.
        options: What is its own, and goes over everything that is written.
        groups: What it is a member of.
    """

    label: str
    benchmark: Given
    options: Mapping[str, Given] = field(default_factory=dict)
    groups: tuple[Membership, ...] = ()


def members_of(
    group: TaskGroup, label: str, benchmark: Given, problems: Given | None, mistakes: list[Mistake]
) -> list[Member]:
    """The members of a group; where problems are named, those that have some of them.

    Args:
        group: The group.
        label: The entry's name.
        benchmark: What names the group.
        problems: What is said of problems.
        mistakes: Gets what is wrong with that.
    """
    named = _by_task(group, problems, mistakes)
    chosen = [task for task in group.tasks if named is None or task in named]
    found = []
    for task in chosen:
        own = Given(task, benchmark.origin, benchmark.exact, benchmark.folder)
        options = {"benchmark": own}
        if named is not None and problems is not None:
            options["problems"] = Given(named[task], problems.origin, problems.exact, problems.folder)
        groups = tuple(_memberships(group, label, task, set(chosen)))
        found.append(Member(f"{label}.{task}", own, options, groups))
    return found


def _memberships(group: TaskGroup, label: str, task: str, chosen: set[str]) -> Iterator[Membership]:
    """The groups that add a task up, from the outermost to the innermost."""
    if task not in group.tasks:
        return
    if group.weight_by_size is not None:
        yield Membership(label, group.weight_by_size, len(chosen & set(group.tasks)))
    for inner in group.groups:
        yield from _memberships(inner, f"{label}.{inner.name}", task, chosen)


def _by_task(group: TaskGroup, problems: Given | None, mistakes: list[Mistake]) -> dict[str, list[Any]] | None:
    """The problems that are named, by their task; None where none are."""
    if problems is None or not isinstance(problems.value, list):  # what is no list is told with the option
        return None
    if not problems.value:
        mistakes.append(Mistake(problems.place, "ids of problems", "an empty list", "leave it out to ask all"))
    found: dict[str, list[Any]] = {}
    for one in problems.value:
        task = one.rpartition("/")[0] if isinstance(one, str) else ""
        if task not in group.tasks:
            wanted = f"ids of problems with the names of their tasks, such as {group.tasks[0]}/0"
            hint = f"{group.name!r} stands for {len(group.tasks)} tasks"
            mistakes.append(Mistake(problems.place, wanted, repr(one), hint))
        else:
            found.setdefault(task, []).append(one)
    return found
