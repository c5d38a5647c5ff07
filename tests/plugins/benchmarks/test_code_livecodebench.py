"""The `code_livecodebench` grader: every way in which a solution can be right or wrong, and real published verdicts."""

from __future__ import annotations

import base64
import json
import pickle
import sys
import zlib
from collections import Counter, UserList, deque
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from data_problems import LIVECODEBENCH_HUB, counted, tasks_of, write_copies
from hypothesis import given, settings
from hypothesis import strategies as st
from plugin_helpers import ROOT, beside
from sandbox_harness import isolated

from distillbench.errors import GraderError
from distillbench.protocols import Context
from distillbench.records import Judgement, Resources
from distillbench_plugins.benchmarks.code_livecodebench import LiveCodeBench, LiveCodeBenchOptions, Mode, Solutions
from distillbench_plugins.grading.livecodebench import Cases, read_tests, same_value
from distillbench_plugins.grading.sandbox.sandbox import Sandbox
from distillbench_plugins.grading.sandbox.values import pack, unpack
from distillbench_plugins.grading.stdin_tests import same_lines
from distillbench_tasks.livecodebench.problems import adapt

SUM = Cases("", ("1 2\n", "3\n4\n", "-1 1"), ("3\n", "7", "0"))
READ_ALL = "import sys\nprint(sum(map(int, sys.stdin.read().split())))\n"
#: Hidden tests that were logged after a solution had changed their arguments: no solution can pass them.
WRONG_TESTS = frozenset({"2878", "3226", "3454", "3607", "3616"})
DOUBLE = Cases("double", ("[1, 2]\n2", "[]\n5"), ("[2, 4]", "[]"))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(LiveCodeBench.preload) as started:
        yield started


def judged(sandbox: Sandbox, tests: Cases, code: str, mode: Mode = "process", **options: Any) -> Judgement:
    return Solutions(sandbox, LiveCodeBenchOptions(mode=mode, **options)).attempt(tests, code).judgement


MODES = pytest.mark.parametrize("mode", ["process", "official"])

RIGHT_PROGRAMS = {
    "an imported stdin": "from sys import stdin\nprint(sum(map(int, stdin.read().split())))",
    "input until EOFError": "a = []\ntry:\n    while True:\n        a += input().split()\nexcept EOFError:\n    pass\n"
    "print(sum(map(int, a)))",
    "reads all": READ_ALL,
    "main": "def main():\n    import sys\n    print(sum(map(int, sys.stdin.read().split())))\n"
    "if __name__ == '__main__':\n    main()\n",
    "names of the preamble": "print(reduce(add, map(int, sys.stdin.read().split())))",
    "decimals and white space": "import sys\nprint(f'\\n  {sum(map(int, sys.stdin.read().split()))}.00  \\n\\n')",
    "its own exit code": f"{READ_ALL}sys.exit(3)\n",
    "readlines": "import sys\nprint(sum(int(n) for line in sys.stdin.readlines() for n in line.split()))",
    "bytes": "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))",
    "lines of all bytes": "import io, sys\nlines = io.BytesIO(sys.stdin.buffer.read())\n"
    "print(sum(int(n) for line in lines for n in line.split()))",
}


@MODES
@pytest.mark.parametrize("name", RIGHT_PROGRAMS)
def test_a_right_program_passes_all_tests(sandbox: Sandbox, mode: Mode, name: str) -> None:
    found = judged(sandbox, SUM, RIGHT_PROGRAMS[name], mode)
    assert found.correct, found.detail
    assert found.scores == {"tests_passed": 3.0, "tests": 3.0}


@pytest.mark.parametrize(
    "code",
    [
        "import threading, time\ndef main():\n    time.sleep(0.1)\n    print(sum(map(int, sys.stdin.read().split())))\n"
        "threading.Thread(target=main).start()",
        "import atexit\natexit.register(lambda: print(sum(map(int, sys.stdin.read().split()))))",
    ],
)
def test_a_program_ends_as_the_interpreter_ends_it(sandbox: Sandbox, code: str) -> None:
    assert judged(sandbox, SUM, code).correct


