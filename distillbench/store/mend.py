"""Before a run: what is damaged in the store is moved aside, so that it is made again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from distillbench.errors import DamagedError
from distillbench.plan.inspect import with_statuses
from distillbench.plan.stages import Plan, Stage
from distillbench.store.rows import METRICS
from distillbench.store.store import Store

#: Their results hold weights, which are compared only when a stage is going to read them.
_HEAVY = ("student", "train")


def mended(
    make_plan: Callable[[], Plan], store: Store, tell: Callable[[str], None], trusted: Collection[str] = ()
) -> Plan:
    """The plan with a status for every stage, after everything damaged in it has been moved aside.

    Args:
        make_plan: Makes the plan, which what is moved aside may change.
        store: Where results are.
        tell: Is told what is damaged, and where it is now.
        trusted: The keys of stages that are not looked at again.
    """
    while True:
        plan = with_statuses(make_plan(), store.lookup, store.damage)
        moved = [_moved(stage, why, store, tell) for stage, why in list(_damaged(plan, store, trusted))]
        if not any(moved):
            return plan


def _moved(stage: Stage, why: str, store: Store, tell: Callable[[str], None]) -> bool:
    aside = store.set_aside(stage.kind, stage.key)
    if aside is not None:
        tell(f"{stage.kind} {stage.label}: {why}\n    moved to {aside}; it is made again")
    return aside is not None


def _damaged(plan: Plan, store: Store, trusted: Collection[str]) -> Iterator[tuple[Stage, str]]:
    """The stages whose result is damaged, and what is wrong with it."""
    read = {need for stage in plan.pending() for need in stage.needs.values()}
    for stage in (stage for key, stage in plan.stages.items() if key not in trusted):
        try:
            if store.manifest(stage.kind, stage.key) is None:
                continue
            if stage.kind not in _HEAVY or stage.key in read:
                store.whole(stage.kind, stage.key)
            elif store.has(stage.kind, stage.key, METRICS):
                store.file(stage.kind, stage.key, METRICS)
        except DamagedError as error:
            yield stage, f"{error.path} {error.why}"
