"""Reads the YAML of tasks and groups, merged with what it includes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from distillbench.errors import TaskError
from distillbench.yaml_text import YamlError, compose, key_twice, read_text

if TYPE_CHECKING:
    from yaml import SafeLoader as _SafeLoader
else:  # what lm-eval reads with
    _SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


_MOST_INCLUDES = 32


@dataclass(frozen=True, slots=True)
class Function:
    """A `!function module.name` tag, not resolved."""

    target: str

    def __repr__(self) -> str:
        """As it stands in the file, for messages."""
        return f"!function {self.target}"


def read_config(path: Path) -> Mapping[str, Any]:
    """What one YAML file of tasks or groups says, with its includes.

    Raises:
        TaskError: It cannot be read.
    """
    return merged_yaml(path.resolve(), (), [])[0]


def merged_yaml(path: Path, above: tuple[Path, ...], twice: list[str]) -> tuple[dict[str, Any], dict[str, Path]]:
    """The YAML merged with its includes as lm-eval merges them, and for each key the file it came from.

    Args:
        path: The file.
        above: The files that led to it.
        twice: Gets the keys that a mapping has twice.
    """
    if path in above or len(above) > _MOST_INCLUDES:
        raise TaskError(f"{path}: includes itself: {' -> '.join(str(step) for step in (*above, path))}")
    config = _load(path, twice)
    merged: dict[str, Any] = {}
    sources: dict[str, Path] = {}
    includes = config.pop("include", [])
    for include in includes if isinstance(includes, list) else [includes]:
        included, included_sources = merged_yaml(_included(path, include), (*above, path), twice)
        merged.update(included)
        sources.update(included_sources)
    merged.update(config)
    sources.update(dict.fromkeys(config, path))
    return merged, sources


def _included(path: Path, include: Any) -> Path:
    try:
        if isinstance(include, str):
            return (path.parent / include).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # too long, with a NUL, a circle of links
        raise TaskError(f"{path}: include: {include!r:.100} cannot be read: {error}") from error
    raise TaskError(f"{path}: include: wanted the name of a file, or a list of names, got {include!r:.100}")


def _load(path: Path, twice: list[str]) -> dict[str, Any]:
    try:
        root = compose(read_text(path), _TaskLoader)
        if root is not None:
            twice += [f"{path}: {key!r} on lines {first} and {second}" for key, first, second in key_twice(root)]
    except YamlError as error:
        raise _unreadable(path, error) from error
    config = None if root is None else _constructed(path, root)
    if not isinstance(config, dict):
        raise TaskError(f"{path}: wanted a mapping of keys, got {type(config).__name__}")
    if odd := [key for key in config if not isinstance(key, str)]:
        raise TaskError(f"{path}: wanted keys that are names, got {odd[0]!r}")
    return config


def _unreadable(path: Path, error: YamlError) -> TaskError:
    place = f"{path}:{error.line}" if error.line else str(path)
    if error.is_syntax:
        return TaskError(f"{place}: not valid YAML: {error.got}")
    return TaskError(f"{path}: cannot be read: wanted {error.wanted}, got {error.got} (line {error.line or 1})")


def _constructed(path: Path, root: yaml.Node) -> Any:
    try:
        return _TaskLoader("").construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line if error.problem_mark else 0
        raise TaskError(f"{path}:{line + 1}: not valid YAML: {error.problem}") from error
    except Exception as error:  # PyYAML's constructors raise whatever an impossible date or number makes Python raise
        raise TaskError(f"{path}: holds a value that cannot be read: {error}") from error


class _TaskLoader(_SafeLoader):
    """Safe YAML plus lm-eval's `!function`."""


def _construct_function(loader: yaml.SafeLoader, node: yaml.Node) -> Function:
    return Function(str(loader.construct_scalar(node)))  # type: ignore[arg-type]  # it says so itself where it is none


_TaskLoader.add_constructor("!function", _construct_function)