WRONG_PROGRAMS = {
    "wrong on the second": ("import sys\na = list(map(int, sys.stdin.read().split()))\nprint(3)", "wrong_answer", 1),
    "crash": ("print(1 // 0)", "runtime_error", 0),
    "raises after a right output": (f"{READ_ALL}raise ValueError", "runtime_error", 0),
    "syntax": ("print(", "syntax_error", 0),
    "memory": ("data = [0] * 10**9", "memory_limit", 0),
    "nothing": ("pass", "wrong_answer", 0),
    "partial output": ("print(3, end=' ')\nprint(4)", "wrong_answer", 0),
    "one more line": ("print(3)\nprint(3)", "wrong_answer", 0),
    "ends the process": ("import os\nprint(3, flush=True)\nos.kill(os.getpid(), 9)", "runtime_error", 0),
}


@MODES
@pytest.mark.parametrize("name", WRONG_PROGRAMS)
def test_a_wrong_program_fails_with_the_reason(sandbox: Sandbox, mode: Mode, name: str) -> None:
    code, detail, passed = WRONG_PROGRAMS[name]
    found = judged(sandbox, SUM, code, mode, memory_gb=1.0)
    assert (found.correct, found.detail, found.scores["tests_passed"]) == (False, detail, passed)


@MODES
def test_a_loop_ends_at_its_processor_time(sandbox: Sandbox, mode: Mode) -> None:
    found = judged(sandbox, SUM, "while True:\n    pass", mode, seconds=0.3)
    assert (found.correct, found.detail) == (False, "time_limit")


@MODES
def test_a_loop_that_swallows_exceptions_ends_too(sandbox: Sandbox, mode: Mode) -> None:
    code = "while True:\n    try:\n        while True: pass\n    except BaseException:\n        pass"
    assert judged(sandbox, SUM, code, mode, seconds=0.3).detail == "time_limit"


def test_output_without_end_is_bounded(sandbox: Sandbox) -> None:
    found = judged(sandbox, SUM, "import sys\nwhile True:\n    sys.stdout.write('1 ' * 100000)", seconds=3.0)
    assert not found.correct
    assert found.detail in {"runtime_error", "time_limit"}


#: Right programs that the official harness fails, and in the docs are said to.
OFFICIAL_FAILURES = {
    "open(0)": "print(sum(map(int, open(0).read().split())))",
    "/dev/stdin": "print(sum(map(int, open('/dev/stdin').read().split())))",
    "lines": "import sys\nprint(sum(int(line) for line in sys.stdin))",
    "input, then read": "print(int(input()) + sum(map(int, sys.stdin.read().split())))",
    "lines after input": "import sys\nprint(int(input()) + sum(map(int, sys.stdin)))",
    "lines of bytes": "import sys\nprint(sum(int(sys.stdin.buffer.readline()) for _ in range(2)))",
    "lines of an imported stdin": "from sys import stdin\nprint(sum(int(line) for line in stdin))",
    "two lines, then the end": "from sys import stdin\na = 0\nwhile line := stdin.readline():\n"
    "    a += int(line)\nprint(a)",
    "global": "total = 0\ndef add(n):\n    global total\n    total += n\n"
    "for n in sys.stdin.read().split():\n    add(int(n))\nprint(total)",
    "__future__": f"from __future__ import annotations\n{READ_ALL}",
    "main that is not last": "if __name__ == '__main__':\n    print(sum(map(int, sys.stdin.read().split())))\nx = 1",
}


@pytest.mark.parametrize("name", OFFICIAL_FAILURES)
def test_the_official_mode_fails_right_programs_as_the_harness_does(sandbox: Sandbox, name: str) -> None:
    tests = Cases("", ("1\n2",), ("3",))
    assert judged(sandbox, tests, OFFICIAL_FAILURES[name], "process").correct
    assert judged(sandbox, tests, OFFICIAL_FAILURES[name], "official").correct is False


@pytest.mark.parametrize(
    ("code", "current", "before"),
    [
        (RIGHT_PROGRAMS["bytes"], True, False),
        (OFFICIAL_FAILURES["lines"], False, True),
        ("import sys\nprint(3 if sys.stdin.readlines() == ['1', '2'] else 0)", True, False),
        ("import sys\nprint(3 if sys.stdin.read() == sys.stdin.read() == '1\\n2' else 0)", True, False),
        (READ_ALL, True, True),
    ],
)
def test_the_official_mode_names_its_harness(sandbox: Sandbox, code: str, current: bool, before: bool) -> None:
    found = []
    for harness in ("2025-05", "2024"):
        options = LiveCodeBenchOptions(mode="official", harness=harness)  # type: ignore[arg-type]
        assert LiveCodeBench(options).facts() == {"mode": "official", "harness": harness}
        found.append(Solutions(sandbox, options).attempt(Cases("", ("1\n2",), ("3",)), code).judgement.correct)
    assert found == [current, before]


