"""Cells to stages. Two cells that need the same thing get the same stage, because it has the same key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from distillbench.catalog import Catalog
from distillbench.errors import MatrixError, Mistake, PluginError, TaskError, nearest
from distillbench.fingerprint import key_of
from distillbench.plan.plan import Pairing, Plan
from distillbench.plan.sampling import effective_sampling
from distillbench.plan.stage import Stage
from distillbench.protocols import Engine, Filter, Grader, Renderer, Student, Teacher, Trainer
from distillbench.records import Cell, Choice, Evaluation
from distillbench.stages.build import Build
from distillbench.stages.curate import Curate
from distillbench.stages.grade import Grade, Graded
from distillbench.stages.length import Length
from distillbench.stages.measure import Measure
from distillbench.stages.mistakes import (
    needed_for_themselves,
    steps_not_there,
    unfit_for_served,
    unknown_task,
    without_rows,
    without_tokens,
    without_verdicts,
)
from distillbench.stages.planned import PlannedCell
from distillbench.stages.render import Render, counts_of
from distillbench.stages.sample import Sample
from distillbench.stages.steps import chosen_steps
from distillbench.stages.task_grader import grader_of_task
from distillbench.stages.traces import Traces
from distillbench.stages.train import Train
from distillbench.stages.verdict import Verdict
from distillbench.tasks.identity import TaskIndex, TaskSpec

#: The facts of a finished stage; None while it has not run, or is to run again.
Facts = Callable[[Stage], Mapping[str, Any] | None]
_S = TypeVar("_S", bound=Stage)


def build_plan(matrix: str, cells: Iterable[Cell], catalog: Catalog, tasks: TaskIndex, facts: Facts) -> Plan:
    """Makes the stages of all cells, without statuses.

    Raises:
        MatrixError: With everything that the cells ask for and cannot get.
    """
    cells = tuple(cells)
    planner = Planner(cells, catalog, tasks, facts)
    planned = planner.all_cells()
    if planner.mistakes:
        raise MatrixError(planner.mistakes)
    return Plan(
        matrix=matrix,
        cells=cells,
        stages=planner.stages_with_pairings(),
        cell_stages={name: tuple(one.stages) for name, one in planned.items()},
        graded={name: tuple(one.graded) for name, one in planned.items()},
        growing={name: frozenset(one.hangs_on) for name, one in planned.items() if one.hangs_on},
        pairings={name: one.pairing for name, one in planned.items()},
    )


def planning_mistakes(cells: Iterable[Cell], tasks: TaskIndex, *, catalog: Catalog) -> list[Mistake]:
    """What cells ask for and cannot get, as far as it is known before anything has run."""
    planner = Planner(cells, catalog, tasks, lambda stage: None)
    planner.all_cells()
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
        self._pairings_of: dict[str, dict[Pairing, None]] = {}
        self._components: dict[tuple[str, str], Any] = {}

    def all_cells(self) -> dict[str, PlannedCell]:
        """The stages of every cell by its name, without those of cells that are needed for themselves."""
        found = {}
        for name in self.cells:
            try:
                found[name] = self.cell(name)
            except MatrixError as error:
                self.mistakes += error.mistakes
        return found

    def cell(self, name: str) -> PlannedCell:
        """The stages of a cell.

        Raises:
            MatrixError: It is needed for itself.
        """
        if name in self._under_way:
            raise MatrixError([needed_for_themselves(self._under_way[self._under_way.index(name) :])])
        if name not in self._planned:
            self._under_way.append(name)
            try:
                self._planned[name] = self._plan(self.cells[name])
            finally:
                self._under_way.pop()
        return self._planned[name]

    def stages_with_pairings(self) -> dict[str, Stage]:
        """The stages; each training knows what its rows are to be checked against, which is no part of its key."""
        for key, pairings in self._pairings_of.items():
            self.stages[key] = replace(self.stages[key], pairings=tuple(pairings))  # type: ignore[call-arg]
        return self.stages

    def _plan(self, cell: Cell) -> PlannedCell:
        student, engine = self._component(cell.student, Student), self._component(cell.engine, Engine)
        self.mistakes += unfit_for_served(cell, student, self._component(cell.renderer, Renderer), engine)
        built = self._built(cell)
        planned = PlannedCell(cell, _pairing(cell, built))
        planned.add(built)
        if cell.trainer is None:
            self._evaluate(planned, cell.evaluations, built, 0)
        elif self._component(cell.trainer, Trainer).needs_traces:
            self._train(planned, cell.trainer, built)
        else:
            self._take_checkpoints(planned, cell.trainer, built)
        return planned

    def _train(self, planned: PlannedCell, trainer: Choice, built: Build | None) -> None:
        """Stages from the teacher to the checkpoints, and what asks these."""
        cell = planned.cell
        if mistake := without_rows(cell, self._component(cell.renderer, Renderer)):
            self.mistakes.append(mistake)
        kept = self._curate(cell, built)
        rows = self._render(cell, trainer, kept, built)
        planned.pairing = replace(planned.pairing, traces=kept.traces, kept=kept, rows=rows)
        told = self.facts(rows)
        steps = self._component(trainer, Trainer).checkpoint_steps(None if told is None else counts_of(told))
        if steps is None:
            planned.hangs_on.add(rows.key)
        planned.steps = steps
        planned.train = self._one(
            Train(
                label=cell.name,
                student=cell.student,
                renderer=cell.renderer,
                trainer=trainer,
                seed=cell.seed,
                built=built,
                rows=rows,
                steps=steps,
                resources=self._component(cell.student, Student).resources(),
            )
        )
        self._pairings_of.setdefault(planned.train.key, {})[planned.pairing] = None
        planned.add(kept.traces, *kept.measures, kept, rows, planned.train)
        self._evaluate_steps(planned, built, steps or ())

    def _take_checkpoints(self, planned: PlannedCell, trainer: Choice, built: Build | None) -> None:
        """Checkpoints that need no traces: nothing is rendered, so that prompts are all there is to check.

        Their stage costs nothing, and runs in the process that samples from them.
        """
        cell = planned.cell
        planned.pairing = replace(planned.pairing, trainer=None)
        planned.steps = self._component(trainer, Trainer).checkpoint_steps(None) or ()
        planned.train = self._one(
            Train(
                label=cell.name,
                student=cell.student,
                renderer=cell.renderer,
                trainer=trainer,
                built=built,
                steps=planned.steps,
                group=_group(cell, built),
                resources=self._component(cell.engine, Engine).resources(self._component(cell.student, Student)),
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

    def _built(self, cell: Cell) -> Build | None:
        if not self._component(cell.student, Student).builds:
            return None
        return self._one(Build(label=cell.student.label, student=cell.student))

    def _curate(self, cell: Cell, built: Build | None) -> Curate:
        """The stage that keeps a cell's traces."""
        teacher = self._required(cell.teacher)
        spec = self._task(teacher)
        identity = None if spec is None else spec.sample_identity
        traces = self._one(Traces(label=teacher.label, teacher=teacher, task=identity))
        measures = [self._measure(name, cell, traces, built) for name in self._read(cell)]
        return self._one(
            Curate(
                label=f"{teacher.label} by {'+'.join(choice.label for choice in cell.filters) or 'no filter'}",
                traces=traces,
                filters=cell.filters,
                measures=tuple(measure for measure in measures if measure is not None),
            )
        )

    def _read(self, cell: Cell) -> list[str]:
        """The measures that the filters of a cell read.

        Raises:
            PluginError: There is none of a name.
        """
        names: set[str] = set()
        for choice in cell.filters:
            reads = self._component(choice, Filter).reads
            if unknown := sorted(reads - {Length.kind, Verdict.kind}):
                told = f"filter {choice.component!r} reads {unknown[0]!r}, which nothing measures"
                raise PluginError(f"{told}; {nearest(unknown[0], [Length.kind, Verdict.kind])}")
            names |= reads
        return sorted(names)

    def _measure(self, name: str, cell: Cell, traces: Traces, built: Build | None) -> Measure | None:
        if name == Verdict.kind:
            return self._verdict(cell, traces)
        return self._one(
            Length(
                label=f"{traces.label} for {cell.student.label}",
                traces=traces,
                student=cell.student,
                renderer=cell.renderer,
                built=built,
            )
        )

    def _render(self, cell: Cell, trainer: Choice, kept: Curate, built: Build | None) -> Render:
        """The stage that makes rows of them."""
        component: Trainer = self._component(trainer, Trainer)
        return self._one(
            Render(
                label=f"{kept.label} for {cell.student.label}",
                kept=kept,
                lengths=next((one for one in kept.measures if isinstance(one, Length)), None),
                student=cell.student,
                renderer=cell.renderer,
                built=built,
                max_length=component.max_length(),
                overlong=component.overlong(),
            )
        )

    def _task(self, teacher: Choice) -> TaskSpec | None:
        """The task that a teacher's problems are of; None where it names none, or names one in vain."""
        name = self._component(teacher, Teacher).task()
        try:
            return self.tasks.find(name) if name else None
        except TaskError as error:
            self.mistakes.append(unknown_task(teacher, error))
            return None

    def _verdict(self, cell: Cell, traces: Traces) -> Verdict | None:
        """The verdicts on traces; None when a mistake is in the way."""
        teacher = traces.teacher
        if not self._component(teacher, Teacher).task():
            reading = [choice for choice in cell.filters if Verdict.kind in self._component(choice, Filter).reads]
            self.mistakes.append(without_verdicts(teacher, reading))
            return None
        spec = self._task(teacher)
        if spec is None:
            return None
        grader = grader_of_task(teacher, spec, self.catalog)
        if not isinstance(grader, Choice):
            self.mistakes += grader
            return None
        return self._one(
            Verdict(
                label=traces.label,
                grader=grader,
                task=spec.name,
                task_identity=spec.grade_identity,
                traces=traces,
                resources=self._component(grader, Grader).resources(),
            )
        )

    def _evaluate(
        self, planned: PlannedCell, evaluations: Iterable[Evaluation], built: Build | None, step: int
    ) -> None:
        cell = planned.cell
        renderer = self._component(cell.renderer, Renderer)
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
        return self._one(
            Sample(
                label=f"{cell.name}@{step} on {evaluation.name}",
                student=cell.student,
                renderer=cell.renderer,
                engine=cell.engine,
                step=step,
                asked=replace(evaluation, sampling=effective_sampling(evaluation.sampling)),
                built=built,
                train=planned.train,
                group=_group(cell, built),
                resources=self._component(cell.engine, Engine).resources(self._component(cell.student, Student)),
            )
        )

    def _grade(
        self, cell: Cell, evaluation: Evaluation, sample: Sample, budget: int | None = None, whole: Grade | None = None
    ) -> Grade:
        renderer = self._component(cell.renderer, Renderer)
        return self._one(
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
                resources=self._component(evaluation.grader, Grader).resources(),
            )
        )

    def _one(self, stage: _S) -> _S:
        """One stage, the first that was made for its key."""
        found = self.stages.setdefault(stage.key, stage)
        assert isinstance(found, type(stage))  # noqa: S101 - the kind is in the key
        return found

    def _component(self, choice: Choice, kind: type[Any]) -> Any:
        place = (choice.kind, choice.identity)
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


def _group(cell: Cell, built: Build | None) -> str:
    """What runs in one process, on one loaded student."""
    return f"sample {key_of([cell.student.identity, cell.engine.identity, built and built.key])}"
