r"""Finds the complete answer: the last `\boxed{}` that holds something and whose braces balance."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: A box's opening (models also write two backslashes), an escaped character, or a brace.
_MARK = re.compile(r"\\{1,4}boxed\s*\{|\\.|[{}]", re.DOTALL)
#: Prints nothing, or only leaves room for an answer: blanks, full stops, dots, question marks, lines to write on.
_BLANK = (
    r"\\(?:[hv]space\*?\s*\{[^{}]*\}"
    r"|(?:text\w*|math(?:rm|bf|it|sf|tt|normal)|mbox|hbox|operatorname|boldsymbol|bm|emph|underline|left|right"
    r"|displaystyle|textstyle|q?quad|(?:en|thin|med|thick)space|hfill|null|l?dots|[cv]dots|dots[bciomv]|relax)(?![A-Za-z])"
    r"|[,;:!>_$~ \s])"
    r"|[\s.,;:?!_~$*…\u00ad\u200b-\u200d\u2060\ufeff]+"
)
#: The same inside a box, with what is blank, and what is not.
_INSIDE = re.compile(rf"\\{{1,4}}boxed\s*\{{|(?P<blank>{_BLANK})|\\[A-Za-z]+|\\.|[{{}}]|[A-Za-z0-9 ]+|.", re.DOTALL)


@dataclass(slots=True)
class _Brace:
    """An open brace.

    Attributes:
        start: Where its content starts, if it is a box's.
        is_filled: Whether something stands in it.
    """

    start: int | None
    is_filled: bool = False


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{}` in a text that is not blank and whose braces balance; None if there is none.

    `\boxed{}`, `\boxed{\text{ }}`, `\boxed{?}` and `\boxed{...}` are blank: a repeated instruction or a form to
    fill in, and no answer. A backslash takes the next character with it, so that `\{` and `\}` are text. One
    pass, whatever the text is.
    """
    last: tuple[int, int] | None = None
    opened: list[_Brace] = []
    n_boxes, place = 0, 0
    while mark := (_INSIDE if n_boxes else _MARK).search(text, place):
        place, sign = mark.end(), mark.group()
        if sign == "}":
            if not opened:
                continue
            brace = opened.pop()
            n_boxes -= brace.start is not None
            if opened:
                opened[-1].is_filled |= brace.is_filled
            if brace.start is not None and brace.is_filled and (last is None or brace.start > last[0]):
                last = (brace.start, mark.start())
        elif sign[-1] == "{" and sign != "\\{":
            is_box = "boxed" in sign
            n_boxes += is_box
            opened.append(_Brace(place if is_box else None))
        elif n_boxes and mark.lastgroup != "blank":
            opened[-1].is_filled = True
    return text[slice(*last)].strip() if last else None


def is_balanced(text: str) -> bool:
    """Whether a text's braces balance, as those of what stands in a box do."""
    depth = 0
    for mark in _MARK.finditer(text):
        depth += mark.group()[-1] == "{" and mark.group() != "\\{"
        depth -= mark.group() == "}"
        if depth < 0:
            return False
    return depth == 0
