r"""Whether a tag is meant or only named, judged by what stands around it on its line."""

from __future__ import annotations

import re

from distillbench_plugins.renderers.signs import Tag

#: Signs that enclose a text which is quoted, before it and after it.
_BEFORE, _AFTER = "'\"\u201c\u2018\u00ab(`{[", "'\"\u201d\u2019\u00bb)`}],;"
#: What may stand beside a tag that a span quotes alone.
_BARE = "`$\\()[] \t'\""
#: How far to look along a line, so that time stays linear in the text.
_FAR = 2000
#: Words after which a sentence names a tag instead of using it, and words that do so behind one.
_NAMING = re.compile(
    r"\b(?:in|with|within|inside|between|without|the|an?|my|your|and|or|using|uses?|used|of|by|no|as|to|both|tags?|tokens?"
    r"|called|named|like|writ(?:e|es|ing|ten)|via)[ \t]+[\"'(\u201c\u2018]?\Z",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"[\"')\u201d\u2019]?(?:[ \t]+|-)(?:tags?|tokens?|blocks?|markers?|sections?|elements?)\b", re.IGNORECASE
)
_PROSE = re.compile(r"[ \t]+\S|[.,;:!?\"')\u201d\u2019]")


def has_own_line(turn: str, tag: Tag) -> bool:
    """Whether nothing else stands on a tag's line."""
    before, after = _line(turn, tag)
    return not before.strip() and not after.strip()


def begins_line(turn: str, tag: Tag) -> bool:
    """Whether nothing stands before a tag on its line."""
    return not _line(turn, tag)[0].strip()


def is_enclosed(turn: str, tag: Tag) -> bool:
    """Whether a tag stands directly between quotes, brackets or backticks."""
    return turn[tag.start - 1 : tag.start] in tuple(_BEFORE) and turn[tag.end : tag.end + 1] in tuple(_AFTER)


def is_mention(turn: str, tag: Tag) -> bool:
    """Whether a sentence names a tag that no code or formula quotes: `"<think>"`, `I thought in <think> tags`."""
    if tag.start == 0:
        return False
    if is_enclosed(turn, tag):
        return True
    before, after = _line(turn, tag)
    return bool(_NAMED.match(after) or (_NAMING.search(before[-40:]) and _PROSE.match(after)))


def is_left_open(turn: str, tag: Tag, span: tuple[int, int]) -> bool:
    """Whether a sign that seems to quote a tag was left open before it: behind the tag such signs come in pairs."""
    opening = turn[span[0]]
    sign = "$$" if turn.startswith("$$", span[0]) else opening
    if opening == "\\" or _is_alone(turn, tag, span):
        return False
    return turn.count(sign, tag.end, _end_of(turn, tag, sign)) % 2 == 0


def is_swallowed(turn: str, tag: Tag, span: tuple[int, int], is_reasoning: bool) -> bool:
    r"""Whether signs that seem to quote a closing tag were left open before it, and open something else behind it.

    Args:
        turn: The text.
        tag: A closing tag.
        span: From the sign that seems to open a quotation to the one that seems to close it.
        is_reasoning: Whether reasoning is known to be open, so that a closing tag is to be expected.
    """
    is_macro = turn[span[0]] == "\\" and turn[span[0] + 1] not in "(["
    if is_macro or _is_alone(turn, tag, span):
        return False
    before, after = _line(turn, tag)
    if not before.strip() or not after.strip() or is_left_open(turn, tag, span):
        return True
    return is_reasoning and not (turn[tag.start - 1].isspace() and turn[tag.end].isspace())


def _is_alone(turn: str, tag: Tag, span: tuple[int, int]) -> bool:
    """Whether nothing but the tag is quoted."""
    beside = turn[span[0] : tag.start].strip(_BARE) + turn[tag.end : span[1]].strip(_BARE)
    return not beside or is_enclosed(turn, tag)


def _end_of(turn: str, tag: Tag, sign: str) -> int:
    """Where signs of a kind must have come in pairs: the end of the line, or of the paragraph."""
    end = turn.find("\n\n" if sign == "$$" else "\n", tag.end, tag.end + _FAR)
    return end if end >= 0 else tag.end + _FAR


def _line(turn: str, tag: Tag) -> tuple[str, str]:
    """What stands on a tag's line before it and after it, the nearest part of it."""
    before = turn[max(0, tag.start - _FAR) : tag.start].rpartition("\n")[2]
    return before, turn[tag.end : tag.end + _FAR].partition("\n")[0]
