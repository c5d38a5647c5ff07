r"""What can be said without math-verify: plain numbers, and texts that are the same but for how they are set.

Why: reading `x^2+1` takes math-verify some milliseconds; most answers are a number, or the gold answer as it stands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

#: Changes how a formula looks, and nothing else; math-verify leaves out dollar signs too.
_LOOKS = re.compile(r"(?<!\\)\\(?:(?:left|right|displaystyle)(?![A-Za-z])|[!$])")
_FRACTION = re.compile(r"(?<!\\)\\[dt]frac(?![A-Za-z])")
#: TeX takes one digit for each part. `\frac123` is left alone: math-verify reads 1/23 there.
_SHORT_FRACTION = re.compile(r"\\frac ?([0-9])([0-9])(?![0-9])")
_SPACES = re.compile(r"\s+")
#: A space beside a sign; `\ `, a space between two words, and that of the list `1, 000` (not the number `1,000`) stay.
_IDLE_SPACE = re.compile(r"(?<!\\) (?=[^\w\s])|(?<=[^\w\s\\]) (?!(?<=[0-9], )[0-9]{3}(?![0-9]))")

_INTEGER = re.compile(r"([+-]?)0*([0-9]+)")
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+")
_DEGREES = re.compile(r"(?<=[0-9}])\^(?:\\circ|\{\\circ\})$")
_RATIO = re.compile(
    r"([+-]?)(?:\\frac\s*(?:\{([+-]?[0-9]{1,15})\}|([0-9]))(?:\{([0-9]{1,15})\}|([0-9]))|([0-9]{1,15})/([0-9]{1,15}))"
)
_DECIMAL = re.compile(r"[+-]?[0-9]{1,15}\.[0-9]{1,15}")
#: A decimal number of one or more.
_FROM_ONE = re.compile(r"0*[1-9][0-9]*\.[0-9]+")
#: Beyond a difference this large, and below numbers this large, math-verify's rounding cannot make two numbers equal.
_CLEAR, _LARGE = Fraction(1, 100_000), 1_000_000


def shortcut(gold: str, answer: str) -> bool | None:
    """Whether an answer equals the gold answer; None where that is for math-verify to say.

    Args:
        gold: The gold answer, normalised.
        answer: The answer, normalised.
    """
    gold, answer = _bare(gold), _bare(answer)
    if gold and gold == answer:
        return True
    wanted, got = _plain(gold), _plain(answer)
    whole = _INTEGER.fullmatch(wanted), _INTEGER.fullmatch(got)
    if whole[0] and whole[1]:
        return _signed(whole[0]) == _signed(whole[1])
    return _equal(_number(wanted), _number(got))


def is_plain(gold: str) -> bool:
    """Whether a gold answer is a plain number, which is read without math-verify."""
    bare = _plain(_bare(gold))
    return _INTEGER.fullmatch(bare) is not None or _number(bare) is not None


def canonical(gold: str, answer: str) -> str:
    """One text for all answers that `shortcut` finds equal to one another.

    Args:
        gold: The gold answer, normalised: it says whether a percent sign is left out.
        answer: The answer, normalised.
    """
    _, answer = percent_pair(gold, answer)
    bare = _bare(answer)
    plain = _plain(bare)
    if whole := _INTEGER.fullmatch(plain):
        return _signed(whole)
    number = _number(plain)
    return bare if number is None else str(number.value)


def _bare(text: str) -> str:
    text = _FRACTION.sub(r"\\frac", _LOOKS.sub("", text))
    text = _IDLE_SPACE.sub("", _SPACES.sub(" ", text).strip())
    return _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text)


def _plain(text: str) -> str:
    """A number without thousands separators, and without a degree sign (math-verify does not tell 30 from 30°)."""
    text = _DEGREES.sub("", text)
    return text.replace(",", "") if _GROUPED.fullmatch(text) else text


def _signed(integer: re.Match[str]) -> str:
    """As text: Python refuses to read an integer of more than some thousand digits."""
    sign, digits = integer.groups()
    return f"-{digits}" if sign == "-" and digits != "0" else digits


@dataclass(frozen=True, slots=True)
class _Number:
    value: Fraction
    is_decimal: bool


def _number(text: str) -> _Number | None:
    """An integer, a decimal number, or a ratio of two integers."""
    if (len(text) <= 16 and _INTEGER.fullmatch(text)) or _DECIMAL.fullmatch(text):
        return _Number(Fraction(text), "." in text)
    found = _RATIO.fullmatch(text)
    if not found:
        return None
    sign, *parts = found.groups()
    above, below = (int(part) for part in parts if part is not None)
    return _Number(Fraction(-above if sign == "-" else above, below), False) if below else None


def _equal(wanted: _Number | None, got: _Number | None) -> bool | None:
    """None where math-verify's rounding of decimals may decide."""
    if wanted is None or got is None:
        return None
    if wanted.value == got.value:
        return True
    if not (wanted.is_decimal or got.is_decimal):
        return False
    is_clear = abs(wanted.value - got.value) > _CLEAR and max(abs(wanted.value), abs(got.value)) < _LARGE
    return False if is_clear else None


def percent_pair(gold: str, answer: str) -> tuple[tuple[str, ...], str]:
    r"""The gold answers to compare with, and the answer, where percent signs are in the way.

    math-verify takes `10` for `10\%` where both are integers, and not `237.5` for `237.5\%`. A number of one or more
    without the sign is the percentage that was asked for, as in MATH's own grader. A smaller one may be the fraction
    (0.5 for 50 %), so it is left to math-verify. Where both have the sign, it is left out of both.

    Source: hendrycks/math, modeling/math_equivalence.py (leaves out every percent sign).
    """
    if not gold.endswith("\\%"):
        return (gold,), answer
    if answer.endswith("\\%"):
        return (gold[:-2],), answer[:-2]
    return ((gold, gold[:-2]) if _FROM_ONE.fullmatch(answer) else (gold,)), answer
