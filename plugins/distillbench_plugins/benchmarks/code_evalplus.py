"""The `code_evalplus` grader: HumanEval+ and MBPP+, with evalplus' verdicts."""

from __future__ import annotations

import math
import secrets
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from distillbench.errors import GraderError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Context, Grader
from distillbench.records import Judgement, Problem
from distillbench_plugins.grading.code import Attempt, CodeBenchmark, find_code, was_disturbed
from distillbench_plugins.grading.evalplus import (
    LONGEST,
    WHOLE,
    Dataset,
    Expected,
    Reference,
    Tests,
    TooLongError,
    reference,
    time_limits,
    total_seconds,
)
from distillbench_plugins.grading.sandbox.channel import ChannelError
from distillbench_plugins.grading.sandbox.confinement import Limits
from distillbench_plugins.grading.sandbox.runners.functions import LENGTH, LOADED, NONCE_BYTES, RAISED, SECONDS
from distillbench_plugins.grading.sandbox.sandbox import Child, Ending, Sandbox
from distillbench_plugins.grading.sandbox.values import pack, unpack

_LOAD_SECONDS = 5.0
#: The base and the plus tests: the code is loaded for each.
_SECTIONS = 2
#: Results are told together up to so many bytes; a reference's, up to these.
_TOGETHER, _MOST_REFERENCE_BYTES = 1 << 20, 256 << 20
#: A reference solution may take this much processor time.
_REFERENCE_SECONDS = 600
#: Wall time behind the processor time: this many times as much, and so many seconds more.
_WALL_FACTOR, _WALL_SECONDS = 4.0, 10.0
#: Problems whose tests are held in memory; a stage comes to each only once.
_HELD = 16


@dataclass(frozen=True)
class EvalPlusOptions:
    """Options of the `code_evalplus` grader.

    Attributes:
        dataset: `humaneval` or `mbpp`: decides evalplus' special rules.
        evalplus_exact: Keep evalplus 0.3.1's known bug, to compare with published numbers: HumanEval/32 never passes.
        memory_gb: What one solution may use. evalplus gives 4; Mbpp/255's own solution needs more for the plus tests.
    """

    dataset: Dataset
    evalplus_exact: bool = False
    memory_gb: float = 4.0


