"""A teacher that is a model: it is asked here, and what it answers are its traces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from annotated_types import Ge, Gt

from distillbench.protocols.component import Context
from distillbench.protocols.teacher import Teacher
from distillbench.records import Completion, Sample, Sampling, Trace

#: What a problem does that was not answered: the traces are not made before it is, or they are made without it.
Unanswered = Literal["error", "drop"]


@dataclass(frozen=True, kw_only=True)
class AskingOptions:
    """Options of every teacher that is asked here.

    Attributes:
        cell: The cell whose checkpoint is asked: `NAME@last`, or `NAME@40` for step 40.
        student: An entry of `students` that is asked untouched. Without this and `cell`, the student that is trained.
        renderer: Makes the prompts for `student`; left out, the student's own.
        engine: Asks `student`; left out, the best one that can.
        task: The task whose problems are asked, and whose grader can verify the answers.
        split: The split of the task.
        teacher: An entry of `teachers` whose problems are asked, in the place of the task's.
        path: A file of problems that are asked, in the place of the task's: JSON lines with `question` or `messages`,
            and with `gold`, `problem_id` and `domain` where they are known.
        n: How many problems; left out, all of them.
        max_tokens: Token budget of an answer.
        temperature: 0 is greedy.
        top_p: Nucleus mass; 1 keeps everything.
        top_k: Number of candidates; 0 keeps everything.
        sampling_seed: Seed of the answers.
        unanswered: `error` waits with the traces until every problem has an answer; `drop` makes them without those
            that the model or its server failed on, and asks these again in the next run.
    """

    cell: str | None = None
    student: str | None = field(default=None, metadata={"component": "student"})
    renderer: str | None = field(default=None, metadata={"component": "renderer", "fits": "student"})
    engine: str | None = field(default=None, metadata={"component": "engine", "fits": "student"})
    task: str | None = None
    split: Literal["train", "test"] = "train"
    teacher: str | None = field(default=None, metadata={"component": "teacher"})
    path: Path | None = None
    n: Annotated[int, Gt(0)] | None = None
    max_tokens: Annotated[int, Gt(0)] = 4096
    temperature: Annotated[float, Ge(0)] = 0.6
    top_p: Annotated[float, Gt(0)] = 0.95
    top_k: Annotated[int, Ge(0)] = 0
    sampling_seed: int = 0
    unanswered: Unanswered = "error"

    def __post_init__(self) -> None:
        """Checks options against each other."""
        if self.cell is not None and self.student is not None:
            raise ValueError("`cell` and `student` exclude each other: one model is asked")
        if self.student is None and (self.renderer or self.engine):
            raise ValueError("`renderer` and `engine` belong to `student`: whoever else is asked has its own")
        if self.teacher is not None and self.path is not None:
            raise ValueError("`teacher` and `path` exclude each other: the problems come from one place")
        if self.task is None and self.teacher is None and self.path is None:
            raise ValueError("problems are wanted: of a `task`, of a `teacher`, or of the file `path`")

    @property
    def sampling(self) -> Sampling:
        """How answers are drawn."""
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_tokens=self.max_tokens,
            seed=self.sampling_seed,
        )


AskingOptionsT_co = TypeVar("AskingOptionsT_co", bound=AskingOptions, covariant=True)


class AskingTeacher(Teacher[AskingOptionsT_co]):
    """A teacher whose traces are what a model answers: its options say who is asked, and what."""

    def task(self) -> str | None:
        """The task whose grader can verify its answers."""
        return self.options.task

    def whom(self) -> str:
        """Who is asked, in words."""
        untouched = "the untouched student" if self.options.student is None else f"student {self.options.student}"
        return untouched if self.options.cell is None else self.options.cell

    def inputs(self) -> Sequence[Path]:
        """The file of problems."""
        return () if self.options.path is None else (self.options.path,)

    def preview(self, context: Context, limit: int) -> Sequence[Trace]:
        """None: an answer costs something."""
        return ()

    def traces(self, context: Context, start: int) -> Iterator[Trace]:
        """Never called: the model is asked in an engine session, and `trace` makes a trace of each answer."""
        raise NotImplementedError("its traces are made of samples")

    def trace(self, sample: Sample, completion: Completion) -> Trace:
        """The trace that an answer is.

        Args:
            sample: What was asked, and what came.
            completion: The same, split into reasoning and answer.
        """
        return Trace(
            problem=sample.problem,
            reasoning=completion.reasoning,
            answer=completion.answer,
            finish_reason=completion.finish_reason,
            n_tokens=sample.n_tokens,
            teacher=self.name,
            source=f"answer to {sample.sample_id}",
            trace_id=sample.sample_id,
        )
