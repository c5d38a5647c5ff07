"""A grid of checkpoints and benchmarks that is killed while samples come, ten times, loses and changes nothing."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from kill_helpers import kill, same_tables

Start = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.slow

N_KILLS = 10


def test_ten_kills_of_a_grid_change_nothing(tmp_path: Path, small_matrix: Path, start: Start) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    output, _ = (first := start(undisturbed, "run", small_matrix)).communicate(timeout=300)
    assert first.returncode == 0, output
    shutil.copytree(undisturbed, killed)
    for name in ("sample", "grade"):
        shutil.rmtree(killed / "stages" / name)

    total = _stored(undisturbed)
    moments = sorted(random.Random(20_261_128).sample(range(1, total), N_KILLS))
    for moment in moments:
        process = start(killed, "run", small_matrix)
        while _stored(killed) < moment:
            assert process.poll() is None, "it ended before it was to be killed"
            time.sleep(0.01)
        kill(process)
        assert _stored(killed) < total
    output, _ = (last := start(killed, "run", small_matrix)).communicate(timeout=300)
    assert last.returncode == 0, output
    same_tables(undisturbed, killed)

    # What is there is graded while the engine still loads; both threads import transformers.
    shutil.rmtree(killed / "stages/grade")
    shutil.rmtree(next((killed / "stages/sample").iterdir()))
    output, _ = (graded := start(killed, "run", small_matrix)).communicate(timeout=300)
    assert graded.returncode == 0, output
    same_tables(undisturbed, killed)


def _stored(store: Path) -> int:
    """Samples that are finished or journaled; while a stage moves from one to the other it may be missed."""
    finished = store.glob("stages/sample/*/samples.parquet")
    journals = store.glob("work/*/scratch/samples.jsonl")
    return sum(_rows(path) for path in finished) + sum(_lines(path) for path in journals)


def _rows(path: Path) -> int:
    return int(pq.read_metadata(path).num_rows)


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:  # finished this moment
        return 0
