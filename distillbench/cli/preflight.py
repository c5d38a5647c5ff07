"""What `check` and `run` share: every check of a plan, looked at once, and how findings are told."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Thread
from typing import TYPE_CHECKING

import click

from distillbench.cli.unavailable import tell_missing, without_data
from distillbench.errors import DistillbenchError, GraderError, TaskError

if TYPE_CHECKING:
    from distillbench.cli.session import Loaded
    from distillbench.plan.plan import Pairing, Plan
    from distillbench.preflight.look import Looked, Preflight
    from distillbench.protocols import Grader
    from distillbench.records import Evaluation
    from distillbench.tasks.loader import LmEvalTasks

#: What a report imports; half a second that can pass while an engine works.
_OF_REPORTS = ("distillbench.report.collect", "distillbench.report.writers.folder", "pyarrow.parquet", "scipy.special")
#: How long a run that is interrupted waits for its preflight, in seconds.
_PATIENCE = 5.0
_SOURCES: Mapping[str, str] = {
    "kept": "kept traces",
    "traces": "traces, before filters that read verdicts",
    "preview": "traces of a preview, before filters that read verdicts",
}


def preflight_of(loaded: Loaded) -> Preflight:
    """A preflight on the session's store and plugins."""
    from distillbench.bench import Bench
    from distillbench.preflight.look import Preflight
    from distillbench.tasks.loader import LmEvalTasks

    session = loaded.session
    return Preflight(Bench(session.store, session.catalog, LmEvalTasks(loaded.tasks)))


def cells_by_pairing(preflight: Preflight, plan: Plan) -> dict[Pairing, list[str]]:
    """Every check of a plan that differs in what a preflight sees, and the cells that it is for."""
    first: dict[str, Pairing] = {}
    found: dict[Pairing, list[str]] = {}
    for name, pairing in plan.pairings.items():
        found.setdefault(first.setdefault(preflight.key(pairing), pairing), []).append(name)
    return found


def subject(pairing: Pairing) -> str:
    """What a check is about, in words."""
    teacher = f" on {pairing.teacher.label}" if pairing.teacher else ", untouched"
    return f"{pairing.student.label} with {pairing.renderer.label}{teacher}"


def what_was_looked_at(pairing: Pairing, looked: Looked) -> str:
    """How much a check looked at and how completions are read, in words; empty where it could look at nothing."""
    if looked.source == "unbuilt":
        return ""
    prompts = f"prompts of {', '.join(one.name for one in pairing.evaluations)}; {looked.reasoning}"
    if not looked.n_rows:
        return prompts
    of_all = f"{looked.n_rows:,} of {looked.n_all:,}" if looked.n_all > looked.n_rows else f"{looked.n_rows:,}"
    return f"{of_all} {_SOURCES[looked.source]}; {prompts}"


def what_was_not_looked_at(pairing: Pairing, looked: Looked) -> str:
    """What a check could not look at, why, and what will; empty where it saw everything there is."""
    later = "`distillbench run` looks at every row just before it trains"
    if looked.source == "unbuilt":
        rows = "" if pairing.trainer is None or pairing.teacher is None else " and training rows"
        what = f"prompts of {', '.join(one.name for one in pairing.evaluations)}{rows}"
        return f"{what}: there is no tokenizer before the student is built; `distillbench run` builds it, then looks"
    if looked.n_rows or pairing.teacher is None:
        return ""
    if looked.source == "no preview":
        why = f"teacher {pairing.teacher.label!r} gives no preview, or the filters keep nothing of it"
    else:
        why = "the filters keep none of the traces"
    return f"training rows: {why}; {later}"


