"""The `code_codeforces` grader: programs that read standard input, judged by a checker or by the one right output."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from distillbench.errors import GraderError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Context, Grader
from distillbench.records import Judgement, Problem
from distillbench_plugins.grading.checker import Checker
from distillbench_plugins.grading.code import Attempt, CodeBenchmark
from distillbench_plugins.grading.sandbox.confinement import Limits
from distillbench_plugins.grading.sandbox.sandbox import Sandbox
from distillbench_plugins.grading.stdin_tests import run_on, same_words

#: Address space beside a problem's memory limit: the interpreter, the modules it has imported, stacks of threads.
_INTERPRETER_BYTES = 256 << 20


@dataclass(frozen=True)
class CodeforcesOptions:
    """Options of the `code_codeforces` grader.

    Attributes:
        time_factor: Times a problem's time limit: the limits were set for compiled languages.
    """

    time_factor: float = 1.0


class Codeforces(CodeBenchmark[CodeforcesOptions]):
    """Grades Codeforces problems as open-r1 does, in a sandbox: each test is a process under the problem's own limits.

    Where a problem has a checker, it decides. Otherwise the words of the output must be the expected ones, yes and no
    in any case, numbers without tolerance: a right answer that is not the one of the tests is then graded wrong.

    Source: open-r1, `src/open_r1/utils/competitive_programming/cf_scoring.py`.
    """

    name = "code_codeforces"
    version = 2
    preload = (
        "collections",
        "math",
        "heapq",
        "itertools",
        "bisect",
        "functools",
        "io",
        "re",
        "random",
        "string",
        "typing",
    )

    def refuse_unusable(self) -> None:
        """Refuses a time factor that leaves no time."""
        if not (math.isfinite(self.options.time_factor) and self.options.time_factor > 0):
            raise GraderError(
                f"time_factor\n    wanted: a number above 0, such as 1 or 3\n    got:    {self.options.time_factor!r}"
            )

    def facts(self) -> Mapping[str, Any]:
        """The share of problems without a checker, and of those among them whose words allow several outputs."""
        if self._task is None:
            return {}
        docs = self._task.test_docs()
        checkers, many = docs["checker"], docs["many_answers"]
        without = [is_many for checker, is_many in zip(checkers, many, strict=True) if not checker]
        n_docs = max(1, len(checkers))
        return {
            "time_factor": self.options.time_factor,
            "without_checker": len(without) / n_docs,
            "many_answers_without_checker": sum(without) / n_docs,
        }

    def entry_point(self, problem: Problem) -> str:
        """None: the last complete block is the program."""
        return ""

    def runner(self, sandbox: Sandbox, context: Context) -> Callable[[Problem, str], Attempt]:
        """Runs a program on the tests of its problem until one fails."""
        reading = threading.Lock()

        def attempt(problem: Problem, code: str) -> Attempt:
            with reading:
                row = self.row(problem)
            return Program(sandbox, row, self.options.time_factor).attempt(code)

        return attempt


class Program:
    """Runs one problem's programs.

    Args:
        sandbox: Where.
        row: The problem's document.
        time_factor: Times its time limit.
    """

    def __init__(self, sandbox: Sandbox, row: Mapping[str, Any], time_factor: float) -> None:
        self._sandbox = sandbox
        self._tests = _read_tests(row["tests"])
        self._seconds = float(row["time_limit"]) * time_factor
        memory_bytes = int(float(row["memory_limit"]) * 2**20) + _INTERPRETER_BYTES
        self._limits = Limits(cpu_seconds=math.ceil(self._seconds) + 2, memory_bytes=memory_bytes)
        self._checker = Checker(sandbox, row["checker"]) if row["checker"] else None

    def attempt(self, code: str) -> Attempt:
        """Runs a program until a test fails.

        Raises:
            GraderError: The problem's checker fails.
            SandboxError: The sandbox failed.
        """
        n_tests = float(len(self._tests))
        for number, (given, wanted) in enumerate(self._tests):
            why, is_suspect = self._on_test(code, given, wanted)
            if why:
                return Attempt(Judgement(False, why, {"tests_passed": float(number), "tests": n_tests}), is_suspect)
        return Attempt(Judgement(True, scores={"tests_passed": n_tests, "tests": n_tests}))

    def _on_test(self, code: str, given: str, wanted: str) -> tuple[str, bool]:
        """Why a program fails a test, empty where it does not; and whether a load may be the reason."""
        run = run_on(self._sandbox, code, given, self._seconds, self._limits)
        why = run.fault or ("runtime_error" if run.ending.exit_code != 0 else "")
        if not why and not self._is_right(given, wanted, run.output):
            why = "wrong_answer"
        return why, run.is_suspect

    def _is_right(self, given: str, wanted: str, output: str) -> bool:
        if self._checker is None:
            return same_words(output, wanted)
        return self._checker.accepts(given, wanted, output)


def _read_tests(text: str) -> list[tuple[str, str]]:
    """The tests of a problem: input and output.

    Raises:
        GraderError: They cannot be read, or there are none.
    """
    try:
        tests = [(str(one["input"]), str(one["output"])) for one in json.loads(text)]
    except (ValueError, TypeError, KeyError) as error:
        raise GraderError(f"the tests cannot be read: {type(error).__name__}: {error}") from error
    if not tests:
        raise GraderError("the problem has no tests")
    return tests


@hookimpl
def distillbench_benchmarks() -> list[type[Grader]]:
    """The grader of this module."""
    return [Codeforces]
