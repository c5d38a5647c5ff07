"""Makes records for the tests of the core."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from distillbench.bench import Bench
from distillbench.plan.plan import Plan
from distillbench.plan.stage import Stage
from distillbench.protocols import Progress
from distillbench.records import Completion, Message, Problem, Trace
from distillbench.store.store import Made


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy with changes; None removes a key."""
    found = dict(base)
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(found.get(key), Mapping):
            found[key] = merged(found[key], value)
        elif value is None:
            found.pop(key, None)
        else:
            found[key] = value
    return found


def problem(gold: str = "7", number: int = 0) -> Problem:
    return Problem(f"toy/{number}", "toy", (Message("user", "How many?"),), gold, {"doc": {"answer": gold}})


def trace(number: int = 0, reasoning: str | None = "so", answer: str = "7") -> Trace:
    return Trace(problem(number=number), reasoning, answer, "stop", 3, "teacher", f"row {number}", f"id {number}")


def completion(
    answer: str = "", state: str = "closed", finish_reason: str = "stop", token_ids: tuple[int, ...] = (1, 2, 3)
) -> Completion:
    reasoning = None if state == "absent" else "thinking"
    return Completion("text", token_ids, finish_reason, "", reasoning, answer, state)  # type: ignore[arg-type]


class Numbered(Stage):
    """A stage that is told from others by a number."""

    kind = "numbered"

    number: int = 0
    earlier: tuple[Stage, ...] = ()

    def run(self, bench: Bench, progress: Progress) -> Made:
        raise NotImplementedError


@lru_cache
def _kind(kind: str) -> type[Numbered]:
    return type(kind, (Numbered,), {"kind": kind})


def stage(number: int = 0, kind: str = "traces", *after: Stage) -> Numbered:
    """A stage of any kind, after others."""
    return _kind(kind)(number=number, label=f"{kind} of a test", earlier=after)


def keys(plan: Plan, kind: str, cell: str | None = None) -> list[str]:
    """The keys of the stages of a kind, of one cell or of all."""
    chosen = plan.cell_stages[cell] if cell else plan.stages
    return [key for key in chosen if plan.stages[key].kind == kind]


def kinds(plan: Plan, cell: str) -> list[str]:
    """The kinds of a cell's stages, in order."""
    return [plan.stages[key].kind for key in plan.cell_stages[cell]]


def states(plan: Plan) -> dict[str, set[str]]:
    """The states of a plan's stages, by kind."""
    found: dict[str, set[str]] = {}
    for key, one in plan.stages.items():
        found.setdefault(one.kind, set()).add(plan.statuses[key].state)
    return found


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
