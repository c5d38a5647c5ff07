"""Groups and tags of tasks, read without lm-eval: which tasks they stand for, and how lm-eval adds these up.

A group is a YAML file with `group:` and a list under `task:`: tasks, tags and other groups. A tag is what tasks say of
themselves under `tag:`; lm-eval does not add up a tag's tasks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from distillbench.errors import TaskError
from distillbench.tasks.files import yaml_files
from distillbench.tasks.identity import TaskIndex, stock_root
from distillbench.tasks.merging import read_config

#: A line that names a group, a tag or an include; flow lists too. Lists of blocks are read by `_LIST`.
_KEY = re.compile(r"^[\"']?(group|tag|include|task|class)[\"']?:[ \t]*(.*)$", re.MULTILINE)
_LIST = re.compile(r"\s*\n((?:[ \t]*-[^\n]*\n?)+)")
_NO_SCALAR = ("[", "{", "-", "|", ">", "&", "*", "!")
_MOST_INCLUDES = 8


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """A group or a tag.

    Attributes:
        name: Its name.
        tasks: The names of all its tasks, those of its groups included, in lm-eval's order, each once.
        weight_by_size: Whether its tasks count by their numbers of problems, and not alike; None where they are not
            added up at all.
        groups: The groups in it.
    """

    name: str
    tasks: tuple[str, ...]
    weight_by_size: bool | None = None
    groups: tuple[TaskGroup, ...] = ()


@dataclass(slots=True)
class _Found:
    """What a folder holds.

    Attributes:
        tasks: The file of each task.
        groups: The file of each group.
        tags: The tasks of each tag.
    """

    tasks: dict[str, Path] = field(default_factory=dict)
    groups: dict[str, Path] = field(default_factory=dict)
    tags: dict[str, list[str]] = field(default_factory=dict)


def find_group(name: str, tasks: TaskIndex) -> TaskGroup | None:
    """The group or tag of a name, in a user's folders, a plugin's or lm-eval's; None where there is none.

    Raises:
        TaskError: It cannot be read, holds itself, or gives its tasks options of its own.
    """
    return _group(name, [*map(_scanned, tasks.roots), _stock()], ())


def known_groups(tasks: TaskIndex, with_stock: bool) -> Mapping[str, str]:
    """Every group and tag by name, and which of both it is; lm-eval's own where they are asked for."""
    kinds: dict[str, str] = {}
    for found in (*map(_scanned, tasks.roots), *([_stock()] if with_stock else [])):
        kinds |= dict.fromkeys(found.tags, "tag") | dict.fromkeys(found.groups, "group") | kinds
    return kinds


def stock_tasks() -> Mapping[str, Path]:
    """The file of every task that lm-eval ships."""
    return _stock().tasks


def _group(name: str, found: list[_Found], above: tuple[str, ...]) -> TaskGroup | None:
    if name in above:
        raise TaskError(f"group {name!r} holds itself: {' -> '.join((*above, name))}")
    path = next((one.groups[name] for one in found if name in one.groups), None)
    if path is not None:
        return _of_config(name, read_config(path), path, found, above)
    tagged = sorted({task for one in found for task in one.tags.get(name, ())})
    return TaskGroup(name, tuple(tagged)) if tagged else None


def _of_config(
    name: str, config: Mapping[str, Any], path: Path, found: list[_Found], above: tuple[str, ...]
) -> TaskGroup:
    listed = config.get("task") or []
    if not isinstance(listed, list):
        raise TaskError(f"{path}: group {name!r}: wanted a list under `task`, got {listed!r}")
    tasks: dict[str, None] = {}
    groups = []
    for entry in listed:
        member = _member(name, entry, path, found, above)
        if isinstance(member, TaskGroup):
            tasks |= dict.fromkeys(member.tasks)
            groups += [member] if member.weight_by_size is not None or member.groups else []
        else:
            tasks[member] = None
    if not tasks:
        raise TaskError(f"{path}: group {name!r} has no task")
    return TaskGroup(name, tuple(tasks), _weighting(config), tuple(groups))


