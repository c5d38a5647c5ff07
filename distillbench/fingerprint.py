"""Canonical JSON, keys and content digests: the same meaning gives the same bytes on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

_BLOCK_BYTES = 1 << 20
_file_digests: dict[tuple[str, int, int], str] = {}


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; dataclasses become objects, paths strings, tuples lists.

    Raises:
        TypeError: The value holds something that has no canonical form.
        ValueError: The value holds a NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False, default=_plain)


def key_of(value: Any) -> str:
    """The key of a canonical value: the first 32 hex digits (128 bits) of its sha256."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:32]


def digest_path(path: Path) -> str:
    """The sha256 of a file's content, or of a folder's relative names and contents.

    A file is read once per process while its size and modification time stay the same.

    Raises:
        OSError: The path cannot be read.
    """
    if path.is_dir():
        return digest_files(
            (file.relative_to(path).as_posix(), file) for file in sorted(path.rglob("*")) if file.is_file()
        )
    status = path.stat()
    cache_key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
    if cache_key not in _file_digests:
        _file_digests[cache_key] = _digest_content(path)
    return _file_digests[cache_key]


def digest_files(named: Iterable[tuple[str, Path]]) -> str:
    """One digest of several named files, in the order given."""
    whole = hashlib.sha256()
    for name, path in named:
        whole.update(f"{name}\0{digest_path(path)}\n".encode())
    return whole.hexdigest()


def _digest_content(path: Path) -> str:
    content = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            content.update(block)
    return content.hexdigest()


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: getattr(value, entry.name) for entry in fields(value) if entry.metadata.get("key", True)}
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, frozenset | set):
        return sorted(value)
    raise TypeError(f"no canonical form for {type(value).__name__}: {value!r}")
