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
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from distillbench.errors import TaskError, nearest
from distillbench.fingerprint import digest_files, digest_path, key_of
from distillbench.records import TaskRef
from distillbench.tasks.data import with_changes
from distillbench.tasks.files import TaskFile, task_files
from distillbench.yaml_text import YamlError, compose, key_twice, read_text

if TYPE_CHECKING:
    from yaml import SafeLoader as _SafeLoader
else:  # what lm-eval reads with
    _SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: Keys of a task YAML that only reach the verdict. Everything else reaches the prompt or the documents.
GRADING_KEYS = frozenset({"process_results", "metric_list", "filter_list", "metadata"})
#: Keys of `metadata.distillbench` that change no sample and no verdict.
_ESTIMATE_KEYS = frozenset({"docs", "licence", "grading_columns"})
#: Replaced by the evaluation's resolved sampling, which has its own place in the key.
SAMPLING_KEYS = frozenset({"generation_kwargs", "repeats"})
#: What engines can do with a task, by lm-eval's word.
OUTPUT_TYPES = ("generate_until", "multiple_choice", "loglikelihood")
_PLAIN_NAME = re.compile(r"\w[\w.-]*")
#: Where a task names its data; `datasets` takes local files there, relative to the folder it runs in.
_DATA_KEYS = frozenset({"dataset_path", "dataset_kwargs"})
_MOST_INCLUDES = 32
_MOST_TOLD = 3  # files that name no task
_LONGEST_FILE_NAME = 200
_MOST_DATA_FILES = 100_000


@dataclass(frozen=True, slots=True)
class Function:
    """A `!function module.name` tag, not resolved."""

    target: str

    def __repr__(self) -> str:
        """As it stands in the file, for messages."""
        return f"!function {self.target}"


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
        findings: What a preflight is to tell of the file, by the names of findings.
    """

    name: str
    path: Path
    config: Mapping[str, Any]
    sample_identity: str
    grade_identity: str
    runtime: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[tuple[str, str], ...] = ()

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
        self._odd: list[TaskFile] = []
        self._specs: dict[TaskRef, TaskSpec] = {}

    @property
    def names(self) -> list[str]:
        """Every task name in the roots."""
        return sorted(self._index())

    def path_of(self, name: str) -> Path:
        """The file of a task in the roots.

        Raises:
            KeyError: They have none of this name.
        """
        return self._index()[name]

    def find(self, task: str | TaskRef) -> TaskSpec:
        """The task of this name, from the roots or from lm-eval itself.

        Raises:
            TaskError: No such task, or its YAML cannot be read, or it does not take the changes.
        """
        ref = TaskRef(task) if isinstance(task, str) else TaskRef(task.name, task.metadata)
        if ref not in self._specs:
            path = self._index().get(ref.name) or _shipped_with_lm_eval(ref.name)
            if path is None:
                raise TaskError(f"no task is named {ref.name!r}; {nearest(ref.name, self.names)}{self._nameless()}")
            spec = read_task(path, json.loads(ref.metadata), self.data_root)
            if spec.name != ref.name:
                raise TaskError(f"{path}: wanted `task:` once, got {ref.name!r} and {spec.name!r}")
            self._specs[ref] = spec
        return self._specs[ref]

    def _nameless(self) -> str:
        """The files in which a task's name stands and cannot be used, as a hint."""
        told = [f"{file.path} {file.why}" for file in self._odd[:_MOST_TOLD]]
        more = [f"and {len(self._odd) - _MOST_TOLD} files more"] if len(self._odd) > _MOST_TOLD else []
        return "".join(f"\n    {line}" for line in (*told, *more))

    def _index(self) -> dict[str, Path]:
        if self._paths is None:
            paths: dict[str, Path] = {}
            for root in self.roots:
                for file in task_files(root):
                    if file.name is None:
                        self._odd += [file] if file.why else []
                    elif paths.setdefault(file.name, file.path) != file.path:
                        raise TaskError(f"task {file.name!r} is defined twice: {paths[file.name]} and {file.path}")
            self._paths = paths
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
    twice: list[str] = []
    config, sources = _merged(path.resolve(), (), twice)
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
    findings = tuple(("key_twice", text) for text in dict.fromkeys(twice))
    return TaskSpec(name, path.resolve(), config, sample, grade, found.runtime, findings)


def read_config(path: Path) -> Mapping[str, Any]:
    """What one YAML file of tasks or groups says, with its includes.

    Raises:
        TaskError: It cannot be read.
    """
    return _merged(path.resolve(), (), [])[0]


def stock_root() -> Path | None:
    """The folder of the tasks that lm-eval ships; found without importing it."""
    package = importlib.util.find_spec("lm_eval")
    if package is None or not package.submodule_search_locations:
        return None
    return Path(next(iter(package.submodule_search_locations))) / "tasks"


def _without(mapping: Any, keys: Collection[str]) -> Any:
    """A mapping without some keys; anything else as it is."""
    return {key: value for key, value in mapping.items() if key not in keys} if isinstance(mapping, dict) else mapping


def _merged(path: Path, above: tuple[Path, ...], twice: list[str]) -> tuple[dict[str, Any], dict[str, Path]]:
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
        included, included_sources = _merged(_included(path, include), (*above, path), twice)
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
    if isinstance(value, str) and value and (kind := _kind_of_path(Path(value))):
        return {"content": _content(Path(value), kind)}
    return _plain(value)


def _kind_of_path(path: Path) -> str:
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
    if module in found or _kind_of_path(module) != "file":
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
    if path.suffix != ".py" and _kind_of_path(path) == "file":
        found[path] = None


def _tasks_below(root: Path) -> Iterator[tuple[str, Path]]:
    """Every named task of a folder."""
    yield from ((file.name, file.path) for file in task_files(root) if file.name is not None)


@lru_cache(maxsize=64)
def _shipped_with_lm_eval(name: str) -> Path | None:
    """The YAML of one of the 14,700 tasks that lm-eval ships; found without importing it."""
    root = stock_root()
    if root is None or not _PLAIN_NAME.fullmatch(name):
        return None
    for found, path in _tasks_below(root / name) if _kind_of_path(root / name) == "folder" else ():
        if found == name:
            return path
    return _all_below(root).get(name)


@lru_cache(maxsize=1)
def _all_below(root: Path) -> Mapping[str, Path]:
    """Every task below a folder; lm-eval's own take about a second to read."""
    return dict(reversed(list(_tasks_below(root))))  # the first of a name counts
