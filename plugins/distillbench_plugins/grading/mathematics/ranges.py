r"""One thing in two notations: `3 < x \leq 4` is the interval `(3,4]`, and a column of numbers is a point."""

from __future__ import annotations

import re

from distillbench_plugins.grading.mathematics.relations import is_number, n_values, split_top

_INTERVAL = re.compile(r"(?:\\left\s*)?[(\[](?:[^()\[\]]|\((?:[^()])*\))+,[^,]+[)\]]")
_OPEN_OUTWARDS = re.compile(r"(?:\\left\s*)?([\[\]])([^\[\]()]+,[^\[\]()]+?)(?:\\right\s*)?([\[\]])")
_BUILDER = re.compile(
    r"(?:\\left\s*)?\\\{\s*[A-Za-z](?:\s*\\in\s*\\mathbb\{R\})?\s*(?::|\||\\mid|\\vert)\s*(.+?)\s*(?:\\right\s*)?\\\}"
)
_OR = re.compile(r"\s*(?:,?\s*\\(?:text|mathrm)\s*\{\s*or\s*\}|(?<![A-Za-z\\])or(?![A-Za-z])|\\lor(?![A-Za-z]))\s*")
_LESS, _MORE = {"<": True, "\\leq": False}, {">": True, "\\geq": False}
_SIGN = re.compile(r"(<|>|\\leq(?![A-Za-z])|\\geq(?![A-Za-z]))")
_NAME = re.compile(r"\\?[A-Za-z]+")
_INFINITY = re.compile(r"[+-]?\\infty")
_MATRIX = re.compile(
    r"(?:\\left\s*[(\[]\s*)?\\begin\s*\{([pb]?matrix|array)\}(?:\{[^{}]*\})?(.+?)\\end\s*\{\1\}(?:\s*\\right\s*[)\]])?",
    re.DOTALL,
)
_ANGLED = re.compile(r"(?:\\left\s*)?(?:\\langle|<)(.+,.+?)(?:\\right\s*)?(?:\\rangle|>)", re.DOTALL)
_TUPLE = re.compile(r"(?:\\left\s*)?\((.+,.+?)(?:\\right\s*)?\)", re.DOTALL)
_BRACKETED = re.compile(r"(?:\\left\s*)?\[(.+,.+?)(?:\\right\s*)?\]", re.DOTALL)
#: The set of one point.
_SINGLE = re.compile(r"(?:\\left\s*)?\\\{\s*((?:\\left\s*)?\(.+\))\s*(?:\\right\s*)?\\\}", re.DOTALL)


def alike(gold: str, answer: str) -> tuple[str, str]:
    """Both in one notation, where one is an interval or a point and the other says the same in another way."""
    if _TUPLE.fullmatch(gold) and (found := _SINGLE.fullmatch(answer)) and n_values(found[1]) == n_values(gold):
        answer = found[1]
    points = _point(gold), _point(answer)
    if points[0] and points[0][0] == "matrix" and (found := _BRACKETED.fullmatch(answer)):
        points = points[0], ("tuple", f"({found[1]})")
    if points[0] and points[1] and points[0][0] != points[1][0]:
        return points[0][1], points[1][1]
    sets = re.sub(r"^[A-Za-z]\s*\\in\s*", "", gold)
    if all(_INTERVAL.fullmatch(part) for part in split_top(sets, frozenset({"\\cup"}))):
        return gold, as_interval(answer) or answer
    return gold, answer


def as_interval(text: str) -> str | None:
    r"""The interval, or union of some, that inequalities for one variable describe; None where a text is none.

    Also `]3,4]`, and the inequality in `\{x \mid 3 < x \leq 4\}`.
    """
    if (found := _OPEN_OUTWARDS.fullmatch(text)) and (found[1], found[3]) != ("[", "]"):
        return f"{'(' if found[1] == ']' else '['}{found[2]}{')' if found[3] == '[' else ']'}"
    if found := _BUILDER.fullmatch(text):
        text = found[1]
    parts = [_interval(part) for part in _OR.split(text)]
    return "\\cup ".join(part for _, part in parts) if len({name for name, _ in parts}) == 1 and parts[0][1] else None


def _interval(text: str) -> tuple[str, str]:
    """The variable and its interval; empty where there is none."""
    sides = [side.strip() for side in _SIGN.split(text)]
    if len(sides) not in (3, 5):
        return "", ""
    if all(sign in _MORE for sign in sides[1::2]):
        sides = [{">": "<", "\\geq": "\\leq"}.get(side, side) for side in reversed(sides)]
    if not all(sign in _LESS for sign in sides[1::2]):
        return "", ""
    if len(sides) == 3:
        sides = [*sides, "<", "\\infty"] if _NAME.fullmatch(sides[2]) else ["-\\infty", "<", *sides]
    low, after, name, before, high = sides
    if not _NAME.fullmatch(name) or not all(is_number(end) or _INFINITY.fullmatch(end) for end in (low, high)):
        return "", ""
    return name, f"{'(' if _LESS[after] else '['}{low},{high}{')' if _LESS[before] else ']'}"


def _point(text: str) -> tuple[str, str] | None:
    """How a point is written, and the point as a tuple; None where a text is no point."""
    if found := _MATRIX.fullmatch(text):
        inner = re.sub(r"\\\\\s*$", "", found[2].strip())
        parts = [part.strip() for part in re.split(r"\\\\|&", inner)]
        if ("&" in inner) == ("\\\\" in inner) or any(len(split_top(part, frozenset(","))) > 1 for part in parts):
            return None
        return "matrix", f"({','.join(parts)})"
    if found := _ANGLED.fullmatch(text):
        return "angled", f"({found[1]})"
    return ("tuple", f"({found[1]})") if (found := _TUPLE.fullmatch(text)) and n_values(text) > 1 else None
