"""The `code_livecodebench` grader: LiveCodeBench's rules, for programs that read standard input and for functions."""

from __future__ import annotations

import math
import secrets
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

from distillbench.hookspecs import hookimpl
from distillbench.protocols import Context, Grader
from distillbench.records import Judgement, Problem
from distillbench_plugins.grading.code import Attempt, CodeBenchmark, was_disturbed
from distillbench_plugins.grading.livecodebench import MODULES, PREAMBLE, Cases, official_code, read_tests, same_value
from distillbench_plugins.grading.sandbox.channel import ChannelError
from distillbench_plugins.grading.sandbox.confinement import Limits
from distillbench_plugins.grading.sandbox.runners.emulated import LOADED as PROGRAM_LOADED
from distillbench_plugins.grading.sandbox.runners.emulated import OUTPUT
from distillbench_plugins.grading.sandbox.runners.functions import LENGTH, LOADED, NONCE_BYTES, RAISED, VALUE
from distillbench_plugins.grading.sandbox.sandbox import Child, Sandbox
from distillbench_plugins.grading.sandbox.values import DOES_NOT_COMPARE, comparable, pack, unpack
from distillbench_plugins.grading.stdin_tests import WALL_FACTOR, WALL_SECONDS, detail_of, run_on, same_lines

Mode = Literal["process", "official"]
Harness = Literal["2025-05", "2024"]
#: A result of more bytes is wrong: no expected one is that long.
_LONGEST_RESULT = 32 << 20
#: A solution is compiled where it runs, after the preamble: a `from __future__` may then stand first in it.
_PROGRAM = f"{PREAMBLE}exec(compile({{code!r}}, 'solution.py', 'exec'))\n"


@dataclass(frozen=True)
class LiveCodeBenchOptions:
    """Options of the `code_livecodebench` grader.

    Attributes:
        mode: `process` runs a program on each test of standard input as a process of its own. `official` runs it as
            the official harness does, in one process with standard input emulated, which fails some correct programs.
        harness: Which official harness `official` runs programs as: the current one, of May 2025, in which `sys.stdin`
            has a `buffer` and cannot be iterated over; or the one before it, for numbers published until then.
        seconds: Processor time of one test; officially 6.
        memory_gb: What one process may use; officially there is no limit.
    """

    mode: Mode = "process"
    harness: Harness = "2025-05"
    seconds: float = 6.0
    memory_gb: float = 4.0


class LiveCodeBench(CodeBenchmark[LiveCodeBenchOptions]):
    """Grades LiveCodeBench by its official rules, in a sandbox.

    The tests of a problem are run in order until one fails. What a program writes is compared line by line, as text or
    as decimals; results of functions by `==`. A time limit is processor time, so that no other load changes a verdict.

    Source: LiveCodeBench, `lcb_runner/evaluation/testing_util.py`.
    """

    name = "code_livecodebench"
    version = 2
    preload = (*MODULES, "typing", "numpy")

    def facts(self) -> Mapping[str, Any]:
        """Which rules were used."""
        mode = {"mode": self.options.mode}
        return mode | {"harness": self.options.harness} if self.options.mode == "official" else mode

    def entry_point(self, problem: Problem) -> str:
        """None: the last complete block is the solution, whatever it defines."""
        return ""

    def extract(self, answer: str, problem: Problem) -> str | None:
        """The code of the answer; in the official mode by the official rule, complete or not."""
        return official_code(answer) if self.options.mode == "official" else super().extract(answer, problem)

    def runner(self, sandbox: Sandbox, context: Context) -> Callable[[Problem, str], Attempt]:
        """Runs a solution on the tests of its problem."""
        reading, solutions = threading.Lock(), Solutions(sandbox, self.options)

        def attempt(problem: Problem, code: str) -> Attempt:
            with reading:
                row = self.row(problem)
            return solutions.attempt(read_tests(row["fn_name"] or "", row["public_tests"], row["private_tests"]), code)

        return attempt


