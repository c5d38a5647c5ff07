r"""The `math_boxed` grader: the last complete `\boxed{}` of the answer part, compared by math-verify."""

from __future__ import annotations

import re
from collections.abc import Iterable

from distillbench.errors import GraderError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Benchmark
from distillbench.records import Judgement, Problem

#: A box's opening (models also write two backslashes), an escaped character, or a brace.
_MARK = re.compile(r"\\+boxed\s*\{|\\.|[{}]", re.DOTALL)
_FORMULA_MARK = re.compile(r"(?<!\\)\$")
_INTEGER = re.compile(r"[+-]?\d{1,18}")
#: math-verify's own alarm, in seconds. It only works in the main thread, which is where a worker grades.
_TIME_LIMIT = 5


class MathBoxed(Benchmark):
    r"""Grades mathematics: the last complete `\boxed{}` of the answer, checked by math-verify.

    A box that is not closed is no answer. Integers are compared exactly before math-verify is asked. Where math-verify
    raises or runs out of time the sample is a `grader_error`, never `wrong` (math-verify itself would say `False`).
    """

    name = "math_boxed"
    packages = ("math-verify",)

    def extract(self, answer: str, problem: Problem) -> str | None:
        r"""The content of the last complete `\boxed{}`; None when there is none."""
        return last_boxed(answer)

    def judge(self, problem: Problem, extracted: str) -> Judgement:
        """Right when math-verify says that the box equals the gold answer."""
        right = is_equal(problem.gold, extracted)
        return Judgement(right, "" if right else "wrong_answer")


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{}` in a text whose braces balance; None when there is none.

    A backslash takes the next character with it, so that `\{` and `\}` are text. One pass, whatever the text is.
    """
    last: tuple[int, int] | None = None
    opened: list[int | None] = []  # where each open brace's content starts if it is a box's, None for any other brace
    for mark in _MARK.finditer(text):
        if mark.group() == "}":
            start = opened.pop() if opened else None
            if start is not None and (last is None or start > last[0]):
                last = (start, mark.start())
        elif mark.group().endswith("{") and mark.group() != "\\{":
            opened.append(mark.end() if "boxed" in mark.group() else None)
    return text[slice(*last)].strip() if last else None


def is_equal(gold: str, answer: str) -> bool:
    """Whether an answer equals the gold answer.

    Args:
        gold: The gold answer, with or without dollar signs.
        answer: The content of a box.

    Raises:
        GraderError: math-verify raised, ran out of time, or cannot read the gold answer.
    """
    gold = gold.strip()
    if _INTEGER.fullmatch(gold) and _INTEGER.fullmatch(answer):
        return int(gold) == int(answer)
    from math_verify import parse, verify
    from math_verify.errors import TimeoutException

    try:
        wanted = parse(_as_math(gold), parsing_timeout=_TIME_LIMIT, raise_on_error=True)
        if not wanted:
            raise GraderError(f"math-verify cannot read the gold answer {gold!r}")
        got = parse(f"$\\boxed{{{answer}}}$", parsing_timeout=_TIME_LIMIT, raise_on_error=True)
        return bool(verify(wanted, got, timeout_seconds=_TIME_LIMIT, raise_on_error=True))
    except TimeoutException as error:
        raise GraderError(f"math-verify ran out of its {_TIME_LIMIT} s") from error


def _as_math(gold: str) -> str:
    r"""The gold answer as math-verify reads it; `\\$` is an amount of dollars and not the mark of a formula."""
    return gold if _FORMULA_MARK.search(gold) or "\\boxed" in gold else f"$\\boxed{{{gold}}}$"


@hookimpl
def distillbench_benchmarks() -> Iterable[type[Benchmark]]:
    """The boxed mathematics grader."""
    return [MathBoxed]
