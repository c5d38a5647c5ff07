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
from functools import lru_cache
from typing import Any

#: The address space, in bytes. Only stops single huge requests: the parent kills long before memory has filled up.
_ADDRESS_SPACE = 8 << 30
#: Texts that are remembered parsed: gold answers, and answers that many samples give.
_REMEMBERED = 2_048
_LONGEST_REMEMBERED = 500
#: Deeper brackets have been seen to end math-verify's recursion, which it takes for a text that is no mathematics.
_DEEPEST = 40
#: Of the larger value, or of one. math-verify rounds decimals to six places.
_CLEAR = 1e-5
_FORMULA_MARK = re.compile(r"(?<!\\)\$")
#: A reply must fit into one write to a pipe.
_LONGEST_ERROR = 400


def compare(golds: list[str], answer: str) -> bool:
    """Whether an answer equals one of the gold answers, as math-verify says.

    Raises:
        ValueError: A gold answer cannot be read, or the answer nests too deeply to be read.
    """
    from math_verify import verify

    wanted = [_parsed(_as_math(gold)) for gold in golds]
    if not all(wanted):
        raise ValueError(f"math-verify cannot read the gold answer {golds[wanted.index([])]!r}")
    got = _parsed(f"$\\boxed{{{answer}}}$")
    right = any(
        not (got and differ_clearly(one[0], got[0])) and verify(one, got, timeout_seconds=None, raise_on_error=True)
        for one in wanted
    )
    if not right and all(isinstance(part, str) for part in got) and nesting(answer) > _DEEPEST:
        raise ValueError(f"the answer's brackets nest deeper than the {_DEEPEST} that math-verify can read")
    return right


def differ_clearly(gold: Any, answer: Any) -> bool:
    """Whether two expressions differ by far more than rounding at one point; False where that does not show it.

    It saves math-verify's attempts to simplify the difference to nothing, most of the time that a wrong answer takes.
    """
    from sympy import Expr, Symbol, UnevaluatedExpr

    for one in (gold, answer):  # math-verify compares names as texts, and percentages in a way of its own
        if not isinstance(one, Expr) or isinstance(one, Symbol) or one.is_Matrix or one.has(UnevaluatedExpr):
            return False
    names = sorted({symbol.name for symbol in gold.free_symbols | answer.free_symbols})
    try:
        wanted, got = (complex(one.subs(_point(one, names)).evalf(15)) for one in (gold, answer))
    except (ArithmeticError, AttributeError, NotImplementedError, RecursionError, TypeError, ValueError):
        return False  # has no value there that can be had by plain evaluation
    return abs(wanted - got) > _CLEAR * max(1.0, abs(wanted), abs(got))


def _point(expression: Any, names: list[str]) -> dict[Any, Any]:
    """A value for each symbol: positive, so that roots and logarithms are real, and nothing special."""
    from sympy import Rational

    return {symbol: Rational(7 * names.index(symbol.name) + 8, 11) for symbol in expression.free_symbols}


def nesting(text: str) -> int:
    """How deep brackets nest; 0 where they do not balance."""
    depth = deepest = 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        deepest = max(deepest, depth)
    return deepest if depth == 0 else 0


def _as_math(gold: str) -> str:
    r"""The gold answer as math-verify reads it; `\\$` is an amount of dollars and not the mark of a formula."""
    return gold if _FORMULA_MARK.search(gold) or "\\boxed" in gold else f"$\\boxed{{{gold}}}$"


def _parsed(text: str) -> list[Any]:
    return _remembered(text) if len(text) <= _LONGEST_REMEMBERED else _parse(text)


def _parse(text: str) -> list[Any]:
    from math_verify import parse

    found: list[Any] = parse(text, parsing_timeout=None, raise_on_error=True)
    return found


_remembered = lru_cache(_REMEMBERED)(_parse)


def _reply(question: bytes) -> dict[str, Any]:
    asked = json.loads(question)
    try:
        return {"right": compare(asked["golds"], asked["answer"])}
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
