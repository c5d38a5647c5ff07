"""A run that is killed again and again ends with the results of an undisturbed one."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

Start = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.slow

N_KILLS = 5
N_GRID_KILLS = 10


def test_five_kills_change_nothing(tmp_path: Path, small_matrix: Path, start: Start) -> None:
    begin = time.monotonic()
    undisturbed = start(tmp_path / "undisturbed", "run", small_matrix)
    output, _ = undisturbed.communicate(timeout=300)
    seconds = time.monotonic() - begin
    assert undisturbed.returncode == 0, output

    rng = random.Random(20_261_120)
    killed_early = 0
    for _ in range(N_KILLS):
        killed_early += _run_and_kill(start(tmp_path / "killed", "run", small_matrix), rng.uniform(0.15, 0.7) * seconds)
    assert killed_early, "no run was under way any more when it was to be killed"
    last = start(tmp_path / "killed", "run", small_matrix)
    output, _ = last.communicate(timeout=300)
    assert last.returncode == 0, output

    _same_tables(tmp_path / "undisturbed", tmp_path / "killed")
    assert _weights(tmp_path / "killed") == _weights(tmp_path / "undisturbed")


def test_ten_kills_of_a_grid_change_nothing(tmp_path: Path, small_matrix: Path, start: Start) -> None:
    """Every checkpoint on every benchmark in one session, killed while samples come; each rerun goes on."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    output, _ = (first := start(undisturbed, "run", small_matrix)).communicate(timeout=300)
    assert first.returncode == 0, output
    for name in ("sample", "grade"):
        shutil.rmtree(undisturbed / "stages" / name)
    shutil.copytree(undisturbed, killed)
    begin = time.monotonic()
    output, _ = (again := start(undisturbed, "run", small_matrix)).communicate(timeout=300)
    assert again.returncode == 0, output
    seconds = time.monotonic() - begin

    rng = random.Random(20_261_128)
    under_way = 0
    for _ in range(N_GRID_KILLS):
        _run_and_kill(start(killed, "run", small_matrix), rng.uniform(0.4, 1.0) * seconds)
        under_way += any((killed / "work").glob("*/scratch/samples.jsonl"))
    assert under_way, "no kill met samples under way"
    output, _ = (last := start(killed, "run", small_matrix)).communicate(timeout=300)
    assert last.returncode == 0, output
    _same_tables(undisturbed, killed)


def _same_tables(one: Path, other: Path) -> None:
    for name in ("results.parquet", "samples.parquet"):
        expected, found = (pq.read_table(store / "reports/small" / name) for store in (one, other))
        assert found.equals(expected), name


def _run_and_kill(process: subprocess.Popen[str], seconds: float) -> bool:
    """Kills a run with its terminal gone and no chance to clean up; says whether it was still running."""
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        _, alive = psutil.wait_procs(workers, timeout=15)
        assert not alive, "workers outlive a runner that was killed"
        return True
    return False


def _weights(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.glob("stages/*/*/**/*.safetensors")}
