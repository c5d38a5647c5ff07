"""Answers that would take for ever, or all memory: each costs only itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from plugin_helpers import problem

from distillbench.errors import GraderError, StageError
from distillbench.protocols import Context, Grading
from distillbench_plugins.benchmarks.math_boxed import MathBoxed, MathBoxedOptions
from distillbench_plugins.grading.mathematics.checker import MathChecker
from distillbench_plugins.grading.mathematics.process import Limits

SECONDS = 0.5
MATRIX = "\\\\".join("&".join(str(100 * row + column) for column in range(100)) for row in range(100))
#: What no machine can settle in the limit.
ENDLESS = {
    "power": "9^{9^{9^9}}",
    "long power": "2^{1000000000}",
    "factorials": "100000!!",
    "binomial": "\\binom{10^{12}}{10^{11}}",
    "brackets": "(" * 10_000 + "5" + ")" * 10_000,
    "fractions": "\\frac{1}{" * 3_000 + "}" * 3_000,
    "matrix": f"\\begin{{pmatrix}}{MATRIX}\\end{{pmatrix}}",
}
BOMBS = ENDLESS | {
    "open fractions": "\\frac{" * 17_000,
    "digits": "7" * 100_000,
    "dollars": "$" * 100_000,
    "words": "\\text{" + "a " * 50_000 + "}",
    "terms": "1" + "+1" * 50_000,
}


def children() -> list[int]:
    """Processes that this one has started and that are not dead."""
    return [child.pid for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def grading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grading]:
    before = children()
    grader = MathBoxed(MathBoxedOptions(time_limit=SECONDS))
    with grader.open(Context(tmp_path_factory.mktemp("grading"))) as opened:
        yield opened
    assert children() == before


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_within_its_limit_and_costs_only_itself(name: str, grading: Grading) -> None:
    answers = [("x+1", "1+x"), ("\\sqrt{7}", BOMBS[name]), ("x+1", "2+x"), ("x+1", "1+x")]
    begin = time.monotonic()
    before, bomb, *after = grading.judge_all((problem(gold=gold), answer) for gold, answer in answers)
    assert time.monotonic() - begin < 6 * SECONDS + 30
    assert before.correct is True
    assert [one.correct for one in after] == [False, True]
    assert bomb.correct is not True
    if name in ENDLESS or bomb.correct is None:
        assert bomb.correct is None, "never wrong"
        assert bomb.error == "math-verify ran out of its 0.5 s of processor time"


def test_brackets_that_math_verify_gives_up_on_are_a_grader_error() -> None:
    """It takes its own recursion error for a text that is no mathematics."""
    with MathChecker(Limits(cpu_seconds=60, wall_seconds=120)) as checker:
        deep = "\\sqrt{" * 200 + "2" + "}" * 200
        with pytest.raises(GraderError, match="nest deeper than the 40"):
            checker.is_equal("\\sqrt{7}", deep)
        assert checker.is_equal("\\sqrt{7}", "((((" * 20) is False, "what does not balance is no mathematics: wrong"


def test_memory_is_limited() -> None:
    with (
        MathChecker(Limits(cpu_seconds=60, wall_seconds=60, memory=150 << 20)) as checker,
        pytest.raises(GraderError, match="took more than 150 MiB of memory"),
    ):
        checker.is_equal("\\sqrt{7}", ENDLESS["long power"])


def test_time_by_the_clock_is_limited() -> None:
    with MathChecker(Limits(cpu_seconds=60, wall_seconds=1)) as checker:
        assert checker.is_equal("x+1", "1+x"), "the time to start is not counted"
        with pytest.raises(GraderError, match="more than 1 s by the clock"):
            checker.is_equal("\\sqrt{7}", ENDLESS["power"])
        assert checker.is_equal("x+1", "1+x")


def test_nothing_is_started_for_what_can_be_said_at_once(tmp_path: Path) -> None:
    before = children()
    with MathBoxed(MathBoxedOptions()).open(Context(tmp_path)) as opened:
        found = opened.judge_all((problem(gold="025"), str(number)) for number in range(100))
        assert [one.correct for one in found].index(True) == 25
        assert children() == before


def test_a_worker_that_somebody_kills_is_a_grader_error_and_is_replaced() -> None:
    before = children()
    with MathChecker() as checker:
        assert checker.is_equal("x+1", "1+x")
        (worker,) = set(children()) - set(before)
        threading.Timer(0.5, os.kill, (worker, signal.SIGKILL)).start()
        with pytest.raises(GraderError, match="ended by SIGKILL"):
            checker.is_equal("\\sqrt{7}", ENDLESS["power"])
        assert checker.is_equal("x+1", "1+x")
    assert children() == before


def test_a_grading_that_is_left_in_the_middle_ends_its_work() -> None:
    before = children()
    with MathChecker() as checker:
        asked = checker.compare_all([("x+1", "1+x"), ("\\sqrt{7}", ENDLESS["power"])])
        assert next(asked) is True
        assert len(children()) == len(before) + 1, "it is at work on the second"
        asked.close()
        assert children() == before


def test_a_worker_that_cannot_start_ends_the_stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "math_verify.py").write_text("raise ImportError('broken on purpose')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with MathChecker() as checker, pytest.raises(StageError, match="exit code 1"):
        checker.is_equal("x+1", "1+x")


def test_the_workers_end_with_a_parent_that_is_killed() -> None:
    code = (
        "import psutil, time\n"
        "from distillbench_plugins.grading.mathematics.checker import MathChecker\n"
        "checker = MathChecker()\n"
        "assert checker.is_equal('x+1', '1+x')\n"
        "print(psutil.Process().children()[0].pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert psutil.pid_exists(worker)
        parent.kill()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(worker) and psutil.Process(worker).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
