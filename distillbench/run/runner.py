"""Decides what runs, and when: starts sessions whose needs are there, records how stages end, blocks dependants."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol

import pluggy

from distillbench.errors import StoreError
from distillbench.manager import ask_each
from distillbench.plan.plan import Plan
from distillbench.plan.stage import Stage
from distillbench.protocols import Handle, Launcher
from distillbench.records import Resources
from distillbench.run.placement import refuse_missing_gpus
from distillbench.run.worker import Job
from distillbench.stages.sample import Sample
from distillbench.stages.train import Train
from distillbench.store.garbage import kept_for_reports
from distillbench.store.mend import mended
from distillbench.store.store import Store
from distillbench.tasks.identity import TaskIndex

#: How a stage ended. `done` ran now, `reused` was there already.
DONE, REUSED, HOLES, FAILED, BLOCKED = "done", "reused", "holes", "failed", "blocked"
_GOOD = frozenset({DONE, REUSED, HOLES})
#: How often a stage that another process is running is looked at again, in seconds.
_BUSY_PAUSE = 1.0


class Listener(Protocol):
    """Whoever shows a person what goes on."""

    def planned(self, plan: Plan) -> None:
        """A plan is about to run (again, once a stage has told what else there is to do)."""

    def started(self, stage: Stage) -> None:
        """A stage runs."""

    def progressed(self, stage: Stage, done: int, total: int | None, note: str) -> None:
        """A stage got on."""

    def sampled(self, stage: Stage, done: int, total: int, tokens: int) -> None:
        """A sample stage got on; `tokens` were generated for it in this run."""

    def graded(self, stage: Stage, outcomes: Mapping[str, int]) -> None:
        """So many samples of a sample stage have these outcomes so far."""

    def ended(self, stage: Stage, ending: str, why: str) -> None:
        """A stage ended; `ending` is one of this module's constants."""

    def told(self, text: str) -> None:
        """Something was damaged and has been moved aside, or a plugin's hook failed: whoever looks should read it."""

    def waiting(self, stage: Stage) -> None:
        """Another process runs the stage; this one waits for its result."""


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


@dataclass(slots=True)
class _Unit:
    handle: Handle
    resources: Resources
    stages: dict[str, Stage]
    log: Path
    busy: set[str] = field(default_factory=set)


