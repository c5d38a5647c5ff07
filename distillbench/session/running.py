"""How a matrix runs: looked at, run, reported, with one plan."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING

from distillbench.run.placement import refuse_missing_gpus
from distillbench.run.runner import Runner
from distillbench.session.checking import Refusals, refuse
from distillbench.session.experiment import Experiment, Report, Say
from distillbench.session.reporting import note_stages, write_report
from distillbench.store.mend import mended

if TYPE_CHECKING:
    from distillbench.plan.plan import Plan
    from distillbench.plan.stage import Stage
    from distillbench.run.runner import Listener, Summary

#: What a report imports; half a second that can pass while an engine works.
_OF_REPORTS = ("distillbench.report.collect", "distillbench.report.writers.folder", "pyarrow.parquet", "scipy.special")
#: How long a run that is interrupted waits for its preflight, in seconds.
_PATIENCE = 5.0


def run(
    loaded: Experiment,
    listener: Listener | None,
    command: str,
    look_beside: bool,
    spares_others: bool,
    tell: Say,
    note: Say,
) -> Report:
    """As `Experiment.run`, whose arguments these are."""
    store, launcher = loaded.session.store, loaded.session.catalog.build(loaded.matrix.launcher)
    plan = mended(loaded.make_plan, store, lambda text: tell(f"damaged: {text}"))
    refuse_missing_gpus(plan, launcher)

    def say(found: Refusals) -> None:
        for line in found.told:
            note(f"preflight: {line}")
        for name, why in found.missing.items():
            tell(not_evaluated(name, why))

    if not look_beside:
        say(refuse(loaded, plan, spares_others=spares_others))
    note_stages(loaded, plan)

    def make_larger_plan() -> Plan:
        larger = loaded.make_plan()
        note_stages(loaded, larger)
        return larger

    runner = Runner(
        make_larger_plan,
        store,
        launcher,
        listener or Quiet(tell),
        loaded.session.manager,
        keep=loaded.matrix.keep,
        blocked=loaded.session.blocked,
        tasks=loaded.tasks,
    )
    if look_beside:
        with looking_beside(loaded, plan, runner.stop, say, spares_others):
            summary = runner.run(plan)
    else:
        summary = runner.run(plan)
    return _reported(loaded, summary, command)


def _reported(loaded: Experiment, summary: Summary, command: str) -> Report:
    folder = loaded.session.store.reports(loaded.matrix.name)
    tables = write_report(loaded, summary.plan, folder, command, summary.reasons)
    return Report(tables, folder, summary)


def not_evaluated(name: str, why: str) -> str:
    """What to say of a benchmark that cannot be had; on one line, with a semicolon where one ended."""
    lines = (" ".join(line.split()) for line in why.splitlines())
    return f"not evaluated: {name}: {'; '.join(line for line in lines if line)}"


@contextmanager
def looking_beside(
    loaded: Experiment,
    plan: Plan,
    stop: Callable[[Exception], None],
    say: Callable[[Refusals], None],
    spares_others: bool = False,
) -> Iterator[None]:
    """Looks at everything in a thread beside the body; afterwards it loads what a report will need.

    Args:
        loaded: The matrix and the chosen cells.
        plan: Its plan.
        stop: Ends the body with an error.
        say: Tells what was found and does not stop it.
        spares_others: As for `refuse`.
    """
    found: list[Refusals] = []
    refused: list[Exception] = []

    def look() -> None:
        try:
            found.append(refuse(loaded, plan, "the run was stopped", spares_others))
        except Exception as error:  # whatever it is, the body ends with it
            refused.append(error)
            stop(error)
            return
        for module in _OF_REPORTS:
            importlib.import_module(module)

    thread = Thread(target=look, name="preflight", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        thread.join(_PATIENCE)  # a thread that imports while the interpreter ends may crash it
        raise
    thread.join()
    if refused:
        raise refused[0]
    for one in found:
        say(one)


@dataclass(frozen=True)
class Quiet:
    """A listener that passes on what must be said, and nothing else."""

    tell: Say

    def planned(self, plan: Plan) -> None:
        """Says nothing."""

    def started(self, stage: Stage) -> None:
        """Says nothing."""

    def progressed(self, stage: Stage, done: int, total: int | None, note: str) -> None:
        """Says nothing."""

    def sampled(self, stage: Stage, done: int, total: int, tokens: int) -> None:
        """Says nothing."""

    def graded(self, stage: Stage, outcomes: Mapping[str, int]) -> None:
        """Says nothing."""

    def ended(self, stage: Stage, ending: str, why: str) -> None:
        """Says what failed."""
        if why and ending == "failed":
            self.tell(f"FAILED: {stage.name}\n    {why}")

    def told(self, text: str) -> None:
        """Says it."""
        self.tell(text)

    def waiting(self, stage: Stage) -> None:
        """Says nothing."""
