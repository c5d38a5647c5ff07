"""Before a run: what is damaged in the store is moved aside, so that it is made again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from distillbench.errors import DamagedError
from distillbench.plan.inspect import with_statuses
from distillbench.plan.plan import Plan
from distillbench.plan.stage import Stage
from distillbench.store.rows import METRICS
from distillbench.store.store import Store


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
    aside = store.set_aside(stage)
    if aside is not None:
        tell(f"{stage.name}: {why}\n    moved to {aside}; it is made again")
    return aside is not None


def _damaged(plan: Plan, store: Store, trusted: Collection[str]) -> Iterator[tuple[Stage, str]]:
    """The stages whose result is damaged, and what is wrong with it."""
    read = {need for stage in plan.pending() for need in stage.needs}
    for stage in (stage for key, stage in plan.stages.items() if key not in trusted):
        try:
            if store.manifest(stage) is None:
                continue
            if not stage.is_heavy or stage in read:
                store.whole(stage)
            elif store.has(stage, METRICS):
                store.file(stage, METRICS)
        except DamagedError as error:
            yield stage, f"{error.path} {error.why}"
