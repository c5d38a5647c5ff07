r"""Finds the complete answer: the last `\boxed{}` whose braces balance."""

from __future__ import annotations

import re

#: A box's opening (models also write two backslashes), an escaped character, or a brace.
_MARK = re.compile(r"\\+boxed\s*\{|\\.|[{}]", re.DOTALL)


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{}` in a text whose braces balance; None when there is none.

    A backslash takes the next character with it, so that `\{` and `\}` are text. One pass, whatever the text is.
    """
    last: tuple[int, int] | None = None
    opened: list[int | None] = []  # where each open brace's content starts if it is a box's, None for any other brace
    for mark in _MARK.finditer(text):
        if mark.group() == "}":
            start = opened.pop() if opened else None
            if start is not None and (last is None or start > last[0]):
                last = (start, mark.start())
        elif mark.group().endswith("{") and mark.group() != "\\{":
            opened.append(mark.end() if "boxed" in mark.group() else None)
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