#: Programs that add, and open their standard streams by name.
BY_NAME = {
    "/dev/stdin": "print(sum(map(int, open('/dev/stdin').read().split())))",
    "/dev/fd/0": "print(sum(map(int, open('/dev/fd/0', 'rb').read().split())))",
    "/proc/self/fd/0": "print(sum(map(int, open('/proc/self/fd/0').read().split())))",
    "a path": "from pathlib import Path\nprint(sum(map(int, Path('/dev/stdin').read_text().split())))",
    "0": "print(sum(map(int, open(0).read().split())))",
    "os.open": "import os\nprint(sum(map(int, os.read(os.open('/dev/stdin', os.O_RDONLY), 99).split())))",
    "input from it": "sys.stdin = open('/dev/stdin')\nprint(sum(map(int, input().split())))",
    "/dev/stdout": "open('/dev/stdout', 'w').write(str(sum(map(int, input().split()))))",
    "/proc/self/fd/1": "print(sum(map(int, input().split())), file=open('/proc/self/fd/1', 'a'))",
    "1": "import os\nos.write(1, str(sum(map(int, input().split()))).encode())",
    "/dev/stderr": "print('x', file=open('/dev/stderr', 'w'))\nprint(sum(map(int, input().split())))",
}
#: What is another process's, or the kernel's: a name below /proc.
NOT_ITS_OWN = ("1/environ", "1/fd/0", "self/environ", "self/maps", "sys/kernel/hostname", "cpuinfo", "{parent}/fd/1")


@pytest.mark.parametrize("bubblewrap", [True, False])
def test_standard_streams_are_there_by_their_names_and_no_other_s(bubblewrap: bool) -> None:
    with isolated(bubblewrap, ("pathlib",)) as sandbox:
        for name, code in BY_NAME.items():
            assert judged(sandbox, Cases("", ("1 2", "3 4"), ("3", "7")), code).correct, name
        for path in NOT_ITS_OWN:
            code = f"import os\nprint(open('/proc/' + '{path}'.format(parent=os.getppid())).read())"
            assert judged(sandbox, Cases("", ("",), ("",)), code).detail == "runtime_error", path


RIGHT_FUNCTIONS = {
    "method": "class Solution:\n    def double(self, items: List[int], by: int) -> List[int]:\n"
    "        return [item * 2 for item in items]",
    "function": "def double(items, by):\n    return [item * 2 for item in items]",
    "tuple": "def double(items, by):\n    return tuple(item * 2 for item in items)",
    "floats": "def double(items, by):\n    return [item * 2.0 for item in items]",
}
WRONG_FUNCTIONS = {
    "value": ("def double(items, by):\n    return items", "wrong_answer", 0),
    "iterator": ("def double(items, by):\n    return iter([item * 2 for item in items])", "wrong_answer", 0),
    "nothing": ("def double(items, by):\n    return None", "wrong_answer", 0),
    "always equal": (
        "class Sly(list):\n    def __eq__(self, other): return True\ndef double(items, by):\n    return Sly()",
        "wrong_answer",
        0,
    ),
    "raises on the second": ("def double(items, by):\n    return [2, 4] if items else items[0]", "runtime_error", 1),
    "missing": ("def triple(items, by):\n    return []", "runtime_error", 0),
    "syntax": ("def double(items, by)\n    return []", "syntax_error", 0),
    "ends the process": ("import os\ndef double(items, by):\n    os._exit(0)", "runtime_error", 0),
}


@MODES
@pytest.mark.parametrize("name", RIGHT_FUNCTIONS)
def test_a_right_function_passes(sandbox: Sandbox, mode: Mode, name: str) -> None:
    found = judged(sandbox, DOUBLE, RIGHT_FUNCTIONS[name], mode)
    assert found == Judgement(True, scores={"tests_passed": 2.0, "tests": 2.0})


@MODES
@pytest.mark.parametrize("name", WRONG_FUNCTIONS)
def test_a_wrong_function_fails_with_the_reason(sandbox: Sandbox, mode: Mode, name: str) -> None:
    code, detail, passed = WRONG_FUNCTIONS[name]
    found = judged(sandbox, DOUBLE, code, mode)
    assert (found.correct, found.detail, found.scores["tests_passed"]) == (False, detail, passed)