def refused_by_graders(
    loaded: Loaded, evaluations: Sequence[Evaluation], tasks: LmEvalTasks
) -> Iterator[tuple[str, str]]:
    """Asks the grader of every evaluation whether it could grade.

    Yields:
        The name of an evaluation that its grader refuses, and why.
    """
    asked = {(evaluation.grader.identity, evaluation.ref): evaluation for evaluation in reversed(evaluations)}
    for evaluation in reversed(asked.values()):
        grader: Grader = loaded.session.catalog.build(evaluation.grader)
        try:
            if grader.needs_task:
                grader = grader.with_task(tasks.load(evaluation.ref))
            grader.check()
        except GraderError as error:
            yield evaluation.name, str(error)
        except TaskError:
            continue  # told with the tasks


def refuse_or_warn(loaded: Loaded, plan: Plan, spares_others: bool = False) -> None:
    """Looks at everything before a run, tells warnings and what was accepted, and refuses the rest.

    Args:
        loaded: The matrix and the chosen cells.
        plan: Its plan.
        spares_others: Whether a benchmark whose documents cannot be had is told and left out.

    Raises:
        PreflightError: With every finding that the matrix does not accept, and what a grader refuses.
    """
    _tell(loaded, refuse(loaded, plan, spares_others=spares_others))


@contextmanager
def looking_beside(
    loaded: Loaded, plan: Plan, stop: Callable[[Exception], None], spares_others: bool = False
) -> Iterator[None]:
    """As `refuse_or_warn`, in a thread beside the body; afterwards it loads what a report will need.

    Args:
        loaded: The matrix and the chosen cells.
        plan: Its plan.
        stop: Ends the body with an error.
        spares_others: As there.
    """
    told: list[str] = []
    refused: list[Exception] = []

    def look() -> None:
        try:
            told.extend(refuse(loaded, plan, "the run was stopped", spares_others))
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
    _tell(loaded, told)


def _tell(loaded: Loaded, told: Sequence[str]) -> None:
    if loaded.session.verbosity >= 0:
        for line in told:
            click.echo(f"preflight: {line}", err=True)


def refuse(loaded: Loaded, plan: Plan, so: str = "nothing has run", spares_others: bool = False) -> list[str]:
    """Looks at everything before a run.

    Args:
        loaded: The matrix and the chosen cells.
        plan: Its plan.
        so: What a refusal means, in words.
        spares_others: As in `refuse_or_warn`.

    Returns:
        What to tell the user: warnings, and what the matrix accepts.

    Raises:
        PreflightError: With every finding that the matrix does not accept, and what a grader refuses.
    """
    from distillbench.preflight.look import PreflightError, described, merged
    from distillbench.stages.grade import Grade

    look = preflight_of(loaded)
    to_grade = [stage.evaluation for stage in plan.pending() if isinstance(stage, Grade)]
    refused = [f"evaluation {name}\n    {why}" for name, why in refused_by_graders(loaded, to_grade, look.bench.tasks)]
    told: list[str] = []
    missing = dict(without_data(look, plan)) if spares_others else {}
    tell_missing({evaluation.name: why for evaluation, why in missing.items()})
    for pairing, cells in cells_by_pairing(look, plan).items():
        title = f"{subject(pairing)} (cell {', '.join(cells[:3])}{', ...' if len(cells) > 3 else ''})"
        try:
            there = tuple(one for one in pairing.evaluations if one not in missing)
            looked = look.look(replace(pairing, evaluations=there))
        except DistillbenchError as error:  # no tokenizer, no task: told with everything else that is wrong
            refused.append(f"{title}\n    {error}")
            continue
        if bad := looked.refused(pairing.rules):
            refused.append("\n".join([title, *map(described, merged(bad))]))
        told += [f"accepted: {title}: {one.name}: {one.headline}" for one in merged(looked.accepted(pairing.rules))]
        told += [f"warning: {title}: {one.name}: {one.headline}" for one in merged(looked.warnings(pairing.rules))]
    if refused:
        hint = "`distillbench check` shows all of it; a finding that is meant can be accepted: `accept: [NAME]`"
        raise PreflightError("\n".join([f"the preflight refuses this matrix; {so}", *refused, hint]))
    return list(dict.fromkeys(told))
