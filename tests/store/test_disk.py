"""A disk that is full, read-only or over its quota: the file is named, exit code 1, no traceback."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distillbench.errors import StoreError
from distillbench.writing import naming, refused_by_disk

SMALL: dict[str, Any] = {
    "students": {"small": {"use": "toy-hub-student"}},
    "trainers": {"fit": {"steps": [1]}},
    "matrix": {"seed": 0},
}


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes disks of some KiB; only root can."""
    made = []

    def make(kib: int) -> Path:
        folder = tmp_path / f"disk{kib}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("a small disk can be mounted by root only")
        made.append(folder)
        return folder

    yield make
    for folder in made:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.mark.slow
@pytest.mark.parametrize("kib", [4, 16, 32, 48, 64, 96])
def test_a_full_disk_stops_a_run_with_the_file_and_exit_code_1(
    kib: int, full_disk: Callable[[int], Path], cli: Any, matrix: Any, toys: Path, control: Any
) -> None:
    store = full_disk(kib) / "store"
    for command in ("run", "report"):
        done = cli("--store", store, command, matrix(SMALL))
        assert done.code == 1
        assert "Traceback" not in done.out + done.err
        assert "process ended" not in done.err
        told = [line for line in done.err.splitlines() if line.endswith(": No space left on device")]
        assert told and all(str(store) in line for line in told)


def test_every_writer_names_its_file(tmp_path: Path) -> None:
    """In a process whose files may not grow, because this one's own must."""
    code = """
import resource, sys
from pathlib import Path
from distillbench.report.writers.files import put
from distillbench.store.journal import Journal
from distillbench.store.rows import TRACES, write_rows
from distillbench.sealed import write_json
from distillbench.writing import refused_by_disk
import pyarrow.parquet
folder = Path(sys.argv[1])
journal = Journal(folder / "rows.jsonl").open()
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
for name, write in {
    "a.json": lambda: write_json(folder / "a.json", {"a": 1}),
    "rows.jsonl": lambda: journal.append({"a": 1}),
    "report.md": lambda: put(folder / "report.md", b"text"),
    TRACES: lambda: write_rows(folder / TRACES, []),
}.items():
    try:
        write()
    except OSError as error:
        assert refused_by_disk(error) == f"{folder / name}: File too large", refused_by_disk(error)
    else:
        raise AssertionError(name)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG])
def test_a_refusal_is_known_however_it_is_wrapped(number: int, tmp_path: Path) -> None:
    words = os.strerror(number)
    with pytest.raises(OSError, match=words) as caught, naming(tmp_path / "file"):
        raise OSError(number, words)
    assert refused_by_disk(caught.value) == f"{tmp_path / 'file'}: {words}"
    wrapped = StoreError("it cannot be written")
    wrapped.__cause__ = caught.value
    assert refused_by_disk(wrapped) == f"{tmp_path / 'file'}: {words}"
    assert refused_by_disk(OSError(number, words), tmp_path) == f"{tmp_path}: {words}"


def test_a_library_that_keeps_only_the_words_is_understood(tmp_path: Path) -> None:
    said = "Error while serializing: I/O error: No space left on device (os error 28)"
    assert refused_by_disk(RuntimeError(said), tmp_path) == f"{tmp_path}: No space left on device"
    for other in (
        RuntimeError("no"),
        OSError("no number"),
        FileNotFoundError(errno.ENOENT, "gone", "f"),
        KeyError("x"),
    ):
        assert refused_by_disk(other, tmp_path) is None


def test_a_name_that_is_there_stays() -> None:
    with pytest.raises(OSError, match="full") as caught, naming(Path("other")):
        raise OSError(errno.ENOSPC, "full", "own")
    assert caught.value.filename == "own"
