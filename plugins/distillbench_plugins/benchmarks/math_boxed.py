r"""The `math_boxed` grader: the last complete `\boxed{}` of the answer part, compared by math-verify."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Gt

from distillbench.errors import GraderError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Context, Grader, Grading
from distillbench.records import Judgement, Problem
from distillbench_plugins.grading.golds import is_collection, is_missing
from distillbench_plugins.grading.mathematics.boxes import is_balanced, last_boxed

if TYPE_CHECKING:
    from distillbench_plugins.grading.mathematics.checker import MathChecker

#: Clock seconds for each second of processor time, so that a busy machine decides nothing.
_WALL = 6
#: math-verify's own alarms, for reading and comparing, come before the limit of a process that is told to be exact.
_EXACT = 4


@dataclass(frozen=True)
class MathBoxedOptions:
    """Options of the `math_boxed` grader.

    Attributes:
        time_limit: Seconds of processor time for one answer. One that takes more is wrong where it alone is to blame,
            else a `grader_error`.
        math_verify_exact: Give math-verify's own verdict on the box, its known errors included, to compare with
            published numbers.
    """

    time_limit: Annotated[float, Gt(0)] = 5.0
    math_verify_exact: bool = False


class MathBoxed(Grader[MathBoxedOptions]):
    r"""Grades mathematics: the last complete `\boxed{}` of the answer, checked by math-verify.

    A box that is not closed, or blank, is no answer. Integers, and answers that are the gold answer but for how they
    are set, are compared at once; the rest goes to math-verify in a process that is killed at the limits. Where
    math-verify raises or runs into a limit the sample
    is a `grader_error`, never `wrong` (math-verify itself says `False`).
    """

    name = "math_boxed"
    version = 5
    packages = ("latex2sympy2_extended", "math-verify", "sympy")

    def extract(self, answer: str, problem: Problem) -> str | None:
        r"""The content of the last complete `\boxed{}` that is not blank; None when there is none."""
        return last_boxed(answer)

    def canonical(self, extracted: str, problem: Problem) -> str:
        """Numbers by their value, other answers as they stand but for how they are set."""
        from distillbench_plugins.grading.mathematics.exact import canonical
        from distillbench_plugins.grading.mathematics.normal import normalised

        return canonical(normalised(problem.gold.strip()), normalised(extracted))

    def unusable_golds(self, problems: Iterable[Problem]) -> Iterator[str | None]:
        """A gold answer that is missing, a list, or that math-verify cannot read."""
        from distillbench_plugins.grading.mathematics.checker import MathChecker

        with MathChecker() as checker:
            yield from checker.unreadable(_not_a_text(problem) or problem.gold for problem in problems)

    def open(self, context: Context) -> AbstractContextManager[Grading]:
        """Processes that run math-verify, as many as there are cores; none is started before one is needed."""
        return _opened(self.options, context.resources.cpus)


@contextmanager
def _opened(options: MathBoxedOptions, cpus: int) -> Iterator[Grading]:
    from distillbench_plugins.grading.mathematics.checker import MathChecker
    from distillbench_plugins.grading.mathematics.process import Limits

    exactly = options.math_verify_exact
    seconds = options.time_limit * (_EXACT if exactly else 1)
    facts = {
        "mode": "math_verify_exact" if exactly else "math-verify without its known errors",
        "math-verify": version("math-verify"),
        "seconds_per_answer": seconds,
    }
    with MathChecker(Limits(cpu_seconds=seconds, wall_seconds=_WALL * seconds), cpus, exactly) as checker:
        yield _MathGrading(checker, MappingProxyType(facts))


class _MathGrading:
    def __init__(self, checker: MathChecker, facts: Mapping[str, Any]) -> None:
        self.facts = facts
        self._checker = checker

    def judge_all(self, answers: Iterable[tuple[Problem, str]]) -> Iterator[Judgement]:
        """Right when math-verify says that the box equals the gold answer."""
        asked = ((_not_a_text(problem) or problem.gold, extracted) for problem, extracted in answers)
        for found in self._checker.compare_all(asked):
            yield _judgement(found)


def _not_a_text(problem: Problem) -> GraderError | None:
    """Why the gold answer is no text that an answer may equal; None where it is one."""
    if is_missing(problem):
        return GraderError(f"there is no gold answer: {problem.gold!r}")
    if is_collection(problem):
        return GraderError(f"the gold answer is a list or a mapping, and not one text: {problem.gold!r:.200}")
    if not is_balanced(problem.gold):
        return GraderError(f"the braces of the gold answer do not balance: {problem.gold!r:.200}")
    return None


def _judgement(found: bool | GraderError) -> Judgement:
    if isinstance(found, GraderError):
        return Judgement(None, error=str(found))
    return Judgement(found, "" if found else "wrong_answer")


@hookimpl
def distillbench_benchmarks() -> Iterable[type[Grader]]:
    """The boxed mathematics grader."""
    return [MathBoxed]
