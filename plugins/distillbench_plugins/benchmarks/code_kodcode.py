"""The `code_kodcode` grader: every test that the reference solution passes, under pytest, in the sandbox."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Gt

from distillbench.errors import GraderError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Context, Grader
from distillbench.records import Judgement, Problem
from distillbench_plugins.grading.code import Attempt, CodeBenchmark, was_disturbed
from distillbench_plugins.grading.sandbox.channel import ChannelError
from distillbench_plugins.grading.sandbox.confinement import Limits
from distillbench_plugins.grading.sandbox.runners.functions import LOADED, NOT_LOADED
from distillbench_plugins.grading.sandbox.sandbox import Child, Ending, Sandbox
from distillbench_plugins.grading.sandbox.values import DOES_NOT_COMPARE, pack, unpack

#: Bumped when what is kept of a reference solution would be another.
_REFERENCE_FORM = 2
_NONCE_BYTES = 16
#: Bytes of what is told at once: the ids of all tests, and what a reference defines.
_MOST_TOLD = 1 << 16
#: Clock seconds beside processor seconds, so that a busy machine decides nothing.
_WALL_FACTOR, _WALL_SECONDS = 4, 10
#: pytest and what it imports when it starts: a child is forked with all of it.
_PYTEST: tuple[str, ...] = ("pytest", "_pytest.capture", "_pytest.debugging", "_pytest.doctest", "_pytest.logging")
_PYTEST += (
    "_pytest.legacypath",
    "_pytest.recwarn",
    "_pytest.setupplan",
    "_pytest.skipping",
    "_pytest.stepwise",
    "_pytest.terminalprogress",
)
_PYTEST += ("_pytest.threadexception", "_pytest.unraisableexception", "_pytest.warnings", "unittest.mock", "numpy")
_PYTEST += ("_pytest.helpconfig", "_pytest.setuponly", "_pytest.unittest", "pdb")
_IMPORTS_SOLUTION = re.compile(r"^\s*(?:from\s+solution\s+import|import\s+solution)\b", re.MULTILINE)


@dataclass(frozen=True)
class KodCodeOptions:
    """Options of the `code_kodcode` grader.

    Attributes:
        time_limit: Seconds of processor time for all tests of one solution.
    """

    time_limit: Annotated[float, Gt(0)] = 30.0


@dataclass(frozen=True, slots=True)
class Reference:
    """What a problem's reference solution shows about its tests.

    Attributes:
        required: The ids of the tests that it passes, and that prove something.
        imports_all: Whether the tests lack names that `from solution import *` before them gives.
        is_apart: Whether it passes them in a process of its own, where it does not see the tests.
        defined: What it defines: `classes` with their special methods, and `names`, all that are public.
        packages: The packages that it imports.
        unproven: The ids of the tests that pass without a solution too, and so prove nothing.
    """

    required: tuple[str, ...]
    imports_all: bool
    is_apart: bool
    defined: Mapping[str, Any]
    packages: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TestRun:
    """What came of one run of a solution's tests.

    Attributes:
        came_to: What each test came to: `passed`, `skipped`, or the name of what it raised.
        collected: The ids of all tests that there are.
        failure: Why there are no complete results; empty where there are.
        endings: How the processes ended.
        defined: What the solution defines (see `Reference`); only where it ran beside the tests.
    """

    came_to: Mapping[str, str]
    collected: tuple[str, ...] = ()
    failure: str = ""
    endings: tuple[Ending, ...] = ()
    defined: Mapping[str, Any] | None = None

    @property
    def passed(self) -> tuple[str, ...]:
        """The ids of the tests that passed."""
        return tuple(name for name in self.collected if self.came_to.get(name) == "passed")

    @property
    def is_out_of_time(self) -> bool:
        """Whether a process used up its time."""
        return self.failure == "time_limit" or any(ending.is_out_of_time for ending in self.endings)


class CodeKodCode(CodeBenchmark[KodCodeOptions]):
    """Grades KodCode: every test that the reference solution passes must pass, under pytest.

    Tests are counted by their ids. Where the reference shows that a problem's tests need no more of the solution than
    plain values and objects of its classes, the solution runs in a process of its own and never meets the tests.
    """

    name = "code_kodcode"
    version = 2
    packages = ("pytest",)
    preload: ClassVar[tuple[str, ...]] = (*_PYTEST, "timeit", "typing", "collections", "heapq", "inspect")

    def entry_point(self, problem: Problem) -> str:
        """The first of the names that the tests import."""
        return str(problem.metadata["doc"].get("entry") or "").partition(",")[0].strip()

    def facts(self) -> Mapping[str, Any]:
        """The time limit."""
        return {"time_limit": self.options.time_limit}

    def runner(self, sandbox: Sandbox, context: Context) -> Callable[[Problem, str], Attempt]:
        """Runs one solution's tests; the reference of each problem is run once and kept in the context's folder."""
        tests = PytestRuns(sandbox, self.options.time_limit)
        folder = context.work / "kodcode-references"
        folder.mkdir(parents=True, exist_ok=True)
        return partial(self._attempt, tests, folder)

    def _attempt(self, tests: PytestRuns, folder: Path, problem: Problem, code: str) -> Attempt:
        row = self.row(problem)
        reference = tests.reference(folder, row["solution"], row["tests"])
        if not reference.required:
            raise GraderError(_nothing_is_tested(row["id"], len(reference.unproven)))
        run = tests.run(code, row["tests"], reference)
        return Attempt(judgement(run, reference.required), self._is_suspect(run))

    def _is_suspect(self, run: TestRun) -> bool:
        """Whether another load may have made it run out of time. What used hardly any time itself was only waiting."""
        used = sum(ending.cpu_seconds for ending in run.endings)
        return run.is_out_of_time and used > self.options.time_limit / 4 and any(map(was_disturbed, run.endings))


def _nothing_is_tested(name: str, n_unproven: int) -> str:
    if not n_unproven:
        return f"the reference solution of {name!r} passes none of its tests"
    return (
        f"nothing is tested: the {n_unproven} tests that the reference solution of {name!r} passes "
        "pass without a solution too (they define themselves what they test, or never call it)"
    )


def _hollow(names: Sequence[str], classes: Mapping[str, Any]) -> str:
    """A solution with all names of the reference, none of which can be used."""
    used = "class _Used(BaseException):\n    pass\n"
    made = "    def __new__(cls, *given, **named):\n        raise _Used\n"
    parts = [
        f"class {name}:\n{made}" if name in classes else f"def {name}(*given, **named):\n    raise _Used\n"
        for name in names
    ]
    return used + "".join(parts)


def judgement(run: TestRun, required: Sequence[str]) -> Judgement:
    """Right when every required test passed, and the tests that there are have all been told of."""
    missed = [name for name in required if run.came_to.get(name) != "passed"]
    if run.is_out_of_time:
        return Judgement(False, "time_limit")
    if not run.failure and not missed:
        return Judgement(True)
    if run.failure:
        return Judgement(False, run.failure)
    return Judgement(False, _detail(run.came_to.get(missed[0], "")))


def _detail(came_to: str) -> str:
    """Why a test that did not pass counts as wrong."""
    if came_to in ("AssertionError", "Failed"):  # the second is pytest's own, of an exception that did not come
        return "wrong_answer"
    return {"MemoryError": "memory_limit"}.get(came_to, "runtime_error")


class PytestRuns:
    """Runs tests on solutions, in children of one sandbox.

    Args:
        sandbox: Where they run.
        seconds: Processor time of one run.
    """

    def __init__(self, sandbox: Sandbox, seconds: float) -> None:
        self._sandbox = sandbox
        self._seconds = seconds
        self._wall_seconds = _WALL_FACTOR * seconds + _WALL_SECONDS
        self._limits = Limits(cpu_seconds=seconds)

    def reference(self, folder: Path, solution: str, tests: str) -> Reference:
        """What a reference solution shows; found once, and then read from a file.

        Raises:
            GraderError: It ran out of time.
        """
        about = json.dumps([_REFERENCE_FORM, version("pytest"), self._seconds, solution, tests])
        file = folder / f"{hashlib.sha256(about.encode()).hexdigest()}.json"
        if file.exists():
            found = json.loads(file.read_text(encoding="utf-8"))
            told = {key: tuple(each) for key, each in found.items() if isinstance(each, list)}
            return Reference(**found | told)
        reference = self._find_reference(solution, tests)
        _write(file, json.dumps(asdict(reference)))
        return reference

    def _find_reference(self, solution: str, tests: str) -> Reference:
        """Runs a reference beside its tests, as pytest would; then apart, to see whether it passes the same."""
        beside = Reference((), not _IMPORTS_SOLUTION.search(tests), False, {})
        run = self._first_run(solution, tests, beside)
        if not beside.imports_all and (len(run.passed) < len(run.collected) or run.failure):
            importing = replace(beside, imports_all=True)
            second = self._first_run(solution, tests, importing)
            if len(second.passed) > len(run.passed):
                beside, run = importing, second
        defined = dict(run.defined or {})
        packages = tuple(defined.pop("packages", ()))
        unproven = self._unproven(run, tests, beside)
        required = tuple(name for name in run.passed if name not in unproven)
        apart = replace(beside, required=required, is_apart=True, defined=defined, packages=packages, unproven=unproven)
        is_same = bool(required) and set(required) <= set(self.run(solution, tests, apart).passed)
        return replace(apart, is_apart=is_same)

    def _unproven(self, run: TestRun, tests: str, beside: Reference) -> tuple[str, ...]:
        """The tests that pass as well with an empty solution, or with one of which nothing can be used."""
        defined = run.defined or {}
        names = [name for name in defined.get("names", ()) if name.isidentifier()]
        passed = set(self.run("", tests, beside).passed) if run.passed else set[str]()
        if run.passed:
            passed |= set(self.run(_hollow(names, defined.get("classes", {})), tests, beside).passed)
        return tuple(name for name in run.passed if name in passed)

    def _first_run(self, solution: str, tests: str, reference: Reference) -> TestRun:
        run = self.run(solution, tests, reference)
        if run.is_out_of_time:
            raise GraderError(f"the reference solution ran out of its {self._seconds} s")
        return run

    def run(self, solution: str, tests: str, reference: Reference) -> TestRun:
        """Runs the tests on a solution.

        Args:
            solution: Model code, or the reference.
            tests: The test module.
            reference: Says how; one that defines nothing yet is the reference's own first run.
        """
        defined, is_apart = reference.defined, reference.is_apart
        with self._children(is_apart=is_apart) as children:
            *solver, tester = children
            job: dict[str, Any] = {"solution": None if is_apart else solution, "seconds": self._seconds}
            job |= {"classes": defined.get("classes"), "names": defined.get("names")}
            job |= {"packages": list(reference.packages)}
            until = time.monotonic() + self._wall_seconds
            failure = ""
            if solver:
                failure = self._load(solver[0], {"code": solution, "seconds": self._seconds}, until)
            failure = failure or self._load(tester, job, until)
            source = f"from solution import *\n{tests}" if reference.imports_all else tests
            run = TestRun({}, failure=failure) if failure else _results(tester, source, until)
            return replace(run, endings=tuple(child.kill() for child in children))

    @contextmanager
    def _children(self, *, is_apart: bool) -> Iterator[list[Child]]:
        """The process that runs the tests, and before it the solution's where that has one of its own."""
        if not is_apart:
            with self._sandbox.start("pytest", self._limits) as tester:
                yield [tester]
            return
        ours, theirs = socket.socketpair()
        with (
            ours,
            theirs,
            self._sandbox.start("solution", self._limits, [theirs.fileno()]) as solver,
            self._sandbox.start("pytest", self._limits, [ours.fileno()]) as tester,
        ):
            ours.close()
            theirs.close()
            yield [solver, tester]

    def _load(self, child: Child, job: Mapping[str, Any], until: float) -> str:
        """Has a child load its code; why that failed, or nothing."""
        try:
            child.channel.send(pack(job))
            said = child.channel.receive(max(0.01, until - time.monotonic()))
        except ChannelError:
            return "time_limit" if time.monotonic() >= until else "runtime_error"
        if said == LOADED:
            return ""
        name = said.removeprefix(NOT_LOADED).decode(errors="replace")
        known = {"SyntaxError": "syntax_error", "IndentationError": "syntax_error", "TabError": "syntax_error"}
        return {**known, "MemoryError": "memory_limit"}.get(name, "runtime_error")


