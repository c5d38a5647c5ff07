"""How a matrix runs: looked at, run, reported, with one plan."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING

from distillbench.errors import WriteError
from distillbench.events import FAILED, Emit, Ended, Event, Told
from distillbench.manager import ask_each
from distillbench.run.placement import refuse_missing_gpus
from distillbench.run.runner import Runner
from distillbench.session.checking import Refusals, refuse
from distillbench.session.experiment import Experiment, Report, Say
from distillbench.session.reporting import note_stages, write_report
from distillbench.store.mend import mended
from distillbench.store.runs import RunLog

if TYPE_CHECKING:
    import pluggy

    from distillbench.plan.plan import Plan
    from distillbench.run.ledger import Summary

#: What a report imports; half a second that can pass while an engine works.
_OF_REPORTS = ("distillbench.report.collect", "distillbench.report.writers.folder", "pyarrow.parquet", "scipy.special")
#: How long a run that is interrupted waits for its preflight, in seconds.
_PATIENCE = 5.0


def run(
    loaded: Experiment,
    on_event: Emit | None,
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

    with RunLog(store, loaded.matrix.name) as log:
        runner = Runner(
            make_larger_plan,
            store,
            launcher,
            stream(loaded.session.manager, quiet(tell) if on_event is None else on_event, log),
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
    folder = loaded.report_folder()
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


def stream(manager: pluggy.PluginManager, reader: Emit, log: RunLog | None = None) -> Emit:
    """Whom a run tells what happens: a reader, the log in the store, and the hook of every plugin.

    What a plugin raises is told once, and so is a disk that takes no log; neither costs the run anything else.
    """
    failed: set[str] = set()

    def tell_once(whose: str, error: Exception) -> None:
        if whose not in failed:
            failed.add(whose)
            reader(Told(text=f"{error}\n    the run goes on without what it does"))

    def emit(event: Event) -> None:
        reader(event)
        if log is not None:
            try:
                log.write(event)
            except OSError as error:
                tell_once("", WriteError(f"what happens is not logged: {log.path}: {error.strerror}"))
        for answer in ask_each(manager, "distillbench_event", event=event):
            if answer.error is not None:
                tell_once(answer.plugin, answer.error)

    return emit


def quiet(tell: Say) -> Emit:
    """A reader that passes on what must be said, and nothing else."""

    def read(event: Event) -> None:
        if isinstance(event, Told):
            tell(event.text)
        elif isinstance(event, Ended) and event.ending == FAILED:
            tell(f"FAILED: {event.stage.name}\n    {event.why}")

    return read
