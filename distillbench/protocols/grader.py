"""What grades the completions of a task."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self

from distillbench.errors import GraderError
from distillbench.protocols.component import Component, Context, OptionsT_co
from distillbench.records import Judgement, Problem, Resources


class Grading(Protocol):
    """A grader that is ready: its sandbox, its workers or its connection serve the answers of many stages.

    Attributes:
        facts: What a report names beside the numbers, such as the isolation that model code ran in.
    """

    @property
    def facts(self) -> Mapping[str, Any]:
        """See above."""

    def judge_all(self, answers: Iterable[tuple[Problem, str]]) -> Iterator[Judgement]:
        """One judgement for each (problem, extracted answer), in their order.

        An answer on which the grader itself failed gets a judgement with `error`. What is raised ends the stage.
        """


class OneByOne:
    """The grading of a grader that needs nothing but its `judge`."""

    facts: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, grader: Grader) -> None:
        self._judge = grader.judge

    def judge_all(self, answers: Iterable[tuple[Problem, str]]) -> Iterator[Judgement]:
        """Judges one answer after the other."""
        for problem, extracted in answers:
            try:
                yield self._judge(problem, extracted)
            except Exception as error:  # a grader may fail in any way, and each is an error that is told, not a verdict
                yield Judgement(None, error=f"{type(error).__name__}: {error}")


class Grader(Component[OptionsT_co]):
    """How the completions of a task are graded: by `judge`, or where that needs something held ready, by `open`."""

    #: True when it grades through lm-eval's own task object, given by `with_task`.
    needs_task: ClassVar[bool] = False

    def with_task(self, task: Any) -> Self:
        """A copy that grades through this lm-eval `Task`."""
        bound = copy.copy(self)
        bound._task = task  # type: ignore[attr-defined]
        return bound

    @abstractmethod
    def extract(self, answer: str, problem: Problem) -> str | None:
        """The complete answer that the answer part holds; None when there is none."""

    def canonical(self, extracted: str, problem: Problem) -> str | None:
        """One text for all answers that mean the same, so that a majority can be found; asked for each complete answer.

        It looks at the answer as it would at any other, right or wrong: forms that it cannot tell to be equal stay
        apart.

        Returns:
            None where this grader cannot compare answers: then there is no `maj@k`.
        """
        return None

    def unusable_golds(self, problems: Iterable[Problem]) -> Iterator[str | None]:
        """For each problem, in order: why no answer can be judged by its gold answer; None where one can.

        Asked by `distillbench check`, before samples are paid. Such a problem's answers are `grader_error`, never
        wrong: `judge` or the grading says the same. To be written where not every gold answer will do.
        """
        return (None for _ in problems)

    @classmethod
    def lacks(cls) -> list[str]:
        """The methods that a grader of this class still has to be given."""
        is_empty = cls.judge is Grader.judge and cls.open is Grader.open
        return super().lacks() + (["judge"] if is_empty else [])

    def refuse_unusable(self) -> None:
        """Refuses options under which nothing could be graded; asked by `distillbench check`, before samples are paid.

        Raises:
            GraderError: What is missing, and what to write.
        """

    def resources(self) -> Resources:
        """What grading needs."""
        return Resources()

    def open(self, context: Context) -> AbstractContextManager[Grading]:
        """Makes ready what grading needs; to be written where that is more than `judge`.

        Args:
            context: Its `work` folder is shared by all stages that use this grader, and stays.
        """
        return nullcontext(OneByOne(self))

    def judge(self, problem: Problem, extracted: str) -> Judgement:
        """Right, wrong, or a score; to be written unless `open` is.

        Raises:
            GraderError: When the grader itself failed. Anything else it raises counts as the same.
        """
        with TemporaryDirectory() as folder, self.open(Context(work=Path(folder))) as grading:
            judgement = next(iter(grading.judge_all([(problem, extracted)])))
        if judgement.error is not None:
            raise GraderError(judgement.error)
        return judgement
