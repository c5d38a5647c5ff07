"""What a task stands on, by its content: local data, and the modules that `!function`s name with what these import."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from distillbench.errors import TaskError
from distillbench.fingerprint import digest_files, digest_path
from distillbench.tasks.merging import Function

#: Where a task names its data; `datasets` takes local files there, relative to the folder it runs in.
_DATA_KEYS = frozenset({"dataset_path", "dataset_kwargs"})
_LONGEST_FILE_NAME = 200
_MOST_DATA_FILES = 100_000


def hashable(part: Mapping[str, Any], sources: Mapping[str, Path]) -> dict[str, Any]:
    """A part of a task as its identity has it.

    Args:
        part: Some of its keys.
        sources: For each key, the file that it came from.

    Raises:
        TaskError: Local data cannot be read.
    """
    return {
        key: _with_content(value) if key in _DATA_KEYS else _with_code(value, sources[key])
        for key, value in part.items()
    }


def _with_content(value: Any) -> Any:
    """A value in which every local file or folder of data is known by its content, and not by where it lies."""
    if isinstance(value, Mapping):
        return {str(key): _with_content(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_with_content(entry) for entry in value]
    if isinstance(value, str) and value and (kind := kind_of_path(Path(value))):
        return {"content": _content(Path(value), kind)}
    return _plain(value)


def kind_of_path(path: Path) -> str:
    """What lies there: `file`, `folder`, or nothing that has a content."""
    try:
        return "file" if path.is_file() else "folder" if path.is_dir() else ""
    except OSError:  # a name longer than any file has
        return ""


def _content(path: Path, kind: str) -> str:
    try:
        if kind == "folder" and len(list(islice(path.rglob("*"), _MOST_DATA_FILES))) == _MOST_DATA_FILES:
            got = f"a folder of {_MOST_DATA_FILES:,} files and more"
            raise TaskError(f"{path}: wanted a file or folder of data, got {got}")
        return digest_path(path)
    except OSError as error:
        raise TaskError(f"{path}: the task's data cannot be read: {error.strerror or error}") from error


def _plain(value: Any) -> Any:
    """A value as canonical JSON takes it; one of another type as its text, whose order is fixed."""
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _with_code(value: Any, yaml_path: Path) -> Any:
    """A value in which every `!function` carries the digest of the module it names."""
    if isinstance(value, Function):
        return {"function": value.target, "code": _code_digest(value.target, yaml_path.parent)}
    if isinstance(value, Mapping):
        return {str(key): _with_code(entry, yaml_path) for key, entry in value.items()}
    if isinstance(value, list):
        return [_with_code(entry, yaml_path) for entry in value]
    return _plain(value)


def _code_digest(target: str, folder: Path) -> str:
    """The digest of the module beside the YAML, of the modules beside it that it imports, and of the files it names.

    An installed module is known by its name alone.
    """
    files: dict[Path, None] = {}
    _follow(folder / (target.rpartition(".")[0].replace(".", "/") + ".py"), files)
    return digest_files((path.relative_to(folder).as_posix(), path) for path in files) if files else ""


def _follow(module: Path, found: dict[Path, None]) -> None:
    """Adds a local module and the local files that it stands on, without running it."""
    if module in found or kind_of_path(module) != "file":
        return
    found[module] = None
    try:
        tree = ast.parse(module.read_bytes())
    except (
        SyntaxError,
        ValueError,
        RecursionError,
        MemoryError,
    ):  # lm-eval will say so when it loads the task; its bytes are in the digest
        return
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            _follow(module.parent / (name.replace(".", "/") + ".py"), found)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            _add_file(module.parent, node.value, found)


def _add_file(folder: Path, name: str, found: dict[Path, None]) -> None:
    """Adds a file that a string in a module names, when it lies beside or below the module."""
    if not name or len(name) > _LONGEST_FILE_NAME or "\0" in name or Path(name).is_absolute() or ".." in name:
        return
    path = folder / name
    if path.suffix != ".py" and kind_of_path(path) == "file":
        found[path] = None
