"""How files of a report are named and written: whole or not at all, and equal bytes for equal results."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distillbench.writing import naming

#: The tables of a report.
RESULTS, SAMPLES, BUDGETS = "results.parquet", "samples.parquet", "budgets.parquet"
_LONGEST_NAME = 100  # bytes, of which a file system takes 255


def file_name(name: str) -> str:
    """A name for a file or folder; one that had to be changed gets a hash, so that no two share one."""
    clean = re.sub(r"[^\w.,=+@-]", "_", name).encode()[:_LONGEST_NAME].decode(errors="ignore")
    return clean if clean == name else f"{clean}-{text_hash(name)[:8]}"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`, which takes its place at the end, or goes when writing fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def put(path: Path, data: bytes) -> None:
    """Writes a file so that a reader sees the old one or the new one, never a half."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def utf8(text: str) -> bytes:
    """A text as bytes, whatever a model wrote."""
    # half a surrogate pair becomes its escape, which in JSON still means the same
    return text.encode("utf-8", errors="backslashreplace")


def text_hash(text: str) -> str:
    """The sha256 of a text."""
    return hashlib.sha256(utf8(text)).hexdigest()


def as_json(value: Any) -> str:
    """A value as JSON; equal values give equal texts."""
    return json.dumps(value, sort_keys=True, default=unknown, ensure_ascii=False)


def unknown(value: Any) -> Any:
    """As lm-eval's `handle_non_serializable`: numpy scalars are numbers, a set is a list, the rest is text."""
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)  # lm-eval keeps the set's own order, which changes from run to run
    if isinstance(value, Mapping):
        return dict(value)
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)
