"""Where nothing isolates model code, none is run; unless the user says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sandbox_harness import call, isolated

from distillbench.cli.run import UNSAFE_VARIABLE as VARIABLE_OF_OPTION
from distillbench_plugins.grading.sandbox import isolation
from distillbench_plugins.grading.sandbox.isolation import UNSAFE_VARIABLE, SandboxError
from distillbench_plugins.grading.sandbox.sandbox import Sandbox

#: A server in which seccomp and Landlock cannot be imported, as on a machine that lacks their libraries.
BLOCKED = "import sys; sys.modules['pyseccomp'] = sys.modules['landlockpy'] = None; "


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without bubblewrap, seccomp and Landlock."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(isolation, "_CODE", BLOCKED + isolation._CODE)


@pytest.mark.usefixtures("nothing")
def test_without_isolation_nothing_is_run_and_the_error_says_what_to_install() -> None:
    with pytest.raises(SandboxError) as refused, Sandbox():
        pass
    for wanted in ("bubblewrap", "seccomp", "Landlock", "apt install bubblewrap", "--unsafe-code-execution"):
        assert wanted in str(refused.value)


@pytest.mark.usefixtures("nothing")
def test_the_user_may_run_it_all_the_same_and_the_report_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(UNSAFE_VARIABLE, "1")
    with Sandbox() as sandbox:
        assert sandbox.layers[0] == "NO ISOLATION"
        assert call(sandbox, "def f(x): return x + 1", 1).passes(2)


def test_the_option_does_not_weaken_a_machine_that_isolates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(UNSAFE_VARIABLE, "1")
    with isolated(False) as sandbox:
        assert {"seccomp", "landlock"} <= set(sandbox.layers)
        assert call(sandbox, "import os\ndef f(x): return os.fork()", 1).values == ["raised PermissionError"]


def test_run_has_the_option_and_sets_what_the_sandbox_reads(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(UNSAFE_VARIABLE, "0")
    assert VARIABLE_OF_OPTION == UNSAFE_VARIABLE
    assert "--unsafe-code-execution" in cli("run", "--help").out
    assert cli("run", tmp_path / "missing.yaml").code == 2
    import os

    assert os.environ[UNSAFE_VARIABLE] == "0"
    matrix = tmp_path / "matrix.yaml"
    matrix.write_text("students:\n  tiny: {use: tiny-qwen3}\nevaluations:\n  coins: {}\n")
    assert cli("run", matrix, "--dry-run", "--unsafe-code-execution").code == 0
    assert os.environ[UNSAFE_VARIABLE] == "1"