class Solutions:
    """Runs solutions on tests.

    Args:
        sandbox: Where.
        options: By which rules.
    """

    def __init__(self, sandbox: Sandbox, options: LiveCodeBenchOptions) -> None:
        self._sandbox = sandbox
        self._options = options
        self._memory_bytes = int(options.memory_gb * 2**30)

    def attempt(self, tests: Cases, code: str) -> Attempt:
        """Runs one solution until a test fails.

        Raises:
            GraderError: The tests cannot be read.
            SandboxError: The sandbox failed.
        """
        if tests.fn_name:
            return self._call(tests, code)
        return self._emulate(tests, code) if self._options.mode == "official" else self._run(tests, code)

    def _limits(self, n_tests: int) -> Limits:
        """The official harness gives one second more for each test, and five for all."""
        seconds = math.ceil((self._options.seconds + 1) * n_tests + 5)
        return Limits(cpu_seconds=seconds, memory_bytes=self._memory_bytes)

    def _run(self, tests: Cases, code: str) -> Attempt:
        """Each test is a process. An exit code of the program's own is no failure, as officially."""
        program, limits = _PROGRAM.format(code=code), self._limits(1)
        for number, (given, wanted) in enumerate(zip(tests.inputs, tests.expected, strict=True)):
            run = run_on(self._sandbox, program, given, self._options.seconds, limits)
            if run.fault:
                return _failed(tests, number, run.fault, is_suspect=run.is_suspect)
            if not same_lines(run.output, wanted):
                return _failed(tests, number, "wrong_answer")
        return _passed(tests)

    def _emulate(self, tests: Cases, code: str) -> Attempt:
        """All tests in one process, as the official harness runs them."""
        job: dict[str, Any] = {"preamble": PREAMBLE, "code": code, "inputs": list(tests.inputs)}
        job |= {"seconds": self._options.seconds, "harness": self._options.harness}
        passed = 0
        with self._sandbox.start("emulated", self._limits(len(tests.inputs))) as child:
            try:
                child.channel.send(pack(job))
                begun = self._said_in_time(child)
                if begun != PROGRAM_LOADED:
                    return _failed(tests, 0, detail_of(_text(begun)))
                for wanted in tests.expected:
                    said = self._said_in_time(child)
                    if said[:1] != OUTPUT:
                        return _failed(tests, passed, detail_of(_text(said)))
                    if not same_lines(_text(said), wanted):
                        return _failed(tests, passed, "wrong_answer")
                    passed += 1
                return _passed(tests)
            except (ChannelError, ValueError):
                return _ended(tests, passed, child)

    def _call(self, tests: Cases, code: str) -> Attempt:
        """All calls in one process. A solution that loads is told a nonce: before that, it could say anything."""
        expected, inputs, passed = tests.results(), tests.arguments(), 0
        seconds = self._options.seconds
        official = self._options.mode == "official"
        owner = "Solution." if "class Solution" in code else ""
        code = f"{PREAMBLE}\n\n{code}" if official else _PROGRAM.format(code=code)
        with self._sandbox.start("functions", self._limits(len(expected))) as child:
            try:
                job = {"code": code, "entry_point": owner + tests.fn_name, "load_seconds": seconds}
                child.channel.send(pack(job))
                said = self._said_in_time(child)
                if said != LOADED:
                    return _failed(tests, 0, detail_of(said[1:].decode(errors="replace")))
                nonce = secrets.token_bytes(NONCE_BYTES)
                section = {"inputs": inputs, "seconds": [seconds] * len(inputs)}
                asked = {"output": "value", "timed": False, "longest": _LONGEST_RESULT, "sections": [section]}
                child.channel.send(nonce + pack(asked))
                for wanted, said in zip(expected, self._results(child, nonce), strict=False):
                    if said[:1] == RAISED:
                        return _failed(tests, passed, detail_of(said[1:].decode(errors="replace")))
                    if not _is_right(said, wanted):
                        return _failed(tests, passed, "wrong_answer")
                    passed += 1
                return _passed(tests)
            except (ChannelError, ValueError, struct.error):
                return _ended(tests, passed, child)

    def _results(self, child: Child, nonce: bytes) -> Iterator[bytes]:
        """What the runner says of each test, under the nonce: once before the first that the code is loaded.

        Raises:
            ChannelError: It ended, spoke without the nonce, or later than it may.
        """
        for number in count():
            message = self._said_in_time(child)
            if message[:NONCE_BYTES] != nonce or (number > 0) == (len(message) == NONCE_BYTES):
                raise ChannelError("said without the nonce, or nothing")
            place = NONCE_BYTES
            while place < len(message):
                start = place + LENGTH.size
                place = start + LENGTH.unpack_from(message, place)[0]
                yield message[start:place]

    def _said_in_time(self, child: Child) -> bytes:
        """The child's next message.

        Raises:
            ChannelError: There is none, or it came later than its processor time allows.
        """
        message = child.receive(self._wall_seconds)
        if not child.kept_to(self._options.seconds):
            raise ChannelError("later than it may")
        return message

    @property
    def _wall_seconds(self) -> float:
        return WALL_FACTOR * self._options.seconds + WALL_SECONDS


def _is_right(said: bytes, wanted: Any) -> bool:
    """Whether what is told of a call is a value, and the right one."""
    try:
        return said[:1] == VALUE and same_value(unpack(said[1:], len(pack(wanted)), comparable), wanted)
    except DOES_NOT_COMPARE:
        return False


def _text(said: bytes) -> str:
    """What the emulating runner says after its first byte.

    Raises:
        ValueError: No text.
    """
    return said[1:].decode(errors="surrogatepass")


def _passed(tests: Cases) -> Attempt:
    n_tests = float(len(tests.inputs))
    return Attempt(Judgement(True, scores={"tests_passed": n_tests, "tests": n_tests}))


def _failed(tests: Cases, number: int, why: str, *, is_suspect: bool = False) -> Attempt:
    scores = {"tests_passed": float(number), "tests": float(len(tests.inputs))}
    return Attempt(Judgement(False, why, scores), is_suspect)


def _ended(tests: Cases, passed: int, child: Child) -> Attempt:
    """The child ended before it had said all, said what is nothing, or nothing for too long."""
    ending = child.wait(0.2)
    is_late = ending is None
    ending = child.kill() if ending is None else ending
    if is_late or ending.is_out_of_time:
        return _failed(tests, passed, "time_limit", is_suspect=was_disturbed(ending))
    return _failed(tests, passed, "runtime_error")


@hookimpl
def distillbench_benchmarks() -> list[type[Grader]]:
    """The grader of this module."""
    return [LiveCodeBench]