class Runner:
    """Runs plans.

    Args:
        make_plan: Makes the plan anew, without statuses; called again when a stage has ended on which it hangs.
        store: Where results are.
        launcher: Where stages run.
        listener: Who is told.
        manager: Whose hooks are called.
        keep: The kinds of large checkpoints that stay after their evaluation.
        blocked: Plugins that workers leave out too.
        tasks: The tasks by name.
    """

    def __init__(
        self,
        make_plan: Callable[[], Plan],
        store: Store,
        launcher: Launcher,
        listener: Listener,
        manager: pluggy.PluginManager,
        keep: frozenset[str] = frozenset(),
        blocked: tuple[str, ...] = (),
        tasks: TaskIndex | None = None,
    ) -> None:
        self.make_plan = make_plan
        self.store = store
        self.launcher = launcher
        self.listener = listener
        self.manager = manager
        self.keep = keep
        self.blocked = blocked
        self.tasks = tasks or TaskIndex(())
        self._units: list[_Unit] = []
        self._failed_hooks: set[tuple[str, str]] = set()
        self._stopped: Exception | None = None

    def stop(self, error: Exception) -> None:
        """Ends `run` with an error, from another thread: within a second every worker is told to end."""
        self._stopped = error

    def run(self, plan: Plan) -> Summary:
        """Runs everything that is not done.

        Args:
            plan: The first plan, with statuses.

        Raises:
            DistillbenchError: It asks for GPUs that are not there.
            KeyboardInterrupt: After every worker has been ended; what was journaled is kept.
            Exception: What `stop` was given, likewise.
        """
        refuse_missing_gpus(plan, self.launcher)
        self.store.prepare()
        summary = Summary(plan)
        try:
            self._run_plan(summary)
        finally:
            self._end_units()
        self._free_checkpoints(summary)
        return summary

    def _tell_damage(self, why: str) -> None:
        self.listener.told(f"damaged: {why}")

    def _call(self, hook: str, **arguments: Any) -> None:
        """Calls a hook of every plugin. What one raises is told once, and costs the run nothing."""
        for answer in ask_each(self.manager, hook, **arguments):
            if answer.error is not None and (answer.plugin, hook) not in self._failed_hooks:
                self._failed_hooks.add((answer.plugin, hook))
                self.listener.told(f"{answer.error}\n    the run goes on without what it does")

    def _run_plan(self, summary: Summary) -> None:
        pending = self._taken_in(summary)
        busy: set[str] = set()
        grown: set[str] = set()
        while pending or self._units:
            if self._stopped is not None:
                raise self._stopped
            self._block(pending, summary)
            self._start_ready(pending, summary.endings, busy)
            if not self._units and not busy:
                self._give_up(pending, summary)
                break
            self._wait(busy)
            for unit in list(self._units):
                self._read(unit, pending, summary, busy)
            if told := self._told(summary) - grown:
                grown |= told
                summary.plan = mended(self.make_plan, self.store, self._tell_damage, trusted=summary.endings)
                pending = self._taken_in(summary)

    def _give_up(self, pending: dict[str, Stage], summary: Summary) -> None:
        """Ends the stages that are left where nothing runs, so that none is missing without a word."""
        for key, stage in list(pending.items()):
            del pending[key]
            waits = ", ".join(need.name for need in stage.needs if summary.endings.get(need.key) not in _GOOD)
            why = f"waits for {waits or 'a stage of its own process'}, and nothing runs that could end that"
            self._end(
                stage, FAILED, f"{why}\n    this is a fault of distillbench: please report it with the matrix", summary
            )

    def _taken_in(self, summary: Summary) -> dict[str, Stage]:
        """The stages of a plan that have not ended; whoever looks is told of it."""
        plan, endings = summary.plan, summary.endings
        self.listener.planned(plan)
        self._call("distillbench_plan_ready", plan=plan)
        running = {key for unit in self._units for key in unit.stages}  # what is done of them says so itself
        for key in plan.stages:
            if plan.statuses[key].state == "done" and key not in running:
                endings.setdefault(key, REUSED)
        return {key: stage for key, stage in plan.stages.items() if endings.get(key) is None}

    @staticmethod
    def _told(summary: Summary) -> set[str]:
        """The keys of stages that have ended and on whose facts a plan hangs."""
        hanging_on = frozenset().union(*summary.plan.growing.values())
        return {key for key in hanging_on if summary.endings.get(key) in _GOOD}

    def _block(self, pending: dict[str, Stage], summary: Summary) -> None:
        """Ends the stages that need a failed one; `pending` holds needs first, so one pass reaches them all."""
        for key, stage in list(pending.items()):
            for need in stage.needs:
                if summary.endings.get(need.key, DONE) not in _GOOD:
                    del pending[key]
                    self._end(stage, BLOCKED, f"needs {need.name}, which did not succeed", summary)
                    break

    def _start_ready(self, pending: Mapping[str, Stage], endings: Mapping[str, str], busy: set[str]) -> None:
        running = {key for unit in self._units for key in unit.stages}
        for key in [key for key in sorted(busy) if not self.store.is_locked(key)]:
            busy.discard(key)
        for stages in _processes(pending).values():
            if any(key in running or key in busy for key in stages):
                continue
            outside = {need.key for stage in stages.values() for need in stage.needs if need.key not in stages}
            if all(endings.get(need) in _GOOD for need in outside):
                self._start(stages)

    def _start(self, stages: dict[str, Stage]) -> None:
        capacity = self.launcher.capacity()
        wanted = Resources.most(stage.resources for stage in stages.values())
        granted = Resources(
            min(wanted.cpus, capacity.cpus), min(wanted.gpus, capacity.gpus), min(wanted.memory_gb, capacity.memory_gb)
        )
        used = [unit.resources for unit in self._units]
        if used and not _fits(granted, used, capacity):
            return
        first = next(iter(stages.values()))
        log = self.store.root / "logs" / f"{first.kind}-{first.key}.log"
        job = Job(tuple(stages.values()), granted, self.store.root, self.blocked, self.tasks, log, {})
        self._units.append(_Unit(self.launcher.start(job, granted), granted, stages, log))

    def _wait(self, busy: set[str]) -> None:
        if self._units:
            wait([unit.handle.fileno() for unit in self._units], timeout=_BUSY_PAUSE)
        elif busy:
            time.sleep(_BUSY_PAUSE)

    def _read(self, unit: _Unit, pending: dict[str, Stage], summary: Summary, busy: set[str]) -> None:
        ended = not unit.handle.alive()  # asked before reading, so that no last message is missed
        for message in unit.handle.receive():
            self._hear(unit, message, pending, summary, busy)
        if not ended:
            return
        self._units.remove(unit)
        for key, stage in unit.stages.items():
            if key in pending and not self._is_left_out(stage, unit, summary):
                del pending[key]
                why = f"its process ended with exit code {unit.handle.exit_code}; what it printed: {unit.log}"
                self._end(stage, FAILED, why, summary)

    @staticmethod
    def _is_left_out(stage: Stage, unit: _Unit, summary: Summary) -> bool:
        """Whether a worker rightly left a stage out: it, or one it needs, runs elsewhere or did not succeed."""
        needs = [need.key for need in stage.needs if need.key in unit.stages]
        return stage.key in unit.busy or any(
            need in unit.busy or summary.endings.get(need) in (FAILED, BLOCKED) for need in needs
        )

    def _hear(
        self,
        unit: _Unit,
        message: Mapping[str, Any],
        pending: dict[str, Stage],
        summary: Summary,
        busy: set[str],
    ) -> None:
        stage = unit.stages[message["key"]]
        event = message["event"]
        if event == "progress":
            self.listener.progressed(stage, message["done"], message["total"], message["note"])
            return
        if event == "sampled":
            self.listener.sampled(stage, message["done"], message["total"], message["tokens"])
            return
        if event == "graded":
            self.listener.graded(stage, message["outcomes"])
            return
        if event == "busy":
            if stage.key not in busy:
                self.listener.waiting(stage)
            busy.add(stage.key)
            unit.busy.add(stage.key)
            return
        busy.discard(stage.key)
        if event == "started":
            self.listener.started(stage)
            self._call("distillbench_stage_started", stage=stage)
            return
        del pending[stage.key]
        if event == "failed":
            self._end(stage, FAILED, f"{message['why']}\n    log: {unit.log}", summary)
        else:
            ending = REUSED if event == "reused" else HOLES if message["holes"] else DONE
            self._end(stage, ending, f"{message['holes']} samples failed" if message["holes"] else "", summary)

    def _end(self, stage: Stage, ending: str, why: str, summary: Summary) -> None:
        summary.endings[stage.key] = ending
        if ending in (FAILED, BLOCKED):
            summary.reasons[stage.key] = why
        self.listener.ended(stage, ending, why)
        self._call("distillbench_stage_finished", stage=stage, ending=ending)

    def _end_units(self) -> None:
        for unit in self._units:
            unit.handle.terminate()
        self._units.clear()

    def _free_checkpoints(self, summary: Summary) -> None:
        """Deletes full checkpoints whose every evaluation is done, unless `keep` of any matrix says otherwise."""
        samples = [stage for stage in summary.plan.stages.values() if isinstance(stage, Sample)]
        if "full" in self.keep or any(stage.asked.is_partial for stage in samples):  # a later run needs them
            return
        readers: dict[Train, list[str]] = {}
        asked: set[tuple[Train, int]] = set()
        for stage in samples:
            if stage.train is not None:
                readers.setdefault(stage.train, []).append(summary.endings.get(stage.key, ""))
                if stage.evaluation is not None:  # what only a teacher has asked is still to be evaluated
                    asked.add((stage.train, stage.step))
        try:
            kept = kept_for_reports(self.store, "full")
        except StoreError:  # what is kept cannot be known; `gc` says why
            return
        for train, endings in readers.items():
            found = self.store.lookup(train)
            if found is None or train.key in kept or not set(endings) <= {DONE, REUSED}:
                continue
            full = [
                entry["path"]
                for entry in found.facts["checkpoints"]
                if entry["kind"] == "full" and (train, entry["step"]) in asked  # the others were never looked at
            ]
            if full:
                summary.freed_bytes += self.store.free(train, full)


def _processes(pending: Mapping[str, Stage]) -> dict[str, dict[str, Stage]]:
    """Stages that are to run, by the process that they run in."""
    found: dict[str, dict[str, Stage]] = {}
    for key, stage in pending.items():
        found.setdefault(stage.process, {})[key] = stage
    return found


def _fits(granted: Resources, used: list[Resources], capacity: Resources) -> bool:
    return (
        granted.cpus + sum(one.cpus for one in used) <= capacity.cpus
        and granted.gpus + sum(one.gpus for one in used) <= capacity.gpus
        and granted.memory_gb + sum(one.memory_gb for one in used) <= capacity.memory_gb
    )
