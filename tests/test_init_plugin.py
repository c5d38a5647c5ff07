"""`distillbench init --plugin`: what it makes and refuses. Beside it, tests/test_wheel.py runs it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("given", ["probe", "distillbench-probe", "two-words", "x9"])
def test_it_makes_a_package_with_an_entry_point(here: Path, cli: Cli, given: str) -> None:
    name = given.removeprefix("distillbench-")
    done = cli("init", "--plugin", given)
    assert done.code == 0, done.err
    module = f"distillbench_{name.replace('-', '_')}"
    folder = here / f"distillbench-{name}"
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert found == ["README.md", f"{module}.py", "pyproject.toml", f"tests/test_{module}.py"]
    assert all(f"wrote {Path(folder.name) / path}" in done.out for path in found)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == folder.name and project["entry-points"] == {"distillbench": {name: module}}
    assert not any("$" in path.read_text() for path in folder.rglob("*") if path.is_file()), "every place is filled in"


@pytest.mark.slow
def test_what_it_makes_follows_our_own_rules(here: Path, cli: Cli) -> None:
    ruff, mypy = pytest.importorskip("ruff").__name__, pytest.importorskip("mypy").__name__
    assert cli("init", "--plugin", "probe").code == 0
    width, rules = ["--line-length", "120"], ["--select", "E,F,W,I,UP,B,SIM,C4,RUF"]
    checks = ([ruff, "check", *width, *rules, "."], [ruff, "format", "--check", *width, "."])
    for command in (*checks, [mypy, "--strict", "distillbench_probe.py"]):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd="distillbench-probe", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("given", "hint"),
    [("Lab", "'lab'"), ("my_lab", "'my-lab'"), ("a  b", "'a-b'"), ("9x", "'x'"), ("a--b", "'a-b'"), ("lab-", "'lab'"),
     ("../up", "'up'"), ("/etc/x", "'etc-x'"), ("a\n", "'a'"), ("", ""), ("é", ""), ("٣", ""), ("distillbench-", "")],
)  # fmt: skip
def test_a_name_that_no_package_can_have(here: Path, cli: Cli, given: str, hint: str) -> None:
    done = cli("init", "--plugin", given)
    assert done.code == 2 and "cannot be a plugin's name" in done.err and "wanted: lower-case" in done.err
    assert (f"did you mean {hint}?" in done.err) if hint else ("did you mean" not in done.err)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("given", ["plugins", "tasks", "distillbench-tasks"])
def test_a_name_that_is_taken(here: Path, cli: Cli, given: str) -> None:
    done = cli("init", "--plugin", given)
    assert done.code == 2 and "of that name already; give another name" in done.err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_nothing_that_exists_is_touched(here: Path, cli: Cli, kind: str) -> None:
    place = here / "distillbench-probe"
    if kind == "folder":
        place.mkdir()
    elif kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to(here / "nowhere")
    done = cli("init", "--plugin", "probe")
    assert done.code == 2 and "distillbench-probe exists and is left as it is" in done.err
    assert [path.name for path in here.iterdir()] == ["distillbench-probe"]
    assert (place.is_dir() and not any(place.iterdir())) or place.is_symlink() or place.read_text() == "mine"


def test_a_path_is_for_a_matrix(here: Path, cli: Cli) -> None:
    done = cli("init", "mine.yaml", "--plugin", "probe")
    assert done.code == 2 and "PATH is for a matrix" in done.err and list(here.iterdir()) == []
