"""Fenced code blocks of an answer, as Markdown has them and as models write them. One pass, linear in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

#: A line that opens a block: what stands before the fence (white space, marks of lists and quotes), its fence, its tag.
_OPENS = re.compile(r"([ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+|>[ \t]*)*)(`{3,}|~{3,})(.*)")
#: Models also open a block behind words, as in `**Solution:** ```python`; then it must say that it is Python.
_OPENS_BEHIND = re.compile(r"((?:[^`~]|`[^`]+`)*?)(`{3,}|~{3,})[ \t]*((?:python|py)[\d.]*)[ \t\r]*", re.IGNORECASE)
_CLOSES = re.compile(r"([ \t]*)(`{3,}|~{3,})[ \t\r]*")
#: A line that is no Python: a fence with something behind it, words or a tag.
_CLOSES_BEFORE = re.compile(
    r"([ \t]*)(`{3,}|~{3,})(?:[ \t]*[^\w\s{`~]|[ \t]+[^\s`]+(?:[ \t]+[^\s`]|(?<=[.:!?])[ \t\r]*$))"
)
_OPENS_TAGGED = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*[\w+#{.-][^`]*")
#: Blocks that hold blocks.
_WRITTEN = ("markdown", "md")
_QUOTED = re.compile(r"[ \t]*>")
_TAG = re.compile(r"[{.\s]*([\w.+#-]*)")
_PYTHON = re.compile(r"i?(?:py|python|pypy)[\d.]*")
#: What begins a string or ends the reading of a line, and where a string of three quotes ends.
_BEGINS = re.compile(r'"""|\'\'\'|#|"(?:[^"\\]++|\\.)*+"?|\'(?:[^\'\\]++|\\.)*+\'?')
_ENDS = {
    '"""': re.compile(r'(?:[^"\\]++|\\.|"(?!""))*+"""'),
    "'''": re.compile(r"(?:[^'\\]++|\\.|'(?!''))*+'''"),
}
#: A closing fence may stand this much further right than the opening one, as in CommonMark.
_FURTHER = 3
_TAB = 4
_MARK = "\ufeff"
_MARKED = re.compile(rf"^([ \t]*){_MARK}+", re.MULTILINE)
_BEFORE_FIRST = re.compile(r"^[ \t]*(?=\S)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A complete code block.

    Attributes:
        language: The tag's first word in lower case; empty where there is none.
        lines: Its lines, without the marks of a quote around it.
        columns: By how much its opening fence is indented.
    """

    language: str
    lines: Sequence[str]
    columns: int

    @property
    def may_be_python(self) -> bool:
        """Whether it is tagged as Python, or not at all."""
        return not self.language or self.is_python

    @property
    def is_python(self) -> bool:
        """Whether it is tagged as Python."""
        return _PYTHON.fullmatch(self.language) is not None

    def raw(self) -> str:
        """What stands between the fences."""
        return "".join(f"{line}\n" for line in self.lines)

    def code(self) -> str:
        """The same without the fence's own indentation, as far as the code shares it, and without byte order marks."""
        text = _MARKED.sub(r"\1", self.raw()) if any(_MARK in line for line in self.lines) else self.raw()
        first = _BEFORE_FIRST.search(text)
        columns = min(self.columns, _columns(first[0])) if first else 0
        return "\n".join(_without(line, columns) for line in text.split("\n")) if columns else text


@dataclass(slots=True)
class _Open:
    """A block that is being read.

    Attributes:
        mark: Its fence.
        language: See `Block`.
        columns: See `Block`.
        n_quotes: In how many quotes it stands.
        lines: What was read.
        string: The quotes of the string that is open after these lines; empty where none is.
        passed: The first fence that was taken for part of a string: how many lines came before it.
    """

    mark: str
    language: str
    columns: int
    n_quotes: int
    lines: list[str] = field(default_factory=list)
    string: str = ""
    passed: int | None = None

    def closed_by(self, line: str) -> bool:
        """Whether a line ends the block, strings left aside.

        In Python, words or a tag may follow the fence (`</answer>`): such a line can be nothing else there.
        """
        found = _CLOSES.fullmatch(line) or (_CLOSES_BEFORE.match(line) if self.is_python else None)
        return (
            found is not None
            and found[2][0] == self.mark[0]
            and len(found[2]) >= len(self.mark)
            and _columns(found[1]) <= self.columns + _FURTHER
        )

    def is_left_by(self, line: str) -> bool:
        """Whether a line opens another block, so that this one was never closed."""
        found = _OPENS_TAGGED.fullmatch(line)
        return found is not None and found[1][0] == self.mark[0] and len(found[1]) >= len(self.mark)

    @property
    def is_python(self) -> bool:
        """See `Block`."""
        return self.block(0).is_python

    def block(self, n_lines: int) -> Block:
        """The block, if its first lines are all."""
        return Block(self.language, self.lines[:n_lines], self.columns)


def blocks(text: str) -> Iterator[Block]:
    """The complete code blocks of a text, in their order. A block whose fence is not closed is none.

    A fence within a string of three quotes (a docstring with an example) belongs to the code. Where a block would not
    end then, the string was none: the block ends at its first fence, and strings are left aside from there on.

    Models write what Markdown does not have, too: a block that is not closed before the next one opens with a tag,
    which is none; Python that opens behind words, or has words behind its closing fence; and an answer in a block of
    Markdown, in whose place the blocks in it are given.
    """
    for block in _blocks(text.split("\n")):
        inner = list(_blocks(block.lines)) if block.language in _WRITTEN else []
        yield from inner or [block]


def _blocks(lines: Sequence[str]) -> Iterator[Block]:
    """The complete blocks, with what Markdown they hold left as it is."""
    place, heeds_strings = 0, True
    while place < len(lines):
        opened = _opened(lines[place])
        place += 1
        if opened is None:
            continue
        is_closed = _read(opened, lines, place, heeds_strings)
        if not is_closed and opened.passed is None:
            place += len(opened.lines)
            continue
        n_lines = len(opened.lines)
        if not is_closed and opened.passed is not None:
            n_lines, heeds_strings = opened.passed, False
        yield opened.block(n_lines)
        place += n_lines + 1


def _opened(line: str) -> _Open | None:
    """The block that a line opens, if it does."""
    if "```" not in line and "~~~" not in line:
        return None
    line = line.lstrip(_MARK)
    found = _OPENS.match(line) or _OPENS_BEHIND.fullmatch(line)
    if found is None or (found[2][0] == "`" and "`" in found[3]):  # that is code within a line
        return None
    before, mark, tag = found.groups()
    language = _TAG.match(tag)
    columns = _columns(before.rpartition(">")[2])
    return _Open(mark, language[1].lower() if language else "", columns, before.count(">"))


def _read(opened: _Open, lines: Sequence[str], place: int, heeds_strings: bool) -> bool:
    """Reads a block's lines, and says whether it was closed."""
    heeds_strings = heeds_strings and opened.block(0).may_be_python
    for number in range(place, len(lines)):
        line = lines[number]
        if opened.n_quotes:
            line = _unquoted(line, opened.n_quotes)
        if opened.closed_by(line):
            if not (heeds_strings and opened.string):
                return True
            opened.passed = len(opened.lines) if opened.passed is None else opened.passed
        elif not (heeds_strings and opened.string) and opened.is_left_by(line):
            return False
        opened.lines.append(line)
        if heeds_strings:
            opened.string = _string_after(line, opened.string)
    return False


def _unquoted(line: str, n_quotes: int) -> str:
    """A line without the marks of so many quotes, or as many as it has."""
    place = 0
    for _ in range(n_quotes):
        mark = _QUOTED.match(line, place)
        if mark is None:
            break
        place = mark.end()
    return line[place:]


def _string_after(line: str, string: str) -> str:
    """The quotes of the string of several lines that is open after a line; empty where none is.

    Args:
        line: One line of Python.
        string: The same before it.
    """
    place = 0
    while True:
        if string:
            end = _ENDS[string].match(line, place)
            if end is None:
                return string
            string, place = "", end.end()
        begin = _BEGINS.search(line, place)
        if begin is None or begin[0] == "#":
            return ""
        string, place = begin[0] if begin[0] in _ENDS else "", begin.end()


def _columns(white: str) -> int:
    return len(white.expandtabs(_TAB))


def _without(line: str, columns: int) -> str:
    """A line without so many columns of white space before it, or as many as there are."""
    place = seen = 0
    while place < len(line) and seen < columns and line[place] in " \t":
        seen += _TAB - seen % _TAB if line[place] == "\t" else 1
        place += 1
    return " " * (seen - columns) + line[place:]
