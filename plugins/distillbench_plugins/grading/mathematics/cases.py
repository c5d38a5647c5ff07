r"""Capitals: math-verify reads all letters as small ones, so that `R^2-r^2` would be 0.

A capital counts as another letter where both stand in one text; a text that has one of them may be written with either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_LETTERS = re.compile(
    r"\\(?:text\w{0,2}|math[a-z]+|mbox|hbox|operatorname|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+|_\s*(?:\{[^{}]*\}|.)"
    r"|(?P<letters>[A-Za-z]+)"
)
#: `\\frac1R`.
_BARE_DENOMINATOR = re.compile(r"(\\[dt]?frac\s*(?:[0-9]|\{[^{}]*\})\s*)([A-Za-z])")
#: A text without mathematics, such as a name.
_WORDS = re.compile(r"(?=.*[A-Za-z]{3})[A-Za-z\s.,'-]*")


def told_apart(golds: Iterable[str], answers: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Gold answers and answers in which capitals are marked that stand beside the same small letter."""
    golds, answers = tuple(golds), tuple(answers)
    marked = frozenset().union(*map(_in_both_cases, (*golds, *answers)))
    if not marked:
        return golds, answers
    return tuple(_marked(text, marked) for text in golds), tuple(_marked(text, marked) for text in answers)


def _in_both_cases(text: str) -> frozenset[str]:
    if _WORDS.fullmatch(text):
        return frozenset()
    letters = frozenset("".join(run["letters"] or "" for run in _LETTERS.finditer(text)))
    return frozenset(letter for letter in letters if letter.isupper() and letter.lower() in letters)


def _marked(text: str, capitals: frozenset[str]) -> str:
    def mark(run: re.Match[str]) -> str:
        if run["letters"] is None:
            return run.group()
        return "".join(f"\\mathcal{{{letter}}}" if letter in capitals else letter for letter in run.group())

    return _LETTERS.sub(mark, _BARE_DENOMINATOR.sub(r"\1{\2}", text))
