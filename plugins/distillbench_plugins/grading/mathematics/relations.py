r"""What an answer says beside a value: relations (`x = 5`, `\geq 2`, `5 = 2`), and how many values there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(r"\\(?:[A-Za-z]+|.)|[^\\]", re.DOTALL)
_OPENING, _CLOSING = frozenset("{([") | {"\\{", "\\langle"}, frozenset("})]") | {"\\}", "\\rangle"}
_UNEQUAL = frozenset(["<", ">", r"\neq", r"\ne", r"\geq", r"\ge", r"\leq", r"\le", r"\gt", r"\lt", r"\geqslant"])
_UNEQUAL |= {r"\leqslant", r"\ll", r"\gg", r"\notin", r"\not", r"\nleq", r"\ngeq"}
_NEARLY = frozenset({"\\approx", "\\simeq", "\\sim", "\\thickapprox", "\\doteq"})
_EQUAL = frozenset({"="})
_IN = frozenset({"\\in", "\\to", "\\rightarrow", "\\mapsto", "\\equiv", "\\propto", "\\mid"})
#: A gold answer that an inequality may well describe: an interval, a set, a union.
_SET = re.compile(r"^\s*(?:\\left\s*)?(?:\\\{|[(\[\]])|\\(?:cup|cap|infty|emptyset|mathbb|setminus)(?![A-Za-z])")
_COMMAND = re.compile(r"\\(?:[dt]?frac|sqrt|pi|cdot|times|left|right|div|binom|[,;:! ])(?![A-Za-z])")
_NAME = re.compile(r"\\?[A-Za-z]+(?:_(?:\{[^{}]*\}|[A-Za-z0-9]))?")
_LIST_WORD = re.compile(r",?\s*(?:\\text\s*\{\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))")
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_MODULUS = re.compile(r"(?<!\s)\s*(?:\\pmod\s*(?:\{\s*[0-9]+\s*\}|[0-9]+)|\(\\?(?:mod|bmod)\s*[0-9]+\))$")
_WRAPPED = re.compile(r"(?:\\left\s*)?(\\\{|\(|\[|\\langle)(.*?)(?:\\right\s*)?(\\\}|\)|\]|\\rangle)", re.DOTALL)


#: Two numbers side by side, which math-verify adds; `2 1/2` is one.
_TWO_NUMBERS = re.compile(r"[0-9](?:\\[,;:! ]|\s)+[0-9]+(?![0-9]*\s*/)")


@dataclass(frozen=True, slots=True)
class Said:
    """The values that an answer gives.

    Attributes:
        values: One of them has to be the gold answer.
        beside: Numbers said to be equal to it; none may clearly be another.
    """

    values: tuple[str, ...]
    beside: tuple[str, ...] = ()


def said(gold: str, answer: str) -> Said | None:
    r"""What an answer says; None where it says something other than the value that the gold answer is.

    `x = 5`, `10/2 = 5` and `x \approx 5` say 5. `\geq 5`, `x \neq 5` and `5 = 2` do not say 2 or 5.
    """
    wanted, got = _relations(gold), _relations(answer)
    if _is_something_else(gold, answer, wanted, got):
        return None
    if wanted or not got or got & (_UNEQUAL | _IN) or len(_parts(answer)) > 1:
        return Said((oriented(answer),))
    sides = [side for side in split_top(answer, _EQUAL | _NEARLY) if side]
    if not sides:
        return Said((answer,))
    value = next((side for side in reversed(sides) if not _NAME.fullmatch(side)), sides[-1])
    value = sides[-1] if not is_number(value) else value
    values = tuple(side for side in sides if is_number(side)) if got & _NEARLY else ()
    beside = (side for side in sides if is_number(side) and (values or side != value))
    return Said(values or (value,), tuple(beside))


def _is_something_else(gold: str, answer: str, wanted: frozenset[str], got: frozenset[str]) -> bool:
    """Whether an answer has more values, another relation or another kind of collection than the gold answer."""
    are_sets = gold.startswith("\\{") and answer.startswith("\\{")
    if not (are_sets or wanted & _UNEQUAL) and n_values(answer) > n_values(gold):
        return True
    if "\\equiv" in got - wanted and is_number(split_top(answer, _IN)[0]):
        return True
    if _TWO_NUMBERS.search(answer) and not _TWO_NUMBERS.search(gold):
        return True
    allows_inequality = wanted & (_UNEQUAL | _IN) or _SET.search(gold) or _is_vector(answer)
    return _is_other_collection(gold, answer) or bool(got & _UNEQUAL and not allows_inequality)


def oriented(text: str) -> str:
    """`2 = x` as `x=2`; any other text as it is."""
    if text.count("=") != 1 or _relations(text) != _EQUAL:
        return text
    left, right = (side.strip() for side in text.split("="))
    return f"{right}={left}" if _NAME.fullmatch(right) and is_number(left) else text


def without_modulus(text: str) -> str:
    r"""`x \\equiv 3 \\pmod 7` as `3`; any other text as it is."""
    found = _MODULUS.search(text)
    return split_top(text[: found.start()], frozenset({"\\equiv", "="}))[-1] if found else text


def is_number(text: str) -> bool:
    """Whether a text is a number without letters, units, decimals that may be rounded, bases or percent signs."""
    bare = _COMMAND.sub(" ", text)
    return bool(re.search(r"[0-9]|\\pi", text)) and not re.search(r"[A-Za-z_%°\\]|\.\.", bare)


def n_values(text: str) -> int:
    r"""How many values a text lists: 3 for `1, 2, 3`, `\{1, 2, 3\}` and `(1, 2, 3)`, 2 for `\pm 1`."""
    if "\\begin" in text or _GROUPED.fullmatch(text):
        return 1
    if len(_parts(text)) == 1:
        text = split_top(text, _EQUAL | _IN)[-1]
    found = _WRAPPED.fullmatch(text)
    inner = found[2] if found and "," in found[2] and len(_parts(text)) == 1 else text
    return sum(2 if re.search(r"\\(?:pm|mp)(?![A-Za-z])", part) else 1 for part in _parts(inner)) or 1


def _parts(text: str) -> list[str]:
    return [part for part in split_top(_LIST_WORD.sub(",", text), frozenset(",;")) if part]


def _relations(text: str) -> frozenset[str]:
    return frozenset(token for token, _, _ in _top(text)) & (_UNEQUAL | _NEARLY | _EQUAL | _IN)


def _is_other_collection(gold: str, answer: str) -> bool:
    """A set, or both signs of a number, for a point or an interval."""
    wanted, got = _WRAPPED.fullmatch(gold), _WRAPPED.fullmatch(answer)
    if wanted is None or wanted[1] == "\\{" or len(_parts(wanted[2])) < 2 or len(_parts(gold)) > 1:
        return False
    is_set = got is not None and got[1] == "\\{" and not got[2].lstrip().startswith(("(", "\\left"))
    names = [part.partition("=")[0].strip() for part in _parts(answer) if "=" in part]
    is_set |= len(names) > 1 and len(set(names)) == 1  # `x=2, x=3`
    return is_set or (len(_parts(answer)) == 1 and any(token in ("\\pm", "\\mp") for token, _, _ in _top(answer)))


def _is_vector(text: str) -> bool:
    """`<1, 2>`."""
    return text.startswith("<") and text.endswith(">")


def split_top(text: str, at: frozenset[str]) -> list[str]:
    """The parts of a text between some tokens that stand in no bracket."""
    found, begin = [], 0
    for token, start, end in _top(text):
        if token in at:
            found.append(text[begin:start].strip())
            begin = end
    return [*found, text[begin:].strip()]


def _top(text: str) -> Iterator[tuple[str, int, int]]:
    """The tokens of a text that stand in no bracket."""
    depth = 0
    for found in _TOKEN.finditer(text):
        token = found.group()
        if token in _OPENING:
            depth += 1
        elif token in _CLOSING:
            depth = max(0, depth - 1)
        elif depth == 0:
            yield token, found.start(), found.end()
