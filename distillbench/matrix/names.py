"""Names cells by what tells them apart."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_BARE = frozenset({"teacher", "student", "renderer", "filters", "trainer", "engine"})
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._,=+~-]*")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NUMBER = 30
_LONGEST = 150  # bytes; file systems stop at 255, and files in a cell's folder need some


@dataclass(frozen=True, slots=True)
class Number:
    """A number, and how a user wrote it."""

    written: str
    value: int | float


def distinguish(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """For each row of axis values, the parts of a name that tell it from the others.

    Args:
        rows: For each cell its axis values. An axis that has one value in all of them gives no part.
    """
    axes = list(dict.fromkeys(key for row in rows for key in row))
    texts = {axis: _texts(axis, rows) for axis in axes}
    varying = [axis for axis in axes if len(set(texts[axis])) > 1]
    shared = Counter(axis.rpartition(".")[2] for axis in varying)
    parts: list[list[str]] = [[] for _ in rows]
    for axis in varying:
        last = axis.rpartition(".")[2]
        prefix = "" if axis in _BARE else f"{last if shared[last] == 1 else axis}="
        for own, text in zip(parts, texts[axis], strict=True):
            if text is not None:
                own.append(prefix + text)
    return parts


def _texts(axis: str, rows: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """What each row is called on an axis: one value always the same, and two values never."""
    tokens = [_token(row[axis]) if axis in row else None for row in rows]
    first: dict[Hashable, str] = {}
    for row, token in zip(rows, tokens, strict=True):
        if token is not None and token not in first:
            first[token] = _text(axis, row[axis])
    alike = defaultdict(list)
    for token, text in first.items():
        alike[text].append(token)
    told = {token: text if len(alike[text]) == 1 else f"{text}~{_digest(repr(token))}" for token, text in first.items()}
    return [None if token is None else told[token] for token in tokens]


def _token(value: Any) -> Hashable:
    """The same for values that mean the same, and for no others: 1 is 1.0, and true is neither 1 nor `true`."""
    if isinstance(value, Number):
        return _token(value.value)
    if isinstance(value, list):
        return ("list", *map(_token, value))
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    return (type(value).__name__ if isinstance(value, str | bool) else "", value)


def join(parts: Sequence[str]) -> str:
    """Parts as one name, cut where no folder could carry it."""
    name = ",".join(parts)
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}~{_digest(name)}"


def is_cell_name(name: str) -> bool:
    """Whether a name that a user gives a cell can be a folder."""
    return bool(_SAFE.fullmatch(name)) and len(name) <= _LONGEST


def _text(axis: str, value: Any) -> str:
    if axis == "filters":
        return "+".join(_safe(label) for label in value) or "nofilter"
    if isinstance(value, Number):
        return value.written if len(value.written) <= _LONGEST_NUMBER else _safe(value.written)
    if isinstance(value, str):
        return _safe(value)
    if isinstance(value, list):
        return "+".join(_text("", entry) for entry in value) or "empty"
    if isinstance(value, float):
        return re.sub(r"e([+-])0", r"e\1", repr(value)).replace("e+", "e")
    return _safe(json.dumps(value, sort_keys=True))


def _safe(text: str) -> str:
    """Text that can stand in a folder's name; what had to change gets a digest, so that no two become one."""
    changed = _UNSAFE.sub("-", text).lstrip(".-")
    return text if changed == text and text else f"{changed[:40]}~{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
