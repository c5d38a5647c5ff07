"""Reads a YAML file into plain data, and remembers the line of every key and list item.

Scalars are those of YAML 1.2's core schema: `5e-3` is a number, only true and false are booleans (`off` and `no` are
strings), `017` is seventeen, a date is a string. Merge keys (`<<`) and aliases work.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from distillbench.errors import Keys, MatrixError, Mistake, Place
from distillbench.yaml_text import MOST_REPEATED, YamlError, compose, line_of, read_text

if TYPE_CHECKING:
    from yaml import SafeLoader as _SafeLoader
else:  # libyaml reads a matrix of ten thousand entries in 0.2 s, the Python parser in 1.5 s
    _SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_LONGEST_NUMBER = 100  # characters; Python refuses to print an int of more than 4,300 digits
_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file as plain data.

    Attributes:
        path: The file.
        data: Its top-level mapping.
        lines: The line (from 1) of every key and list item, by the keys that lead to it.
        written: How numbers stand in the file, where that can be more than one way: `2e-4`, `0.10`.
    """

    path: Path
    data: Mapping[str, Any]
    lines: Mapping[Keys, int]
    written: Mapping[Keys, str] = field(default_factory=dict)

    def line(self, *keys: str | int) -> int:
        """The line of a key, or of its nearest ancestor that has one."""
        for end in range(len(keys), 0, -1):
            if keys[:end] in self.lines:
                return self.lines[keys[:end]]
        return 1

    def place(self, *keys: str | int) -> Place:
        """The place of what some keys lead to."""
        return Place(self.path.name, self.line(*keys), keys)


def read_document(path: Path, mistakes: list[Mistake]) -> Document:
    """Reads a file.

    Args:
        path: The file.
        mistakes: Gets what is wrong with single keys and values (a duplicate key, a key that is no string).

    Raises:
        MatrixError: There is nothing to go on with: no such file, not UTF-8, not YAML, not a mapping.
    """
    root = _compose(path)
    if root is None:
        raise _fatal(Place(str(path)), "a mapping of keys", "an empty file")
    builder = _Builder(path, mistakes)
    data = builder.build(root, ())
    if not isinstance(data, dict):
        raise _fatal(Place(path.name, line_of(root)), "a mapping of keys", _kind_of(data))
    return Document(path, data, builder.lines, builder.written)


def _compose(path: Path) -> yaml.Node | None:
    try:
        return compose(read_text(path), _CoreLoader)
    except YamlError as error:
        place = Place(path.name, error.line) if error.line else Place(str(path))
        raise _fatal(place, error.wanted, error.got, error.hint) from error


