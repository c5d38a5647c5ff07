r"""Numerals with a base: `2516_8`, `12_{\text{eight}}`, `1A3_{16}`. math-verify does not look at the base."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WORDS = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"]
_WORDS += ["fourteen", "fifteen", "sixteen"]
_BASES = {word: number for number, word in enumerate(_WORDS, 2)} | {"binary": 2, "octal": 8, "decimal": 10, "hex": 16}
_TEXT = r"\\(?:text\w{0,2}|math(?:rm|bf|it|sf|normal)|mbox|operatorname)"
_DIGITS = rf"(?:{_TEXT}\s*\{{\s*)?(?P<digits>[0-9A-Za-z](?:[0-9A-Za-z,]|\\[,!;: ])*(?:\.[0-9A-Za-z]+)?)\s*\}}?"
_NUMERAL = re.compile(
    rf"(?P<sign>-?)\s*[({{]*\s*{_DIGITS}\s*[)}}]*\s*"
    rf"(?:_\s*\{{?\(?\s*(?:{_TEXT}\s*\{{)?\s*|\s*{_TEXT}\s*\{{\s*\(?\s*base[-\s}}]*|\s+\(?base\s+)"
    r"(?:base[-\s}]*)?(?P<base>[0-9]+|[a-z]+)\s*[)}]*"
)
#: A numeral anywhere, to compare which bases there are.
_ANYWHERE = re.compile(r"(?<![A-Za-z0-9_\\])[0-9]+\s*_\s*\{?\s*([0-9]+)\s*\}?")


#: Larger bases have letters for digits.
_LETTERS = 10
_ALNUM = re.compile("[0-9A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Numeral:
    """Digits in a base."""

    digits: str
    base: int


def numeral(text: str) -> Numeral | None:
    """A text that is one numeral with its base; None for any other."""
    found = _NUMERAL.fullmatch(text) if len(text) < 200 else None
    if found is None:
        return None
    base = int(found["base"]) if found["base"].isdigit() else _BASES.get(found["base"], 0)
    digits = re.sub(r"\\.|,", "", found["digits"]).upper().lstrip("0") or "0"
    is_numeral = 2 <= base <= 36 and all(int(digit, 36) < base for digit in digits if digit != ".")
    if not is_numeral or (base <= _LETTERS and not digits.replace(".", "").isdigit()):
        return None
    return Numeral(found["sign"] + digits, base)


def same_numeral(gold: str, answer: str) -> bool | None:
    """Whether two numerals are the same, digits and base; None where the texts are no two numerals with bases.

    An answer that leaves its base out, and one whose gold answer does, is compared by its digits elsewhere.
    """
    wanted, got = numeral(gold), numeral(answer)
    if wanted is not None and got is not None:
        return wanted == got
    if wanted is not None and wanted.base > _LETTERS and _ALNUM.fullmatch(answer):
        return wanted.digits == (answer.upper().lstrip("0") or "0")
    bases = [sorted(_ANYWHERE.findall(text)) for text in (gold, answer)]
    return False if all(bases) and bases[0] != bases[1] else None


def without_base(text: str) -> str:
    """The digits of a numeral in a base of ten or less; any other text as it is."""
    found = numeral(text)
    return found.digits if found is not None and found.base <= _LETTERS else text
