r"""What is written otherwise and means the same: a short table, applied to the gold answer and to the answer alike.

math-verify cannot read `42.`, and reads `12\,345` as 12 + 345. Every rule leaves the meaning as it is, so that none
makes a wrong answer right. `RULES` is the whole list, with `exact.percent_pair` for percent signs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from distillbench_plugins.grading.mathematics import signs, words
from distillbench_plugins.grading.mathematics.dress import undressed

#: No answer of this length is a number with a full stop; the expressions below are quadratic in what they are given.
_LONGEST = 1_000

#: The only dollar sign of a text: an amount, and not the mark of a formula.
_DOLLAR = re.compile(r"(?:[^$\\]|\\.)*\$(?:[^$\\]|\\.)*", re.DOTALL)
_TIE = re.compile(r"(?<!\\)~")
#: `1.6e-19`, `1E5`.
_E_NOTATION = re.compile(r"(?<![\w.\\])([0-9]+(?:\.[0-9]+)?|\.[0-9]+)[eE]\+?(-?[0-9]+)(?![\w.])")
#: Constants set upright, a space before the imaginary unit, and E with an index, which math-verify reads as Euler's.
_UPRIGHT = re.compile(r"\\(?:mathrm|text|textrm|operatorname)\s*\{\s*([eid])\s*\}|\\(i)math(?![A-Za-z])")
_APART = re.compile(r"(?<=[0-9}])\s+i(?![A-Za-z])")
_INDEXED_E = re.compile(r"(?<![A-Za-z\\])[eE](?=\s*_)")
#: `4.5 x 10^3`.
_TYPED_TIMES = re.compile(r"(?<=[0-9]) ?[xX] ?(?=10\s*\^)")
_RELATION = re.compile(r"\\(l|g|n)e(?![A-Za-z])|\\(leq|geq)slant(?![A-Za-z])|\\(lt|gt)(?![A-Za-z])")
_EMPTY = re.compile(r"\\(?:varnothing|O|o)(?![A-Za-z])|\\\{\s*\\\}")
_SPACE = r"(?:\\[,;:! ]|[\s~])"
_MARKED = re.compile(
    r"\$\$([^$]+)(?<!\\)\$\$|\$([^$]+)(?<!\\)\$|\\\(((?:(?!\\[()]).)+)\\\)|\\\[((?:(?!\\[\[\]]).)+)\\\]", re.DOTALL
)
#: A backslash alone at the end is what stripping leaves of a backslash and a space.
_EDGE_SPACE = re.compile(rf"^{_SPACE}+|(?:{_SPACE}|(?<!\\)\\(?!.))+$", re.DOTALL)
_FULL_STOP = re.compile(r"(?<!\\right)(?<!\\left)(?<!\.)\\?\.\Z")
#: What stands between groups of digits in one number; a bare comma is not here, for it may be that of a list.
_GROUP_SPACE = rf"(?:{_SPACE}|,\\!\s*|\{{,\}})"
#: Groups of exactly three digits. Not a mixed number (`5\,123/456`), not a longer run (`1 234 5678`), not a decimal
#: comma or a list (`1 000,2`), not what follows a command or an exponent (`\frac12 345`, `x^2 345`).
_DIGIT_GROUPS = re.compile(
    rf"(?<![\w.,^/\\}}])[1-9][0-9]{{0,2}}(?:{_GROUP_SPACE}[0-9]{{3}})+(?!{_GROUP_SPACE}?[0-9]|,[0-9]|{_SPACE}*/)"
)
#: Groups in a part of a fraction or under a root, where no list stands.
_INNER_GROUPS = re.compile(r"(?:(?<=[a-z}]\{)|(?<=[0-9]/))[1-9][0-9]{0,2}(?:,[0-9]{3})+(?=\}|$)")
#: Groups in the number in front of a product, where no other comma stands: `10,000\pi`.
_FACTOR_GROUPS = re.compile(
    r"(?:^|(?<=[=+-])|(?<=[=+-] ))[1-9][0-9]{0,2}(?:,[0-9]{3})+(?=\s*(?:/|\\(?:pi|sqrt|cdot|times)(?![A-Za-z]))[^,]*$)"
)
_PERCENT = re.compile(rf"{_SPACE}*(?<!\\)\\?%$")
_ORDINAL = re.compile(
    r"(?<=[0-9])\s*\^?\s*(?:\\(?:mathrm|text)\{(?:st|nd|rd|th)\}|\{\\(?:mathrm|text)\{(?:st|nd|rd|th)\}\})"
)
_DEGREE = re.compile(r"\^\{(?:°|\\degree)\}|\^?(?:°|\\degree(?![A-Za-z]))")


@dataclass(frozen=True, slots=True)
class Rule:
    """One normalisation.

    Attributes:
        name: What tests and reports call it.
        what: What it does.
        example: A text, and what becomes of it.
        apply: Does it.
    """

    name: str
    what: str
    example: tuple[str, str]
    apply: Callable[[str], str]


def _amount(text: str) -> str:
    if text.count("$") != 1 + text.count("\\$") or not _DOLLAR.fullmatch(text):
        return text
    return re.sub(r"(?<!\\)\$", r"\\$", text)


def _without_marks(text: str) -> str:
    found = _MARKED.fullmatch(text)
    return next(part for part in found.groups() if part) if found else text


def _joined_digits(text: str) -> str:
    text = _DIGIT_GROUPS.sub(lambda found: re.sub(_GROUP_SPACE, "", found.group()), text)
    text = _FACTOR_GROUPS.sub(lambda found: found.group().replace(",", ""), text)
    return _INNER_GROUPS.sub(lambda found: found.group().replace(",", ""), text)


def _relation(found: re.Match[str]) -> str:
    short, slanted, plain = found.groups()
    return f"\\{short}eq" if short else f"\\{slanted}" if slanted else "<" if plain == "lt" else ">"


RULES = (
    Rule("signs", "Unicode signs are written in TeX", ("3√13", r"3\sqrt{13}"), signs.in_tex),
    Rule("dollar", "a dollar sign alone is an amount of dollars", ("$5", r"\$5"), _amount),
    Rule("tie", "a tie is a space", ("x~+~1", "x + 1"), lambda text: _TIE.sub(" ", text)),
    Rule("edge_space", "spaces at either end are left out", (r"\,5\ ", "5"), lambda text: _EDGE_SPACE.sub("", text)),
    Rule("full_stop", "a full stop at the end is left out", ("42.", "42"), lambda text: _FULL_STOP.sub("", text)),
    Rule("formula_marks", "marks around the whole are left out", (r"\[5\]", "5"), _without_marks),
    Rule(
        "digit_groups",
        "thousands separators other than a bare comma are left out",
        (r"12\,345", "12345"),
        _joined_digits,
    ),
    Rule(
        "percent_sign",
        "a percent sign at the end is written in one way",
        (r"10\,%", r"10\%"),
        lambda text: _PERCENT.sub(r"\\%", text),
    ),
    Rule(
        "ordinal",
        "the ending of an ordinal number is left out",
        (r"12^{\mathrm{th}}", "12"),
        lambda text: _ORDINAL.sub("", text),
    ),
    Rule("words", "words typed for want of TeX are written in it", ("1+sqrt(3)", r"1+\sqrt{3}"), words.in_tex),
    Rule(
        "dress",
        "colours, frames, braces around the whole and a sign of equality in front are left out",
        (r"= \textcolor{blue}{7}", "7"),
        undressed,
    ),
    Rule(
        "e_notation",
        "e-notation is written as a power of ten",
        ("1.6e-19", r"1.6 \times 10^{-19}"),
        lambda text: _TYPED_TIMES.sub(r" \\times ", _E_NOTATION.sub(r"\1 \\times 10^{\2}", text)),
    ),
    Rule(
        "constants",
        "upright i and e are slanted, i stands beside its factor",
        (r"6+9 \mathrm{i}", "6+9i"),
        lambda text: _APART.sub("i", _UPRIGHT.sub(r"\1\2", text)),
    ),
    Rule(
        "indexed_e",
        "E with an index is no Euler's number",
        ("E_1", r"\mathcal{E}_1"),
        lambda text: _INDEXED_E.sub(r"\\mathcal{E}", text),
    ),
    Rule(
        "relation",
        "relations have one name each",
        (r"x \le 2", r"x \leq 2"),
        lambda text: _RELATION.sub(_relation, text),
    ),
    Rule(
        "empty_set",
        "the empty set is written in one way",
        (r"\varnothing", r"\emptyset"),
        lambda text: _EMPTY.sub(r"\\emptyset", text),
    ),
    Rule(
        "degree_sign",
        "degree signs are written in one way",
        ("90°", r"90^{\circ}"),
        lambda text: _DEGREE.sub(r"^{\\circ}", text),
    ),
)


def normalised(text: str) -> str:
    """A text after every rule, until none changes it any more."""
    if len(text) > _LONGEST:
        return text
    before = None
    while text != before:
        before = text
        for rule in RULES:
            text = rule.apply(text)
    return text