def test_a_function_that_loops_runs_out_of_time(sandbox: Sandbox) -> None:
    code = "def double(items, by):\n    while items: pass\n    return items"
    assert judged(sandbox, DOUBLE, code, seconds=0.3).detail == "time_limit"


@pytest.mark.parametrize(
    ("result", "expected", "same"),
    [
        ((1, 2), [1, 2], True),
        ([(1, 2)], [[1, 2]], False),
        (True, 1, True),
        ({1: 2}, {"1": 2}, False),
        ({1, 2}, [1, 2], False),
        (0.1 + 0.2, 0.3, False),
        (range(2), [0, 1], False),
        (dict.fromkeys([1]).keys(), [1], False),
        ([deque([1])], [[1]], False),
        ([iter([1])], [[1]], False),
        (iter([1]), [1], False),
        (UserList([1]), [1], True),
        (Counter("a"), {"a": 1}, True),
        (Decimal("sNaN"), 1, False),
    ],
)
def test_results_are_compared_plainly(result: object, expected: object, same: bool) -> None:
    assert same_value(unpack(pack(result)), expected) is same


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ("1 2\n", "1 2", True),
        (" 1.0  2e0 \n\n", "1 2", True),
        ("1 2 3", "1 2", False),
        ("1\n\n2", "1\n2", False),
        ("a", "A", False),
        ("a 1.0", "a 1", False),
        ("0.30000000000000001", "0.3", False),
        ("NaN", "nan", False),
        ("sNaN", "1", False),
        ("1e999999999", "1", False),
        ("1e99999999999999999999999", "1", False),
        ("0" * 100_000 + "1", "1", False),
        ("", "", True),
    ],
)
def test_outputs_are_compared_as_text_or_as_decimals(output: str, expected: str, same: bool) -> None:
    assert same_lines(output, expected) is same


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.lists(st.decimals(allow_nan=False, allow_infinity=False), min_size=1, max_size=5), min_size=1, max_size=5
    )
)
def test_the_same_decimals_written_otherwise_are_equal(rows: list[list[Decimal]]) -> None:
    plain = "\n".join(" ".join(str(number) for number in row) for row in rows)
    other = "\r\n".join("  ".join(f"{number:E}" for number in row) for row in rows)
    assert same_lines(other, plain)
    assert not same_lines(other + "\n0", plain)


TESTS = [{"input": "1", "output": "2", "testtype": "stdin"}, {"input": "3", "output": "4", "testtype": "stdin"}]


def encoded(value: object, protocol: int = 4) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value, protocol))).decode()


@pytest.mark.parametrize("protocol", range(6))
def test_private_tests_are_read_in_livecodebench_s_encoding(protocol: int) -> None:
    text = json.dumps(TESTS, ensure_ascii=False)
    assert (
        read_tests("", "[]", encoded(text, protocol)) == read_tests("", text, "") == Cases("", ("1", "3"), ("2", "4"))
    )


@given(st.text())
@settings(max_examples=50, deadline=None)
def test_any_pickled_text_is_read(text: str) -> None:
    wanted = json.dumps([{"input": text, "output": text}])
    assert read_tests("", "", encoded(wanted)).inputs == (text,)


