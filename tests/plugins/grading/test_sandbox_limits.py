"""Limits lie outside of the process that is judged: what it does to its timers, its messages and its scratch."""
# ruff: noqa: E501 - attacks are written as they are run

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from code_tasks import Documents
from sandbox_harness import LIMITS, call, isolated

from distillbench.protocols import Context
from distillbench.records import Judgement, Resources
from distillbench_plugins.benchmarks.code_codeforces import Codeforces, Program
from distillbench_plugins.benchmarks.code_evalplus import EvalPlus, EvalPlusOptions
from distillbench_plugins.benchmarks.code_kodcode import CodeKodCode, PytestRuns, judgement
from distillbench_plugins.benchmarks.code_livecodebench import LiveCodeBench, LiveCodeBenchOptions, Solutions
from distillbench_plugins.grading.code import Attempt, CodeGrading
from distillbench_plugins.grading.livecodebench import Cases
from distillbench_plugins.grading.sandbox import isolation
from distillbench_plugins.grading.sandbox.channel import ChannelError
from distillbench_plugins.grading.sandbox.sandbox import Sandbox
from distillbench_plugins.grading.sandbox.values import pack

#: Processor seconds of a test, and what the attacks use.
LIMIT, USED = 0.3, 0.8
WORK = f"import signal, sys, threading, time\ndef work(seconds={USED}):\n"
WORK += " end = time.process_time() + seconds\n while time.process_time() < end: pass\n"
#: Ways out of the timers that the child sets for itself: code, then `work()` and a right answer.
ESCAPES = {
    "timers are taken off": "for timer in (0, 1, 2): signal.setitimer(timer, 0)\nwork()\n",
    "timers are set anew": "for timer in (1, 2): signal.setitimer(timer, 99, 99)\nwork()\n",
    "signals are ignored": "for one in (signal.SIGPROF, signal.SIGVTALRM): signal.signal(one, signal.SIG_IGN)\nwork()\n",
    "signals are handled": (
        "for one in (signal.SIGPROF, signal.SIGVTALRM, signal.SIGXCPU): signal.signal(one, lambda *_: None)\nwork()\n"
    ),
    "signals are blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwork()\n",
    "threads": (
        "signal.signal(signal.SIGPROF, signal.SIG_IGN); signal.signal(signal.SIGVTALRM, signal.SIG_IGN)\n"
        "threads = [threading.Thread(target=work) for _ in range(2)]\n"
        "for one in threads: one.start()\nfor one in threads: one.join()\n"
    ),
}
#: The channel of the `functions` runner is found in its frames: `results` holds the nonce.
RESULTS = """
def runner():
    frame = sys._getframe()
    while 'results' not in frame.f_locals: frame = frame.f_back
    return frame.f_locals['results']
"""


