"""Cells to stages. Two cells that need the same thing get the same stage, because it has the same key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from distillbench.catalog import Catalog
from distillbench.errors import MatrixError, Mistake, PluginError, StageError, TaskError, nearest
from distillbench.matrix.choices import identity_of
from distillbench.options import Given, resolve_options
from distillbench.plan.stages import Check, Graded, Plan, Stage, effective_sampling, sampling_params, stage_key
from distillbench.plan.steps import chosen_steps, steps_mistake
from distillbench.protocols import Engine, Filter, Grader, Renderer, Student, Teacher, Trainer
from distillbench.records import Cell, Choice, Evaluation, Resources
from distillbench.tasks.identity import TaskIndex, TaskSpec

#: The number of traces that a finished curate stage kept; None while it has not run.
KeptTraces = Callable[[str], int | None]


def build_plan(matrix: str, cells: Iterable[Cell], catalog: Catalog, tasks: TaskIndex, kept: KeptTraces) -> Plan:
    """Makes the stages of all cells, without statuses.

    Raises:
        PluginError: A filter needs verdicts, and the teacher names no task to verify with.
        TaskError: A teacher's task does not exist.
        MatrixError: An evaluation names steps at which a cell has no checkpoint.
    """
    builder = _Builder(catalog, tasks, kept)
    cells = tuple(cells)
    cell_stages = {cell.name: tuple(builder.add(cell)) for cell in cells}
    if builder.mistakes:
        raise MatrixError(list(dict.fromkeys(builder.mistakes)))
    graded = {name: tuple(found) for name, found in builder.graded.items()}
    return Plan(
        matrix, cells, builder.checked_stages(), cell_stages, graded, frozenset(builder.open_cells), builder.checks
    )


class _Builder:
    def __init__(self, catalog: Catalog, tasks: TaskIndex, kept: KeptTraces) -> None:
        self.catalog = catalog
        self.tasks = tasks
        self.kept = kept
        self.stages: dict[str, Stage] = {}
        self.open_cells: list[str] = []
        self.graded: dict[str, list[Graded]] = {}
        self.checks: dict[str, Check] = {}
        self.mistakes: list[Mistake] = []
        self._checks_of: dict[str, dict[Check, None]] = {}
        self._components: dict[tuple[str, str], Any] = {}

    def add(self, cell: Cell) -> list[str]:
        """Adds a cell's stages; returns their keys, needs first."""
        self.graded[cell.name] = []
        student = self._student(cell)
        keys = [student.key] if student else []
        if cell.trainer is None:
            self.checks[cell.name] = _check(cell, _student_need(student))
            return keys + self._evaluate(cell, cell.evaluations, student, None, 0)
        if not self._component(cell.trainer, Trainer).needs_traces:
            return keys + self._add_without_traces(cell, student)
        curate_keys = self._curate(cell, student)
        train = self._train(cell, student, curate_keys[-1])
        needs = _student_need(student) | {"traces": curate_keys[0], "curate": curate_keys[-1]}
        self.checks[cell.name] = _check(cell, needs)
        self._checks_of.setdefault(train.key, {})[self.checks[cell.name]] = None
        keys += [*curate_keys, train.key]
        steps = self._component(cell.trainer, Trainer).checkpoint_steps(self.kept(curate_keys[-1]))
        if steps is None:
            self.open_cells.append(cell.name)
        return keys + self._evaluate_steps(cell, student, train, steps or ())

    def _add_without_traces(self, cell: Cell, student: Stage | None) -> list[str]:
        """Checkpoints that need no traces: nothing is rendered, so that prompts are all there is to check.

        Their stage costs nothing, and runs in the process that samples from them.
        """
        self.checks[cell.name] = replace(_check(cell, _student_need(student)), trainer=None)
        roles = {"student": cell.student, "renderer": cell.renderer, "trainer": cell.trainer}
        session = self._session(cell, student)
        resources = self._component(cell.engine, Engine).resources(self._component(cell.student, Student))
        train = self._stage("train", cell.name, roles, {}, _student_need(student), session=session, resources=resources)
        steps = self._component(cell.trainer, Trainer).checkpoint_steps(None) or ()
        return [train.key, *self._evaluate_steps(cell, student, train, steps)]

    def _evaluate_steps(self, cell: Cell, student: Stage | None, train: Stage, steps: Sequence[int]) -> list[str]:
        """The stages that ask each checkpoint what it is to be asked, checkpoint by checkpoint."""
        if steps:
            found = (steps_mistake(cell, evaluation, steps) for evaluation in cell.evaluations)
            self.mistakes.extend(mistake for mistake in found if mistake)
        at = {evaluation: chosen_steps(evaluation, steps) for evaluation in cell.evaluations}
        keys = []
        for step in steps:
            asked = [evaluation for evaluation, chosen in at.items() if step in chosen]
            keys += self._evaluate(cell, asked, student, train, step)
        return keys

    def checked_stages(self) -> dict[str, Stage]:
        """The stages; each training knows what its rows are to be checked against, which is no part of its key."""
        for key, checks in self._checks_of.items():
            self.stages[key] = replace(self.stages[key], extras={"checks": tuple(checks)})
        return self.stages

    def _student(self, cell: Cell) -> Stage | None:
        if not self._component(cell.student, Student).builds:
            return None
        return self._stage("student", cell.student.label, {"student": cell.student})

    def _curate(self, cell: Cell, student: Stage | None) -> list[str]:
        """The stages from teacher to kept traces; the last key is the curate stage's."""
        teacher = self._required(cell.teacher)
        wanted = {need for choice in cell.filters for need in self._component(choice, Filter).needs}
        task = self._component(teacher, Teacher).task()
        task_params = {"task": self.tasks.find(task).sample_identity} if task else {}
        traces = self._stage("traces", teacher.label, {"teacher": teacher}, task_params)
        source = self._verify(cell, teacher, task, traces) if "verdicts" in wanted else traces
        roles: dict[str, Any] = {"filters": cell.filters}
        needs = {source.kind: source.key}
        if "render" in wanted:
            roles |= {"student": cell.student, "renderer": cell.renderer}
            needs |= _student_need(student)
        label = f"{teacher.label} by {'+'.join(choice.label for choice in cell.filters) or 'no filter'}"
        curate = self._stage("curate", label, roles, needs=needs)
        return list(dict.fromkeys([traces.key, source.key, curate.key]))

    def _verify(self, cell: Cell, teacher: Choice, task: str | None, traces: Stage) -> Stage:
        if task is None:
            names = ", ".join(choice.label for choice in cell.filters)
            raise PluginError(
                str(
                    Mistake(
                        f"cell {cell.name!r}",
                        f"a teacher whose traces can be verified, because a filter ({names}) reads verdicts",
                        f"teacher {teacher.label!r}, which names no task",
                        "give the teacher a task, or leave the filter out",
                    )
                )
            )
        spec = self.tasks.find(task)
        grader = str(spec.settings.get("grader", "lm_eval"))
        params = {"task": task, "identity": spec.grade_identity}
        choice = self._grader(grader, spec)
        resources = self._component(choice, Grader).resources()
        return self._stage(
            "verify", teacher.label, {"grader": choice}, params, {"traces": traces.key}, resources=resources
        )

    def _grader(self, name: str, spec: TaskSpec) -> Choice:
        """The grader that a task names, with the options it gives."""
        where = f"{spec.path}: metadata.distillbench"
        known = self.catalog.kind("benchmark")
        if name not in known:
            raise TaskError(f"{where}.grader names {name!r}, which no plugin declares; {nearest(name, known)}")
        given = spec.settings.get("grader_options", {})
        layer = {option: Given(value, f"{where}.grader_options.{option}") for option, value in given.items()}
        resolved = resolve_options(known[name].Options, [layer], where, f"grader {name!r}")
        if resolved.mistakes:
            raise TaskError("\n".join(str(mistake) for mistake in resolved.mistakes))
        identity = identity_of(known[name](resolved.options), [])
        return Choice("benchmark", name, name, resolved.options, identity, resolved.origins)

    def _train(self, cell: Cell, student: Stage | None, curate_key: str) -> Stage:
        roles = {"student": cell.student, "renderer": cell.renderer, "trainer": self._required(cell.trainer)}
        needs = {"curate": curate_key} | _student_need(student)
        resources = self._component(cell.student, Student).resources()
        return self._stage("train", cell.name, roles, {"seed": cell.seed}, needs, resources=resources)

    def _evaluate(
        self, cell: Cell, evaluations: Iterable[Evaluation], student: Stage | None, train: Stage | None, step: int
    ) -> list[str]:
        keys = []
        for evaluation in evaluations:
            sample = self._sample(cell, evaluation, student, train, step)
            keys.append(sample.key)
            if evaluation.budgets:
                self._refuse_budgets_without_tokens(cell, evaluation)
            whole = self._grade(cell, evaluation, student, sample)
            grades = [self._grade(cell, evaluation, student, sample, at, whole.key) for at in evaluation.budgets]
            for grade in (whole, *grades):
                budget = grade.params.get("budget")
                self.graded[cell.name].append(Graded(evaluation, step, sample.key, grade.key, budget))
                keys.append(grade.key)
        return keys

    def _refuse_budgets_without_tokens(self, cell: Cell, evaluation: Evaluation) -> None:
        if self._component(cell.renderer, Renderer).needs_tokenizer:
            return
        raise StageError(
            str(
                Mistake(
                    f"evaluation {evaluation.name!r} of cell {cell.name!r}",
                    "`budgets` only where completions come with their token ids",
                    f"renderer {cell.renderer.label!r}, which has no tokenizer",
                    "leave `budgets` out, or write one evaluation for each `max_tokens`",
                )
            )
        )

    def _sample(
        self, cell: Cell, evaluation: Evaluation, student: Stage | None, train: Stage | None, step: int
    ) -> Stage:
        needs = _student_need(student) | ({"train": train.key} if train else {})
        drawn = replace(evaluation, sampling=effective_sampling(evaluation.sampling))
        return self._stage(
            "sample",
            f"{cell.name}@{step} on {evaluation.name}",
            {"student": cell.student, "renderer": cell.renderer, "engine": cell.engine},
            {"step": step, "evaluation": sampling_params(evaluation)},
            needs,
            session=self._session(cell, student),
            resources=self._component(cell.engine, Engine).resources(self._component(cell.student, Student)),
            extras={"evaluation": drawn},
        )

    def _session(self, cell: Cell, student: Stage | None) -> str:
        """What runs in one process, on one loaded student."""
        roles = {"student": cell.student, "engine": cell.engine}
        return f"sample {stage_key('session', roles, {}, _student_need(student))}"

    def _grade(
        self,
        cell: Cell,
        evaluation: Evaluation,
        student: Stage | None,
        sample: Stage,
        budget: int | None = None,
        whole: str | None = None,
    ) -> Stage:
        """The stage that grades samples, whole or cut at a budget.

        Args:
            cell: Whose.
            evaluation: What was asked.
            student: The stage that made the student.
            sample: The stage that made the samples.
            budget: Where they are cut.
            whole: The key of the stage that grades them whole: its verdicts hold where a budget cuts nothing.
        """
        renderer = self._component(cell.renderer, Renderer)
        params: dict[str, Any] = {
            "task": evaluation.grade_identity,
            "until": (*evaluation.until, *evaluation.sampling.stop),  # a stop string is the completion's last text
            "parser": f"{renderer.name} {renderer.parser_version}",
        }
        if budget is not None:
            params["budget"] = budget
        return self._stage(
            "grade",
            sample.label if budget is None else f"{sample.label}, cut at {budget} tokens",
            {"grader": evaluation.grader},
            params,
            {"sample": sample.key},
            session=sample.session,
            resources=self._component(evaluation.grader, Grader).resources(),
            extras={"evaluation": evaluation, "student": cell.student, "renderer": cell.renderer}
            | {"built": student.key if student else None, "whole": whole},
        )

    def _stage(
        self,
        kind: str,
        label: str,
        roles: Mapping[str, Any],
        params: Mapping[str, Any] | None = None,
        needs: Mapping[str, str] | None = None,
        session: str = "",
        resources: Resources | None = None,
        extras: Mapping[str, Any] | None = None,
    ) -> Stage:
        """One stage, made once for its key."""
        params, needs = params or {}, needs or {}
        key = stage_key(kind, roles, params, needs)
        if key not in self.stages:
            self.stages[key] = Stage(
                key, kind, label, roles, params, needs, extras or {}, session or key, resources or Resources()
            )
        return self.stages[key]

    def _component(self, choice: Choice | None, kind: type[Any]) -> Any:
        choice = self._required(choice)
        place = (choice.kind, choice.identity)
        if place not in self._components:
            self._components[place] = self.catalog.build(choice)
        return self._components[place]

    @staticmethod
    def _required(choice: Choice | None) -> Choice:
        if choice is None:
            raise ValueError("a trained cell has a teacher and a trainer")
        return choice


def _check(cell: Cell, needs: Mapping[str, str]) -> Check:
    """What a preflight looks at: nothing that checkpoints of the cell are never asked."""
    asked = tuple(one for one in cell.evaluations if cell.trainer is None or one.steps != "none")
    return Check(cell.student, cell.renderer, asked, cell.rules, cell.teacher, cell.filters, cell.trainer, needs)


def _student_need(student: Stage | None) -> dict[str, str]:
    return {"student": student.key} if student else {}
