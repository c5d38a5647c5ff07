"""Reads task YAML without importing lm_eval or the task's code, so that `plan` stays light.

A task's identity is the hash of its YAML, its includes, and the modules its `!function`s name, with the local modules
these import and the local files they name. What only reaches the
verdict (`GRADING_KEYS`) is kept apart from what reaches the prompt, so that a new grader never samples again.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from distillbench.errors import TaskError, nearest
from distillbench.fingerprint import digest_files, digest_path, key_of
from distillbench.records import TaskRef
from distillbench.tasks.data import with_changes

#: Keys of a task YAML that only reach the verdict. Everything else reaches the prompt or the documents.
GRADING_KEYS = frozenset({"process_results", "metric_list", "filter_list", "metadata"})
#: Keys of `metadata.distillbench` that change no sample and no verdict.
_ESTIMATE_KEYS = frozenset({"docs", "licence", "grading_columns"})
#: Replaced by the evaluation's resolved sampling, which has its own place in the key.
SAMPLING_KEYS = frozenset({"generation_kwargs", "repeats"})
#: What engines can do with a task, by lm-eval's word.
OUTPUT_TYPES = ("generate_until", "multiple_choice", "loglikelihood")
_TASK_NAME = re.compile(r"^[\"']?task[\"']?:[ \t]*[\"']?([^\s\"'#]+)", re.MULTILINE)
_PLAIN_NAME = re.compile(r"\w[\w.-]*")
#: Where a task names its data; `datasets` takes local files there, relative to the folder it runs in.
_DATA_KEYS = frozenset({"dataset_path", "dataset_kwargs"})
_MOST_INCLUDES = 32
_LONGEST_FILE_NAME = 200


@dataclass(frozen=True, slots=True)
class Function:
    """A `!function module.name` tag, not resolved."""

    target: str


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What the light reader knows of a task.

    Attributes:
        name: The task's name.
        path: Its YAML file.
        config: The merged YAML; `!function` tags are `Function` records.
        sample_identity: Key of everything that reaches the documents and prompts.
        grade_identity: Key of everything that reaches the verdict.
        runtime: What lm-eval is to put into the task's metadata when it loads it: changes, and where the data lies.
    """

    name: str
    path: Path
    config: Mapping[str, Any]
    sample_identity: str
    grade_identity: str
    runtime: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> Mapping[str, Any]:
        """`metadata.distillbench`: `grader`, `grader_options`, `docs`, `grading_columns`, `licence`."""
        metadata = self.config.get("metadata")
        found = metadata.get("distillbench") if isinstance(metadata, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    @property
    def output_type(self) -> str:
        """`generate_until` where the task does not say."""
        return str(self.config.get("output_type", "generate_until"))

    @property
    def num_fewshot(self) -> int:
        """The examples that the task puts before each problem."""
        found = self.config.get("num_fewshot")
        return found if isinstance(found, int) else 0

    @property
    def generation_kwargs(self) -> Mapping[str, Any]:
        """The task's own `generation_kwargs`."""
        found = self.config.get("generation_kwargs")
        return found if isinstance(found, Mapping) else {}


class TaskIndex:
    """The tasks of some folders, by name.

    Args:
        roots: Folders of task YAML; earlier ones win nothing: a name found twice is an error.
        data_root: Where copies of the tasks' data lie; None for where the environment says.
    """

    def __init__(self, roots: Iterable[Path], data_root: Path | None = None) -> None:
        self.roots = tuple(roots)
        self.data_root = data_root
        self._paths: dict[str, Path] | None = None
        self._specs: dict[TaskRef, TaskSpec] = {}

    @property
    def names(self) -> list[str]:
        """Every task name in the roots."""
        return sorted(self._index())

    def find(self, task: str | TaskRef) -> TaskSpec:
        """The task of this name, from the roots or from lm-eval itself.

        Raises:
            TaskError: No such task, or its YAML cannot be read, or it does not take the changes.
        """
        ref = TaskRef(task) if isinstance(task, str) else TaskRef(task.name, task.metadata)
        if ref not in self._specs:
            path = self._index().get(ref.name) or _shipped_with_lm_eval(ref.name)
            if path is None:
                raise TaskError(f"no task is named {ref.name!r}; {nearest(ref.name, self.names)}")
            self._specs[ref] = read_task(path, json.loads(ref.metadata), self.data_root)
        return self._specs[ref]

    def _index(self) -> dict[str, Path]:
        if self._paths is None:
            self._paths = {}
            for root in self.roots:
                for name, path in _tasks_below(root):
                    if name in self._paths and self._paths[name] != path:
                        raise TaskError(f"task {name!r} is defined twice: {self._paths[name]} and {path}")
                    self._paths[name] = path
        return self._paths


def read_task(path: Path, changes: Mapping[str, Any] | None = None, root: Path | None = None) -> TaskSpec:
    """Reads one task YAML with its includes.

    Args:
        path: The file.
        changes: What an evaluation changes in the task's metadata.
        root: Where copies of tasks' data lie; None for where the environment says.

    Raises:
        TaskError: It cannot be read, or names no task, or does not take the changes.
    """
    config, sources = _merged(path.resolve(), ())
    name = config.get("task")
    if not isinstance(name, str):
        raise TaskError(f"{path}: wanted `task: NAME`, got {name!r}")
    found = with_changes(config.get("metadata"), changes or {}, f"{path}: metadata", root)
    if changes:
        config["metadata"] = found.metadata
        sources.setdefault("metadata", path)
    grading_part = {key: value for key, value in config.items() if key not in SAMPLING_KEYS}
    if isinstance(metadata := config.get("metadata"), dict):
        grading_part["metadata"] = metadata | {"distillbench": _without(metadata.get("distillbench"), _ESTIMATE_KEYS)}
    prompt_part = {key: value for key, value in grading_part.items() if key not in GRADING_KEYS}
    if {"custom_dataset", "metadata"} <= config.keys():  # lm-eval hands it the metadata, which may decide the documents
        prompt_part["metadata"] = _without(found.identity, {"distillbench", "version"})
    try:
        sample, grade = (key_of(_hashable(part, sources)) for part in (prompt_part, grading_part))
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{path}: holds a value that has no identity (NaN, or a list that holds itself)") from error
    return TaskSpec(name, path.resolve(), config, sample, grade, found.runtime)


def _without(mapping: Any, keys: Collection[str]) -> Any:
    """A mapping without some keys; anything else as it is."""
    return {key: value for key, value in mapping.items() if key not in keys} if isinstance(mapping, dict) else mapping


def _merged(path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, Path]]:
    """The YAML merged with its includes as lm-eval merges them, and for each key the file it came from."""
    if path in above or len(above) > _MOST_INCLUDES:
        raise TaskError(f"{path}: includes itself: {' -> '.join(str(step) for step in (*above, path))}")
    config = _load(path)
    merged: dict[str, Any] = {}
    sources: dict[str, Path] = {}
    includes = config.pop("include", [])
    for include in includes if isinstance(includes, list) else [includes]:
        included, included_sources = _merged((path.parent / str(include)).resolve(), (*above, path))
        merged.update(included)
        sources.update(included_sources)
    merged.update(config)
    sources.update(dict.fromkeys(config, path))
    return merged, sources


