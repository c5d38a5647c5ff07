r"""Splits what a model wrote into reasoning and answer: the parser of every built-in renderer.

It knows every format of `distillbench.reasoning_formats`, whichever a renderer writes. A tag is *quoted*, and then it
is text, where it stands

- on one line between backticks, `$`, `\(` and `\)`, in `\text{...}` and its kin, or in `\verb`;
- between `$$` or between `\[` and `\]`, without an empty line on the way;
- in a fenced code block that a bare fence closes;
- once reasoning has been closed, also in quotes, or where a sentence names it ("in <think> tags").

Until then what quotes a tag may as well have been left open by the reasoning. So before the answer has begun a closing
tag counts in there as soon as something says that it is meant: a line of its own, or the signs that follow it, which
pair up without the one before it (`quoting`).

When in doubt no draft is graded: reasoning that only a quoted tag would close stays open.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain, pairwise

from distillbench.reasoning_formats import THINK, split_apart
from distillbench.records import FinishReason, ReasoningState
from distillbench_plugins.renderers.quoting import (
    begins_line,
    has_own_line,
    is_enclosed,
    is_left_open,
    is_mention,
    is_swallowed,
)
from distillbench_plugins.renderers.signs import Signs, Tag, signs_of

#: Bumped when the parser gives other results; every renderer that uses it takes it over.
PARSER_VERSION = 4

TAGS = THINK.tags

#: The fewest characters that count as the beginning of a tag that the budget cut.
_LEAST_OF_A_TAG = 3
_BEYOND_SPACE = re.compile(r"\S|\Z")

Split = tuple[str | None, str, ReasoningState]


def split_reasoning(
    turn: str,
    finish_reason: FinishReason = "stop",
    tags: tuple[str, str] = TAGS,
    meant: Sequence[bool] | None = None,
) -> Split:
    """Splits an assistant's turn into reasoning and answer.

    - A second opening tag directly after the first counts once; later ones inside reasoning are its text.
    - A closing tag that nothing opened says that everything before it was reasoning; an empty pair before it was a
      template's and not the model's. With no word after it, it takes no answer away that followed closed reasoning.
    - Several blocks are one reasoning, and so is what stands before and between them: only what follows the last one
      is the answer. A blank block is none.
    - Once reasoning has been closed, tags of other formats are text, unless a line begins with one that opens. What
      such a block holds is reasoning; with nothing after it, it takes no answer away.
    - While reasoning is open there is no answer, whatever stands outside of it: nothing of it can be graded.
    - What is left of a tag that the budget cut is no text. A turn that is nothing but the beginning of an opening tag
      has opened its reasoning.

    Args:
        turn: Everything in the turn, prefill included, end-of-turn token excluded.
        finish_reason: `length` when the budget ended it.
        tags: What opens and what closes reasoning in the rows of the renderer.
        meant: For each text of the closing tag in the turn, whether it is the vocabulary's own token; None where that
            is not known. Open reasoning is then closed by the token, and by it alone.

    Returns:
        Reasoning (None when there is none), answer, and `absent`, `open` or `closed`.
    """
    if (apart := split_apart(turn)) is not None:
        reasoning, answer = apart
        return (reasoning, "", "open") if answer is None else (reasoning, answer, "closed")
    turn = turn.strip()
    signs = signs_of(turn, tags)
    if finish_reason == "length" and any(_is_cut(turn, opening) for opening, _ in signs.tags):
        return "", "", "open"
    reader = _Reader(turn, signs, _settled(turn, tags[1], meant))
    reader.read()
    rest = turn[reader.place :]
    if reader.opened:
        rest = _without_cut_tag(rest, reader.opened_tags()) if finish_reason == "length" else rest
        return _joined([*reader.thoughts, rest]), "", "open"
    if not reader.used:
        return None, _joined([*reader.answers, rest]), "absent"
    rest = turn[reader.place : max(reader.place, reader.answer_end)]
    return _joined(reader.thoughts), reader.without_tail(_joined([*reader.answers, rest])), "closed"


class _Reader:
    """Reads a turn from tag to tag.

    Attributes:
        thoughts: Parts of the reasoning.
        answers: Parts of the answer.
        place: Where the part under way began, white space left out.
        opened: The formats in which that part is reasoning; none where it is an answer.
        used: The formats whose reasoning has been closed.
        answer_end: Where the turn ends but for closing tags.
    """

    def __init__(self, turn: str, signs: Signs, settled: dict[int, bool]) -> None:
        self.thoughts: list[str] = []
        self.answers: list[str] = []
        self.place = 0
        self.opened: set[int] = set()
        self.used: set[int] = set()
        self._has_thought = False  # whether reasoning with text in it has been closed
        self._said_end = signs.without_closings(turn, says_nothing=True)
        self._turn, self._signs, self._settled = turn, signs, settled
        self.answer_end = signs.without_closings(turn)
        self._next_fence: dict[tuple[int, int], tuple[int, int]] = {}
        self._fences_after: dict[int, int] = {}

    def read(self) -> None:
        """Reads to the end."""
        if not self._signs.tag.search(self._turn):
            return
        fences = [match.span() for match in self._signs.fence.finditer(self._turn)]
        self._next_fence = dict(pairwise(fences))
        self._fences_after = {begin: len(fences) - number for number, (begin, _) in enumerate(fences)}
        place = 0
        while sign := self._signs.any.search(self._turn, place):
            place = self._after(sign)

    def opened_tags(self) -> list[tuple[str, str]]:
        """The tags of the formats that are open."""
        return [self._signs.tags[number] for number in self.opened]

    def without_tail(self, answer: str) -> str:
        """An answer without what its format ends it with."""
        for number in self.used:
            while (shorter := self._signs.tails[number].sub("", answer).rstrip()) != answer:
                answer = shorter
        return answer

    def _after(self, sign: re.Match[str]) -> int:
        """Where to read on after a sign; the tag that it is, or that it does not quote, is taken."""
        if sign["fence"] is not None:
            return self._after_fence(sign.end(), self._next_fence.get(sign.span("fence")))
        if sign["tag"] is not None:
            tag = self._signs.tag_at(self._turn, sign.start())
            counts = tag is not None and self._counts(tag)
        else:
            tag = self._swallowed(sign)
            counts = tag is not None
        if tag is None or not counts:
            return sign.end()
        self._take(tag)
        return tag.end

    def _counts(self, tag: Tag) -> bool:
        """Whether a tag that nothing quotes is one."""
        if self.opened:
            return self._counts_in_reasoning(tag)
        if tag.is_end or (not tag.is_opening and self.used and tag.start >= self._said_end):
            return False
        if is_mention(self._turn, tag):
            return False
        if not self._has_thought or tag.format in self.used:
            return True
        begins_answer = tag.start == self.place and not self.answers
        return tag.is_opening and (begins_answer or begins_line(self._turn, tag))

    def _counts_in_reasoning(self, tag: Tag) -> bool:
        if tag.is_opening:  # within reasoning, unless directly after the tag that opened it
            return self.place >= tag.start
        return tag.format in self.opened and self._settled.get(tag.start, True)

    def _take(self, tag: Tag) -> None:
        if tag.is_opening and self.opened and tag.format not in self.opened:
            self.opened.add(tag.format)  # whatever closes either of them will do; it stays a part of the reasoning
            return
        part = self._turn[self.place : tag.start]
        if tag.is_opening:
            self.answers += [] if self.opened else [part]
            self.opened.add(tag.format)
        else:
            is_other = self._has_thought and not self.used & (self.opened | {tag.format})
            self._close(part, keeps_answer=is_other and tag.end >= self._said_end)
            self.used |= self.opened | {tag.format}
            self.opened = set()
        beyond = _BEYOND_SPACE.search(self._turn, tag.end)
        self.place = beyond.start() if beyond else len(self._turn)

    def _close(self, part: str, keeps_answer: bool) -> None:
        """Reasoning ends; whatever stood before it was no answer, unless it is blank."""
        if not part.strip():
            return
        if not keeps_answer:
            self.thoughts += self.answers
            self.answers = []
        self.thoughts.append(part)
        self._has_thought = True

    def _swallowed(self, sign: re.Match[str]) -> Tag | None:
        """The first tag that counts, though signs that quote stand around it."""
        if self._has_thought and not self.opened:
            return None
        for tag in self._signs.tags_in(self._turn, *sign.span()):
            if self._settles(tag):
                return tag
            if tag.is_opening:  # a quoted pair, unless it was a draft that left something open
                return tag if not self.opened and is_left_open(self._turn, tag, sign.span()) else None
            if self._closes(tag) and is_swallowed(self._turn, tag, sign.span(), bool(self.opened)):
                return tag
        return None

    def _after_fence(self, begin: int, following: tuple[int, int] | None) -> int:
        """Where to read on after a fence: behind its block when tags in there are text, else at the block's start."""
        if following is None or self._turn[slice(*following)].strip(" \t`~"):
            return begin  # the next fence opens another block, so that this one was never closed
        if self._has_thought and not self.opened:
            return following[1]
        pair_up = self._fences_after[following[0]] % 2 == 0  # without this one, which was left open before the tag
        for tag in self._signs.tags_in(self._turn, begin, following[0]):
            if self._settles(tag):
                return begin
            if tag.is_opening:
                return begin if pair_up and not self.opened and has_own_line(self._turn, tag) else following[1]
            is_meant = has_own_line(self._turn, tag) or (self.opened and pair_up and not is_enclosed(self._turn, tag))
            if is_meant and self._closes(tag):
                return begin
        return following[1]

    def _settles(self, tag: Tag) -> bool:
        """Whether a tag is the token that closes open reasoning, whatever stands around it."""
        return tag.format in self.opened and self._settled.get(tag.start, False)

    def _closes(self, tag: Tag) -> bool:
        """Whether a closing tag could close what is under way."""
        if self.opened:
            return tag.format in self.opened and self._settled.get(tag.start, True)
        return not tag.is_end


def _settled(turn: str, closing: str, meant: Sequence[bool] | None) -> dict[int, bool]:
    """Whether each text of the closing tag is the token, by its place; empty where that is not known."""
    if not meant or not any(meant):
        return {}
    places = [match.start() for match in re.finditer(re.escape(closing), turn)]
    return dict(zip(places, meant, strict=True)) if len(places) == len(meant) else {}


def _is_cut(text: str, tag: str) -> bool:
    return _LEAST_OF_A_TAG <= len(text) < len(tag) and tag.startswith(text)


def _without_cut_tag(text: str, tags: Sequence[tuple[str, str]]) -> str:
    for tag in chain.from_iterable(tags):
        for length in range(len(tag) - 1, _LEAST_OF_A_TAG - 1, -1):
            if text.endswith(tag[:length]):
                return text[:-length]
    return text


def _joined(parts: list[str]) -> str:
    return "\n".join(part.strip() for part in parts if part.strip())
