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
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,400}\.[0-9]{1,400}|\.[0-9]{1,400})")
_MIXED = re.compile(r"([+-]?)([0-9]{1,15})(?: ?\\frac\{([0-9]{1,15})\}\{([0-9]{1,15})\}| ([0-9]{1,15})/([0-9]{1,15}))")
#: `0.1\overline{6}`.
_REPEATING = re.compile(r"([+-]?)([0-9]{0,15})\.([0-9]{0,15})\\(?:overline|bar|dot)\{([0-9]{1,15})\}")
#: `1.6\times 10^{-19}`; an exponent that would make an endless text is left to math-verify.
_SCIENTIFIC = re.compile(
    r"([+-]?)(?:([0-9]{0,50}\.?[0-9]{1,50}) ?(?:\\times|\\cdot|\*) ?)?10\^(?:\{([+-]?[0-9]{1,3})\}|([0-9]))"
)
#: Of two numbers of which one is decimal: a difference this large is none of rounding to six places, as math-verify
#: does, below numbers this large.
_CLEAR, _LARGE = Fraction(1, 100_000), 1_000_000
#: Of the larger of two decimals below one, and of a decimal and what it may be rounded from.
_DECIMALS, _ROUNDED = Fraction(5, 1_000_000), Fraction(1, 10_000)


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
    """An integer, a decimal number, a ratio of two integers, or a number that is composed of these."""
    if (len(text) <= 400 and _INTEGER.fullmatch(text)) or _DECIMAL.fullmatch(text):
        return _Number(Fraction(text), "." in text)
    found = _RATIO.fullmatch(text)
    if not found:
        return _composed(text)
    sign, *parts = found.groups()
    above, below = (int(part) for part in parts if part is not None)
    return _Number(Fraction(-above if sign == "-" else above, below), False) if below else None


def _composed(text: str) -> _Number | None:
    """A mixed number, a repeating decimal, or one in scientific notation."""
    if found := _MIXED.fullmatch(text):
        sign, whole, *parts = found.groups()
        above, below = (part for part in parts if part is not None)
        if not 0 < int(above) < int(below):
            return None
        value = int(whole) + Fraction(int(above), int(below))
        return _Number(-value if sign == "-" else value, False)
    if found := _REPEATING.fullmatch(text):
        sign, whole, fixed, period = found.groups()
        repeated = int(f"{whole}{fixed}{period}") - int(f"0{whole}{fixed}")
        value = Fraction(repeated, (10 ** len(period) - 1) * 10 ** len(fixed))
        return _Number(-value if sign == "-" else value, False)
    if found := _SCIENTIFIC.fullmatch(text):
        sign, factor, braced, digit = found.groups()
        value = Fraction(factor or 1) * Fraction(10) ** int(braced or digit)
        return _Number(-value if sign == "-" else value, "." in (factor or "") and value.denominator != 1)
    return None


def _equal(wanted: _Number | None, got: _Number | None) -> bool | None:
    """None where math-verify's rounding of decimals may decide."""
    if wanted is None or got is None:
        return None
    if wanted.value == got.value:
        return True
    if not (wanted.is_decimal or got.is_decimal):
        return False
    apart, scale = abs(wanted.value - got.value), max(abs(wanted.value), abs(got.value))
    if scale < 1 and apart > scale * (_DECIMALS if wanted.is_decimal and got.is_decimal else _ROUNDED):
        return False
    return False if apart > _CLEAR and scale < _LARGE else None


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
    number = _number(_plain(_bare(answer)))
    return ((gold, gold[:-2]) if number is not None and abs(number.value) >= 1 else (gold,)), answer