@pytest.fixture(scope="module", params=["bubblewrap", "seccomp and landlock"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with isolated(request.param == "bubblewrap", (*CodeKodCode.preload, *LiveCodeBench.preload)) as sandbox:
        yield sandbox


def program(sandbox: Sandbox, code: str) -> Judgement:
    tests = json.dumps([{"input": "3\n", "output": "14\n"}])
    row = {"tests": tests, "time_limit": LIMIT, "memory_limit": 256.0, "checker": ""}
    return Program(sandbox, row, 1.0).attempt(code).judgement


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_program_that_escapes_its_timers_is_out_of_time(sandbox: Sandbox, escape: str) -> None:
    found = program(sandbox, f"{WORK}{ESCAPES[escape]}print(14)")
    assert (found.correct, found.detail) == (False, "time_limit")


def test_a_program_within_its_time_is_not(sandbox: Sandbox) -> None:
    assert program(sandbox, f"{WORK}work(0.1)\nprint(14)").correct


def test_freeing_memory_is_no_time_of_a_program(sandbox: Sandbox, tmp_path: Path) -> None:
    """A process that holds a gigabyte takes a tenth of a second to end, after its last test and after its end."""
    hold = "held = bytearray(3 << 28)\nfor i in range(0, len(held), 4096): held[i] = 1\n"
    with sandbox.start("functions", replace(LIMITS, cpu_seconds=20.0)) as child:
        child.channel.send(pack({"code": f"{hold}def f(x): return x", "entry_point": "f", "load_seconds": 20.0}))
        assert child.receive(60.0) == b"+" and child.kept_to(20.0)
        section = {"inputs": [[1]], "seconds": [5.0]}
        child.channel.send(bytes(16) + pack({"output": "value", "timed": False, "longest": 9, "sections": [section]}))
        assert child.receive(20.0) == bytes(16)
        assert child.receive(20.0)[16:] == b"\0\0\0\2v\1"
        assert child.kept_to(0.0)
        assert not child.kill().is_out_of_time


def test_a_program_that_never_ends_is_ended_soon_after_its_time(sandbox: Sandbox) -> None:
    child_code = f"{WORK}{ESCAPES['signals are blocked'].replace('work()', 'work(60)')}"
    with sandbox.start("functions", LIMITS) as child:
        child.channel.send(pack({"code": child_code, "entry_point": "f", "load_seconds": 60.0}))
        ending = child.wait(30.0)
    assert ending is not None and ending.exit_code == -signal.SIGKILL and ending.is_out_of_time
    assert ending.cpu_seconds < LIMITS.cpu_seconds + 2


MODES = ["functions", "process", "official"]
INDENTED = {
    name: "\n".join(f"        {line}" for line in code.replace("\nfor one in threads: one.join()", "").splitlines())
    for name, code in ESCAPES.items()
    if name != "threads"
}


def lcb(sandbox: Sandbox, mode: str, escape: str) -> Judgement:
    """Two tests: the first is honest, the second has used its time twice over before it is right."""
    if mode == "functions":
        code = f"{WORK}class Solution:\n    def f(self, x):\n        if x == 1: return 1\n{INDENTED[escape]}\n        return x"
        tests = Cases("f", ("1", "2"), ("1", "2"))
    else:
        code = f"{WORK}x = input()\nif x == '2':\n    for _ in '1':\n{INDENTED[escape]}\nprint(x)"
        tests = Cases("", ("1\n", "2\n"), ("1\n", "2\n"))
    options = LiveCodeBenchOptions(mode="official" if mode == "official" else "process", seconds=LIMIT)
    return Solutions(sandbox, options).attempt(tests, code).judgement


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("escape", ["timers are taken off", "signals are blocked"])
def test_a_test_of_livecodebench_has_no_more_time_than_its_own(sandbox: Sandbox, mode: str, escape: str) -> None:
    found = lcb(sandbox, mode, escape)
    assert (found.correct, found.detail) == (False, "time_limit")
    told_together = mode == "functions"  # unless the first took long
    assert found.scores["tests_passed"] in ((0.0, 1.0) if told_together else (1.0,))


@pytest.mark.parametrize(
    "trick",
    [
        "held = runner(); flush = held.flush; held.flush = lambda: None; work(); held.flush = flush",  # told together
        "held = runner(); [(work(0.08), held._send(held.nonce)) for _ in range(10)]",  # empty messages between
        "held = runner(); [(work(0.08), held._send(held.nonce + bytes(3))) for _ in range(10)]",  # no whole message
    ],
)
def test_time_of_one_test_is_not_hidden_in_the_messages_of_others(sandbox: Sandbox, trick: str) -> None:
    code = (
        f"{WORK}{RESULTS}\nclass Solution:\n    def f(self, x):\n        for timer in (1, 2): signal.setitimer(timer, 0)\n"
        f"        if x == 2: {trick}\n        return x"
    )
    tests = Cases("f", ("1", "2", "3"), ("1", "2", "3"))
    found = Solutions(sandbox, LiveCodeBenchOptions(seconds=LIMIT)).attempt(tests, code).judgement
    assert (found.correct, found.detail) == (False, "time_limit")


def test_kodcode_counts_time_outside_of_its_processes(sandbox: Sandbox, tmp_path: Path) -> None:
    runs = PytestRuns(sandbox, LIMIT + 0.7)  # pytest itself takes some of it
    tests = "from solution import f\n\ndef test_one():\n    assert f(1) == 2\n"
    reference = runs.reference(tmp_path, "def f(x):\n    return x + 1\n", tests)
    body = ESCAPES["timers are taken off"].replace("work()", "work(1.4)").replace("\n", "\n ")
    found = judgement(runs.run(f"{WORK}def f(x):\n {body}\n return x + 1", tests, reference), reference.required)
    assert (found.correct, found.detail) == (False, "time_limit")


def double_task() -> Documents:
    row = {"id": "HumanEval/0", "prompt": "def double", "canonical_solution": "(x):\n    return 2 * x\n", "atol": 0.0}
    inputs = {"base_input": json.dumps([[1], [2]]), "plus_input": json.dumps([[0], [7], [-1]])}
    return Documents([{**row, **inputs, "entry_point": "double"}])


def test_evalplus_holds_each_test_to_its_own_time(tmp_path: Path) -> None:
    """A second for each: 1.3 s in one of them is within what all may take together."""
    documents = double_task()
    taken_off = ESCAPES["timers are taken off"].replace("\n", "; ").replace("work()", "work(1.3)").split("; ")
    slow = f"{taken_off[0]}\n  {taken_off[1]}"
    codes = [f"{WORK}def double(x):\n if x == {x}:\n  {slow}\n return 2 * x" for x in (2, 7)]
    codes.append(f"{WORK}{RESULTS}def double(x):\n if x == 7:\n  runner().begin()\n  {slow}\n return 2 * x")
    with (
        EvalPlus(EvalPlusOptions("humaneval"))
        .with_task(documents)
        .open(Context(tmp_path, resources=Resources(cpus=2))) as grading
    ):
        found = list(grading.judge_all((documents.problem("HumanEval/0"), code) for code in codes))
    assert [(one.correct, one.detail) for one in found] == [(False, "time_limit")] * 3
    assert [one.scores["base"] for one in found] == [0.0, 1.0, 1.0]


FILL = """
import os
def f(how):
    n = 0
    try:
        while n < 100_000:
            if how == 'bytes':
                with open(f'fill{n}', 'wb') as stream: stream.write(bytes(8 << 20))
            else:
                {'files': lambda: open(f'fill{n}', 'w').close(), 'folders': lambda: os.mkdir(f'fill{n}'),
                 'links': lambda: os.symlink('/', f'fill{n}')}[how]()
            n += 1
    except OSError: pass
    return n
"""
WRITE = "def f(x):\n with open('mine', 'wb') as stream: return stream.write(bytes(1 << 20))"


@pytest.mark.parametrize("how", ["bytes", "files", "folders", "links"])
def test_a_job_that_fills_its_scratch_harms_no_other(sandbox: Sandbox, how: str) -> None:
    if "bubblewrap" not in sandbox.layers:
        assert call(sandbox, FILL, how).values == [0]  # nowhere to write
        return
    with ExitStack() as stack:
        child = stack.enter_context(sandbox.start("functions", LIMITS))  # fills while it is loaded, and then waits
        child.channel.send(pack({"code": f"{FILL}\nf({how!r})", "entry_point": "f", "load_seconds": 20.0}))
        assert child.receive(60.0) == b"+"
        assert call(sandbox, WRITE, 1).values == [1 << 20]
        child.kill()
    found = call(sandbox, FILL, how, seconds=20.0).values[0]  # there is a new one, as large as the first
    assert 0 < found <= {"bytes": 256 / 8}.get(how, 4096)
    assert call(sandbox, "import os\ndef f(x): return os.listdir()", 1).values == [[]]


def test_where_nothing_may_be_mounted_jobs_write_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under AppArmor's rules for bubblewrap on some systems, which take every capability away."""
    make = isolation._bubblewrap

    def without_capabilities(*given: Any) -> list[str]:
        command = make(*given)
        place = command.index("--cap-add")
        return command[:place] + command[place + 2 :]

    monkeypatch.setattr(isolation, "_bubblewrap", without_capabilities)
    with isolated(True) as sandbox:
        dig = "import os\ndef f(x):\n for _ in range(1200): os.mkdir('d'); os.chdir('d')\n open('e', 'w').close(); return 1"
        for _ in range(2):
            assert call(sandbox, WRITE, 1).values == [1 << 20]
            assert call(sandbox, dig, 1).values == [1]
            assert call(sandbox, "import os\ndef f(x): return os.listdir()", 1).values == [[]]


def test_where_the_server_goes_down_all_others_are_graded(tmp_path: Path) -> None:
    """As when memory is taken from it: the sample that brings it down each time is a grader_error, no other."""
    tests = json.dumps([{"input": "3\n", "output": "14\n"}])
    row = {"tests": tests, "time_limit": 5.0, "memory_limit": 256.0, "checker": ""}
    documents = Documents([{"id": "a"}])
    with Sandbox(Codeforces.preload) as sandbox:

        def attempt(problem: object, code: str) -> object:
            if code == "kill":
                with sandbox.start("program", LIMITS) as child:
                    process = psutil.Process(sandbox._up.process.pid)
                    # The server first: a program that is killed by itself under another sample has failed by itself.
                    for one in [process, *process.children(recursive=True)]:
                        with suppress(psutil.NoSuchProcess):  # they end with one another
                            one.kill()
                    child.wait(5.0)
            return Program(sandbox, row, 1.0).attempt(code)

        codes = ["print(14)", "print(14)", "kill", *["print(14)"] * 6]
        grading = CodeGrading(attempt, 2, {})  # type: ignore[arg-type]
        found = list(grading.judge_all((documents.problem("a"), code) for code in codes))
    assert [one.correct for one in found] == [True, True, None, *[True] * 6]
    assert "server has ended" in (found[2].error or "")


def test_a_message_longer_than_a_job_may_send_is_not_taken(sandbox: Sandbox) -> None:
    long = f"{WORK}{RESULTS}def f(x): runner()._send(bytes(2 << 20)); return x"
    with sandbox.start("functions", replace(LIMITS, message_bytes=1 << 20)) as child:
        child.channel.send(pack({"code": long, "entry_point": "f", "load_seconds": 5.0}))
        assert child.receive(20.0) == b"+"
        section = {"inputs": [[1]], "seconds": [5.0]}
        child.channel.send(bytes(16) + pack({"output": "value", "timed": False, "longest": 9, "sections": [section]}))
        assert child.receive(20.0) == bytes(16)
        with pytest.raises(ChannelError, match="a message of 2097152 bytes"):
            child.receive(20.0)


#: Results that cost the trusted side far more than they do the sandbox, or that do not compare: what `f` returns.
HOSTILE = {
    "a signalling NaN": "Decimal('sNaN')",
    "one in a list": "[Decimal('sNaN')] * 3",
    "one in a tuple of tuples": "((Decimal('sNaN'),),)",
    "a forged fraction": "forged(3 ** 1000000, 2 ** 1600000)",
    "a long integer": "7 ** 1000000",
    "a large exponent": "Decimal('1E+999999999999')",
    "a NaN that is complex": "complex('nan')",
    "four million lists": "[[]] * (4 << 20)",
    "as many dicts": "[{}] * (4 << 20)",
    "deep lists": "nested(500, lambda x: [x])",
    "deep tuples": "nested(60, lambda x: (x,))",
    "deeper tuples": "nested(500, lambda x: (x,))",
    "deep dicts": "nested(400, lambda x: {1: x})",
    "equal hashes": "{(2 ** 61 - 1) * number for number in range(3000)}",
    "keys of equal hashes": "{(2 ** 61 - 1) * number: 0 for number in range(3000)}",
    "a surrogate": "'\\ud800'",
    "keys of all kinds": "{None: 1, 1.5: 2, (1, '\\ud800'): 3, b'x': 4, frozenset({1}): 5}",
    "a range of all integers": "range(10 ** 18)",
    "a text of megabytes": "'x' * (20 << 20)",
    "a set of floats": "{float(number) for number in range(100_000)}",
}
MAKE = """
from decimal import Decimal
from fractions import Fraction
def forged(above, below):
    made = Fraction(1, 2)
    made._numerator, made._denominator = above, below
    return made
def nested(depth, around):
    value = 1
    for _ in range(depth): value = around(value)
    return value
class Solution:
    def f(self, x): return VALUE
"""


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_that_is_costly_or_does_not_compare_is_wrong_and_soon(sandbox: Sandbox, value: str) -> None:
    begun = time.process_time()
    tests = Cases("f", ("3",), ("14",))
    code = MAKE.replace("VALUE", HOSTILE[value])
    found = Solutions(sandbox, LiveCodeBenchOptions(seconds=5.0)).attempt(tests, code).judgement
    assert (found.correct, found.detail) in [(False, "wrong_answer"), (False, "runtime_error")]
    assert time.process_time() - begun < 60  # of this process: minutes to hours where each was built


def test_evalplus_is_not_held_up_by_them_either(tmp_path: Path) -> None:
    documents = double_task()
    codes = [MAKE.replace("VALUE", one) + f"\ndef double(x): return {one}" for one in HOSTILE.values()]
    with (
        EvalPlus(EvalPlusOptions("humaneval"))
        .with_task(documents)
        .open(Context(tmp_path, resources=Resources(cpus=2))) as grading
    ):
        problem = documents.problem("HumanEval/0")
        found = list(
            grading.judge_all([*((problem, code) for code in codes), (problem, "def double(x): return 2 * x")])
        )
    assert [one.correct for one in found] == [False] * len(codes) + [True]


def test_whatever_our_side_raises_is_one_sample_and_no_other() -> None:
    def attempt(problem: object, code: str) -> Attempt:
        if code == "bad":
            raise RecursionError("as a comparison of hostile values may raise: \ud800" + "x" * 10_000)
        return Attempt(Judgement(True))

    documents = Documents([{"id": "a"}])
    asked = [(documents.problem("a"), code) for code in ("good", "bad", "good")]
    found = list(CodeGrading(attempt, 2, {}).judge_all(asked))
    assert [one.correct for one in found] == [True, None, True]
    assert found[1].error is not None and "RecursionError" in found[1].error
    assert len(found[1].error.encode()) < 1000  # and it can be written


@pytest.mark.parametrize(
    "said",
    [
        "[['collected', range(10 ** 12), {}]]",
        "[['collected', 7, {}]]",
        "[['collected', [[1]], {}]]",
        "[['collected', ['test_solution.py::test_one'], {}], [['x'], 'passed']]",
        "[['collected', ['test_solution.py::test_one'], {}], ['test_solution.py::test_one', ['passed']]]",
        "[7]",
        "[[]]",
        "[[[]] * 4000000]",
    ],
)
def test_what_is_told_of_tests_is_texts_or_nothing(sandbox: Sandbox, tmp_path: Path, said: str) -> None:
    """A solution beside its tests can find the nonce, and say anything."""
    runs = PytestRuns(sandbox, 5.0)
    tests = "from solution import f\n\ndef test_one():\n    assert f(1) == 2\n"
    reference = runs.reference(tmp_path, "def f(x):\n    return x + 1\n", tests)
    code = (
        "import sys\nfrom msgpack import packb, ExtType\n"
        "def find():\n frame = sys._getframe()\n while 'channel' not in frame.f_locals: frame = frame.f_back\n"
        " return frame.f_locals\n"
        f"def f(x):\n held = find()\n for one in {said.replace('range(10 ** 12)', 'BIG')}:\n"
        "  held['channel'].send(held['told']['nonce'] + packb(one, default=lambda value: value))\n"
        " import os; os._exit(0)"
    ).replace("BIG", "ExtType(8, packb([0, 2 ** 62, 1]))")
    found = judgement(runs.run(code, tests, replace(reference, is_apart=False)), reference.required)
    assert found.correct is False
