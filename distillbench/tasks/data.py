"""Where the data of a task comes from: a pinned data set or file on the net, or a copy of it below the data root.

A task says it in `metadata.data`. This module reads that block without importing lm_eval or datasets, for `plan` and
for `distillbench data`; `distillbench_tasks.data` loads what it names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from distillbench.errors import TaskError, nearest
from distillbench.fingerprint import digest_files, expanded, is_folder

#: The environment variable that names the data root; a matrix's `data_root` goes over it.
DATA_ROOT = "DISTILLBENCH_DATA_ROOT"
#: Keys of the block that do not change which documents a task has.
_CHECKS = frozenset({"file", "rows", "file_rows"})
#: Keys of `metadata` that are no business of an evaluation's `metadata`.
_NOT_METADATA = frozenset({"distillbench", "version"})
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TEXTS = frozenset({"hub", "config", "revision", "split", "file"})


@dataclass(frozen=True, slots=True)
class DataSource:
    """The block `metadata.data` of a task.

    Attributes:
        rows: How many rows the source has for this task.
        hub: Id of the data set on the Hugging Face Hub; empty where only `urls` say it.
        config: Its configuration.
        revision: The commit, tag or branch of it; empty for the newest.
        split: Its split.
        urls: Files of JSON lines, where the data set is read from these: URLs, or names in the Hub's repository.
        file: The copy below the data root; may hold `*`.
        file_rows: How many rows the copy has, where that is another number.
    """

    rows: int
    hub: str = ""
    config: str = ""
    revision: str = ""
    split: str = "test"
    urls: tuple[str, ...] = ()
    file: str = ""
    file_rows: int | None = None

    def local_files(self, root: Path | None) -> list[Path]:
        """The copy's files; none where there is no data root or it does not hold them."""
        return sorted(root.glob(self.file)) if root and self.file else []

    @property
    def addresses(self) -> list[str]:
        """What `urls` name, as `datasets` downloads it."""
        where = f"hf://datasets/{self.hub}@{self.revision or 'main'}/"
        return [url if "://" in url or not self.hub else where + url for url in self.urls]

    @property
    def pinned(self) -> str:
        """The source with its revision, as a person reads it."""
        if not self.hub:
            return ", ".join(self.urls)
        return f"{self.hub}@{self.revision}" if self.revision else f"{self.hub}@main (not pinned)"

    @property
    def is_pinned(self) -> bool:
        """Whether the source cannot change under its name."""
        return bool(_COMMIT.fullmatch(self.revision)) if self.hub else bool(self.urls)


def data_source(metadata: Mapping[str, Any], place: str) -> DataSource | None:
    """The data block of a task's `metadata`; None for a task that has none, or another meaning for the word.

    Args:
        metadata: The task's metadata, with what an evaluation changes in it.
        place: Where it stands, for the messages.

    Raises:
        TaskError: A key is unknown, or a value is not what its key wants.
    """
    block = metadata.get("data")
    if not isinstance(block, Mapping) or not ({"hub", "urls"} & block.keys()):
        return None
    known = [entry.name for entry in fields(DataSource)]
    for key, value in block.items():
        if key not in known:
            raise TaskError(f"{place}.data: wanted a key of a data block, got {key!r}; {nearest(str(key), known)}")
        _check_value(key, value, f"{place}.data.{key}")
    if block.get("rows") is None:
        raise TaskError(f"{place}.data: wanted `rows`, the number of rows that the source has, got none")
    given = {key: value for key, value in block.items() if value is not None}
    return DataSource(**given | {"urls": tuple(given.get("urls", ()))})


def data_root(given: Path | str | None = None) -> Path | None:
    """The folder that holds copies of the data: the one given, or else the one the environment names.

    Raises:
        TaskError: It is no folder.
    """
    named = given or os.environ.get(DATA_ROOT)
    if not named:
        return None
    root = expanded(named)
    if not is_folder(root):
        origin = "data_root" if given else DATA_ROOT
        raise TaskError(f"{origin}: wanted a folder that holds copies of the benchmarks' data, got {root}")
    return root


@dataclass(frozen=True, slots=True)
class Metadata:
    """A task's metadata with what an evaluation changes in it.

    Attributes:
        metadata: The whole of it.
        identity: What of it decides the documents: the copy's content where one is read, else the pinned source.
        runtime: What lm-eval is to put over the YAML's own.
    """

    metadata: Any
    identity: Any
    runtime: Mapping[str, Any]


def with_changes(metadata: Any, changes: Mapping[str, Any], place: str, root: Path | None) -> Metadata:
    """Puts an evaluation's changes into a task's metadata, mapping by mapping.

    Args:
        metadata: The YAML's own, which may be anything.
        changes: The evaluation's.
        place: Where the YAML's stands, for the messages.
        root: The data root; None for where the environment says.

    Raises:
        TaskError: A change that has no effect, or a data block that is not right.
    """
    own = metadata if isinstance(metadata, Mapping) else {}
    if taken := _NOT_METADATA & changes.keys():
        raise TaskError(f"{place}.{min(taken)} cannot be changed: `grader` and `grader_options` are options themselves")
    has_data = data_source(own, place) is not None
    if has_data and (unknown := [key for key in changes if key not in own]):
        raise TaskError(f"{place}: wanted a key that the task has, got {unknown[0]!r}; {nearest(unknown[0], own)}")
    merged = _merged(own, changes)
    runtime = {key: merged[key] for key in changes}
    source = data_source(merged, place) if has_data else None
    if source is None:
        whole = merged if changes else metadata
        return Metadata(whole, whole, runtime)
    where = data_root(root)
    if where:
        runtime["data_root"] = str(where)
    block = {key: value for key, value in merged["data"].items() if key not in _CHECKS}
    if files := source.local_files(where):
        block["content"] = digest_files(((file.name, file) for file in files), remember=True)
    return Metadata(merged, {**merged, "data": block}, runtime)


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(under[key], value)
        for key, value in over.items()
        if isinstance(value, Mapping) and isinstance(under.get(key), Mapping)
    }
    return {**under, **over, **both}


def _check_value(key: str, value: Any, place: str) -> None:
    if value is None:
        return
    if key in _TEXTS and not isinstance(value, str):
        raise TaskError(f"{place}: wanted a string, got {value!r}")
    if key == "file" and not _is_pattern(value):
        raise TaskError(f"{place}: wanted the path of a file below the data root, which may hold `*`, got {value!r}")
    if key in {"rows", "file_rows"} and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise TaskError(f"{place}: wanted a whole number >= 1, got {value!r}")
    if key == "urls" and not (isinstance(value, list | tuple) and all(isinstance(url, str) for url in value)):
        raise TaskError(f"{place}: wanted a list of strings, got {value!r}")


def _is_pattern(value: str) -> bool:
    """Whether a path with `*` can be looked for below a folder."""
    path = Path(value)
    is_below = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    return is_below and "\0" not in value and all("**" not in part or part == "**" for part in path.parts)
