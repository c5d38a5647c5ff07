"""The `code_codeforces` grader: limits of a problem, comparison without a checker, checkers, what is reported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from data_problems import counted, tasks_of, write_copies
from hypothesis import given
from hypothesis import strategies as st

from distillbench.errors import GraderError
from distillbench.protocols import Context
from distillbench.records import Judgement, Resources
from distillbench_plugins.benchmarks.code_codeforces import Codeforces, CodeforcesOptions, Program
from distillbench_plugins.grading.checker import Checker
from distillbench_plugins.grading.sandbox.sandbox import Sandbox
from distillbench_plugins.grading.stdin_tests import same_words

TWICE = "print(2 * int(input()))"
#: Two numbers whose sum is the input's.
ANY_SUM = """\
import sys
n = int(open(sys.argv[1]).read())
correct = open(sys.argv[2]).read().split()
ours = list(map(int, open(sys.argv[3]).read().split()))
assert sys.argv[0] == "checker.py" and sum(map(int, correct)) == n
print(int(len(ours) == 2 and sum(ours) == n))
"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Codeforces.preload) as started:
        yield started


@pytest.fixture
def checking(sandbox: Sandbox) -> Sandbox:
    """A sandbox in which checkers run."""
    if "bubblewrap" not in sandbox.layers:
        pytest.skip("NOT TESTED: checkers need bubblewrap, which is not here")
    return sandbox


def judged(sandbox: Sandbox, code: str, checker: str = "", time_factor: float = 1.0, **changed: Any) -> Judgement:
    tests = [{"input": "2\r\n", "output": "4\r\n"}, {"input": "0\n", "output": "0\n"}]
    row = {"tests": json.dumps(tests), "time_limit": 1.0, "memory_limit": 256.0, "checker": checker} | changed
    return Program(sandbox, row, time_factor).attempt(code).judgement


def test_a_right_program_passes_all_tests(sandbox: Sandbox) -> None:
    assert judged(sandbox, TWICE) == Judgement(True, scores={"tests_passed": 2.0, "tests": 2.0})


WRONG = {
    "wrong on the second": ("print(4)", "wrong_answer", 1),
    "crash": ("print(4)\nraise ValueError", "runtime_error", 0),
    "an exit code": (f"import sys\n{TWICE}\nsys.exit(1)", "runtime_error", 0),
    "a number with another form": ("print(float(2 * int(input())))", "wrong_answer", 0),
    "partial output": ("print('', end='')", "wrong_answer", 0),
    "syntax": ("print(", "syntax_error", 0),
    "more output": (f"{TWICE}\nprint(0)", "wrong_answer", 0),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_program_fails_with_the_reason(sandbox: Sandbox, name: str) -> None:
    code, detail, passed = WRONG[name]
    found = judged(sandbox, code)
    assert (found.correct, found.detail, found.scores["tests_passed"]) == (False, detail, passed)


def test_the_time_limit_is_the_problem_s_times_the_factor(sandbox: Sandbox) -> None:
    slow = f"import time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass\n{TWICE}"
    assert judged(sandbox, slow, time_limit=0.1).detail == "time_limit"
    assert judged(sandbox, slow, time_limit=0.1, time_factor=20.0).correct


def test_the_memory_limit_is_the_problem_s(sandbox: Sandbox) -> None:
    large = f"data = bytearray(400 << 20)\n{TWICE}"
    assert judged(sandbox, large, memory_limit=64.0).detail == "memory_limit"
    # To touch that much memory has taken a slow machine a second of processor time.
    assert judged(sandbox, large, memory_limit=1024.0, time_limit=30.0).correct


def test_a_thread_with_a_large_stack_has_its_place(sandbox: Sandbox) -> None:
    code = (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 27)\n"
        "def down(n): return 0 if n == 0 else 1 + down(n - 1)\n"
        f"def main():\n    down(50000)\n    {TWICE}\n"
        "thread = threading.Thread(target=main)\nthread.start()\nthread.join()\n"
    )
    assert judged(sandbox, code).correct


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ("1  2\n3", "1 2 3\n", True),
        ("YES\nNo", "yes\nNO", True),
        ("Alice", "alice", False),
        ("1.0", "1", False),
        ("1 2", "1 2 3", False),
        ("1 2 3 4", "1 2 3", False),
        ("", "\n", True),
    ],
)
def test_without_a_checker_words_decide(output: str, expected: str, same: bool) -> None:
    assert same_words(output, expected) is same


