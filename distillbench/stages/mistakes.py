"""What a matrix can ask for that no plan can give, in the words that a user is told."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from distillbench.errors import DEFAULT, Mistake, Place, TaskError, nearest
from distillbench.protocols import Engine, Renderer, Student
from distillbench.records import Cell, Choice, Evaluation, Every
from distillbench.stages.steps import chosen_steps
from distillbench.tasks.identity import TaskSpec


def needed_for_themselves(circle: Sequence[Cell]) -> Mistake:
    """Cells each of which needs the next, and the last the first; told alike wherever one comes upon it."""
    names = [cell.name for cell in circle]
    start = names.index(min(names))
    told = " -> ".join([*names[start:], *names[:start], names[start]])
    teacher = circle[start].teacher
    place = Place(words=f"cell {names[start]!r}") if teacher is None else teacher.origins.get("cell", _at(teacher))
    return Mistake(place, "cells that do not need themselves", told)


def unknown_task(teacher: Choice, error: TaskError) -> Mistake:
    """A teacher's problems are of a task that there is not, or that cannot be read."""
    return Mistake(_at(teacher), f"a task that can be read, for teacher {teacher.label!r}", str(error))


def no_such_checkpoint(teacher: Choice, named: str, hint: str) -> Mistake:
    """A teacher asks a checkpoint that there is not."""
    place = teacher.origins.get("cell", DEFAULT)
    wanted = "the checkpoint of a cell, as `NAME@STEP` or `NAME@last`"
    return Mistake(place if place.file else _at(teacher), wanted, repr(named), hint)


def no_file_of_problems(teacher: Choice) -> Mistake:
    """A teacher's problems are to stand in a folder."""
    wanted = "a file of problems: JSON lines with `question` or `messages`"
    return Mistake(teacher.origins.get("path", _at(teacher)), wanted, f"a folder, {teacher.options.path}")


def without_verdicts(teacher: Choice, reading: Iterable[Choice]) -> Mistake:
    """Filters read verdicts, and nothing says how the teacher's traces are graded."""
    names = ", ".join(choice.label for choice in reading)
    wanted = f"a teacher whose traces can be verified, because a filter ({names}) reads verdicts"
    got = f"teacher {teacher.label!r}, which names no task"
    return Mistake(_at(teacher), wanted, got, "give the teacher a task, or leave the filter out")


def unknown_grader(teacher: Choice, spec: TaskSpec, name: str, known: Collection[str]) -> Mistake:
    """The teacher's task names a grader that there is not."""
    got = f"task {spec.name!r} of teacher {teacher.label!r}, whose grader is {name!r} ({spec.path})"
    return Mistake(_at(teacher), "a task with a registered grader", got, nearest(name, known))


def unfit_for_served(cell: Cell, student: Student, renderer: Renderer, engine: Engine) -> Iterator[Mistake]:
    """Components that look for files of a model that is only reached through a server."""
    if student.has_tokenizer:
        return
    served = f"student {cell.student.label!r} is only reached through a server"
    if renderer.needs_tokenizer:
        own = student.renderer()
        hint = f"`renderer: {own}` is the student's own" if own and own != cell.renderer.label else ""
        wanted, got = f"a renderer that needs no tokenizer, as {served}", f"renderer {cell.renderer.label!r}"
        yield Mistake(_at(cell.renderer), wanted, got, hint)
    if not engine.is_remote:
        yield Mistake(_at(cell.engine), f"an engine that asks one, as {served}", f"engine {cell.engine.label!r}")


def without_rows(cell: Cell, renderer: Renderer) -> Mistake | None:
    """Something is to be trained on rows, which nothing makes."""
    if renderer.needs_tokenizer:
        return None
    wanted = "a renderer with a tokenizer, as training rows are made with it"
    got = f"renderer {cell.renderer.label!r}, with which a server makes the tokens"
    hint = "a hosted model is evaluated untouched; to train, name a student with weights, such as `hf`"
    return Mistake(_at(cell.renderer), wanted, got, hint)


def without_tokens(evaluation: Evaluation, renderer: Renderer, label: str) -> Mistake | None:
    """An evaluation needs the ids of tokens, and a server makes the tokens and does not tell them."""
    if renderer.needs_tokenizer:
        return None
    got = f"renderer {label!r}, which has no tokenizer"
    if evaluation.budgets:
        wanted = "`budgets` only where completions come with their token ids"
        hint = "leave `budgets` out, or write one evaluation for each `max_tokens`"
        return Mistake(_option_of(evaluation, "budgets"), wanted, got, hint)
    if evaluation.output_type != "generate_until":
        wanted = "a task with `output_type: generate_until`, where nothing here makes tokens to score"
        got = f"task {evaluation.task!r}, which scores given continuations ({evaluation.output_type}), and {got}"
        return Mistake(_option_of(evaluation, "benchmark"), wanted, got)
    return None


def steps_not_there(cell: Cell, evaluation: Evaluation, steps: Sequence[int]) -> Mistake | None:
    """An evaluation names steps at which the cell's training leaves no checkpoints."""
    asked, known = evaluation.steps, ", ".join(map(str, steps)) or "none"
    wanted = f"steps at which cell {cell.name!r} has checkpoints: {known}"
    place = replace(_option_of(evaluation, "steps"), words=_named(evaluation))
    hint = "`steps: last`, `{every: N}` and `all` fit trainings of any length"
    if isinstance(asked, tuple) and (missing := sorted(set(asked) - set(steps))):
        return Mistake(place, wanted, ", ".join(map(str, missing)), hint)
    if isinstance(asked, Every) and steps and not chosen_steps(evaluation, steps):
        return Mistake(place, wanted, f"{{every: {asked.every}}}, which divides none of them", hint)
    return None


def _at(choice: Choice) -> Place:
    """The entry of a component; its name where no file has one."""
    return Place(words=f"{choice.kind} {choice.label!r}") if choice.place == Place() else choice.place


def _option_of(evaluation: Evaluation, name: str) -> Place:
    """What says so of an evaluation, or of a group of them; its name where no file does."""
    origin = evaluation.origins.get(name, DEFAULT)
    place = evaluation.place if origin == DEFAULT else origin
    return place if place.file else Place(words=_named(evaluation))


def _named(evaluation: Evaluation) -> str:
    return f"evaluation {evaluation.name!r}"
