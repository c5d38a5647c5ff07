"""What has become of every stage of a run: pending, ended, or run by another process."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from distillbench.events import BLOCKED, DONE, FAILED, GOOD, REUSED, About, Planned
from distillbench.plan.plan import Plan
from distillbench.plan.stage import Stage
from distillbench.stages.train import Train


@dataclass(slots=True)
class Summary:
    """How a run ended.

    Attributes:
        plan: The last plan, with the statuses it had before it ran.
        endings: For each stage how it ended.
        reasons: Why, for failed and blocked stages.
        freed_bytes: Size of the checkpoints deleted after their evaluation.
    """

    plan: Plan
    endings: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    freed_bytes: int = 0

    def count(self, ending: str) -> int:
        """The number of stages that ended so."""
        return sum(found == ending for found in self.endings.values())


class Ledger:
    """Keeps account of the stages of a run.

    Args:
        plan: The first plan, with statuses.

    Attributes:
        summary: How stages have ended so far.
        pending: Those that have not, by key, needs first.
        busy: The keys of pending stages that another process runs.
    """

    def __init__(self, plan: Plan) -> None:
        self.summary = Summary(plan)
        self.pending: dict[str, Stage] = {}
        self.busy: set[str] = set()
        self._known: set[str] = set()
        self._told: set[str] = set()

    @property
    def plan(self) -> Plan:
        """The latest plan."""
        return self.summary.plan

    def take_in(self, plan: Plan, running: Collection[str] = ()) -> Planned:
        """Goes on with a plan.

        Args:
            plan: The first, or a larger one, with statuses.
            running: The keys of stages that workers have: what is done of them is still to be told.

        Returns:
            What is new in it.
        """
        endings = self.summary.endings
        self.summary.plan = plan
        for key in plan.stages:
            if plan.statuses[key].state == DONE and key not in running:
                endings.setdefault(key, REUSED)
        self.pending = {key: stage for key, stage in plan.stages.items() if key not in endings}
        new = set(plan.stages) - self._known
        self._known |= new
        return Planned(
            matrix=plan.matrix,
            cells={name: found for name, keys in plan.cell_stages.items() if (found := _those(keys, new))},
            stages=tuple(stage.about for key, stage in self.pending.items() if key in new),
            done=len(plan.stages) - len(self.pending),
            n_stages=len(plan.stages),
            n_cells=len(plan.cells),
            grows=bool(plan.growing),
        )

    def has_grown(self) -> bool:
        """Whether a stage on which the plan hangs has ended since this was last asked."""
        hanging_on = frozenset().union(*self.plan.growing.values())
        new = {key for key in hanging_on if self.is_good(key)} - self._told
        self._told |= new
        return bool(new)

    def end(self, stage: Stage | About, ending: str, why: str = "") -> None:
        """A stage ended."""
        self.pending.pop(stage.key, None)
        self.busy.discard(stage.key)
        self.summary.endings[stage.key] = ending
        if ending in (FAILED, BLOCKED):
            self.summary.reasons[stage.key] = why

    def is_good(self, key: str) -> bool:
        """Whether the result of a stage is there."""
        return self.summary.endings.get(key) in GOOD

    def ready(self, given: Collection[str]) -> dict[str, dict[str, Stage]]:
        """The stages that can run now, by the process that they run in.

        A session may begin with a stage whose needs are not there yet, where these are given to it as well.

        Args:
            given: The keys of stages that workers have.
        """
        found: dict[str, dict[str, Stage]] = {}
        for key, stage in self.pending.items():
            if key in given or key in self.busy:
                continue
            inside = found.get(stage.process, {})
            if all(self.is_good(need.key) or need.key in inside for need in stage.waits_for):
                found.setdefault(stage.process, inside)[key] = stage
        return found

    def waits_in_vain(self) -> Iterator[tuple[Stage, Stage]]:
        """Pending stages that wait for one which did not succeed, and that one; each as often as it is asked."""
        for stage in list(self.pending.values()):
            for need in stage.waits_for:
                if self.summary.endings.get(need.key, DONE) not in GOOD:
                    yield stage, need
                    break

    def awaited(self, process: str) -> tuple[Train, ...]:
        """The trainings whose checkpoints will be sampled in a session, once they are there."""
        cells = [cell.name for cell in self.plan.cells if self.plan.sessions.get(cell.name) == process]
        stages = {stage.key: stage for name in cells for stage in self.plan.of_cell(name)}
        return tuple(one for one in stages.values() if isinstance(one, Train) and one.key in self.pending)

    def may_come(self, process: str) -> bool:
        """Whether stages of a session may still become ready."""
        is_pending = any(stage.process == process for stage in self.pending.values())
        return is_pending or any(
            self.plan.sessions.get(cell) == process and not keys <= self.summary.endings.keys()
            for cell, keys in self.plan.growing.items()
        )


def _those(keys: tuple[str, ...], wanted: Collection[str]) -> tuple[str, ...]:
    return tuple(key for key in keys if key in wanted)