@given(
    st.lists(st.sampled_from(["1", "-2", "yes", "No", "x"])),
    st.lists(st.sampled_from([" ", "\n", "\t\r\n"]), min_size=1),
)
def test_white_space_does_not_matter(words: list[str], spaces: list[str]) -> None:
    other = "".join(f"{word}{spaces[number % len(spaces)]}" for number, word in enumerate(words))
    assert same_words(other, " ".join(words))
    assert not same_words(f"{other} more", " ".join(words))


SUM: dict[str, Any] = {"tests": json.dumps([{"input": "5\n", "output": "1 4\n"}])}


def test_a_checker_decides(checking: Sandbox) -> None:
    assert judged(checking, "print(2, 3)", ANY_SUM, **SUM).correct
    assert judged(checking, "print(2, 3)", **SUM).detail == "wrong_answer"
    assert judged(checking, "print(2, 4)", ANY_SUM, **SUM).detail == "wrong_answer"


def test_a_checker_that_fails_on_an_output_only_refuses_it(checking: Sandbox) -> None:
    assert judged(checking, "print('two', 3)", ANY_SUM, **SUM).detail == "wrong_answer"


@pytest.mark.parametrize("source", ["raise ValueError", "import sys\nprint(1)\nsys.exit(2)", "print("])
def test_a_checker_that_fails_on_the_correct_output_is_the_grader_s_error(checking: Sandbox, source: str) -> None:
    with pytest.raises(GraderError, match="checker fails"):
        judged(checking, "print(2, 3)", source, **SUM)


def test_a_checker_that_says_anything_else_refuses(checking: Sandbox) -> None:
    assert not Checker(checking, "print(0.5)").accepts("", "", "")
    assert Checker(checking, "print(' 1 ')").accepts("", "", "")


def test_a_checker_is_given_the_exact_texts(checking: Sandbox) -> None:
    texts = ("a\r\nb", "", "\u00e9 \U0001f600\n\n")
    source = "import sys\nfrom pathlib import Path\nprint(int([Path(p).read_bytes() for p in sys.argv[1:]] == {}))"
    wanted = [text.encode() for text in texts]
    assert Checker(checking, source.format(wanted)).accepts(*texts)


def test_a_program_cannot_leave_files_for_the_checker(checking: Sandbox) -> None:
    code = "open('correct_output.txt', 'w').write('2 4')\nopen('input.txt', 'w').write('6')\nprint(2, 4)"
    assert judged(checking, code, ANY_SUM, **SUM).detail == "wrong_answer"


@pytest.mark.parametrize("tests", ["no json", "[]", '[{"input": "1"}]', "[1]", "{}"])
def test_tests_that_cannot_be_read_are_the_grader_s_error(sandbox: Sandbox, tests: str) -> None:
    with pytest.raises(GraderError):
        judged(sandbox, TWICE, tests=tests)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_factor_that_leaves_no_time_is_refused(factor: float) -> None:
    Codeforces(CodeforcesOptions()).refuse_unusable()
    with pytest.raises(GraderError, match="time_factor"):
        Codeforces(CodeforcesOptions(time_factor=factor)).refuse_unusable()


def test_problems_of_a_task_are_graded_and_the_share_without_a_checker_is_told(tmp_path: Path) -> None:
    tasks, ref = tasks_of(write_copies(tmp_path / "data")), counted("codeforces")
    problems = tasks.problems(ref, "test")
    grader = Codeforces(CodeforcesOptions()).with_task(tasks.load(ref))
    with grader.open(Context(work=tmp_path, resources=Resources(cpus=2))) as grading:
        found = list(grading.judge_all((problem, TWICE) for problem in problems))
        facts = grading.facts
    assert [(one.correct, one.detail, one.error) for one in found] == [(True, "", None), (False, "wrong_answer", None)]
    assert (facts["without_checker"], facts["many_answers_without_checker"]) == (1.0, 0.5)
