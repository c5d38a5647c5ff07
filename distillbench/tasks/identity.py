"""Reads task YAML without importing lm_eval or the task's code, so that `plan` stays light.

A task's identity is the hash of its YAML (`merging`) and of what that stands on (`content`). What only reaches
the verdict (`GRADING_KEYS`) is kept apart from what reaches the prompt, so that a new grader never samples again.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from distillbench.errors import TaskError, nearest
from distillbench.fingerprint import key_of
from distillbench.records import TaskRef
from distillbench.tasks.content import hashable, kind_of_path
from distillbench.tasks.data import with_changes
from distillbench.tasks.files import TaskFile, task_files
from distillbench.tasks.merging import merged_yaml

#: Keys of a task YAML that only reach the verdict. Everything else reaches the prompt or the documents.
GRADING_KEYS = frozenset({"process_results", "metric_list", "filter_list", "metadata"})
#: Keys of `metadata.distillbench` that change no sample and no verdict.
_ESTIMATE_KEYS = frozenset({"docs", "licence", "grading_columns"})
#: Replaced by the evaluation's resolved sampling, which has its own place in the key.
SAMPLING_KEYS = frozenset({"generation_kwargs", "repeats"})
#: What engines can do with a task, by lm-eval's word.
OUTPUT_TYPES = ("generate_until", "multiple_choice", "loglikelihood")
_PLAIN_NAME = re.compile(r"\w[\w.-]*")
_MOST_TOLD = 3  # files that name no task


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
    config, sources = merged_yaml(path.resolve(), (), twice)
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
        sample, grade = (key_of(hashable(part, sources)) for part in (prompt_part, grading_part))
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{path}: holds a value that has no identity (NaN, or a list that holds itself)") from error
    findings = tuple(("key_twice", text) for text in dict.fromkeys(twice))
    return TaskSpec(name, path.resolve(), config, sample, grade, found.runtime, findings)


def stock_root() -> Path | None:
    """The folder of the tasks that lm-eval ships; found without importing it."""
    package = importlib.util.find_spec("lm_eval")
    if package is None or not package.submodule_search_locations:
        return None
    return Path(next(iter(package.submodule_search_locations))) / "tasks"


def _without(mapping: Any, keys: Collection[str]) -> Any:
    """A mapping without some keys; anything else as it is."""
    return {key: value for key, value in mapping.items() if key not in keys} if isinstance(mapping, dict) else mapping


def _tasks_below(root: Path) -> Iterator[tuple[str, Path]]:
    """Every named task of a folder."""
    yield from ((file.name, file.path) for file in task_files(root) if file.name is not None)


@lru_cache(maxsize=64)
def _shipped_with_lm_eval(name: str) -> Path | None:
    """The YAML of one of the 14,700 tasks that lm-eval ships; found without importing it."""
    root = stock_root()
    if root is None or not _PLAIN_NAME.fullmatch(name):
        return None
    for found, path in _tasks_below(root / name) if kind_of_path(root / name) == "folder" else ():
        if found == name:
            return path
    return _all_below(root).get(name)


@lru_cache(maxsize=1)
def _all_below(root: Path) -> Mapping[str, Path]:
    """Every task below a folder; lm-eval's own take about a second to read."""
    return dict(reversed(list(_tasks_below(root))))  # the first of a name counts
