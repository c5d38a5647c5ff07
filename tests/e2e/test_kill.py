"""A run that is killed again and again ends with the results of an undisturbed one."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kill_helpers import run_and_kill, same_tables

Start = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.slow

N_KILLS = 5


def test_five_kills_change_nothing(tmp_path: Path, small_matrix: Path, start: Start) -> None:
    begin = time.monotonic()
    undisturbed = start(tmp_path / "undisturbed", "run", small_matrix)
    output, _ = undisturbed.communicate(timeout=300)
    seconds = time.monotonic() - begin
    assert undisturbed.returncode == 0, output

    rng = random.Random(20_261_120)
    killed_early = 0
    for _ in range(N_KILLS):
        killed_early += run_and_kill(start(tmp_path / "killed", "run", small_matrix), rng.uniform(0.15, 0.7) * seconds)
    assert killed_early, "no run was under way any more when it was to be killed"
    last = start(tmp_path / "killed", "run", small_matrix)
    output, _ = last.communicate(timeout=300)
    assert last.returncode == 0, output

    same_tables(tmp_path / "undisturbed", tmp_path / "killed")
    assert _weights(tmp_path / "killed") == _weights(tmp_path / "undisturbed")


def _weights(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.glob("stages/*/*/**/*.safetensors")}
