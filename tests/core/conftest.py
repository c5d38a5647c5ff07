"""The toy plugin, installed; matrices that use it; plans and runs of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from core_factories import merged

from distillbench.catalog import Catalog
from distillbench.cli.session import Loaded, Session
from distillbench.manager import make_manager
from distillbench.plan.stages import Plan
from distillbench.run.runner import Runner, Summary

TOYS = Path(__file__).parent / "toys"

#: One teacher, one trainer with two checkpoints, one evaluation; the plan has a student, a baseline and ten stages.
MATRIX: dict[str, Any] = {
    "name": "toys",
    "teachers": {"wise": {"use": "toy-teacher"}},
    "students": {"small": {"use": "toy-student"}},
    "trainers": {"fit": {"use": "toy-trainer"}},
    "engines": {"talk": {"use": "toy-engine"}},
    "evaluations": {"toy": {}},
    "matrix": {"engine": "talk"},
}


@pytest.fixture(scope="session")
def toy_site(tmp_path_factory: pytest.TempPathFactory, install_plugin: Callable[..., Path]) -> Path:
    """A folder with the toy plugin as an installed distribution; workers and subprocesses find it by its entry point."""
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


@dataclass(frozen=True)
class Control:
    """The folder that steers and records the toys."""

    folder: Path

    def set(self, name: str, text: str = "") -> None:
        """Writes a steering file."""
        (self.folder / name).write_text(text)

    def unset(self, name: str) -> None:
        """Removes a steering file."""
        (self.folder / name).unlink()

    def log(self, what: str) -> list[str]:
        """What the toys recorded, and forgets it."""
        path = self.folder / f"{what}.log"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Control:
    """Steers the toys of this process and of its workers."""
    folder = tmp_path / "control"
    folder.mkdir()
    monkeypatch.setenv("TOY_CONTROL", str(folder))
    return Control(folder)


@pytest.fixture
def matrix(tmp_path: Path) -> Callable[..., Path]:
    """Writes the toy matrix, changed: `matrix({"trainers": {"fit": {"rate": 0.2}}})`."""

    def write(changes: dict[str, Any] | None = None, name: str = "toys.yaml") -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(merged(MATRIX, changes or {}), sort_keys=False))
        return path

    return write


@dataclass(frozen=True)
class Toys:
    """Makes plans of the toy matrix in this process, and runs them with real workers."""

    session: Session
    matrix: Callable[..., Path]

    def load(
        self, changes: dict[str, Any] | None = None, only: tuple[str, ...] = (), limit: int | None = None
    ) -> Loaded:
        """The matrix, changed, with the cells chosen."""
        return self.session.load(self.matrix(changes), only, limit)

    def plan(self, changes: dict[str, Any] | None = None, **choice: Any) -> Plan:
        """Its plan, compared with the store."""
        return self.load(changes, **choice).plan()

    def run(
        self,
        changes: dict[str, Any] | None = None,
        only: tuple[str, ...] = (),
        limit: int | None = None,
        listener: Any = None,
    ) -> Summary:
        """Runs its plan with worker processes."""
        loaded = self.load(changes, only, limit)
        runner = Runner(
            loaded.make_plan,
            self.session.store,
            self.session.catalog.build(loaded.matrix.launcher),
            listener or Silent(),
            self.session.manager,
            keep=loaded.matrix.keep,
            task_roots=loaded.task_roots(),
        )
        return runner.run()


class Silent:
    """A listener that keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def planned(self, plan: Plan) -> None:
        self.said.append(("planned", str(len(plan.stages))))

    def started(self, stage: Any) -> None:
        self.said.append(("started", stage.kind))

    def progressed(self, stage: Any, done: int, total: int | None, note: str) -> None:
        self.said.append(("progressed", stage.kind))

    def ended(self, stage: Any, ending: str, why: str) -> None:
        self.said.append((ending, stage.kind))

    def waiting(self, stage: Any) -> None:
        self.said.append(("waiting", stage.kind))


@pytest.fixture
def bench(toys: Path, control: Control, tmp_path: Path, matrix: Callable[..., Path]) -> Toys:
    """The toys, with a store of the test's own."""
    return Toys(Session(make_manager(), (), tmp_path / "store", 0), matrix)


@pytest.fixture
def catalog(toys: Path) -> Catalog:
    """Everything that built-ins and toys declare."""
    return Catalog(make_manager())