class Bomb:
    """What a pickle must never make."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('unpickled')",))


@pytest.mark.parametrize(
    "private",
    [
        encoded(Bomb()),
        encoded(["[]", "[]"]),
        encoded(b"[]"),
        encoded("{}"),
        encoded("no json"),
        encoded("[]"),
        encoded("[]")[:-8] + "AAAAAAA=",
        "no base64!",
        '[{"input": "1"}]',
        "[1]",
    ],
)
def test_tests_that_cannot_be_read_are_the_grader_s_error(private: str) -> None:
    with pytest.raises(GraderError):
        read_tests("", "", private)


def test_arguments_that_cannot_be_read_are_the_grader_s_error(sandbox: Sandbox) -> None:
    with pytest.raises(GraderError, match="an argument"):
        judged(sandbox, Cases("f", ("no json",), ("1",)), "def f(x): return 1")


def test_the_last_complete_block_is_the_solution() -> None:
    grader = LiveCodeBench(LiveCodeBenchOptions())
    answer = "```python\nfirst\n```\nBetter:\n```python\nsecond\n```\n```python\nnever closed"
    assert grader.extract(answer, None) == "second\n"  # type: ignore[arg-type]
    assert grader.extract("no code", None) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "official", "process"),
    [
        ("```python\na\n```\nOutput:\n```\n3\n```", "3", "a\n"),
        ("```python\na\n```\nor\n```python\nb", "or", "a\n"),
        ("- x\n  ```python\n  a\n  ```", "  a", "a\n"),
        ("~~~python\na\n~~~", None, "a\n"),
        ("no code, ```", None, None),
        ("```\n\n```", None, None),
    ],
)
def test_the_official_mode_keeps_the_official_rule(answer: str, official: str | None, process: str | None) -> None:
    found = [LiveCodeBench(LiveCodeBenchOptions(mode=mode)).extract(answer, None) for mode in ("official", "process")]  # type: ignore[arg-type]
    assert found == [official, process]


ANSWERS = {
    "own_1": "```python\nimport sys\nprint(sum(map(int, sys.stdin.read().split())))\n```",
    "own_2": "```python\nclass Solution:\n    def twice(self, s: str, n: int) -> str:\n        return s * n\n```",
}


def test_problems_of_a_task_are_graded(tmp_path: Path) -> None:
    """From answer to judgement, on documents that lm-eval gives; two of three have a known right answer."""
    tasks, ref = tasks_of(write_copies(tmp_path / "data")), counted("livecodebench")
    problems = tasks.problems(ref, "test")
    grader = LiveCodeBench(LiveCodeBenchOptions()).with_task(tasks.load(ref))
    with grader.open(Context(work=tmp_path, resources=Resources(cpus=2))) as grading:
        wrong = list(grading.judge_all((problem, "pass") for problem in problems))
        assert grading.facts["mode"] == "process"
    assert [(one.correct, one.error) for one in wrong] == [(False, None)] * len(problems)


def test_documents_of_the_hub_are_graded(sandbox: Sandbox) -> None:
    """LiveCodeBench's own columns, private tests in its encoding."""
    docs = {row["question_id"]: adapt(row) for row in LIVECODEBENCH_HUB}
    grader = LiveCodeBench(LiveCodeBenchOptions())
    for name, answer in ANSWERS.items():
        doc = docs[name]
        assert doc is not None
        private = encoded(json.dumps(json.loads(doc["public_tests"]) * 2))
        tests = read_tests(doc["fn_name"], doc["public_tests"], private)
        code = grader.extract(answer, None)  # type: ignore[arg-type]
        assert code is not None
        assert judged(sandbox, tests, code).scores == {"tests_passed": 3.0, "tests": 3.0}, name


#: Real solutions: published right, wrong, and wrong only because of how they read.
SAMPLE = 40
BECAUSE_OF_THREADS = ("abc368_f", "abc382_c")
BECAUSE_OF_OPEN = ("abc315_b", "abc349_a", "abc359_b", "abc365_b")


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    beside("outputs_lcb", "o1_mini_eval_all.json")
    beside("lcb_tests", "lcb_joined.jsonl")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import grading_lcb
    finally:
        sys.path.pop(0)
    return {one.name: one for one in grading_lcb.solutions()}


@MODES
def test_real_solutions_get_their_published_verdicts(sandbox: Sandbox, published: dict[str, Any], mode: Mode) -> None:
    """Those published as right pass; those published as wrong fail where the test that they failed is there."""
    right = [one for one in published.values() if one.is_right and one.name not in WRONG_TESTS][::15][:SAMPLE]
    wrong = [
        one
        for one in published.values()
        if not one.is_right
        and one.has_failing_test
        and one.name not in BECAUSE_OF_THREADS
        and "Timeout" not in one.message.get("error", "")
    ][:SAMPLE]
    assert (len(right), len(wrong)) == (SAMPLE, SAMPLE)
    for one in (*right, *wrong):
        assert judged(sandbox, one.tests, one.code, mode, harness="2024").correct is one.is_right, one.name


def test_real_programs_that_read_with_open_fail_in_the_official_mode_alone(
    sandbox: Sandbox, published: dict[str, Any]
) -> None:
    for name in BECAUSE_OF_OPEN:
        one = published[name]
        assert not one.is_right
        assert judged(sandbox, one.tests, one.code, "process").correct, name
        assert judged(sandbox, one.tests, one.code, "official").correct is False, name


def test_real_programs_that_leave_a_thread_running_are_waited_for(sandbox: Sandbox, published: dict[str, Any]) -> None:
    for name in BECAUSE_OF_THREADS:
        assert not published[name].is_right
        assert judged(sandbox, published[name].tests, published[name].code).correct, name
