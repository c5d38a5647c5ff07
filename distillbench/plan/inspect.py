"""Compares a plan with what a store holds: what is done, what has to run, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from distillbench.plan.stages import Finished, Plan, Stage, Status

#: What the store knows of a stage; None when it has no result.
Lookup = Callable[[Stage], Finished | None]
#: What is wrong with the result of a stage of this kind and key, in words; None where nothing is.
Damage = Callable[[str, str], str | None]


def with_statuses(plan: Plan, lookup: Lookup, damage: Damage = lambda kind, key: None) -> Plan:
    """The plan with a status for every stage.

    Args:
        plan: Without statuses.
        lookup: Finds results that can be used.
        damage: Says why others cannot.
    """
    finished = {key: lookup(stage) for key, stage in plan.stages.items()}
    statuses: dict[str, Status] = {}
    for key, stage in plan.stages.items():
        statuses[key] = _status(stage, finished, statuses, plan)
        if finished[key] is None and (why := damage(stage.kind, key)) is not None:
            statuses[key] = Status("todo", f"its result is damaged, and is made again: {why}")
    _wake_freed(plan, finished, statuses)
    return replace(plan, statuses=statuses)


def _status(
    stage: Stage, finished: Mapping[str, Finished | None], statuses: Mapping[str, Status], plan: Plan
) -> Status:
    own = finished[stage.key]
    if own is None:
        return Status("todo", "not run yet")
    for need in stage.needs.values():
        if statuses[need].state != "done":
            return Status("waits", f"reused if {_name(plan.stages[need])} comes out as before")
    known = {need: found for need in stage.needs.values() if (found := finished[need]) is not None}
    changed = _changed_input(stage, own, known)
    if changed is not None:
        return Status("stale", f"{_name(plan.stages[changed])} changed since")
    if own.holes:
        return Status("holes", f"{own.holes} samples failed and will be tried again")
    return Status("done")


def _changed_input(stage: Stage, own: Finished, needs: Mapping[str, Finished]) -> str | None:
    """The key of the first input whose digest is not the recorded one."""
    for key in stage.needs.values():
        if own.inputs.get(key) != needs[key].digest:
            return key
    return None


def _wake_freed(plan: Plan, finished: Mapping[str, Finished | None], statuses: dict[str, Status]) -> None:
    """Trainings whose checkpoints were deleted run again when a stage that has to run needs them.

    Training again need not give the same weights, so that everything made from the old ones is compared again.
    """
    again: set[str] = set()
    for stage in plan.stages.values():
        if stage.kind != "sample" or statuses[stage.key].state == "done" or "train" not in stage.needs:
            continue
        train = stage.needs["train"]
        own = finished[train]
        if own is not None and own.freed:
            why = f"its checkpoints were deleted after evaluation, and {stage.label} needs them"
            statuses[train] = Status("todo", why)
            again.add(train)
    for key, stage in plan.stages.items():
        made_again = next((need for need in stage.needs.values() if need in again), None)
        if made_again is not None and statuses[key].state == "done":
            statuses[key] = Status("waits", f"reused if {_name(plan.stages[made_again])} comes out as before")
            again.add(key)


def _name(stage: Stage) -> str:
    return f"{stage.kind} {stage.label}"
