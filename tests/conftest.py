"""Shared by all tests, beside the fixtures of `distillbench.testing`: a quiet environment, fresh processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from distillbench.testing import Ran

# The first also where the installation is older than its entry point.
pytest_plugins = ["distillbench.testing", "toy_fixtures"]

settings.register_profile("shared-machine", deadline=None, max_examples=100)
settings.load_profile("shared-machine")


def _run_python(*arguments: str, path: Path | None = None, cwd: Path | None = None, **environment: str) -> Ran:
    """Runs a fresh Python interpreter.

    Args:
        arguments: The interpreter's.
        path: Goes first on PYTHONPATH.
        cwd: Where it runs.
        environment: Variables to set.
    """
    from distillbench.testing import Ran

    done = subprocess.run(
        [sys.executable, *arguments],
        env=fresh_environment(path) | environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def fresh_environment(path: Path | None = None) -> dict[str, str]:
    """The environment of a fresh process: nothing of distillbench's own is set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DISTILLBENCH_")}
    return kept | {"PYTHONPATH": str(path)} if path else kept


def _run_cli(*arguments: str, path: Path | None = None, cwd: Path | None = None, **environment: str) -> Ran:
    """Runs `distillbench` in a process of its own."""
    code = "import sys; from distillbench.cli.main import main; sys.argv[0] = 'distillbench'; main()"
    return _run_python("-c", code, *arguments, path=path, cwd=cwd, **environment)


@pytest.fixture(scope="session")
def run_python() -> Callable[..., Ran]:
    """Runs a fresh Python interpreter: `run_python("-c", code, path=FOLDER, cwd=FOLDER, VARIABLE="value")`."""
    return _run_python


@pytest.fixture(scope="session")
def run_cli() -> Callable[..., Ran]:
    """Runs `distillbench` in a process of its own; arguments as for `run_python`."""
    return _run_cli


@pytest.fixture(scope="session")
def samples_with_texts() -> Callable[[Path, str], list[dict[str, Any]]]:
    """The rows of a report's `samples.parquet`, joined with the texts, which stand in the store alone."""
    import pyarrow.parquet as pq

    def read(store: Path, report: str) -> list[dict[str, Any]]:
        rows = pq.read_table(store / "reports" / report / "samples.parquet").to_pylist()
        places = {row["samples_in"] for row in rows}
        stored = {place: pq.read_table(store / place / "samples.parquet").to_pylist() for place in places}
        texts = {(place, row["sample_id"]): row["text"] for place, found in stored.items() for row in found}
        return [row | {"text": texts[row["samples_in"], row["sample_id"]]} for row in rows]

    return read


@pytest.fixture(autouse=True)
def _no_leftovers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A developer's own settings must not reach the tests."""
    for name in [name for name in os.environ if name.startswith("DISTILLBENCH_")]:
        monkeypatch.delenv(name)
    yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that train or kill come first: at the end, one of them would keep a single core busy for minutes."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, "e2e" not in item.path.parts))
