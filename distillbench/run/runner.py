"""Decides what runs, and when: starts what is ready, gives open sessions what becomes ready, blocks what waits in vain.

The untouched students are sampled first: every number is compared with theirs. Then come the stages that run in a
process of their own, and then further sessions: one begins with what is ready when nothing else can use the machine. An
open session is given the rest as it becomes ready; one that has nothing to do is closed when others need what it keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from time import sleep

from distillbench.errors import StoreError
from distillbench.events import BLOCKED, DONE, FAILED, HOLES, REUSED, Emit, Ended, Event, Finished, Told, Waiting
from distillbench.plan.plan import Plan
from distillbench.plan.stage import Stage
from distillbench.protocols import Launcher
from distillbench.run.ledger import Ledger, Summary
from distillbench.run.orders import Idle, Returned
from distillbench.run.placement import refuse_missing_gpus
from distillbench.run.units import Unit, Units
from distillbench.run.worker import Job
from distillbench.stages.sample import Sample
from distillbench.stages.train import Train
from distillbench.store.garbage import kept_for_reports
from distillbench.store.mend import mended
from distillbench.store.store import Store
from distillbench.tasks.identity import TaskIndex

#: How often a stage that another process is running is looked at again, in seconds.
_BUSY_PAUSE = 1.0
#: How often a stage is given again whose needs were there and which a worker did not find.
_MOST_RETURNS = 3


class Runner:
    """Runs plans.

    Args:
        make_plan: Makes the plan anew, without statuses; called again when a stage has ended on which it hangs.
        store: Where results are.
        launcher: Where stages run.
        emit: Is told what happens.
        keep: The kinds of large checkpoints that stay after their evaluation.
        blocked: Plugins that workers leave out too.
        tasks: The tasks by name.
    """

    def __init__(
        self,
        make_plan: Callable[[], Plan],
        store: Store,
        launcher: Launcher,
        emit: Emit,
        keep: frozenset[str] = frozenset(),
        blocked: tuple[str, ...] = (),
        tasks: TaskIndex | None = None,
    ) -> None:
        self.make_plan = make_plan
        self.store = store
        self.launcher = launcher
        self.emit = emit
        self.keep = keep
        self.blocked = blocked
        self.tasks = tasks or TaskIndex(())
        self._units = Units(launcher)
        self._returns: dict[str, int] = {}
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
        ledger = Ledger(plan)
        try:
            self._run(ledger)
        finally:
            self._units.end()
        summary = ledger.summary
        self._free_checkpoints(summary)
        endings = (DONE, REUSED, HOLES, FAILED, BLOCKED)
        self.emit(Finished(endings={ending: n for ending in endings if (n := summary.count(ending))}))
        return summary

    def _run(self, ledger: Ledger) -> None:
        self.emit(ledger.take_in(ledger.plan))
        while ledger.pending or self._units:
            if self._stopped is not None:
                raise self._stopped
            self._block(ledger)
            is_moving = self._hand_out(ledger)
            if not is_moving and not ledger.busy and all(unit.is_idle for unit in self._units):
                self._give_up(ledger)
                continue
            self._wait()
            for unit in self._units:
                self._read(unit, ledger)
            if ledger.has_grown():
                larger = mended(self.make_plan, self.store, self._tell_damage, trusted=ledger.summary.endings)
                self.emit(ledger.take_in(larger, self._units.given()))

    def _tell_damage(self, why: str) -> None:
        self.emit(Told(text=f"damaged: {why}"))

    # ------------------------------------------------------------ what runs next

    def _hand_out(self, ledger: Ledger) -> bool:
        """Starts what can be started, and closes sessions that are in the way; whether anything was done."""
        for key in [key for key in sorted(ledger.busy) if not self.store.is_locked(key)]:
            ledger.busy.discard(key)
        ready = ledger.ready(self._units.given())
        sessions = {process: stages for process, stages in ready.items() if process not in stages}
        alone = {process: stages for process, stages in ready.items() if process in stages}
        is_moving = self._feed(sessions)
        unopened = [stages for process, stages in sessions.items() if self._units.of(process) is None]
        unopened.sort(key=_is_untouched, reverse=True)
        n_first = sum(map(_is_untouched, unopened))
        in_turn = [*unopened[:n_first], *alone.values(), *unopened[n_first:]]
        waiting = [stages for stages in in_turn if not self._start(stages, ledger)]
        return self._close_idle(ledger, waiting) or is_moving or len(waiting) < len(in_turn)

    def _feed(self, sessions: Mapping[str, Mapping[str, Stage]]) -> bool:
        """Gives open sessions what has become ready for them."""
        is_fed = False
        for unit in self._units:
            stages = sessions.get(unit.process)
            if stages and not unit.is_closing and self._may_go_on(unit):
                unit.give(stages)
                is_fed = True
        return is_fed

    def _may_go_on(self, unit: Unit) -> bool:
        """Whether a session's cores are free again, which others may have meanwhile."""
        return not unit.is_idle or self._units.have_room(unit.resources, without=[unit])

    def _start(self, stages: Mapping[str, Stage], ledger: Ledger) -> bool:
        """Starts a worker; False where there is no room for it."""
        granted = self._units.granted(stages.values())
        if not self._units.have_room(granted):
            return False
        first = next(iter(stages.values()))
        log = self.store.root / "logs" / f"{first.kind}-{first.key}.log"
        is_session = bool(first.group)
        awaited = ledger.awaited(first.process) if is_session else ()
        job = Job(
            tuple(stages.values()), is_session, awaited, granted, self.store.root, self.blocked, self.tasks, log, {}
        )
        handle = self.launcher.start(job, granted)
        self._units.all.append(Unit(handle, first.process, granted, log, dict(stages), is_session))
        return True

    def _close_idle(self, ledger: Ledger, waiting: Sequence[Mapping[str, Stage]]) -> bool:
        """Closes idle sessions for which nothing more comes, or without which something that waits could start."""
        idle = [unit for unit in self._units if unit.is_session and unit.is_idle and not unit.is_closing]
        gone = [unit for unit in self._units if unit.is_closing]
        in_the_way = not gone and any(
            self._units.have_room(self._units.granted(stages.values()), without=idle) for stages in waiting
        )
        closed = [unit for unit in idle if in_the_way or not ledger.may_come(unit.process)]
        for unit in closed:
            unit.close()
        return bool(closed or gone)

    def _block(self, ledger: Ledger) -> None:
        """Ends the stages that wait for one which failed; needs come first, so that one pass reaches them all."""
        for stage, need in ledger.waits_in_vain():
            self._end(ledger, Ended(stage=stage.about, ending=BLOCKED, why=f"needs {need.name}, which did not succeed"))

    def _give_up(self, ledger: Ledger) -> None:
        """Ends sessions, and stages that are left where nothing runs, so that none is missing without a word."""
        for unit in self._units:
            if not unit.is_closing:
                unit.close()
        for stage in list(ledger.pending.values()):
            waits = ", ".join(need.name for need in stage.waits_for if not ledger.is_good(need.key))
            why = (
                f"waits for {waits or 'a stage of its own process'}, and nothing runs that could end that\n"
                f"    this is a fault of distillbench: please report it with the matrix"
            )
            self._end(ledger, Ended(stage=stage.about, ending=FAILED, why=why))

    # ------------------------------------------------------------ what workers say

    def _wait(self) -> None:
        handles = [unit.handle.fileno() for unit in self._units]
        if handles:
            wait(handles, timeout=_BUSY_PAUSE)
        else:
            sleep(_BUSY_PAUSE)

    def _read(self, unit: Unit, ledger: Ledger) -> None:
        ended = not unit.handle.alive()  # asked before reading, so that no last message is missed
        for message in unit.handle.receive():
            self._hear(unit, message, ledger)
        if not ended:
            return
        self._units.all.remove(unit)
        why = f"its process ended with exit code {unit.handle.exit_code}; what it printed: {unit.log}"
        could_run = [one for one in unit.stages.values() if all(ledger.is_good(need.key) for need in one.waits_for)]
        for stage in could_run:  # the others wait for these, in vain
            self._end(ledger, Ended(stage=stage.about, ending=FAILED, why=why))

    def _hear(self, unit: Unit, message: Event | Returned | Idle, ledger: Ledger) -> None:
        if isinstance(message, Idle):
            unit.n_idle = message.n_taken
        elif isinstance(message, Returned):
            self._take_back(unit, message, ledger)
        elif not isinstance(message, Ended):
            self.emit(message)
        elif unit.stages.pop(message.stage.key, None) is not None:  # otherwise it was blocked meanwhile
            log = f"\n    log: {unit.log}" if message.ending == FAILED else ""
            self._end(
                ledger,
                Ended(
                    at=message.at,
                    stage=message.stage,
                    ending=message.ending,
                    why=message.why + log,
                    seconds=message.seconds,
                ),
            )

    def _take_back(self, unit: Unit, message: Returned, ledger: Ledger) -> None:
        """A worker did not run a stage; it is given again once what kept it from running has ended."""
        stage = unit.stages.pop(message.key, None)
        if stage is None or stage.key not in ledger.pending:
            return
        if message.is_busy:
            self.emit(Waiting(stage=stage.about))
            ledger.busy.add(stage.key)
        elif all(ledger.is_good(need.key) for need in stage.waits_for):
            self._returns[stage.key] = self._returns.get(stage.key, 0) + 1
            if self._returns[stage.key] == _MOST_RETURNS:
                why = f"what it needs was there and has gone from the store {self.store.root}\n    run it again"
                self._end(ledger, Ended(stage=stage.about, ending=FAILED, why=why))

    def _end(self, ledger: Ledger, event: Ended) -> None:
        ledger.end(event.stage, event.ending, event.why)
        for unit in self._units:
            unit.stages.pop(event.stage.key, None)
        self.emit(event)

    # ------------------------------------------------------------ afterwards

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
            if train.key not in kept and set(endings) <= {DONE, REUSED}:
                summary.freed_bytes += self._freed(train, asked)

    def _freed(self, train: Train, asked: set[tuple[Train, int]]) -> int:
        found = self.store.lookup(train)
        full = [
            entry["path"]
            for entry in (found.facts["checkpoints"] if found else ())
            if entry["kind"] == "full" and (train, entry["step"]) in asked  # the others were never looked at
        ]
        return self.store.free(train, full) if full else 0


def _is_untouched(stages: Mapping[str, Stage]) -> bool:
    """Whether a session would begin with an evaluation of the untouched student."""
    return any(isinstance(stage, Sample) and stage.step == 0 and stage.evaluation for stage in stages.values())
