r"""Mathematics in plain words, as it is typed where there is no TeX: `1 + sqrt(3)`, `pi/2`, `x <= 2`, `2^(1/3)`."""

from __future__ import annotations

import re

_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|sec|csc|cot|log|ln|exp|min|max|gcd|lcm"
_NAMES = "alpha|beta|gamma|delta|epsilon|theta|lambda|mu|sigma|tau|phi|psi|omega|pi|infty"
_OPERATORS = "cdot|times|div|cup|cap|leq|geq|neq|pm|mp"
#: Text, which is not mathematics, and names of environments and colours.
_PROSE = re.compile(
    r"(\\(?:text\w*|math[a-z]+|mbox|hbox|operatorname|begin|end|textcolor|color|boxed|emph)\*?\s*\{[^{}]*\})"
)
_WORD = re.compile(
    rf"(?<![A-Za-z\\])(?:(?P<root>sqrt|cbrt)(?:\s*(?P<digits>[0-9]+)|(?=\s*[\[({{]))|(?P<fraction>[dt]?frac)(?=\s*\{{)"
    rf"|(?P<infinity>infinity|inf)(?![A-Za-z])"
    rf"|(?P<name>{_NAMES}|{_OPERATORS})(?![A-Za-z])"
    rf"|(?P<function>{_FUNCTIONS})(?=\s*\(|\s+[0-9a-z\\]|\^))"
)
_SIGNS = (
    (re.compile(r"<="), r"\\leq "),
    (re.compile(r">="), r"\\geq "),
    (re.compile(r"(?:^|(?<=\s))!="), r"\\neq "),  # `5!=120` is an equation
    (re.compile(r"\*\*(?=[\w({\\-])(?<=[\w)}]\*\*)"), "^"),
    (re.compile(r"\+/?-(?=\s*[\w\\(])"), r"\\pm "),
    (re.compile(r"(?<=[)\]])\s*U\s*(?=[(\[])"), r" \\cup "),
)
#: `1/2 pi`: math-verify puts all that follows under the line. A whole number in front makes it a mixed one.
_RATIO = re.compile(
    r"(?<![\w.^}/)\]])(?<![\w})\]] )([0-9]+)/([0-9]+)\s+(?=\\(?:sqrt|pi)(?![A-Za-z])|[A-Za-z](?![A-Za-z]))"
)
_OPENING = re.compile(r"(\\sqrt(?:\[[^\[\]{}]*\])?|\^)\s*\(")


def in_tex(text: str) -> str:
    """A text with words and signs typed for want of TeX written in it."""
    parts = _PROSE.split(text)
    parts[::2] = map(_typeset, parts[::2])
    return _with_braces("".join(parts))


def _typeset(text: str) -> str:
    for sign, command in _SIGNS:
        text = sign.sub(command, text)
    return _RATIO.sub(r"\\frac{\1}{\2} ", _WORD.sub(_command, text))


def _command(found: re.Match[str]) -> str:
    kind, word = found.lastgroup, found.group()
    if root := found["root"]:
        return ("\\sqrt" if root == "sqrt" else "\\sqrt[3]") + (f"{{{found['digits']}}}" if found["digits"] else "")
    if kind == "infinity":
        return "\\infty "
    follows = found.string[found.end() : found.end() + 1]
    return f"\\{word} " if follows.isalnum() else f"\\{word}"


def _with_braces(text: str) -> str:
    r"""`\sqrt(2+(3))` and `x^(1/3)` with braces; nested ones too, in one pass for each depth."""
    for _ in range(text.count("(")):
        found = _OPENING.search(text)
        if found is None:
            break
        end = _closing(text, found.end())
        if end is None:
            break
        text = f"{text[: found.end(1)]}{{{text[found.end() : end]}}}{text[end + 1 :]}"
    return text


def _closing(text: str, start: int) -> int | None:
    """Where the bracket that opened before `start` closes."""
    depth = 1
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    return None
