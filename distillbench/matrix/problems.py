"""The problems that an evaluation names: ids and numbers to places in the task."""

from __future__ import annotations

from collections.abc import Sequence

from distillbench.errors import Mistake, Place, nearest
from distillbench.tasks.problems import place_of, problem_id, unknown_problems

#: So many ids are enough to find the one that was meant.
_MOST_COMPARED = 2000


def places_of(named: Sequence[str | int], task: str, n_docs: int | None, where: Place) -> tuple[int, ...] | Mistake:
    """The places of problems, ascending, each once; or what is wrong with an id.

    Args:
        named: Ids (`math500/17`) or numbers, from 0.
        task: The task's name.
        n_docs: How many problems it has; None where that is not known before it is loaded.
        where: Where they stand.
    """
    found = {name: place_of(name, task) for name in named}
    strange = [str(name) for name, place in found.items() if place is None]
    if strange:
        known = [problem_id(task, place) for place in range(min(n_docs or _MOST_COMPARED, _MOST_COMPARED))]
        wanted = f"ids of problems of task {task!r}, such as {problem_id(task, 0)}, or their numbers"
        return Mistake(where, wanted, ", ".join(map(repr, strange)), nearest(strange[0], known))
    places = sorted({place for place in found.values() if place is not None})
    missing = [place for place in places if n_docs is not None and place >= n_docs]
    if n_docs is not None and missing:
        hint = f"the nearest is {problem_id(task, n_docs - 1)}"
        return Mistake(where, "ids of problems that the task has", unknown_problems(task, missing, n_docs), hint)
    return tuple(places)