class _CoreLoader(_SafeLoader):
    """Resolves plain scalars by YAML 1.2's core schema; used to compose nodes only, it constructs nothing."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as PyYAML declares it


_CoreLoader.add_implicit_resolver(_TAG + "null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_CoreLoader.add_implicit_resolver(_TAG + "bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_CoreLoader.add_implicit_resolver(
    _TAG + "int", re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789")
)
_CoreLoader.add_implicit_resolver(
    _TAG + "float",
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)
_CoreLoader.add_implicit_resolver(_MERGE, re.compile(r"^<<$"), ["<"])


def _boolean(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError(text)
    return text.lower() == "true"


def _integer(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(text)
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _number(text: str) -> float:
    return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))


_SCALARS: Mapping[str, Callable[[str], Any]] = {
    _TAG + "null": lambda text: None,
    _TAG + "bool": _boolean,
    _TAG + "int": _integer,
    _TAG + "float": _number,
    _TAG + "str": str,
}
_Pairs = dict[str, tuple[yaml.Node, yaml.Node]]


class _Builder:
    """Builds plain data from nodes, noting lines."""

    def __init__(self, path: Path, mistakes: list[Mistake]) -> None:
        self.path = path
        self.mistakes = mistakes
        self.lines: dict[Keys, int] = {}
        self.written: dict[Keys, str] = {}
        self._seen: set[int] = set()
        self._open: set[int] = set()
        self._repeated = 0

    def build(self, node: yaml.Node, keys: Keys) -> Any:
        """The value of a node that stands at `keys`."""
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, keys)
        with self._inside(node, keys) as is_new:
            if isinstance(node, yaml.MappingNode):
                self._check_tag(node, "map", keys)
                return self._mapping(self._pairs(node, keys, is_new), keys)
            self._check_tag(node, "seq", keys)
            return [self._item(entry, (*keys, index)) for index, entry in enumerate(node.value)]

    def _item(self, node: yaml.Node, keys: Keys) -> Any:
        self.lines[keys] = line_of(node)
        return self.build(node, keys)

    def _mapping(self, pairs: _Pairs, keys: Keys) -> dict[str, Any]:
        for name, (key_node, _) in pairs.items():
            self.lines[(*keys, name)] = line_of(key_node)
        return {name: self.build(node, (*keys, name)) for name, (_, node) in pairs.items()}

    def _pairs(self, node: yaml.Node, keys: Keys, is_new: bool) -> _Pairs:
        """The key and value nodes of a mapping by name: its own, and those it merges where it has none of its own."""
        merged: _Pairs = {}
        own: _Pairs = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged = {**self._merged(value_node, keys), **merged}
            elif (name := self._name(key_node, keys, is_new)) is None:
                continue
            elif name not in own:
                own[name] = (key_node, value_node)
            elif is_new:
                self._duplicate(name, own[name][0], key_node, keys)
        return {**merged, **own}

    def _merged(self, node: yaml.Node, keys: Keys) -> _Pairs:
        """What `<<` brings: of several mappings, the first that has a key gives it."""
        if isinstance(node, yaml.MappingNode):
            with self._inside(node, keys) as is_new:
                return self._pairs(node, keys, is_new)
        if isinstance(node, yaml.SequenceNode):
            with self._inside(node, keys):
                found: _Pairs = {}
                for entry in node.value:
                    found = {**self._merged(entry, keys), **found}
                return found
        self._wrong(node, (*keys, "<<"), "a mapping to merge, or a list of mappings", repr(node.value))
        return {}

    def _name(self, node: yaml.Node, keys: Keys, is_new: bool) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self._wrong(node, keys, "keys that are strings", "a list or a mapping as a key")
            return None
        text = str(node.value)
        if is_new and node.tag != _TAG + "str":
            kind = node.tag.removeprefix(_TAG)
            hint = f'write "{text}": with quotes' if text else "write the key before the colon"
            self._wrong(node, (*keys, text), "a key that is a string", f"{text} ({kind})", hint)
        return text

    def _duplicate(self, name: str, first: yaml.Node, second: yaml.Node, keys: Keys) -> None:
        lines = f"{line_of(first)} and {line_of(second)}"
        self._wrong(second, (*keys, name), "each key once", f"{name!r} on lines {lines}", "rename or remove one")

    def _scalar(self, node: yaml.ScalarNode, keys: Keys) -> Any:
        self._count(node, keys)
        tag = node.tag if node.tag != _MERGE else _TAG + "str"
        if tag not in _SCALARS:
            self._wrong(node, keys, "a plain value", f"the tag {node.tag.replace(_TAG, '!!')}", "leave the tag out")
            return str(node.value)
        try:
            value = _SCALARS[tag](node.value)
            if isinstance(value, float) or (type(value) is int and str(value) != node.value):
                self.written[keys] = str(node.value)
            return value
        except ValueError:
            got = node.value if len(node.value) <= _LONGEST_NUMBER else f"{len(node.value)} characters"
            self._wrong(node, keys, f"a value of type {tag.removeprefix(_TAG)}", got)
            return None

    def _check_tag(self, node: yaml.Node, kind: str, keys: Keys) -> None:
        if node.tag != _TAG + kind:
            got = f"the tag {node.tag.replace(_TAG, '!!')}"
            self._wrong(node, keys, "a plain list or mapping", got, "leave the tag out")

    @contextmanager
    def _inside(self, node: yaml.Node, keys: Keys) -> Iterator[bool]:
        """Guards one visit of a list or mapping; gives whether it is the first."""
        if id(node) in self._open:
            place = Place(self.path.name, line_of(node), keys)
            raise _fatal(place, "YAML that ends", "an alias of something that it is inside of")
        is_new = self._count(node, keys)
        self._open.add(id(node))
        yield is_new
        self._open.discard(id(node))

    def _count(self, node: yaml.Node, keys: Keys) -> bool:
        is_new = id(node) not in self._seen
        self._seen.add(id(node))
        self._repeated += not is_new
        if self._repeated > MOST_REPEATED:
            place = Place(self.path.name, line_of(node), keys)
            raise _fatal(place, f"aliases that repeat at most {MOST_REPEATED:,} values", "more than that")
        return is_new

    def _wrong(self, node: yaml.Node, keys: Keys, wanted: str, got: str, hint: str = "") -> None:
        self.mistakes.append(Mistake(Place(self.path.name, line_of(node), keys), wanted, got, hint))


def _kind_of(data: Any) -> str:
    return "an empty file" if data is None else "a list" if isinstance(data, list) else repr(data)


def _fatal(place: Place, wanted: str, got: str, hint: str = "") -> MatrixError:
    return MatrixError([Mistake(place, wanted, got, hint)])