def _load(path: Path) -> dict[str, Any]:
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_TaskLoader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise TaskError(f"{place}: not valid YAML: {getattr(error, 'problem', error)}") from error
    except (ValueError, RecursionError) as error:  # an impossible date, or lists nested thousands deep
        raise TaskError(f"{path}: holds a value that cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise TaskError(f"{path}: wanted a mapping of keys, got {type(config).__name__}")
    if odd := [key for key in config if not isinstance(key, str)]:
        raise TaskError(f"{path}: wanted keys that are names, got {odd[0]!r}")
    return config


class _TaskLoader(yaml.SafeLoader):
    """Safe YAML plus lm-eval's `!function`."""


def _construct_function(loader: yaml.SafeLoader, node: yaml.Node) -> Function:
    return Function(str(node.value))


_TaskLoader.add_constructor("!function", _construct_function)


def _hashable(part: Mapping[str, Any], sources: Mapping[str, Path]) -> dict[str, Any]:
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
    if isinstance(value, str) and value and Path(value).exists():
        return {"content": digest_path(Path(value))}
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _with_code(value: Any, yaml_path: Path) -> Any:
    """A value in which every `!function` carries the digest of the module it names."""
    if isinstance(value, Function):
        return {"function": value.target, "code": _code_digest(value.target, yaml_path.parent)}
    if isinstance(value, Mapping):
        return {str(key): _with_code(entry, yaml_path) for key, entry in value.items()}
    if isinstance(value, list):
        return [_with_code(entry, yaml_path) for entry in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _code_digest(target: str, folder: Path) -> str:
    """The digest of the module beside the YAML, of the modules beside it that it imports, and of the files it names.

    An installed module is known by its name alone.
    """
    files: dict[Path, None] = {}
    _follow(folder / (target.rpartition(".")[0].replace(".", "/") + ".py"), files)
    return digest_files((path.relative_to(folder).as_posix(), path) for path in files) if files else ""


def _follow(module: Path, found: dict[Path, None]) -> None:
    """Adds a local module and the local files that it stands on, without running it."""
    if module in found or not module.is_file():
        return
    found[module] = None
    try:
        tree = ast.parse(module.read_bytes())
    except (SyntaxError, ValueError):  # lm-eval will say so when it loads the task; its bytes are in the digest
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
    if path.suffix != ".py" and path.is_file():
        found[path] = None


def _tasks_below(root: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted((*root.rglob("*.yaml"), *root.rglob("*.yml"))):
        if not path.is_file():
            continue
        found = _TASK_NAME.search(path.read_text(encoding="utf-8", errors="replace"))
        if found:
            yield found.group(1), path.resolve()


@lru_cache(maxsize=64)
def _shipped_with_lm_eval(name: str) -> Path | None:
    """The YAML of one of the 14,700 tasks that lm-eval ships; found without importing it."""
    package = importlib.util.find_spec("lm_eval")
    if package is None or not package.submodule_search_locations or not _PLAIN_NAME.fullmatch(name):
        return None
    root = Path(next(iter(package.submodule_search_locations))) / "tasks"
    for found, path in _tasks_below(root / name) if (root / name).is_dir() else ():
        if found == name:
            return path
    return _all_below(root).get(name)


@lru_cache(maxsize=1)
def _all_below(root: Path) -> Mapping[str, Path]:
    """Every task below a folder; lm-eval's own take about a second to read."""
    return dict(reversed(list(_tasks_below(root))))  # the first of a name counts
