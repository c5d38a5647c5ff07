"""Kills runs, and compares what is left."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import psutil
import pyarrow.parquet as pq


def same_tables(one: Path, other: Path) -> None:
    """Fails unless two runs of the small matrix have equal reports."""
    for name in ("results.parquet", "samples.parquet"):
        expected, found = (pq.read_table(store / "reports/small" / name) for store in (one, other))
        assert found.equals(expected), name


def run_and_kill(process: subprocess.Popen[str], seconds: float) -> bool:
    """Kills a run after so many seconds; says whether it was still running."""
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill(process)
        return True
    return False


def kill(process: subprocess.Popen[str]) -> None:
    """Kills a run with no chance to clean up; its workers must end by themselves."""
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=15)
    assert not alive, "workers outlive a runner that was killed"
