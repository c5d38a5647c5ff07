"""Canonical JSON, keys and content digests: the same meaning gives the same bytes on every machine."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from distillbench.errors import StoreError
from distillbench.sealed import read_sealed, write_sealed

_BLOCK_BYTES = 1 << 20
#: From this size on a file's digest is remembered, in bytes.
_LARGE_BYTES = 64 << 20
_MOST_FILES = 100_000


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


def digest_path(path: Path, remember: bool = False) -> str:
    """The sha256 of a file's content, or of a folder's relative names and contents.

    Args:
        path: The file or folder.
        remember: Whether a large file (a model's weights) is read only once while its size and modification time
            stay the same; its digest is then kept in the user's cache folder.

    Raises:
        OSError: The path cannot be read.
    """
    if path.is_dir():
        files = list(islice((file for file in path.rglob("*") if file.is_file()), _MOST_FILES + 1))
        if len(files) > _MOST_FILES:
            raise OSError(errno.E2BIG, f"a folder of more than {_MOST_FILES:,} files", str(path))
        return digest_files(((file.relative_to(path).as_posix(), file) for file in sorted(files)), remember)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # /dev/zero has no end, and a pipe may never begin
        raise OSError(errno.EINVAL, "neither a file nor a folder", str(path))
    known = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
    if not remember or status.st_size < _LARGE_BYTES:
        return _digest_content(path)
    if known not in _large_digests():
        _large_digests()[known] = _digest_content(path)
        _save_large_digests()
    return _large_digests()[known]


def expanded(path: Path | str) -> Path:
    """A path with `~` replaced; one of a user who is not there stays as it is, and is not found."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def is_folder(path: Path) -> bool:
    """Whether a folder lies there; a name longer than any can be is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def digest_files(named: Iterable[tuple[str, Path]], remember: bool = False) -> str:
    """One digest of several named files, in the order given."""
    return digest_named((name, digest_path(path, remember)) for name, path in named)


def digest_named(named: Iterable[tuple[str, str]]) -> str:
    """One digest of the digests of several named files, in the order given."""
    whole = hashlib.sha256()
    for name, digest in named:
        whole.update(f"{name}\0{digest}\n".encode())
    return whole.hexdigest()


def _digest_content(path: Path) -> str:
    content = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            content.update(block)
    return content.hexdigest()


def _cache_path() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "distillbench" / "digests.json"


@lru_cache(maxsize=1)
def _large_digests() -> dict[str, str]:
    try:
        return read_sealed(_cache_path(), "digests")
    except (OSError, StoreError):  # no cache, or one that is damaged: the files are read again
        return {}


def _save_large_digests() -> None:
    path = _cache_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(path, _large_digests(), "digests")
    except OSError:  # a home folder that cannot be written only costs time
        return


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
