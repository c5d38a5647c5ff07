"""Compares a plan with what a store holds: what is done, what has to run, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from distillbench.plan.plan import Finished, Plan, Status
from distillbench.plan.stage import Stage

#: What the store knows of a stage; None when it has no result.
Lookup = Callable[[Stage], Finished | None]
#: What is wrong with the result of a stage, in words; None where nothing is.
Damage = Callable[[Stage], str | None]


def with_statuses(plan: Plan, lookup: Lookup, damage: Damage = lambda stage: None) -> Plan:
    """The plan with a status for every stage.

    Args:
        plan: Without statuses.
        lookup: Finds results that can be used.
        damage: Says why others cannot.
    """
    finished = {key: lookup(stage) for key, stage in plan.stages.items()}
    statuses: dict[str, Status] = {}
    for key, stage in plan.stages.items():
        statuses[key] = _status(stage, finished, statuses)
        if finished[key] is None and (why := damage(stage)) is not None:
            statuses[key] = Status("todo", f"its result is damaged, and is made again: {why}")
    _wake_freed(plan, finished, statuses)
    return replace(plan, statuses=statuses)


def _status(stage: Stage, finished: Mapping[str, Finished | None], statuses: Mapping[str, Status]) -> Status:
    own = finished[stage.key]
    if own is None:
        return Status("todo", "not run yet")
    for need in stage.needs:
        if statuses[need.key].state != "done":
            return Status("waits", f"reused if {need.name} comes out as before")
    changed = _changed_input(stage, own, finished)
    if changed is not None:
        return Status("stale", f"{changed.name} changed since")
    if own.holes:
        return Status("holes", f"{own.holes} samples failed and will be tried again")
    return Status("done")


def _changed_input(stage: Stage, own: Finished, finished: Mapping[str, Finished | None]) -> Stage | None:
    """The first input whose digest is not the recorded one."""
    for need in stage.needs:
        found = finished[need.key]
        if found is None or own.inputs.get(need.key) != found.digest:
            return need
    return None


def _wake_freed(plan: Plan, finished: Mapping[str, Finished | None], statuses: dict[str, Status]) -> None:
    """Stages whose large files were deleted run again when a stage that has to run reads them.

    Running again need not give the same weights, so that everything made from the old ones is compared again.
    """
    again: set[Stage] = set()
    for stage in plan.stages.values():
        if statuses[stage.key].state == "done":
            continue
        for need in stage.needs:
            own = finished[need.key]
            if own is not None and own.freed:
                why = f"its checkpoints were deleted after evaluation, and {stage.label} needs them"
                statuses[need.key] = Status("todo", why)
                again.add(need)
    for key, stage in plan.stages.items():
        made_again = next((need for need in stage.needs if need in again), None)
        if made_again is not None and statuses[key].state == "done":
            statuses[key] = Status("waits", f"reused if {made_again.name} comes out as before")
            again.add(stage)
