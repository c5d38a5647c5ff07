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
from distillbench_plugins.grading.mathematics.checker import MathChecker, goes_on
from distillbench_plugins.grading.mathematics.process import LimitError, Limits, Question

SECONDS = 0.5
MATRIX = "\\\\".join("&".join(str(100 * row + column) for column in range(100)) for row in range(100))
#: What no machine can settle in the limit.
ENDLESS = {
    "power": "9^{9^{9^9}}",
    "long power": "2^{1000000000}",
    "factorials": "100000!!",
    "binomial": "\\binom{10^{12}}{10^{11}}",
    "sum": "\\sum_{k=1}^{1000000000} \\sin(k^2)",
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
    """It is wrong, for the gold answer can be computed: a student that writes towers makes no row invalid."""
    answers = [("x+1", "1+x"), ("\\sqrt{7}", BOMBS[name]), ("x+1", "2+x"), ("x+1", "1+x")]
    begin = time.monotonic()
    found = list(grading.judge_all((problem(gold=gold), answer) for gold, answer in answers))
    assert time.monotonic() - begin < 18 * SECONDS + 90
    assert [one.correct for one in found] == [True, False, False, True], found


@pytest.mark.parametrize("name", ["sum", "matrix"])
def test_a_gold_answer_that_takes_for_ever_is_a_grader_error(name: str, grading: Grading) -> None:
    (found,) = grading.judge_all([(problem(gold=ENDLESS[name]), "\\sqrt{7}")])
    assert found.error == "math-verify ran out of its 0.5 s of processor time"


def test_a_gold_answer_too_large_to_compute_is_a_grader_error_where_the_answer_does_not_settle_it() -> None:
    with MathChecker() as checker:
        gold = "10^{10^{100}}"
        assert checker.is_equal(gold, "100^{5 \\cdot 10^{99}}") is True
        assert checker.is_equal(gold, "100^{10^{99}}") is False
        assert checker.is_equal(gold, "10") is False
        with pytest.raises(GraderError, match="too large to compute"):
            checker.is_equal(gold, "e^{e^{1000}}")


@pytest.mark.parametrize(
    ("answer_costs", "gold_costs", "becomes"),
    [
        (True, None, "limit"),  # each can be computed alone: nobody knows
        (GraderError("dear"), True, False),
        (GraderError("dear"), GraderError("dear"), "limit"),
    ],
)
def test_who_is_to_blame_for_a_limit(
    answer_costs: bool | GraderError, gold_costs: bool | GraderError | None, becomes: object
) -> None:
    question = Question(("x",), ("y",), found=LimitError("limit"))
    assert goes_on(question)
    assert (question.about, question.found) == ("costs", None)
    question.found = answer_costs
    assert goes_on(question) is (gold_costs is not None)
    if gold_costs is not None:
        assert question.about == "gold costs"
        question.found = gold_costs
        assert not goes_on(question)
    assert question.found is False if becomes is False else str(question.found) == becomes


def test_brackets_that_nest_too_deeply_to_be_read_are_wrong() -> None:
    """It takes its own recursion error for a text that is no mathematics."""
    with MathChecker(Limits(cpu_seconds=60, wall_seconds=120)) as checker:
        assert checker.is_equal("\\sqrt{7}", "\\sqrt{" * 200 + "2" + "}" * 200) is False
        assert checker.is_equal("\\sqrt{7}", "((((" * 20) is False


def test_memory_is_limited() -> None:
    with (
        MathChecker(Limits(cpu_seconds=60, wall_seconds=60, memory=30 << 20)) as checker,
        pytest.raises(GraderError, match="took more than 30 MiB of memory"),
    ):
        checker.is_equal(ENDLESS["sum"], "\\sqrt{7}")


def test_time_by_the_clock_is_limited_and_blames_nobody() -> None:
    with MathChecker(Limits(cpu_seconds=60, wall_seconds=1)) as checker:
        assert checker.is_equal("x+1", "1+x"), "the time to start is not counted"
        with pytest.raises(GraderError, match="more than 1 s by the clock"):
            checker.is_equal("\\sqrt{7}", ENDLESS["sum"])
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
            checker.is_equal("\\sqrt{7}", ENDLESS["sum"])
        assert checker.is_equal("x+1", "1+x")
    assert children() == before


def test_a_grading_that_is_left_in_the_middle_ends_its_work() -> None:
    before = children()
    with MathChecker() as checker:
        asked = checker.compare_all([("x+1", "1+x"), ("\\sqrt{7}", ENDLESS["sum"])])
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
