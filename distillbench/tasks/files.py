"""Finds the task files of a folder and the name in each, as YAML says it, without reading more of a file than that."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from distillbench.errors import TaskError
from distillbench.yaml_text import YamlError, read_text

if TYPE_CHECKING:
    from yaml import SafeLoader as _SafeLoader
else:  # what lm-eval reads with
    _SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_SUFFIXES = (".yaml", ".yml")
_MOST_ENTRIES = 200_000  # files and folders below a folder of tasks; lm-eval's own has 25,000
_STRING = "tag:yaml.org,2002:str"
#: A line that names a task as nearly all do; every other way goes to the parser, which takes ten times as long.
_PLAIN = re.compile(r"^task: +([A-Za-z_][\w.-]*)[ \t]*(?: #[^\n]*)?\r?(?:\n(?![ \t\r\n])|\Z)", re.MULTILINE | re.ASCII)
_LIKE_PLAIN = re.compile(r"^\W*task\b", re.MULTILINE)
_NO_STRINGS = frozenset({"null", "true", "false", "yes", "no", "on", "off"})


@dataclass(frozen=True, slots=True)
class TaskFile:
    """A YAML file in a folder of tasks.

    Attributes:
        path: The file, or a folder that cannot be read.
        name: The task's name; None where the file names no task.
        why: Why it has no name though something stands there, in words; empty for a file that is no task at all.
    """

    path: Path
    name: str | None
    why: str = ""


class _Loader(_SafeLoader):
    """Gives events; its resolver says what a plain value is."""


def task_files(root: Path) -> Iterator[TaskFile]:
    """Every YAML file below a folder, in the order of their paths.

    Raises:
        TaskError: It holds more than any folder of tasks does.
    """
    closed: list[TaskFile] = []
    for path in yaml_files(root, closed):
        yield _named(path.resolve() if path.is_symlink() else path)
    yield from closed


def yaml_files(root: Path, closed: list[TaskFile] | None = None) -> Iterator[Path]:
    """The paths of all YAML files below a folder, in order.

    Args:
        root: The folder.
        closed: Gets the folders that cannot be read.

    Raises:
        TaskError: It holds more than any folder of tasks does.
    """

    def note(error: OSError) -> None:
        if closed is not None:
            closed.append(TaskFile(Path(error.filename or root), None, f"cannot be read: {error.strerror or error}"))

    found, entries = [], 0
    for folder, folders, files in os.walk(root.resolve(), onerror=note):
        entries += len(folders) + len(files)
        if entries > _MOST_ENTRIES:
            got = f"one that holds more than {_MOST_ENTRIES:,} files and folders"
            raise TaskError(f"{root}: wanted a folder of task YAML, got {got}")
        found += [Path(folder, file) for file in files if file.endswith(_SUFFIXES)]
    yield from (path for path in sorted(found) if path.is_file())


def _named(path: Path) -> TaskFile:
    try:
        text = read_text(path)
        plain = _PLAIN.search(text)
        if plain and plain[1].lower() not in _NO_STRINGS and len(_LIKE_PLAIN.findall(text)) == 1:
            return TaskFile(path, plain[1])
        name = _task_value(_Loader(text))
    except YamlError as error:
        return TaskFile(path, None, f"cannot be read: {error.got}")
    except yaml.YAMLError:  # not YAML from the first lines on: whoever needs it is told by whoever reads all of it
        return TaskFile(path, None, "is not valid YAML")
    if name is None or isinstance(name, str):
        return TaskFile(path, name)
    return TaskFile(path, None, f'says `task: {name[0]}`, which YAML reads as {name[1]}: write "{name[0]}"')


def _task_value(loader: Any) -> str | tuple[str, str] | None:
    """The task's name; what stands there and its type where YAML reads no string; None where no name is there.

    Only the top level is looked at, and only as far as the key `task`.
    """
    anchors: dict[str, yaml.Event] = {}
    loader.get_event()  # the stream's start
    if not isinstance(loader.get_event(), yaml.DocumentStartEvent):
        return None
    if not isinstance(loader.get_event(), yaml.MappingStartEvent):
        return None
    while not isinstance(key := _node(loader, anchors), yaml.MappingEndEvent):
        value = _node(loader, anchors)
        if isinstance(key, yaml.ScalarEvent) and key.value == "task":
            return _as_read(loader, value) if isinstance(value, yaml.ScalarEvent) else None  # a group has a list
    return None


def _node(loader: Any, anchors: dict[str, yaml.Event]) -> yaml.Event:
    """The event that the next node begins with; the whole node is passed over."""
    first: yaml.Event = loader.get_event()
    event, depth = first, 0
    while True:
        if isinstance(event, yaml.ScalarEvent) and event.anchor:
            anchors[event.anchor] = event
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth <= 0:
            return anchors.get(str(first.anchor), first) if isinstance(first, yaml.AliasEvent) else first
        event = loader.get_event()


def _as_read(loader: Any, event: yaml.ScalarEvent) -> str | tuple[str, str]:
    """A value where YAML reads a string; else what stands there, and as what it is read."""
    tag = event.tag if event.tag not in (None, "!") else loader.resolve(yaml.ScalarNode, event.value, event.implicit)
    return event.value if tag == _STRING else (event.value, f"of type {tag.rpartition(':')[2]}")
