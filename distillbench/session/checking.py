"""What is looked at before anything runs: graders, tasks, and whether training and evaluation fit together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from distillbench.errors import DistillbenchError, GraderError, TaskError
from distillbench.preflight.look import Looked, Preflight, PreflightError, described, merged
from distillbench.stages.grade import Grade
from distillbench.stages.sample import Sample
from distillbench.stages.train import Train
from distillbench.store.failures import note_failure

if TYPE_CHECKING:
    from distillbench.plan.plan import Pairing, Plan
    from distillbench.plan.stage import Stage
    from distillbench.protocols import Grader
    from distillbench.records import Evaluation
    from distillbench.session.experiment import Experiment
    from distillbench.tasks.loader import LmEvalTasks

_SOURCES: Mapping[str, str] = {
    "kept": "kept traces",
    "traces": "traces, before filters that read verdicts",
    "preview": "traces of a preview, before filters that read verdicts",
}
#: What `check` says of something that it could not look at.
UNSEEN = "not looked at"
#: How bad a line is.
LEVELS = ("refused", "accepted", "warning", UNSEEN)


@dataclass(frozen=True, slots=True)
class Checked:
    """One thing that `check` has to say.

    Attributes:
        level: `ok`, or one of `LEVELS`.
        subject: What it is about.
        text: What is to be said.
        name: The finding's; empty for a line that is about its subject as a whole.
        evaluation: The evaluation's; empty where it concerns all.
    """

    level: str
    subject: str
    text: str
    name: str = ""
    evaluation: str = ""


@dataclass(frozen=True, slots=True)
class Refusals:
    """What a preflight lets pass.

    Attributes:
        told: Warnings, and what the matrix accepts, in words.
        missing: Benchmarks that cannot be had and are left out, and why.
    """

    told: tuple[str, ...]
    missing: Mapping[str, str]


def cells_by_pairing(preflight: Preflight, plan: Plan) -> dict[Pairing, list[str]]:
    """Every pairing of a plan that differs in what a preflight sees, and the cells that it is for."""
    first: dict[str, Pairing] = {}
    found: dict[Pairing, list[str]] = {}
    for name, pairing in plan.pairings.items():
        found.setdefault(first.setdefault(preflight.key(pairing), pairing), []).append(name)
    return found


def subject(pairing: Pairing) -> str:
    """What a pairing is of, in words."""
    teacher = f" on {pairing.teacher.label}" if pairing.teacher else ", untouched"
    return f"{pairing.student.label} with {pairing.renderer.label}{teacher}"


def what_was_looked_at(pairing: Pairing, looked: Looked) -> str:
    """How much was looked at and how completions are read, in words; empty where it could look at nothing."""
    if looked.source == "unbuilt":
        return ""
    prompts = f"prompts of {', '.join(one.name for one in pairing.evaluations)}; {looked.reasoning}"
    if not looked.n_rows:
        return prompts
    of_all = f"{looked.n_rows:,} of {looked.n_all:,}" if looked.n_all > looked.n_rows else f"{looked.n_rows:,}"
    return f"{of_all} {_SOURCES[looked.source]}; {prompts}"


def what_was_not_looked_at(pairing: Pairing, looked: Looked) -> str:
    """What a check could not look at, why, and what will; empty where it saw everything there is."""
    later = "`distillbench run` looks at every row before it trains"
    if looked.source == "unbuilt":
        rows = "" if pairing.trainer is None or pairing.teacher is None else " and training rows"
        what = f"prompts of {', '.join(one.name for one in pairing.evaluations)}{rows}"
        return f"{what}: there is no tokenizer before the student is built; `distillbench run` builds it, then looks"
    if looked.n_rows or pairing.teacher is None:
        return ""
    if looked.source == "unasked":
        why = f"teacher {pairing.teacher.label!r} has not asked for its traces yet"
    elif looked.source == "no preview":
        why = f"teacher {pairing.teacher.label!r} gives no preview, or the filters keep nothing of it"
    else:
        why = "the filters keep none of the traces"
    return f"training rows: {why}; {later}"


def refused_by_graders(
    loaded: Experiment, evaluations: Sequence[Evaluation], tasks: LmEvalTasks
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
            grader.refuse_unusable()
        except GraderError as error:
            yield evaluation.name, str(error)
        except TaskError:
            continue  # told with the tasks


def without_data(look: Preflight, plan: Plan) -> Iterator[tuple[Evaluation, str]]:
    """The evaluations that still have to be sampled and whose documents cannot be had, each once, and why."""
    pending = (stage.evaluation for stage in plan.pending() if isinstance(stage, Sample))
    for evaluation in {one.name: one for one in pending if one is not None}.values():
        try:
            look.bench.tasks.evaluation_problems(replace(evaluation, limit=1, subset="first"))
        except DistillbenchError as error:
            yield evaluation, str(error)


def refuse(loaded: Experiment, plan: Plan, so: str = "nothing has run", spares_others: bool = False) -> Refusals:
    """Looks at everything before a run.

    Args:
        loaded: The matrix and the chosen cells.
        plan: Its plan.
        so: What a refusal means, in words.
        spares_others: Whether a benchmark whose documents cannot be had is left out.

    Returns:
        What to tell the user.

    Raises:
        PreflightError: With every finding that the matrix does not accept, and what a grader refuses.
    """
    look = loaded.preflight()
    grades = [stage for stage in plan.pending() if isinstance(stage, Grade)]
    refused = []
    for name, why in refused_by_graders(loaded, [stage.evaluation for stage in grades], look.bench.tasks):
        refused.append(f"evaluation {name}\n    {why}")
        _note(loaded, [stage for stage in grades if stage.evaluation.name == name], f"the grader refuses it: {why}")
    told: list[str] = []
    missing = dict(without_data(look, plan)) if spares_others else {}
    for pairing, cells in cells_by_pairing(look, plan).items():
        title = f"{subject(pairing)} (cell {', '.join(cells[:3])}{', ...' if len(cells) > 3 else ''})"
        try:
            there = tuple(one for one in pairing.evaluations if one not in missing)
            looked = look.look(replace(pairing, evaluations=there))
        except DistillbenchError as error:  # no tokenizer, no task: told with everything else that is wrong
            refused.append(f"{title}\n    {error}")
            _note(loaded, _held_up(plan, cells), f"the preflight refuses it: {error}")
            continue
        if bad := looked.refused(pairing.rules):
            refused.append("\n".join([title, *map(described, merged(bad))]))
            told_later = "; ".join(f"{one.name}: {one.kind.summary}; {one.headline}" for one in merged(bad))
            _note(loaded, _held_up(plan, cells), f"the preflight refuses it: {told_later}")
        told += [f"accepted: {title}: {one.name}: {one.headline}" for one in merged(looked.accepted(pairing.rules))]
        told += [f"warning: {title}: {one.name}: {one.headline}" for one in merged(looked.warnings(pairing.rules))]
    if refused:
        hint = "`distillbench check` shows all of it; a finding that is meant can be accepted: `accept: [NAME]`"
        raise PreflightError("\n".join([f"the preflight refuses this matrix; {so}", *refused, hint]))
    return Refusals(tuple(dict.fromkeys(told)), {one.name: why for one, why in missing.items()})


def _held_up(plan: Plan, cells: Sequence[str]) -> list[Stage]:
    """What of some cells is trained or asked first, and still has to be."""
    pending = set(plan.pending())
    mine = [stage for name in cells for stage in plan.of_cell(name) if stage in pending]
    kind: type[Stage] = Train if any(isinstance(stage, Train) for stage in mine) else Sample
    return [stage for stage in mine if isinstance(stage, kind)]


def _note(loaded: Experiment, stages: Iterable[Stage], why: str) -> None:
    """Writes down what was refused, so that a later report says it too."""
    for stage in stages:
        note_failure(loaded.session.store, stage, why)


def checked(loaded: Experiment) -> list[Checked]:
    """Loads every task, asks every grader, and compares training rows with evaluation prompts.

    Raises:
        MatrixError: What the matrix asks for cannot be planned.
    """
    plan = loaded.plan()
    tasks = loaded.preflight().bench.tasks
    return [*dict.fromkeys(_tasks(loaded, tasks)), *_graders(loaded, tasks), *_fits(loaded, plan)]


def _tasks(loaded: Experiment, tasks: LmEvalTasks) -> Iterator[Checked]:
    """Loads every task of the matrix with lm-eval."""
    for ref in dict.fromkeys(evaluation.ref for cell in loaded.cells for evaluation in cell.evaluations):
        about = f"task {ref.name}" if ref.metadata == "{}" else f"task {ref.name} {ref.metadata}"
        try:
            problems = tasks.problems(ref, "test")
        except DistillbenchError as error:
            yield Checked("refused", about, f" {error}")
        else:
            yield Checked("ok", about, f" {len(problems)} problems")


def _graders(loaded: Experiment, tasks: LmEvalTasks) -> Iterator[Checked]:
    """What the graders refuse."""
    evaluations = [evaluation for cell in loaded.cells for evaluation in cell.evaluations]
    for name, why in refused_by_graders(loaded, evaluations, tasks):
        yield Checked("refused", f"evaluation {name}", f" {why}", evaluation=name)


def _fits(loaded: Experiment, plan: Plan) -> Iterator[Checked]:
    """Compares training rows and evaluation prompts, for everything in the matrix that differs."""
    preflight = loaded.preflight()
    for one, cells in cells_by_pairing(preflight, plan).items():
        about = f"{subject(one)} ({len(cells)} cells)" if len(cells) > 1 else f"{subject(one)} ({cells[0]})"
        try:
            looked = preflight.look(one)
        except DistillbenchError as error:
            yield Checked("refused", about, f" {error}")
            continue
        told = {
            "refused": looked.refused(one.rules),
            "accepted": looked.accepted(one.rules),
            "warning": looked.warnings(one.rules),
        }
        if (seen := what_was_looked_at(one, looked)) or told["refused"]:
            yield Checked("refused" if told["refused"] else "ok", about, f" {seen}")
        if unseen := what_was_not_looked_at(one, looked):
            yield Checked(UNSEEN, about, f" {unseen}")
        for level, findings in told.items():
            for finding in merged(findings):
                yield Checked(level, about, f"\n{described(finding)}", finding.name, finding.evaluation)
