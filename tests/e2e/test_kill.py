"""A run that is killed again and again ends with the results of an undisturbed one."""

from __future__ import annotations

import random
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

    for name in ("results.parquet", "samples.parquet"):
        expected, found = (
            pq.read_table(tmp_path / side / "reports/small" / name) for side in ("undisturbed", "killed")
        )
        assert found.equals(expected), name
    assert _weights(tmp_path / "killed") == _weights(tmp_path / "undisturbed")


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
