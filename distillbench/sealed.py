"""JSON that carries its own digest, so that a flipped bit is noticed before it becomes a number."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import get_ident
from typing import Any

from distillbench.errors import DamagedError, StoreError
from distillbench.writing import naming

#: The name under which the digest of all other names is kept.
SEAL = "seal"


def sealed(value: Mapping[str, Any], whose: str, default: Callable[[Any], Any] | None = None) -> dict[str, Any]:
    """A value as plain JSON holds it, with its seal.

    Args:
        value: The value.
        whose: What it belongs to: what was sealed for one thing is not taken for another's.
        default: Makes plain values of what is no JSON.

    Raises:
        TypeError: It holds what is no JSON, and `default` makes nothing of it.
    """
    plain: dict[str, Any] = json.loads(json.dumps(value, default=default))
    return plain | {SEAL: _seal(plain, whose)}


def unsealed(text: str | bytes, whose: str) -> dict[str, Any]:
    """What was sealed for `whose`.

    Raises:
        ValueError: It is not what was written.
    """
    try:
        found = json.loads(text)
        seal = found.pop(SEAL)
        is_whole = bool(seal == _seal(found, whose))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not is_whole:
        raise ValueError("its content is not the one that it was sealed with")
    return dict(found)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never a half."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}")
    with naming(path), partial.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=1, sort_keys=True, default=str)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def write_sealed(path: Path, value: Mapping[str, Any], whose: str) -> None:
    """Writes JSON with its seal; as `write_json`."""
    write_json(path, sealed(value, whose, default=str))


def read_sealed(path: Path, whose: str) -> dict[str, Any]:
    """What `write_sealed` wrote for `whose`.

    Raises:
        FileNotFoundError: It is not there.
        DamagedError: It is not what was written.
        StoreError: It may not be read.
    """
    try:
        return unsealed(path.read_bytes(), whose)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise DamagedError(path, f"is damaged: {error}") from error


def unreadable(path: Path, error: OSError) -> StoreError:
    """What to say of a file that cannot be read; one that is forbidden is not damaged."""
    why = f"cannot be read: {error.strerror or type(error).__name__}"
    return StoreError(f"{path} {why}") if isinstance(error, PermissionError) else DamagedError(path, why)


def _seal(plain: Mapping[str, Any], whose: str) -> str:
    text = f"{whose}\0{json.dumps(plain, sort_keys=True, separators=(',', ':'))}"
    return hashlib.sha256(text.encode()).hexdigest()
