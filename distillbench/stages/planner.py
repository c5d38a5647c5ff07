"""Cells to stages. Two cells that need the same thing get the same stage, because it has the same key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from distillbench.catalog import Catalog
from distillbench.errors import MatrixError, Mistake, TaskError
from distillbench.fingerprint import key_of
from distillbench.plan.plan import Pairing, Plan
from distillbench.plan.sampling import effective_sampling
from distillbench.plan.stage import Stage, with_needs
from distillbench.preflight.look import compared
from distillbench.protocols import AskingTeacher, Engine, Grader, Renderer, Student, Teacher, Trainer
from distillbench.records import Cell, Choice, Evaluation, Resources
from distillbench.stages.asking import asked_traces
from distillbench.stages.build import Build
from distillbench.stages.check import Check
from distillbench.stages.curate import Curate
from distillbench.stages.grade import Grade, Graded
from distillbench.stages.length import Length
from distillbench.stages.measures import measures_of
from distillbench.stages.mistakes import (
    needed_for_themselves,
    steps_not_there,
    unfit_for_served,
    unknown_task,
    without_rows,
    without_tokens,
)
from distillbench.stages.needed import most_needed
from distillbench.stages.planned import PlannedCell, session_of
from distillbench.stages.render import Render, counts_of
from distillbench.stages.sample import Sample
from distillbench.stages.steps import chosen_steps
from distillbench.stages.traces import Traces
from distillbench.stages.train import Train
from distillbench.tasks.identity import TaskIndex, TaskSpec

#: The facts of a finished stage; None while it has not run, or is to run again.
Facts = Callable[[Stage], Mapping[str, Any] | None]
_S = TypeVar("_S", bound=Stage)


def build_plan(
    matrix: str,
    cells: Iterable[Cell],
    catalog: Catalog,
    tasks: TaskIndex,
    facts: Facts,
    others: Iterable[Cell] = (),
) -> Plan:
    """Makes the stages of cells, without statuses.

    Args:
        matrix: Its name.
        cells: The cells.
        catalog: The components.
        tasks: The tasks by name.
        facts: What finished stages have told.
        others: Cells that these may name; of them only what is needed is planned.

    Raises:
        MatrixError: With everything that the cells ask for and cannot get.
    """
    cells = tuple(cells)
    planner = Planner((*cells, *others), catalog, tasks, facts)
    planned = planner.all_of(cells)
    if planner.mistakes:
        raise MatrixError(planner.mistakes)
    checked = planner.with_checks()
    return Plan(
        matrix=matrix,
        cells=cells,
        stages=with_needs((stage for one in planned.values() for stage in one.stages.values()), checked),
        cell_stages={name: _with_checks(one.stages, checked) for name, one in planned.items()},
        graded={name: tuple(one.graded) for name, one in planned.items()},
        growing={name: frozenset(one.hangs_on) for name, one in planned.items() if one.hangs_on},
        sessions={name: one.session for name, one in planned.items()},
        pairings={name: one.pairing for name, one in planned.items()},
    )


def planning_mistakes(cells: Iterable[Cell], tasks: TaskIndex, *, catalog: Catalog) -> list[Mistake]:
    """What cells ask for and cannot get, as far as it is known before anything has run."""
    cells = tuple(cells)
    planner = Planner(cells, catalog, tasks, lambda stage: None)
    planner.all_of(cells)
    return planner.mistakes


class Planner:
    """Plans cells when they are asked for, so that a cell may name another.

    Args:
        cells: All there are.
        catalog: The components.
        tasks: The tasks by name.
        facts: What finished stages have told.

    Attributes:
        stages: By key, needs first.
        mistakes: What is wrong with what the matrix asks for.
    """

    def __init__(self, cells: Iterable[Cell], catalog: Catalog, tasks: TaskIndex, facts: Facts) -> None:
        self.cells = {cell.name: cell for cell in cells}
        self.catalog = catalog
        self.tasks = tasks
        self.facts = facts
        self.stages: dict[str, Stage] = {}
        self.mistakes: list[Mistake] = []
        self._planned: dict[str, PlannedCell] = {}
        self._under_way: list[str] = []
        self._pairings_of: dict[Train, dict[Pairing, None]] = {}
        self._components: dict[tuple[str, str, str], Any] = {}

    def all_of(self, cells: Iterable[Cell]) -> dict[str, PlannedCell]:
        """The stages of cells by their names, without those of cells that are needed for themselves."""
        found = {}
        for cell in cells:
            try:
                found[cell.name] = self.cell(cell.name)
            except MatrixError as error:
                self.mistakes += error.mistakes
        return found

    def cell(self, name: str) -> PlannedCell:
        """The stages of a cell.

        Raises:
            MatrixError: It is needed for itself.
        """
        if name in self._under_way:
            circle = self._under_way[self._under_way.index(name) :]
            raise MatrixError([needed_for_themselves([self.cells[one] for one in circle])])
        if name not in self._planned:
            self._under_way.append(name)
            try:
                self._planned[name] = self._plan(self.cells[name])
            finally:
                self._under_way.pop()
        return self._planned[name]

    def with_checks(self) -> dict[str, Stage]:
        """The trainings by key, each after the check of its rows."""
        found: dict[str, Stage] = {}
        for train, pairings in self._pairings_of.items():
            assert train.rows is not None  # noqa: S101 - it was planned with them
            looked = {key_of([compared(one, self.catalog), sorted(one.rules.accept)]) for one in pairings}
            check = Check(
                label=train.rows.label, rows=train.rows, pairings=tuple(pairings), looked=tuple(sorted(looked))
            )
            found[train.key] = replace(train, after=(self.one(check),))
        return found

    def _plan(self, cell: Cell) -> PlannedCell:
        student, engine = self.component(cell.student, Student), self.component(cell.engine, Engine)
        self.mistakes += unfit_for_served(cell, student, self.component(cell.renderer, Renderer), engine)
        built = self.built(cell.student)
        session = session_of(cell.student, cell.engine, built)
        planned = PlannedCell(cell, _pairing(cell, built), session)
        planned.add(built)
        if cell.trainer is None:
            self._evaluate(planned, cell.evaluations, built, 0)
        elif self.component(cell.trainer, Trainer).needs_traces:
            self._train(planned, cell.trainer, built)
        else:
            self._take_checkpoints(planned, cell.trainer, built)
        return planned

    def _train(self, planned: PlannedCell, trainer: Choice, built: Build | None) -> None:
        """Stages from the teacher to the checkpoints, and what asks these."""
        cell = planned.cell
        if mistake := without_rows(cell, self.component(cell.renderer, Renderer)):
            self.mistakes.append(mistake)
        traces = self.traces(planned, self._required(cell.teacher))
        if traces is None:  # a mistake is told, or what it needs is not known yet
            return
        kept = self._curate(cell, traces, built)
        rows = self._render(cell, trainer, kept, built)
        planned.pairing = replace(planned.pairing, traces=kept.traces, kept=kept, rows=rows)
        told = self.facts(rows)
        steps = self.component(trainer, Trainer).checkpoint_steps(None if told is None else counts_of(told))
        if steps is None:
            planned.hangs_on.add(rows.key)
        planned.steps = steps
        planned.train = self.one(
            Train(
                label=cell.name,
                student=cell.student,
                renderer=cell.renderer,
                trainer=trainer,
                seed=cell.seed,
                built=built,
                rows=rows,
                steps=steps,
                resources=most_needed(
                    self, self.component(cell.student, Student).resources(), cell.student, trainer, cell.student
                ),
            )
        )
        self._pairings_of.setdefault(planned.train, {})[planned.pairing] = None
        planned.add(traces, *kept.measures, kept, rows, planned.train)
        self._evaluate_steps(planned, built, steps or ())

    def _take_checkpoints(self, planned: PlannedCell, trainer: Choice, built: Build | None) -> None:
        """Checkpoints that need no traces: nothing is rendered, so that prompts are all there is to check.

        Their stage costs nothing, and runs in the process that samples from them.
        """
        cell = planned.cell
        planned.pairing = replace(planned.pairing, trainer=None)
        planned.steps = self.component(trainer, Trainer).checkpoint_steps(None) or ()
        planned.train = self.one(
            Train(
                label=cell.name,
                student=cell.student,
                renderer=cell.renderer,
                trainer=trainer,
                built=built,
                steps=planned.steps,
                group=planned.session,
                resources=self.resources_of(cell.student, cell.engine),
            )
        )
        planned.add(planned.train)
        self._evaluate_steps(planned, built, planned.steps)

    def _evaluate_steps(self, planned: PlannedCell, built: Build | None, steps: Sequence[int]) -> None:
        """The stages that ask each checkpoint what it is to be asked, checkpoint by checkpoint."""
        cell = planned.cell
        if steps:
            found = (steps_not_there(cell, evaluation, steps) for evaluation in cell.evaluations)
            self.mistakes.extend(mistake for mistake in found if mistake)
        at = {evaluation: chosen_steps(evaluation, steps) for evaluation in cell.evaluations}
        for step in steps:
            asked = [evaluation for evaluation, chosen in at.items() if step in chosen]
            self._evaluate(planned, asked, built, step)

    def built(self, student: Choice) -> Build | None:
        """The stage that makes a student; None for one that is there."""
        if not self.component(student, Student).builds:
            return None
        return self.one(Build(label=student.label, student=student))

    def tokenizer_of(self, student: Choice, built: Build | None) -> Build | None:
        """The stage that makes a student's tokenizer; None for one that can be had before the student is built."""
        return None if self.component(student, Student).previews_tokenizer() else built

    def traces(self, planned: PlannedCell, teacher: Choice) -> Traces | None:
        """The stage that collects a teacher's traces; None while that cannot be planned."""
        if isinstance(self.component(teacher, Teacher), AskingTeacher):
            return asked_traces(self, planned, teacher)
        spec = self.task_of(teacher)
        return self.one(
            Traces(
                label=teacher.label,
                teacher=teacher,
                task=None if spec is None else spec.sample_identity,
                resources=most_needed(self, Resources(), planned.cell.student, teacher),
            )
        )

    def resources_of(self, student: Choice, engine: Choice) -> Resources:
        """What sampling a student with an engine needs."""
        own = self.component(engine, Engine).resources(self.component(student, Student))
        return most_needed(self, own, student, engine, student)

    def _curate(self, cell: Cell, traces: Traces, built: Build | None) -> Curate:
        """The stage that keeps a cell's traces."""
        measures = measures_of(self, cell, traces, built)
        return self.one(
            Curate(
                label=f"{traces.label} by {'+'.join(choice.label for choice in cell.filters) or 'no filter'}",
                traces=traces,
                filters=cell.filters,
                measures=measures,
                resources=most_needed(self, Resources(), cell.student, *cell.filters),
            )
        )

    def _render(self, cell: Cell, trainer: Choice, kept: Curate, built: Build | None) -> Render:
        """The stage that makes rows of them."""
        component: Trainer = self.component(trainer, Trainer)
        return self.one(
            Render(
                label=f"{kept.label} for {cell.student.label}",
                kept=kept,
                lengths=next((one for one in kept.measures if isinstance(one, Length)), None),
                student=cell.student,
                renderer=cell.renderer,
                built=self.tokenizer_of(cell.student, built),
                max_length=component.max_length(),
                overlong=component.overlong(),
            )
        )

    def task_name(self, teacher: Choice) -> str | None:
        """What a teacher says its problems are of, or else the teacher whose problems it asks."""
        component: Teacher = self.component(teacher, Teacher)
        source = teacher.components.get("teacher") if isinstance(component, AskingTeacher) else None
        return component.task() or (None if source is None else self.task_name(source))

    def task_of(self, teacher: Choice) -> TaskSpec | None:
        """The task that a teacher's problems are of; None where it names none, or names one in vain."""
        name = self.task_name(teacher)
        try:
            return self.tasks.find(name) if name else None
        except TaskError as error:
            self.mistakes.append(unknown_task(teacher, error))
            return None

    def _evaluate(
        self, planned: PlannedCell, evaluations: Iterable[Evaluation], built: Build | None, step: int
    ) -> None:
        cell = planned.cell
        renderer = self.component(cell.renderer, Renderer)
        for evaluation in evaluations:
            if mistake := without_tokens(evaluation, renderer, cell.renderer.label):
                self.mistakes.append(mistake)
            sample = self._sample(planned, evaluation, built, step)
            whole = self._grade(cell, evaluation, sample)
            grades = [whole, *(self._grade(cell, evaluation, sample, at, whole) for at in evaluation.budgets)]
            planned.add(sample, *grades)
            planned.graded += [Graded(evaluation, step, sample, grade, grade.budget) for grade in grades]

    def _sample(self, planned: PlannedCell, evaluation: Evaluation, built: Build | None, step: int) -> Sample:
        cell = planned.cell
        return self.one(
            Sample(
                label=f"{cell.name}@{step} on {evaluation.name}",
                student=cell.student,
                renderer=cell.renderer,
                engine=cell.engine,
                step=step,
                asked=replace(evaluation, sampling=effective_sampling(evaluation.sampling)),
                built=built,
                train=planned.train,
                group=planned.session,
                resources=self.resources_of(cell.student, cell.engine),
            )
        )

    def _grade(
        self, cell: Cell, evaluation: Evaluation, sample: Sample, budget: int | None = None, whole: Grade | None = None
    ) -> Grade:
        renderer = self.component(cell.renderer, Renderer)
        return self.one(
            Grade(
                label=sample.label if budget is None else f"{sample.label}, cut at {budget} tokens",
                grader=evaluation.grader,
                asked=evaluation,
                parser=f"{renderer.name} {renderer.parser_version}",
                sample=sample,
                budget=budget,
                renderer=cell.renderer,
                whole=whole,
                group=sample.group,
                resources=most_needed(
                    self,
                    self.component(evaluation.grader, Grader).resources(),
                    cell.student,
                    evaluation.grader,
                ),
            )
        )

    def one(self, stage: _S) -> _S:
        """One stage, the first that was made for its key."""
        found = self.stages.setdefault(stage.key, stage)
        assert isinstance(found, type(stage))  # noqa: S101 - the kind is in the key
        return found

    def component(self, choice: Choice, kind: Any) -> Any:
        """The component that was chosen, built once; `kind` says to the reader what it is."""
        place = (choice.kind, choice.label, choice.identity)  # speed and memory are in no identity
        if place not in self._components:
            self._components[place] = self.catalog.build(choice)
        return self._components[place]

    @staticmethod
    def _required(choice: Choice | None) -> Choice:
        if choice is None:
            raise ValueError("a trained cell has a teacher and a trainer")
        return choice


def _pairing(cell: Cell, built: Build | None) -> Pairing:
    """What a preflight looks at: nothing that checkpoints of the cell are never asked."""
    asked = tuple(one for one in cell.evaluations if cell.trainer is None or one.steps != "none")
    return Pairing(cell.student, cell.renderer, asked, cell.rules, cell.teacher, cell.filters, cell.trainer, built)


def _with_checks(stages: Iterable[str], checked: Mapping[str, Stage]) -> tuple[str, ...]:
    """Keys of a cell's stages, with that of the check of its rows before that of its training."""
    found: list[str] = []
    for key in stages:
        found += [one.key for one in checked[key].after] if key in checked else []
        found.append(key)
    return tuple(found)