class EvalPlus(CodeBenchmark[EvalPlusOptions]):
    """Grades HumanEval+ and MBPP+ as evalplus 0.3.1 does, in a sandbox.

    A solution is right when it passes the base and the plus tests; `scores` has both. The plus tests are run only after
    the base tests passed. The sandbox is given inputs; results are compared outside it.
    """

    name = "code_evalplus"
    version = 2
    packages = ("evalplus", "numpy")
    preload = ("numpy", "typing", "collections", "math", "re", "itertools", "functools", "heapq", "string", "hashlib")

    def extract(self, answer: str, problem: Problem) -> str | None:
        """The code of the answer; in the exact mode as it is indented, which evalplus does not mend."""
        return find_code(answer, self.entry_point(problem), as_written=self.options.evalplus_exact)

    def facts(self) -> Mapping[str, Any]:
        """Which rules were used."""
        return {"mode": "evalplus_exact" if self.options.evalplus_exact else "evalplus without its known bugs"}

    def runner(self, sandbox: Sandbox, context: Context) -> Callable[[Problem, str], Attempt]:
        """Runs a solution on the tests of its problem."""
        run = _Runner(self, sandbox, context.work)
        return run.attempt


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A problem that is ready to be run on.

    Attributes:
        message: What the runner is sent after the nonce.
        whole_message: The same, to have long results told whole.
        expected: What is right.
        seconds: What each test may take.
        cpu_seconds: What all tests may take.
    """

    message: bytes
    whole_message: Callable[[], bytes]
    expected: Expected
    seconds: Sequence[float]
    cpu_seconds: int


class _Runner:
    def __init__(self, grader: EvalPlus, sandbox: Sandbox, work: Path) -> None:
        self.grader = grader
        self.sandbox = sandbox
        self.work = work
        self.memory_bytes = int(grader.options.memory_gb * 2**30)
        self._preparing = threading.Lock()
        self._held: dict[str, _Prepared] = {}

    def attempt(self, problem: Problem, code: str) -> Attempt:
        """Runs one solution."""
        prepared = self._prepared(problem)
        try:
            return self._run(prepared, code, prepared.message, _TOGETHER)
        except TooLongError:
            pass
        try:
            return self._run(prepared, code, prepared.whole_message(), WHOLE + _TOGETHER)
        except TooLongError:  # more than `WHOLE` bytes
            return _judged(0, prepared.expected, "wrong_answer")

    def _run(self, prepared: _Prepared, code: str, message: bytes, longest: int) -> Attempt:
        limits = Limits(prepared.cpu_seconds, self.memory_bytes, message_bytes=longest)
        expected = prepared.expected
        with self.sandbox.start("functions", limits) as child:
            nonce = _load(child, code, expected.tests.entry_point)
            if isinstance(nonce, str):
                return _judged(0, expected, nonce)
            passed = kept = n_loads = 0
            try:
                child.channel.send(nonce + message)
                for said in _messages(child, nonce, prepared.cpu_seconds):
                    for why in expected.check(passed, said):
                        if why:
                            return _judged(passed, expected, why)
                        passed += 1
                    n_loads += not said
                    if (
                        not child.kept_to(prepared.seconds[passed - 1] if said else _LOAD_SECONDS)
                        or n_loads > _SECTIONS
                    ):
                        break  # each test was in time as far as it says itself
                    kept = passed
                    if passed == expected.n_tests:
                        return _judged(passed, expected, "")
            except (ChannelError, struct.error):
                pass  # the child has ended, or says nothing; how it ended tells why
            return _ended(kept, expected, child.kill())

    def _prepared(self, problem: Problem) -> _Prepared:
        """A problem that is ready; the last few are held in memory."""
        name = str(problem.metadata["doc"]["id"])
        with self._preparing:
            if name not in self._held:
                if len(self._held) == _HELD:
                    del self._held[next(iter(self._held))]
                self._held[name] = self._prepare(name, self.grader.row(problem))
            return self._held[name]

    def _prepare(self, name: str, row: Mapping[str, Any]) -> _Prepared:
        """Reads what is kept of a problem; the first time, runs its reference solution."""
        tests = Tests(self.grader.options.dataset, row)
        kept = self.work / f"{tests.digest}.reference"
        whole = kept.with_suffix(".whole")
        if not kept.exists():
            results, references = self._run_reference(name, tests)
            message = tests.message([time_limits(one) for one in references], longest=LONGEST)
            _write(whole, pack(results))
            _write(kept, pack([message, *([list(part) for part in astuple(one)] for one in references)]))
        message, *parts = unpack(kept.read_bytes())
        references = [Reference(*map(tuple, part)) for part in parts]
        limits = [time_limits(one) for one in references]
        read_whole = lru_cache(1)(lambda: unpack(whole.read_bytes()))
        return _Prepared(
            message,
            lambda: tests.message(limits),
            Expected(tests, references, self.grader.options.evalplus_exact, read_whole),
            [seconds for section in limits for seconds in section],
            math.ceil(sum(map(total_seconds, limits)) + 2 * _LOAD_SECONDS),
        )

    def _run_reference(self, name: str, tests: Tests) -> tuple[list[bytes], list[Reference]]:
        limits = Limits(_REFERENCE_SECONDS, memory_bytes=16 << 30, message_bytes=_MOST_REFERENCE_BYTES)
        with self.sandbox.start("functions", limits) as child:
            nonce = _load(child, tests.reference_code, tests.entry_point)
            if isinstance(nonce, str):
                raise GraderError(f"the reference solution of {name} does not load: {nonce}")
            most = [[float(_REFERENCE_SECONDS)] * len(inputs) for inputs in tests.inputs]
            child.channel.send(nonce + tests.message(most, timed=True))
            said: list[bytes] = []
            n_tests = sum(map(len, tests.inputs))
            messages = _messages(child, nonce, _REFERENCE_SECONDS)
            try:
                while len(said) < n_tests:
                    said += _split(next(messages))
            except ChannelError as error:
                raise GraderError(f"the reference solution of {name} ends at its test {len(said)}: {error}") from error
        wrong = [number for number, one in enumerate(said) if one[SECONDS.size : SECONDS.size + 1] == RAISED]
        if wrong:
            raise GraderError(f"the reference solution of {name} fails on its test {wrong[0]}")
        results, seconds = [one[SECONDS.size :] for one in said], [SECONDS.unpack_from(one)[0] for one in said]
        n_base = len(tests.inputs[0])
        parts = (slice(n_base), slice(n_base, None))
        return results, [reference(results[part], seconds[part]) for part in parts]


def _load(child: Child, code: str, entry_point: str) -> bytes | str:
    """Has the code loaded; returns the nonce for its results, or why it cannot be loaded."""
    child.channel.send(pack({"code": code, "entry_point": entry_point, "load_seconds": _LOAD_SECONDS}))
    try:
        said = child.receive(_WALL_FACTOR * _LOAD_SECONDS + _WALL_SECONDS)
    except ChannelError:
        return "time_limit" if child.kill().is_out_of_time else "runtime_error"
    if said == LOADED:
        return secrets.token_bytes(NONCE_BYTES)
    reasons = {b"SyntaxError": "syntax_error", b"IndentationError": "syntax_error", b"MemoryError": "memory_limit"}
    return reasons.get(said[1:], "runtime_error")


def _messages(child: Child, nonce: bytes, cpu_seconds: float) -> Iterator[bytes]:
    """What the runner says under the nonce, until it has said all, or too long nothing."""
    end = time.monotonic() + _WALL_FACTOR * cpu_seconds + _WALL_SECONDS
    while True:
        message = child.receive(max(0.001, end - time.monotonic()))
        if message[:NONCE_BYTES] != nonce:
            raise ChannelError("said without the nonce")
        yield message[NONCE_BYTES:]


def _split(said: bytes) -> Iterator[bytes]:
    place = 0
    while place < len(said):
        start = place + LENGTH.size
        place = start + LENGTH.unpack_from(said, place)[0]
        yield said[start:place]


def _judged(passed: int, expected: Expected, why: str, suspect: bool = False) -> Attempt:
    base, plus = float(passed >= expected.n_base), float(passed == expected.n_tests)
    return Attempt(Judgement(bool(plus), why, {"base": base, "plus": plus}), suspect)


def _ended(passed: int, expected: Expected, ending: Ending) -> Attempt:
    """A solution that ended before all its tests had."""
    out_of_time = ending.is_out_of_time or ending.exit_code == -9
    return _judged(
        passed, expected, "time_limit" if out_of_time else "runtime_error", out_of_time and was_disturbed(ending)
    )


def _write(path: Path, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
        stream.write(data)
    Path(stream.name).replace(path)


@hookimpl
def distillbench_benchmarks() -> Iterable[type[Grader]]:
    """The grader of HumanEval+ and MBPP+."""
    return [EvalPlus]
