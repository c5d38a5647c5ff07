r"""Splits what a model wrote into reasoning and answer: the parser of every built-in renderer.

A tag is *quoted*, and then it is text, where it stands

- on one line between backticks, `$`, `\(` and `\)`, in `\text{...}` and its kin, or in `\verb`;
- between `$$` or between `\[` and `\]`, without an empty line on the way;
- in a fenced code block that a bare fence closes. Before the answer has begun, where an unclosed fence is more likely
  than a quoted tag, the block must also hold an opening tag, or have the closing tag within a line.

When in doubt no draft is graded: reasoning that only a quoted tag would close stays open.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise

from distillbench.records import FinishReason, ReasoningState

#: Bumped when the parser gives other results; every renderer that uses it takes it over.
PARSER_VERSION = 2

TAGS = ("<think>", "</think>")

#: The fewest characters that count as the beginning of a tag that the budget cut.
_LEAST_OF_A_TAG = 3

# Every alternative runs over a text once: a run of signs that opens nothing is taken whole by the last one, and no
# span looks past the next sign of its kind. So the time is linear in the text, whatever a model writes.
_SIGNS = r"""
    (?P<tag>{opening}|{closing})
  | (?P<fence>{fence})
  | `++[^`\n]++`++
  | \$\$(?:[^$\n]|\n(?![ \t]*+\n))++\$\$
  | \$(?![\s$])[^$\n]*+(?<!\s)\$(?!\d)
  | \\\((?:[^\\\n]|\\(?![()]))*+\\\)
  | \\\[(?:[^\\\n]|\\(?![\[\]])|\n(?![ \t]*+\n))*+\\\]
  | \\(?:text|texttt|textbf|textit|textrm|mathrm|mathtt|mbox|operatorname)\{{[^{{}}\n]*+\}}
  | \\verb\*?+(?:\|[^|\n]*+\||![^!\n]*+!|\+[^+\n]*+\+)
  | `++
  | \$++
"""
_BEYOND_SPACE = re.compile(r"\S|\Z")
#: A line of backticks and perhaps a language; a model may write it directly after the closing tag.
_FENCE = r"(?:^|(?<={closing}))[ \t]*+`{{3,}}+[^`\n]*+$"


def split_reasoning(
    turn: str, finish_reason: FinishReason = "stop", tags: tuple[str, str] = TAGS
) -> tuple[str | None, str, ReasoningState]:
    """Splits an assistant's turn into reasoning and answer.

    - A second opening tag directly after the first counts once; later ones inside reasoning are its text.
    - A closing tag that nothing opened says that everything before it was reasoning; an empty pair before it was a
      template's and not the model's.
    - Several pairs are one reasoning; the texts outside them are one answer.
    - While reasoning is open there is no answer, whatever stands outside of it: nothing of it can be graded.
    - What is left of a tag that the budget cut is no text. A turn that is nothing but the beginning of an opening tag
      has opened its reasoning.

    Args:
        turn: Everything in the turn, prefill included, end-of-turn token excluded.
        finish_reason: `length` when the budget ended it.
        tags: What opens and what closes reasoning.

    Returns:
        Reasoning (None when there is none), answer, and `absent`, `open` or `closed`.
    """
    turn = turn.strip()
    if finish_reason == "length" and _is_cut(turn, tags[0]):
        return "", "", "open"
    reader = _Reader(turn, tags)
    reader.read()
    rest = turn[reader.place :]
    if reader.is_open:
        rest = _without_cut_tag(rest, tags) if finish_reason == "length" else rest
        return _joined([*reader.thoughts, rest]), "", "open"
    answer = _joined([*reader.answers, rest])
    return (_joined(reader.thoughts), answer, "closed") if reader.has_closed else (None, answer, "absent")


class _Reader:
    """Reads a turn from tag to tag.

    Attributes:
        thoughts: Parts of the reasoning.
        answers: Parts of the answer.
        place: Where the part under way began, white space left out.
        is_open: Whether that part is reasoning.
        has_closed: Whether a closing tag has come.
    """

    def __init__(self, turn: str, tags: tuple[str, str]) -> None:
        self.thoughts: list[str] = []
        self.answers: list[str] = []
        self.place, self.is_open, self.has_closed = 0, False, False
        self._has_thought = False  # whether reasoning with text in it has been closed
        self._turn, self._tags = turn, tags
        self._own_line = re.compile(rf"^[ \t]*+{re.escape(tags[1])}[ \t]*+$", re.MULTILINE)

    def read(self) -> None:
        """Reads to the end."""
        if not any(tag in self._turn for tag in self._tags):
            return
        signs, fence = _patterns(self._tags)
        next_fence = dict(pairwise(match.span() for match in fence.finditer(self._turn)))
        place = 0
        while sign := signs.search(self._turn, place):
            place = sign.end()
            if sign["fence"] is not None:
                place = self._after_fence(sign.end(), next_fence.get(sign.span()))
            elif sign["tag"] is not None:
                self._take(sign)

    def _take(self, tag: re.Match[str]) -> None:
        is_opening = tag.group() == self._tags[0]
        if is_opening and self.is_open and self.place < tag.start():
            return  # within reasoning, not directly after the tag that opened it
        part = self._turn[self.place : tag.start()]
        if is_opening:
            self.answers += [] if self.is_open else [part]
        else:
            self.thoughts += [part] if self.is_open else [*self.answers, part]
            self.answers = self.answers if self.is_open else []
            self.has_closed, self._has_thought = True, self._has_thought or bool(part)
        self.is_open = is_opening
        beyond = _BEYOND_SPACE.search(self._turn, tag.end())
        self.place = beyond.start() if beyond else len(self._turn)

    def _after_fence(self, begin: int, following: tuple[int, int] | None) -> int:
        """Where to read on after a fence: behind its block when tags in there are text, else at the block's start."""
        if following is None or self._turn[slice(*following)].strip(" \t`"):
            return begin  # the next fence opens another block, so that this one was never closed
        block = self._turn[begin : following[0]]
        is_answering = self._has_thought and not self.is_open
        if is_answering or self._tags[0] in block or not self._own_line.search(block):
            return following[1]
        return begin


@cache
def _patterns(tags: tuple[str, str]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What decides whether a tag counts (the tags themselves, and what may quote them), and fences alone."""
    opening, closing = map(re.escape, tags)
    fence = _FENCE.format(closing=closing)
    signs = _SIGNS.format(opening=opening, closing=closing, fence=fence)
    return re.compile(signs, re.VERBOSE | re.MULTILINE), re.compile(fence, re.VERBOSE | re.MULTILINE)


def _is_cut(text: str, tag: str) -> bool:
    return _LEAST_OF_A_TAG <= len(text) < len(tag) and tag.startswith(text)


def _without_cut_tag(text: str, tags: tuple[str, str]) -> str:
    for tag in tags:
        for length in range(len(tag) - 1, _LEAST_OF_A_TAG - 1, -1):
            if text.endswith(tag[:length]):
                return text[:-length]
    return text


def _joined(parts: list[str]) -> str:
    return "\n".join(part.strip() for part in parts if part.strip())
