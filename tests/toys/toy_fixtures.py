"""The toy plugin, installed; matrices that use it; plans and runs of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from core_bench import Control, Toys
from core_factories import merged

from distillbench.catalog import Catalog
from distillbench.cli.invocation import Invocation
from distillbench.manager import make_manager

TOYS = Path(__file__).parent / "site"

#: One teacher, one trainer with two checkpoints, one evaluation; the plan has a student, a baseline and ten stages.
MATRIX: dict[str, Any] = {
    "name": "toys",
    "teachers": {"wise": {"use": "toy-teacher"}},
    "students": {"small": {"use": "toy-student"}},
    "trainers": {"fit": {"use": "toy-trainer"}},
    "engines": {"talk": {"use": "toy-engine"}},
    "evaluations": {"toy": {}},
    "launcher": {"use": "toy-launcher"},
    "matrix": {"engine": "talk"},
}


@pytest.fixture(scope="session")
def toy_site(tmp_path_factory: pytest.TempPathFactory, install_plugin: Callable[..., Path]) -> Path:
    """A folder with the toy plugin as an installed distribution, which workers and subprocesses find by themselves."""
    folder = tmp_path_factory.mktemp("site")
    install_plugin(folder, "distillbench-toys", {}, {"toys": "distillbench_toys"})
    shutil.copy(TOYS / "distillbench_toys.py", folder)
    shutil.copytree(TOYS / "toy_tasks", folder / "toy_tasks", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def toys(toy_site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts the toy plugin on this process's path; multiprocessing hands the path to workers."""
    monkeypatch.syspath_prepend(str(toy_site))
    return toy_site


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Control:
    """Steers the toys of this process and of its workers."""
    folder = tmp_path / "control"
    folder.mkdir()
    monkeypatch.setenv("TOY_CONTROL", str(folder))
    return Control(folder)


@pytest.fixture
def matrix(write_matrix: Callable[..., Path]) -> Callable[..., Path]:
    """Writes the toy matrix, changed: `matrix({"trainers": {"fit": {"rate": 0.2}}})`."""
    return lambda changes=None, name="toys.yaml": write_matrix(merged(MATRIX, changes or {}), name)


@pytest.fixture
def bench(toys: Path, control: Control, toy_store: Path, matrix: Callable[..., Path]) -> Toys:
    """The toys, with a store of the test's own."""
    return Toys(Invocation(make_manager(), (), toy_store, 0), matrix)


@pytest.fixture
def catalog(toys: Path) -> Catalog:
    """Everything that built-ins and toys declare."""
    return Catalog(make_manager())
