"""A hundred mutated matrices and a hundred mutated tasks; `benchmarks/fuzz_yaml.py` makes thousands of them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz_yaml.py"


@pytest.fixture(scope="module")
def fuzz_yaml() -> ModuleType:
    """The script, as a module."""
    if not SCRIPT.exists():
        pytest.skip("the benchmarks are not beside these tests")
    spec = importlib.util.spec_from_file_location("fuzz_yaml", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_yaml"] = module
    spec.loader.exec_module(module)
    return module


def test_no_mutated_file_ends_in_a_traceback(fuzz_yaml: ModuleType, tmp_path: Path) -> None:
    failures, endings = fuzz_yaml.fuzz(tmp_path, 100, 100, fuzz_yaml.SEED)
    assert [failure.error for failure in failures] == []
    assert endings["a mistake that is told"] + endings["planned"] == 200
    assert endings["planned"] > 10, "mutations that spoil everything reach nothing that lies deep"


def test_what_is_mutated_is_good_before_and_a_traceback_is_seen(
    fuzz_yaml: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fuzz = fuzz_yaml.Fuzz(tmp_path)
    assert fuzz.matrix(fuzz_yaml.RICH.encode()) is None
    assert fuzz.matrix(fuzz_yaml.HOSTED.encode()) is None
    assert fuzz.task(fuzz_yaml.TASK.encode()) is None
    assert dict(fuzz.endings) == {"planned": 3}
    monkeypatch.setattr(fuzz_yaml, "load_matrix", lambda path, catalog: 1 // 0)
    failure = fuzz.matrix(b"name: x\n")
    assert failure.place.startswith("ZeroDivisionError in test_mutated_yaml.py")
