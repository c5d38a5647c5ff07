"""What decides how a turn is split: the tags of every known format, and the signs that may quote one.

Every alternative runs over a text once: a run of signs that opens nothing is taken whole by the last one, and no span
looks past the next sign of its kind. So the time is linear in the text, whatever a model writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from distillbench.reasoning_formats import FORMATS, PROSE, REMAINS, Format, format_of

_QUOTING = r"""
    `++[^`\n]++`++
  | \$\$(?:[^$\n]|\n(?![ \t]*+\n))++\$\$
  | \$(?![\s$])[^$\n]*+(?<!\s)\$(?!\d)
  | \\\((?:[^\\\n]|\\(?![()]))*+\\\)
  | \\\[(?:[^\\\n]|\\(?![\[\]])|\n(?![ \t]*+\n))*+\\\]
  | \\(?:text|texttt|textbf|textit|textrm|mathrm|mathtt|mbox|operatorname)\{[^{}\n]*+\}
  | \\verb\*?+(?:\|[^|\n]*+\||![^!\n]*+!|\+[^+\n]*+\+)
  | `++
  | \$++
"""
_FLAGS = re.VERBOSE | re.MULTILINE
_NOTHING = "(?!)"


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag in a turn.

    Attributes:
        start: Where it begins.
        end: Where it ends.
        format: The number of its format.
        is_opening: Whether it opens reasoning.
        is_end: Whether it closes only what its format has opened.
    """

    start: int
    end: int
    format: int
    is_opening: bool
    is_end: bool


@dataclass(frozen=True, slots=True)
class Signs:
    """Patterns for one renderer, whose own format is number 0.

    Attributes:
        tags: What opens and what closes reasoning, by the format's number.
        tails: What may stand at the end of an answer, by the format's number.
        tag: Finds a tag.
        fence: Finds a fence of code.
        any: Finds a tag, a fence, or what may quote a tag.
        last: Finds a closing tag at the end.
        last_word: The same, where what follows it is no word.
    """

    tags: tuple[tuple[str, str], ...]
    tails: tuple[re.Pattern[str], ...]
    tag: re.Pattern[str]
    fence: re.Pattern[str]
    any: re.Pattern[str]
    last: re.Pattern[str]
    last_word: re.Pattern[str]

    def tag_at(self, turn: str, place: int) -> Tag | None:
        """The tag that begins at a place."""
        match = self.tag.match(turn, place)
        return _tag_of(match) if match else None

    def tags_in(self, turn: str, begin: int, end: int) -> Iterator[Tag]:
        """The tags between two places."""
        return map(_tag_of, self.tag.finditer(turn, begin, end))

    def without_closings(self, turn: str, says_nothing: bool = False) -> int:
        """Where a turn ends when closing tags at its end are left out.

        Args:
            turn: The text.
            says_nothing: Whether signs and tokens that say nothing may follow them.
        """
        last, end = self.last_word if says_nothing else self.last, len(turn)
        while found := last.search(turn, max(0, end - _LONGEST), end):
            end = found.start()
        return end


#: No closing tag is longer, white space included.
_LONGEST = 200


def _tag_of(match: re.Match[str]) -> Tag:
    kind, number = str(match.lastgroup)[0], int(str(match.lastgroup)[1:])
    return Tag(match.start(), match.end(), number, kind == "o", kind == "e")


def signs_of(turn: str, tags: tuple[str, str]) -> Signs:
    """The patterns for a turn of a renderer that writes these tags."""
    remains = [one for one in REMAINS if re.match(one.opening_pattern, turn, re.VERBOSE)]
    prose = [one for one in PROSE if one.tags != tags and _is_whole(one, turn)]
    return _signs(tags, (*remains, *prose))


def _is_whole(one: Format, turn: str) -> bool:
    """Whether a turn opens a format and closes it."""
    opened = re.search(one.opening_pattern, turn, _FLAGS)
    return opened is not None and re.compile(one.ends, _FLAGS).search(turn, opened.end()) is not None


@cache
def _signs(tags: tuple[str, str], remains: tuple[Format, ...]) -> Signs:
    own = format_of(tags)
    formats = (own, *(one for one in FORMATS if one.tags != tags), *remains)
    # Nothing is tried at a character that begins no tag.
    first = re.escape("".join(sorted({tag[0] for one in formats for tag in one.tags})))
    each = f"(?=[{first}])(?:{'|'.join(_pattern(one, number) for number, one in enumerate(formats))})"
    closing = f"(?=[{first}])(?:{'|'.join(f'{one.closing_pattern}|{one.ends or _NOTHING}' for one in formats)})"
    last = re.escape("".join(sorted({one.closing[-1] for one in formats})))
    behind = f"(?<=[{last}])(?:{'|'.join(f'(?<={re.escape(one.closing)})' for one in formats)})"
    # A line of backticks or tildes and perhaps a language; a closing tag may stand directly before it, or behind it.
    fence = rf"(?:^|{behind})[ \t]*+(?:`{{3,}}+|~{{3,}}+)(?:(?!{closing})[^`\n])*+(?=$|{closing})"
    return Signs(
        tags=tuple(one.tags for one in formats),
        tails=tuple(re.compile(rf"(?:{one.tail or _NOTHING})\s*\Z") for one in formats),
        tag=re.compile(each, _FLAGS),
        fence=re.compile(fence, _FLAGS),
        any=re.compile(rf"(?=[{first}\ \t`~$\\])(?:(?P<tag>{each})|(?P<fence>{fence})|{_QUOTING})", _FLAGS),
        last=re.compile(rf"(?:{closing})\s*+\Z", _FLAGS),
        last_word=re.compile(rf"(?:{closing})(?:[\s.,;:!*_`~-]|<\|\w{{1,40}}\|>|</?s>)*+\Z", _FLAGS),
    )


def _pattern(one: Format, number: int) -> str:
    """All tags of a format, in groups that name their kind and its number."""
    ends = f"|(?P<e{number}>{one.ends})" if one.ends else ""
    return f"(?P<o{number}>{one.opening_pattern})|(?P<c{number}>{one.closing_pattern}){ends}"
