r"""Units behind a value, or a currency in front of it: split off, and compared where both are known.

math-verify cuts off whatever looks like a unit, so that `7\text{ m}` equals `7\text{ cm}` and `3+2m` equals 5.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

#: Names of one unit, the first of which stands for it. A letter means what it means only in its case.
_NAMES = (
    "mm millimeter millimetre", "cm centimeter centimetre", "dm decimeter decimetre", "m meter metre",
    "km kilometer kilometre", "inch in inches", "foot feet ft", "yard yd", "mile mi", "mg milligram", "g gram gm",
    "kg kilogram kilo", "pound lb lbs", "ounce oz", "ton tonne", "gallon gal", "quart qt", "pint pt", "cup",
    "second s sec", "minute min", "hour h hr", "day", "week", "month", "year yr", "ms millisecond", "N newton",
    "J joule", "kJ kilojoule", "W watt", "kW kilowatt", "MW megawatt", "V volt", "A ampere amp", "ohm Omega",
    "Hz hertz", "kHz", "MHz", "Pa pascal", "kPa", "atm", "mol mole", "K kelvin", "eV", "kcal", "cal calorie",
    "degree deg", "radian rad", "°C celsius", "°F fahrenheit", "dollar USD usd", "cent", "euro EUR", "rupee Rs rs",
    "yen", "pence", "am a.m", "pm p.m", "north", "south", "east", "west", "acre", "hectare", "thousand", "million",
    "billion", "trillion", "nm nanometer nanometre", "um micrometer micron", "C coulomb", "F farad", "T tesla", "bit",
    "byte", "dozen", "percent",
)  # fmt: skip
_UNITS = {name: names.split()[0] for names in _NAMES for name in names.split()}
#: What is made of others.
_MADE = {
    "liter": {"dm": 3}, "litre": {"dm": 3}, "L": {"dm": 3}, "l": {"dm": 3}, "ml": {"cm": 3}, "mL": {"cm": 3},
    "milliliter": {"cm": 3}, "millilitre": {"cm": 3}, "cc": {"cm": 3}, "mph": {"mile": 1, "hour": -1},
    "kmh": {"km": 1, "hour": -1}, "kph": {"km": 1, "hour": -1}, "kmph": {"km": 1, "hour": -1},
}  # fmt: skip
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}
#: Letters that are taken for a unit where they stand alone behind a number.
_LONE = frozenset("msghlLNJWVKA")
#: Says that more is meant than the value in front.
_REFUSED = re.compile(r"[0-9]|\b(?:or|and|not|least|most|than|except|between|if|mod|base)\b|[<>=]")

_SPACE = r"(?:\\[,;:! ]|\\q?quad(?![A-Za-z])|[\s~])"
_EXPONENT = r"(?:\^(?:\{[+-]?[0-9]\}|[0-9])|[²³])"
_UPRIGHT = (
    r"\\(?:text\w{0,2}|math(?:rm|bf|it|sf|normal)|mbox|hbox|operatorname)\s*\{(?:[^{}$]|(?<=\^)\{[+-]?[0-9]\})*\}"
)
_FRACTION = re.compile(rf"\\[dt]?frac\s*\{{\s*({_UPRIGHT})\s*\}}\s*\{{\s*({_UPRIGHT})\s*\}}$")
_BARE = r"(?:[ap]\.\s?m|[A-Za-z]+)\.?"
_JOINT = rf"{_SPACE}*(?:/|\\cdot(?![A-Za-z])|\\times(?![A-Za-z])|\*|\\,){_SPACE}*"
_SET = re.compile(
    rf"({_SPACE}*(?:{_UPRIGHT}{_EXPONENT}?)(?:(?:{_JOINT}|{_SPACE}*)(?:{_UPRIGHT}){_EXPONENT}?)*{_SPACE}*)$"
)
#: A unit behind a value that another value, or a bracket, follows.
_INSIDE = re.compile(rf"(?<=[0-9}}])({_SPACE}*{_UPRIGHT}{_EXPONENT}?){_SPACE}*(?=[,;)\]]|\\right|\\\}})")
_TYPED = re.compile(
    rf"(?<![\\A-Za-z_^])({_SPACE}*{_BARE}{_EXPONENT}?(?:(?:{_JOINT}|{_SPACE}+){_BARE}{_EXPONENT}?)*{_SPACE}*)$"
)
_DEGREES = re.compile(rf"{_SPACE}*\^?\{{?\\circ\}}?{_SPACE}*((?:\\(?:text|mathrm)\s*\{{\s*[CF]\s*\}}|[CF])?)$")
_MONEY = re.compile(
    rf"^(-?)(?:\\\$|\\(?:pounds|euro|yen)(?![A-Za-z])|[€£¥₹]|(?:USD|US\\\$|Rs\.?)){_SPACE}*(?=[-0-9.\\(])"
)
_SIGNS = {"\\$": "dollar", "US\\$": "dollar", "USD": "dollar", "€": "euro", "\\euro": "euro", "£": "£", "\\pounds": "£"}
_SIGNS |= {"¥": "yen", "\\yen": "yen", "₹": "rupee", "Rs": "rupee", "Rs.": "rupee"}
_PART = re.compile(r"/|\bper\b|[A-Za-z°]+(?:\.[a-z])?|\^\{?([+-]?[0-9])\}?|²|³")
#: `cm2`.
_TYPED_POWER = re.compile(r"(?<=[a-z])([23])\b")
#: A command, with what it is given where that is no value, or an operator between two terms.
_COMMAND = re.compile(r"\\[A-Za-z]+")
_SUM = re.compile(r"(?<=[^\s^{(])\s*[+-]|\\(?:pm|mp)(?![A-Za-z])")

Kind = frozenset[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Measure:
    """A value and its unit.

    Attributes:
        value: The text without its unit.
        unit: What the unit is made of; None where there is none, or none that is known.
    """

    value: str
    unit: Kind | None = None

    def is_other(self, wanted: Measure) -> bool:
        """Whether both have a known unit, and not the same."""
        return self.unit is not None and wanted.unit is not None and self.unit != wanted.unit


def measured(text: str, other: str = "", is_gold: bool = False) -> Measure:
    """Splits a value from its unit.

    Args:
        text: The gold answer or the answer.
        other: The text that it is compared with: a letter that stands there too is a variable.
        is_gold: Whether it is the gold answer, whose bare letters are rather variables.
    """
    text = _FRACTION.sub(r"\1/\2", text)
    if found := _DEGREES.search(text):
        scale = re.sub(r"[^CF]", "", found[1].replace("mathrm", "").replace("text", ""))
        return Measure(text[: found.start()].strip(), frozenset({(f"°{scale}" if scale else "degree", 1)}))
    if found := _MONEY.match(text):
        sign = found.group()[len(found[1]) :].strip(" ~")
        rest = measured(found[1] + text[found.end() :], other, is_gold)
        return Measure(rest.value, rest.unit or frozenset({(_SIGNS.get(sign, sign), 1)}))
    if (found := _SET.search(text)) and (value := text[: found.start()].strip()) and _is_value(value):
        return _split(text, value, found.group())
    if (found := _TYPED.search(text)) and (value := text[: found.start()].strip()) and _is_monomial(value):
        return _typed(text, value, found.group(), other, is_gold)
    return Measure(text)


def listed(text: str) -> tuple[str, tuple[Kind, ...]]:
    """A list or a tuple without the known units inside it, and these units."""
    kinds = [(found, unit_of(found[1])) for found in _INSIDE.finditer(text)]
    for found, kind in reversed(kinds):
        if kind is not None:
            text = text[: found.start()] + text[found.end() :]
    return text, tuple(kind for _, kind in kinds if kind is not None)


def _split(text: str, value: str, tail: str) -> Measure:
    words = re.sub(r"\\(?:text\w{0,2}|math\w+|mbox|hbox|operatorname)\s*\{((?:[^{}]|\{[^{}]*\})*)\}", r" \1 ", tail)
    words = _TYPED_POWER.sub(r"^\1", words)
    bare = re.sub(_EXPONENT, "", words).strip(" ~\\,;:!.")
    is_variable = len(bare) == 1 and _made(bare) is None
    return Measure(text) if is_variable or _REFUSED.search(bare.lower()) else Measure(value, unit_of(words))


def _typed(text: str, value: str, tail: str, other: str, is_gold: bool) -> Measure:
    """A unit without any mark: only where it cannot be a product of variables."""
    unit, word = unit_of(tail), re.sub(_EXPONENT, "", tail).strip(" ~\\,;:!.")
    is_apart = tail[0] in " ~\\"
    if _REFUSED.search(re.sub(_EXPONENT, "", tail.lower())):
        return Measure(text)
    if len(word) == 1:
        is_unit = word in _LONE and (is_apart if is_gold else not _has_letter(other, word))
    elif is_gold:
        is_unit = unit is not None
    else:
        is_unit = unit is not None or (is_apart and len(word.split()[0]) > 2)
        is_unit &= not (unit is None and word in other)
    return Measure(value, unit) if is_unit else Measure(text)


def _has_letter(text: str, letter: str) -> bool:
    return letter in _COMMAND.sub(" ", re.sub(_UPRIGHT, " ", text))


def _is_value(value: str) -> bool:
    """Whether there is something that a unit may belong to, and not an operator at its end."""
    return bool(re.search(r"[A-Za-z0-9}\])]", value)) and value[-1] not in "+-*/^_=<>,({["


def _is_monomial(value: str) -> bool:
    """Whether a text is a number without letters that is not a sum."""
    bare = _COMMAND.sub(" ", value)
    return bool(re.search(r"[0-9]|\\pi", value)) and not re.search("[A-Za-z]", bare) and not _SUM.search(value)


@lru_cache(2_048)
def unit_of(words: str) -> Kind | None:
    r"""What a unit in words is made of: `cm^2` and `square centimeters` alike; None where a word of it is not known."""
    found: Counter[str] = Counter()
    sign, power, before = 1, 1, ""
    words = _TYPED_POWER.sub(r"^\1", words)
    for part in _PART.finditer(re.sub(r"\\(?:text\w{0,2}|math\w+|mbox|operatorname|cdot|times|,)", " ", words)):
        word = part.group()
        if word in ("/", "per"):
            sign, before = -1, ""
        elif word[0] in "^²³" or word in ("squared", "cubed"):
            raised = int(part[1]) if part[1] else {"²": 2, "³": 3}.get(word) or _POWERS[word]
            found[before] += (raised - 1) * sign if before else 0
        elif word.lower().rstrip(".") in _POWERS:
            power = _POWERS[word.lower().rstrip(".")]
        elif (made := _made(word)) is not None:
            for name, exponent in made.items():
                found[name] += sign * power * exponent
            before, power = next(iter(made)), 1
        else:
            return None
    return frozenset((name, exponent) for name, exponent in found.items() if exponent and name) or None


def _made(word: str) -> dict[str, int] | None:
    for name in (
        word,
        word.lower(),
        word.removesuffix("s"),
        word.lower().removesuffix("s"),
        word.lower().removesuffix("es"),
    ):
        if name in _MADE:
            return _MADE[name]
        if name in _UNITS and (len(name) > 1 or name == word):
            return {_UNITS[name]: 1}
    return None