def _member(name: str, entry: Any, path: Path, found: list[_Found], above: tuple[str, ...]) -> TaskGroup | str:
    """What one entry of a group's list stands for: a task's name, or a group."""
    if isinstance(entry, Mapping) and isinstance(entry.get("group"), str) and isinstance(entry.get("task"), list):
        return _of_config(f"{name}::{entry['group']}", entry, path, found, (*above, name))
    if isinstance(entry, Mapping) and entry.keys() in ({"task"}, {"group"}):
        (entry,) = entry.values()
    if not isinstance(entry, str):
        raise TaskError(
            f"{path}: group {name!r} gives a task options of its own ({entry!r:.120}), which is not supported\n"
            f"    hint: name its tasks one by one, with these options"
        )
    if any(entry in one.tasks for one in found):
        return entry
    member = _group(entry, found, (*above, name))
    if member is None:
        raise TaskError(f"{path}: group {name!r} names {entry!r}, which is no task, group or tag")
    return member


def _weighting(config: Mapping[str, Any]) -> bool | None:
    listed = config.get("aggregate_metric_list")
    first = listed[0] if isinstance(listed, list) and listed else listed
    return bool(first.get("weight_by_size", True)) if isinstance(first, Mapping) else None


@lru_cache(maxsize=1)
def _stock() -> _Found:
    root = stock_root()
    return _Found() if root is None else _scanned(root)


def _scanned(root: Path) -> _Found:
    """What a folder holds, by a look at the lines that say so: lm-eval's 14,700 files take about two seconds."""
    found = _Found()
    says: dict[Path, Mapping[str, str]] = {}
    for path in yaml_files(root):
        own = _lines(path, says)
        if "class" not in own and (group := _scalar(own.get("group", ""))) is not None:
            found.groups.setdefault(group, path)
        elif (task := _scalar(own.get("task", ""))) is not None:
            found.tasks.setdefault(task, path)
            for tag in _values(_inherited("tag", path, says)):
                tagged = found.tags.setdefault(tag, [])
                tagged += [task] if task not in tagged else []
    return found


def _lines(path: Path, says: dict[Path, Mapping[str, str]]) -> Mapping[str, str]:
    """The keys of a file that matter here, each with what stands after it."""
    if path not in says:
        try:
            text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        except OSError:
            text = ""
        own: dict[str, str] = {}
        for match in _KEY.finditer(text):
            value = match[2].strip()
            if not value and (listed := _LIST.match(text, match.end(2))):
                value = listed[1]
            own.setdefault(match[1], value)
        says[path] = own
    return says[path]


def _inherited(key: str, path: Path, says: dict[Path, Mapping[str, str]]) -> str:
    """What a file says of a key, or else one that it includes."""
    seen: list[Path] = []
    waiting = [path]
    while waiting and len(seen) < _MOST_INCLUDES:
        one = waiting.pop()
        own = _lines(one, says)
        if key in own:
            return own[key]
        seen.append(one)
        includes = ((one.parent / name).resolve() for name in _values(own.get("include", "")))
        waiting += [include for include in includes if include not in seen]
    return ""


def _scalar(text: str) -> str | None:
    """A name; None for a list, a mapping or nothing."""
    written = text.split(" #", maxsplit=1)[0].strip()
    return None if not written or written.startswith(_NO_SCALAR) else written.strip("\"'")


def _values(text: str) -> Iterator[str]:
    """The names in a scalar, a flow list or a block list."""
    if (one := _scalar(text)) is not None:
        yield one
        return
    items = text.strip().strip("[]").split(",") if text.startswith("[") else text.splitlines()
    for item in items:
        if named := _scalar(item.strip().removeprefix("-").strip()):
            yield named
