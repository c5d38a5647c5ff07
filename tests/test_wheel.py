"""The built wheel, outside the checkout: the example and a plugin that `init --plugin` makes pass their tests there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "distillbench-example"
OFFLINE = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]


def ran(folder: Path, *command: str | Path) -> str:
    """Runs a command in a folder, with nothing of this environment in its own; fails where it fails."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "DISTILLBENCH"))
    }
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=kept | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the built wheel; everything that it needs comes from this one, which it comes before."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    ran(folder, sys.executable, "-m", "pip", "wheel", *OFFLINE, "--wheel-dir", folder, ROOT)
    [wheel] = folder.glob("distillbench-*.whl")
    venv.create(folder / "venv", symlinks=True)
    made = folder / "venv" / "bin" / "python"
    ran(folder, sys.executable, "-m", "pip", "--python", made, "install", *OFFLINE, wheel)
    [site] = (folder / "venv" / "lib").glob("python*/site-packages")
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "others.pth").write_text("\n".join(others) + "\n")  # only now: pip would take it for installed already
    where = ran(folder, made, "-c", "import distillbench, distillbench_plugins; print(distillbench_plugins.__file__)")
    assert Path(where).is_relative_to(site), "the wheel's, and not the checkout's"
    return made


def install_and_test(python: Path, folder: Path, *how: str) -> str:
    """Installs a plugin and runs its tests, in its own folder."""
    ran(folder, sys.executable, "-m", "pip", "--python", python, "install", *OFFLINE, *how, folder)
    return ran(folder, python, "-m", "pytest", "-q", "-p", "no:cacheprovider")


def test_the_tests_of_the_example_pass(python: Path, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "distillbench-runs")
    folder = Path(shutil.copytree(EXAMPLE, tmp_path / EXAMPLE.name, ignore=ignored))
    assert "4 passed" in install_and_test(python, folder)


def test_the_tests_of_a_fresh_plugin_pass(python: Path, tmp_path: Path) -> None:
    ran(tmp_path, python.with_name("distillbench"), "init", "--plugin", "my-lab2")
    assert "3 passed" in install_and_test(python, tmp_path / "distillbench-my-lab2", "--editable")
