"""From a file to YAML nodes, for matrices and task files alike; nothing is constructed here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEEPEST = 50  # levels; libyaml's composer overflows the C stack somewhere beyond 10,000
MOST_REPEATED = 100_000  # nodes that aliases repeat; a few lines of aliases of aliases can ask for 10^9
_LARGEST = 64 << 20  # bytes; /dev/zero has no end
_VALID = "valid YAML"
_MERGE = "tag:yaml.org,2002:merge"


class YamlError(Exception):
    """A file that gives no YAML nodes.

    Attributes:
        line: Where, from 1; 0 where the whole file is meant.
        wanted: What would have been right.
        got: What came instead.
        hint: What to do about it; may be empty.
    """

    def __init__(self, line: int, wanted: str, got: str, hint: str = "") -> None:
        super().__init__(got)
        self.line = line
        self.wanted = wanted
        self.got = got
        self.hint = hint

    @property
    def is_syntax(self) -> bool:
        """Whether the text is there and is no YAML."""
        return self.wanted == _VALID


def read_text(path: Path) -> str:
    """A file's text, without a byte order mark.

    Raises:
        YamlError: It cannot be read, or is not UTF-8, or never ends.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(_LARGEST + 1)
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        raise YamlError(0, "a YAML file that can be read", getattr(error, "strerror", None) or str(error)) from error
    if len(raw) > _LARGEST:
        raise YamlError(0, f"a YAML file of at most {_LARGEST >> 20} MiB", "more than that")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        got = f"byte 0x{raw[error.start]:02x}, which is not UTF-8"
        raise YamlError(line, "UTF-8 text", got, "save the file as UTF-8") from error


def compose(text: str, loader: Any) -> yaml.Node | None:
    """The root node of a text; None where it holds nothing.

    Args:
        text: The text.
        loader: A loader class of PyYAML's.

    Raises:
        YamlError: It is not YAML, or nested too deeply.
    """
    try:
        _refuse_depth(text, loader)
        return yaml.compose(text, Loader=loader)
    except yaml.reader.ReaderError as error:
        found = yaml.reader.Reader.NON_PRINTABLE.search(text)  # libyaml's own position counts bytes
        line = text.count("\n", 0, found.start()) + 1 if found else 1
        raise YamlError(line, "printable text", f"a control character ({error.reason})") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line if error.problem_mark else 0
        is_tab = "\t" in "".join(text.split("\n")[line : line + 1])
        hint = "YAML indents with spaces, never with tabs" if is_tab else ""
        got = "; ".join(filter(None, (error.context, error.problem)))
        raise YamlError(line + 1, _VALID, got, hint) from error


def line_of(part: yaml.Node | yaml.Event) -> int:
    """The line that a node or an event begins on, from 1."""
    return part.start_mark.line + 1 if part.start_mark else 1


def _refuse_depth(text: str, loader: Any) -> None:
    """The parser's events come without recursion; composing nodes from them does not."""
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            got = "lists or mappings nested deeper than that"
            raise YamlError(line_of(event), f"at most {DEEPEST} levels", got)


def key_twice(root: yaml.Node) -> Iterator[tuple[str, int, int]]:
    """Every key that a mapping has twice, with both lines.

    Raises:
        YamlError: An alias leads into itself, or aliases repeat more than anybody can read.
    """
    yield from _Doubles().below(root)


class _Doubles:
    """One walk over nodes, each as often as aliases repeat it."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._open: set[int] = set()
        self._repeated = 0

    def below(self, node: yaml.Node) -> Iterator[tuple[str, int, int]]:
        is_new = self._count(node)
        if isinstance(node, yaml.ScalarNode):
            return
        if id(node) in self._open:
            raise YamlError(line_of(node), "YAML that ends", "an alias of something that it is inside of")
        self._open.add(id(node))
        if isinstance(node, yaml.MappingNode):
            if is_new:
                yield from _doubles(node)
            for pair in node.value:
                for part in pair:
                    yield from self.below(part)
        else:
            for entry in node.value:
                yield from self.below(entry)
        self._open.discard(id(node))

    def _count(self, node: yaml.Node) -> bool:
        is_new = id(node) not in self._seen
        self._seen.add(id(node))
        self._repeated += not is_new
        if self._repeated > MOST_REPEATED:
            wanted = f"aliases that repeat at most {MOST_REPEATED:,} values"
            raise YamlError(line_of(node), wanted, "more than that")
        return is_new


def _doubles(node: yaml.MappingNode) -> Iterator[tuple[str, int, int]]:
    first: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            continue
        name = (key.tag, key.value)
        if name in first:
            yield key.value, first[name], line_of(key)
        first.setdefault(name, line_of(key))