def _results(tester: Child, tests: str, until: float) -> TestRun:
    """Gives a child the tests and a nonce that nobody could know before, and listens until it has ended."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    came_to: dict[str, str] = {}
    collected: tuple[str, ...] | None = None
    defined: dict[str, Any] = {}
    failure = ""
    try:
        tester.channel.send(pack({"nonce": nonce, "tests": tests}))
        while collected is None or len(came_to) < len(collected):
            said = tester.channel.receive(max(0.01, until - time.monotonic()))
            if not said.startswith(nonce):
                return TestRun({}, failure="runtime_error")
            about, *rest = unpack(said[_NONCE_BYTES:], like=_MOST_TOLD)
            if about == "collected":
                collected, defined = tuple(map(_text, rest[0])), rest[1]
            elif about == "":
                failure = "runtime_error"
            else:
                came_to.setdefault(_text(about), _text(rest[0]))
    except (ChannelError, *DOES_NOT_COMPARE):  # a solution beside its tests can say anything
        failure = failure or ("time_limit" if time.monotonic() >= until else "runtime_error")
    return TestRun(came_to, collected or (), failure, defined=defined)


def _text(told: Any) -> str:
    if not isinstance(told, str):
        raise TypeError(f"a {type(told).__name__} where a text is told")
    return told


def _write(file: Path, text: str) -> None:
    """Writes a file at once: two that find the same reference at the same time do no harm."""
    handle, name = tempfile.mkstemp(dir=file.parent, suffix=".part")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    Path(name).replace(file)


@hookimpl
def distillbench_benchmarks() -> list[type[Grader]]:
    """This module's benchmark."""
    return [CodeKodCode]
