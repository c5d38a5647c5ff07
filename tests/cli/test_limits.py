"""Limits of the shell under which a run would break: told before anything runs, or raised where that may be."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: In one process of its own, a fork for each case: sets limits for good, and runs the command line.
TRIED = """
import contextlib, io, json, os, resource, sys
from distillbench.cli.main import invoke

with contextlib.redirect_stderr(io.StringIO()):  # another user may not read what is imported late
    invoke(["run", "no-such-matrix.yaml"])
import psutil

for case in json.loads(sys.argv[1]):
    reader, writer = os.pipe()
    if os.fork() == 0:
        if case["user"] and os.geteuid() == 0:
            os.setuid(65534)
        hard = resource.getrlimit(case["kind"])[1] if case["soft_only"] else case["value"]
        resource.setrlimit(case["kind"], (case["value"], hard))
        printed = io.StringIO()
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            code = invoke(case["arguments"])
        os.write(writer, json.dumps([code, printed.getvalue(), resource.getrlimit(case["kind"])[0]]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        print(stream.read() or "null", flush=True)
    os.wait()
"""
MIB = 2**20
REFUSED: dict[str, tuple[int, int, str]] = {
    "files": (resource.RLIMIT_NOFILE, 64, "open files (ulimit -n)"),
    "few files": (resource.RLIMIT_NOFILE, 20, "open files (ulimit -n)"),
    "processes": (resource.RLIMIT_NPROC, 10, "processes and threads (ulimit -u)"),
    "file size": (resource.RLIMIT_FSIZE, MIB, "size of a file (ulimit -f)"),
    "no file at all": (resource.RLIMIT_FSIZE, 0, "size of a file (ulimit -f)"),
    "stack": (resource.RLIMIT_STACK, 256 * 1024, "stack (ulimit -s)"),
    "address space": (resource.RLIMIT_AS, 1024 * MIB, "address space (ulimit -v)"),
    "data": (resource.RLIMIT_DATA, 512 * MIB, "data (ulimit -d)"),
    "processor time": (resource.RLIMIT_CPU, 60, "processor time in seconds (ulimit -t)"),
}


def tried(run_python: Callable[..., Any], tmp_path: Path, cases: list[tuple[int, int, bool]]) -> list[Any]:
    """The exit code, what was printed, and the soft limit then, for each (limit, value, whether it is soft only)."""
    run = ["--store", str(tmp_path / "store"), "run", "no-such-matrix.yaml"]
    asked = [
        {"kind": kind, "value": value, "soft_only": soft, "arguments": run, "user": kind == resource.RLIMIT_NPROC}
        for kind, value, soft in cases
    ]
    done = run_python("-c", TRIED, json.dumps(asked))
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def test_limits_that_would_break_a_run_are_told_first(run_python: Callable[..., Any], tmp_path: Path) -> None:
    cases = [(kind, value, False) for kind, value, _ in REFUSED.values()]
    for (name, (_, _, words)), (code, printed, _) in zip(
        REFUSED.items(), tried(run_python, tmp_path, cases), strict=True
    ):
        assert code == 2, name
        assert "nothing has run" in printed and words in printed and "wanted: " in printed, name
        assert printed.count("ulimit -") == 2, "one limit, and what to write"
        assert "no-such-matrix" not in printed and "Traceback" not in printed, name
    assert not (tmp_path / "store").exists()


def test_soft_limits_that_protect_nobody_are_raised(run_python: Callable[..., Any], tmp_path: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 256:
        pytest.skip("the hard limit of open files is low here")
    cases = [(resource.RLIMIT_NOFILE, 64, True), (resource.RLIMIT_NOFILE, 256, True)]
    [low, enough] = tried(run_python, tmp_path, cases)
    assert "the limit of open files is raised from 64 to 256" in low[1] and low[2] == 256
    assert "note" not in enough[1]
    assert "no-such-matrix.yaml" in low[1] and "no-such-matrix.yaml" in enough[1], "it went on"


def test_eval_looks_too(run_python: Callable[..., Any], tmp_path: Path) -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50));"
        "from distillbench.cli.main import invoke; sys.exit(invoke(sys.argv[1:]))"
    )
    done = run_python("-c", code, "--store", str(tmp_path), "eval", "--model", "no/such", "--benchmarks", "coins")
    assert done.code == 2 and "open files (ulimit -n)" in done.err
