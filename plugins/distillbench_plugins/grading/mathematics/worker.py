"""The process that math-verify runs in: `python -m ...worker SECONDS`; one question a line, one reply a line.

It is meant to be killed. The kernel does that when an answer has taken its processor time, also inside one long
multiplication; the parent does it for the rest. Text of a model is data here: parsed, never evaluated.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import sys
from functools import cache, lru_cache
from typing import Any

from distillbench_plugins.grading.mathematics.residues import is_tame
from distillbench_plugins.grading.mathematics.values import differ_clearly, judged

#: The address space, in bytes. Only stops single huge requests: the parent kills long before memory has filled up.
_ADDRESS_SPACE = 8 << 30
#: Texts that are remembered parsed: gold answers, and answers that many samples give.
_REMEMBERED = 2_048
_LONGEST_REMEMBERED = 500
#: What numbers said to be the same may differ by, as a share of the larger one.
_NEARLY = 0.01
_FORMULA_MARK = re.compile(r"(?<!\\)\$")
#: A reply must fit into one write to a pipe.
_LONGEST_ERROR = 400


def compare(golds: list[str], answers: list[str], beside: list[str]) -> bool:
    """Whether one of an answer's values equals one of the gold answers.

    Args:
        golds: The forms of the gold answer.
        answers: The values.
        beside: Numbers that may not clearly be another.

    Raises:
        ValueError: A gold answer cannot be read, or is too large to compute.
    """
    wanted = [_parsed(_as_math(gold)) for gold in golds]
    if not all(wanted):
        raise ValueError(f"math-verify cannot read the gold answer {golds[wanted.index([])]!r}")
    right = any(_equal(one, _parsed(f"$\\boxed{{{answer}}}$")) for answer in answers for one in wanted)
    return right and not any(_contradicts(wanted[0], _parsed(f"$\\boxed{{{number}}}$")) for number in beside)


def _equal(gold: list[Any], answer: list[Any]) -> bool:
    from math_verify import verify

    if is_read(gold) and is_read(answer):
        gold, answer = aligned(gold, answer)
        found = judged(gold[0], answer[0])
        if found is not None:
            return found
    return bool(verify(gold, answer, timeout_seconds=None, raise_on_error=True))


def _contradicts(gold: list[Any], number: list[Any]) -> bool:
    from sympy import Expr

    are_numbers = all(is_read(one) and isinstance(one[0], Expr) and is_tame(one[0]) for one in (gold, number))
    return are_numbers and differ_clearly(gold[0], number[0], _NEARLY)


def is_read(parsed: list[Any]) -> bool:
    """Whether math-verify has read a text as mathematics; else it compares it as a text."""
    from sympy import Basic, MatrixBase

    return bool(parsed) and isinstance(parsed[0], Basic | MatrixBase)


def aligned(gold: list[Any], answer: list[Any]) -> tuple[list[Any], list[Any]]:
    """Both with the same symbols: `9i` and `9 i` are read with different ones, and `i` is the imaginary unit.

    The texts behind the expressions stay as they are.
    """
    from sympy import Expr, I, Product, Sum, Symbol

    named = {symbol.name: symbol for symbol in gold[0].free_symbols}
    changes = {symbol: named[symbol.name] for symbol in answer[0].free_symbols if symbol.name in named}
    are_values = all(isinstance(one[0], Expr) and not one[0].has(Sum, Product) for one in (gold, answer))
    if "i" in named and are_values and (answer[0].is_number or not isinstance(gold[0], Symbol)):
        changes |= {symbol: I for symbol in (*gold[0].free_symbols, *answer[0].free_symbols) if symbol.name == "i"}
    changes = {symbol: other for symbol, other in changes.items() if symbol != other}
    if not changes:
        return gold, answer
    return [gold[0].xreplace(changes), *gold[1:]], [answer[0].xreplace(changes), *answer[1:]]


def evaluate(text: str) -> None:
    """Reads a text alone, and computes what it is worth at one point.

    Raises:
        ValueError: It is too large to compute.
    """
    from sympy import Expr

    parsed = _parse(f"$\\boxed{{{text}}}$")
    if is_read(parsed) and isinstance(parsed[0], Expr):
        if not is_tame(parsed[0]):
            raise ValueError("it is too large to compute")
        differ_clearly(parsed[0], parsed[0])


def compare_exactly(gold: str, answer: str) -> bool:
    """math-verify's own verdict, with its defaults: what it cannot read, or not in time, is wrong."""
    from math_verify import parse, verify

    return bool(verify(parse(f"$\\boxed{{{gold}}}$"), parse(f"$\\boxed{{{answer}}}$")))


def _as_math(gold: str) -> str:
    r"""The gold answer as math-verify reads it; `\\$` is an amount of dollars and not the mark of a formula."""
    return gold if _FORMULA_MARK.search(gold) or "\\boxed" in gold else f"$\\boxed{{{gold}}}$"


def _parsed(text: str) -> list[Any]:
    return _remembered(text) if len(text) <= _LONGEST_REMEMBERED else _parse(text)


def _parse(text: str) -> list[Any]:
    from math_verify import parse

    found: list[Any] = parse(text, _reading(), parsing_timeout=None, raise_on_error=True)
    return found


@cache
def _reading() -> list[Any]:
    """As TeX alone: math-verify else picks any number out of a text that it cannot read; units are split off before."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig

    config = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all")
    return [LatexExtractionConfig(normalization_config=config)]


_remembered = lru_cache(_REMEMBERED)(_parse)


def _answer(asked: dict[str, Any]) -> bool:
    if asked["about"] == "exactly":
        return compare_exactly(asked["golds"][0], asked["answers"][0])
    if asked["about"] in ("costs", "gold costs"):
        evaluate(asked["golds" if asked["about"] == "gold costs" else "answers"][0])
        return True
    return compare(asked["golds"], asked["answers"], asked["beside"])


def _reply(question: bytes) -> dict[str, Any]:
    asked = json.loads(question)
    try:
        return {"right": _answer(asked)}
    except Exception as error:  # whatever math-verify raises is told to the parent, which makes it a GraderError
        return {"error": f"{type(error).__name__}: {error}"[:_LONGEST_ERROR]}


def _confine() -> int:
    """Sets limits, and keeps the pipe to the parent for replies alone; gives its number."""
    replies = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not look like a reply
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _ADDRESS_SPACE if hard == resource.RLIM_INFINITY else min(_ADDRESS_SPACE, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    logging.disable()  # math-verify warns that nobody stops it; this process does
    return replies


def main() -> None:
    """Answers until the parent closes the pipe."""
    seconds = float(sys.argv[1])
    replies = _confine()
    import math_verify  # noqa: F401  (before the clock runs)

    for question in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, seconds)  # processor time; its signal ends the process
        reply = _reply(question)
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(replies, json.dumps(reply).encode() + b"\n")


if __name__ == "__main__":
    main()
