"""The code_kodcode grader: which tests count, what crosses between the two processes, and what does not fool it."""
# ruff: noqa: E501 - attacks are written as they are run

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from plugin_helpers import beside, problem
from sandbox_harness import isolated

from distillbench.errors import GraderError
from distillbench.protocols import Context
from distillbench.records import Problem, Resources
from distillbench_plugins.benchmarks.code_kodcode import CodeKodCode, KodCodeOptions, PytestRuns, Reference, judgement
from distillbench_plugins.grading.sandbox.sandbox import Sandbox

#: Processor seconds of one run.
SECONDS = 1.0
SOLUTION = "def f(x):\n    return x + 1\n"
TESTS = "from solution import f\n\ndef test_one():\n    assert f(1) == 2\n\ndef test_two():\n    assert f(41) == 42\n"

#: What does not compute f, and what it has to be called.
CHEATS = {
    "exit": ("import os\ndef f(x): os._exit(0)", "runtime_error"),
    "exit when loaded": ("import os\nos._exit(0)", "runtime_error"),
    "sys.exit": ("import sys\ndef f(x): sys.exit(0)", "runtime_error"),
    "sys.exit when loaded": ("import sys\nsys.exit(0)", "runtime_error"),
    "skip": ("import pytest\ndef f(x): pytest.skip('x')", "runtime_error"),
    "skip the module": ("import pytest\npytest.skip('x', allow_module_level=True)", "runtime_error"),
    "unittest's skip": ("import unittest\ndef f(x): raise unittest.SkipTest('x')", "runtime_error"),
    "xfail": ("import pytest\ndef f(x): pytest.xfail('x')", "runtime_error"),
    "pytest.exit": ("import pytest\ndef f(x): pytest.exit('x', 0)", "runtime_error"),
    "own tests": (f"{SOLUTION.replace('1', '2')}\ndef test_one(): pass\ndef test_two(): pass", "wrong_answer"),
    "patched builtins": ("import builtins\nbuiltins.AssertionError = ValueError\ndef f(x): return 7", "wrong_answer"),
    "patched modules": ("import sys\nsys.modules['test_solution'] = sys\ndef f(x): return 7", "wrong_answer"),
    "printed": ("def f(x):\n print('2 passed in 0.01s')\n return 7", "wrong_answer"),
    "at exit": ("import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return 7", "wrong_answer"),
    "no such name": ("def g(x): return x + 1", "runtime_error"),
    "no code": ("def f(x:", "syntax_error"),
    "endless": ("def f(x):\n while True: pass", "time_limit"),
    "memory": ("def f(x): return bytearray(1 << 50)", "memory_limit"),
}
EQUAL = "class Equal({base}):\n __eq__ = lambda a, b: True\n __hash__ = lambda a: 1\ndef f(x): return {value}"
#: Results that say by themselves what they equal.
EQUALS = {
    "an object": EQUAL.format(base="", value="Equal()"),
    "an integer": EQUAL.format(base="int", value="Equal(7)"),
    "a list": EQUAL.format(base="list", value="Equal()"),
    "a metaclass": "class M(type):\n __eq__ = lambda a, b: True\n __hash__ = lambda a: 1\nclass E(metaclass=M): pass\ndef f(x): return E",
    "called like a builtin": EQUAL.replace("Equal", "int").format(base="", value="int()"),
}
#: Attacks on a runner that shares a process with the solution; there is nothing to find in another process.
SEARCHES = {
    "frames": (
        "import sys\ndef f(x):\n frame = sys._getframe()\n while frame:\n"
        "  for held in frame.f_code.co_consts:\n   if held in (2, 42) and held != x: return held\n"
        "  frame = frame.f_back\n return 7"
    ),
    "memory": (
        "import gc, types\ndef f(x):\n for held in gc.get_objects():\n"
        "  if isinstance(held, types.FunctionType) and held.__name__.startswith('test_'): return held.__code__.co_consts[-1]\n"
        " return 7"
    ),
    "forged replies": (
        "import os, struct\nfrom msgpack import packb\n"
        "def f(x):\n for number in range(3, 64):\n"
        "  for said in (b'+', packb(['collected', [], {}]), packb(['test_solution.py::test_one', 'passed'])):\n"
        "   try: os.write(number, struct.pack('!I', len(said)) + said)\n   except OSError: pass\n return 7"
    ),
    "patched pytest": (
        "import _pytest.runner as r, _pytest.reports as p\n"
        "p.TestReport.outcome = 'passed'\nr.check_interactive_exception = lambda *a: False\ndef f(x): return 7"
    ),
}


@pytest.fixture(scope="module", params=["bubblewrap", "seccomp and landlock"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with isolated(request.param == "bubblewrap", CodeKodCode.preload) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where references are kept that many tests use."""
    return tmp_path_factory.mktemp("references")


@pytest.fixture
def runs(sandbox: Sandbox) -> PytestRuns:
    return PytestRuns(sandbox, SECONDS)


def graded(
    runs: PytestRuns, folder: Path, code: str, solution: str = SOLUTION, tests: str = TESTS
) -> tuple[bool | None, str]:
    """What the grader says of some code."""
    reference = runs.reference(folder, solution, tests)
    found = judgement(runs.run(code, tests, reference), reference.required)
    return found.correct, found.detail


def test_a_right_solution_passes(runs: PytestRuns, folder: Path) -> None:
    assert graded(runs, folder, "f = lambda x: 1 + x") == (True, "")
    assert graded(runs, folder, SOLUTION.replace("1", "2")) == (False, "wrong_answer")


@pytest.mark.parametrize("cheat", CHEATS)
def test_no_cheat_passes(runs: PytestRuns, folder: Path, cheat: str) -> None:
    code, detail = CHEATS[cheat]
    assert graded(runs, folder, code) == (False, detail)


@pytest.mark.parametrize("cheat", EQUALS)
def test_no_result_says_by_itself_what_it_equals(runs: PytestRuns, folder: Path, cheat: str) -> None:
    assert graded(runs, folder, EQUALS[cheat]) == (False, "wrong_answer")


@pytest.mark.parametrize("search", SEARCHES)
def test_a_solution_in_its_own_process_finds_nothing(runs: PytestRuns, folder: Path, search: str) -> None:
    correct, detail = graded(runs, folder, SEARCHES[search])
    assert correct is False
    assert detail in ("wrong_answer", "runtime_error")


@pytest.mark.parametrize("cheat", [*CHEATS, *EQUALS])
def test_no_cheat_passes_beside_the_tests_either(runs: PytestRuns, folder: Path, cheat: str) -> None:
    """Where a reference needs to be in the process of its tests; there a search of memory cannot be kept from them."""
    code = CHEATS[cheat][0] if cheat in CHEATS else EQUALS[cheat]
    reference = replace(runs.reference(folder, SOLUTION, TESTS), is_apart=False)
    assert judgement(runs.run(code, TESTS, reference), reference.required).correct is False


def test_only_what_the_reference_passes_is_required(runs: PytestRuns, tmp_path: Path) -> None:
    tests = f"{TESTS}\nimport pytest\ndef test_broken():\n    assert f(1) == 3\n\n@pytest.mark.skip\ndef test_skipped(): pass\n"
    assert graded(runs, tmp_path, SOLUTION, tests=tests) == (True, "")
    reference = runs.reference(tmp_path, SOLUTION, tests)
    assert reference.required == ("test_solution.py::test_one", "test_solution.py::test_two")


def test_a_reference_is_run_once_and_kept(runs: PytestRuns, tmp_path: Path) -> None:
    found = runs.reference(tmp_path, SOLUTION, TESTS)
    (file,) = tmp_path.iterdir()
    assert found == Reference(found.required, False, True, {"classes": {}, "names": ["f"]})
    file.write_text(json.dumps({"required": ["x"], "imports_all": False, "is_apart": True, "defined": {}}))
    assert runs.reference(tmp_path, SOLUTION, TESTS).required == ("x",)
    assert runs.reference(tmp_path, SOLUTION, f"{TESTS}\n").required == found.required


def test_names_that_tests_lack_come_from_the_reference_only(runs: PytestRuns, folder: Path) -> None:
    tests = "def test_one():\n    assert abs(f(1) - 2) < 1e-9\n"
    assert graded(runs, folder, SOLUTION, tests=tests) == (True, "")
    assert graded(runs, folder, "def abs(x): return 0\ndef f(x): return 7", tests=tests) == (False, "wrong_answer")


#: PytestRuns that need more of a solution than plain results: a reference, its tests, a solution that is wrong.
CROSSING = {
    "changes its argument": (
        "def f(x): x.sort()",
        "from solution import f\ndef test_a():\n    x = [2, 1]\n    assert f(x) is None\n    assert x == [1, 2]\n",
        "def f(x): return sorted(x)",
    ),
    "prints": (
        "def f(x): print('hello', x)",
        "from solution import f\ndef test_a(capsys):\n    f(1)\n    assert capsys.readouterr().out == 'hello 1\\n'\n",
        "def f(x): print('hello')",
    ),
    "raises": (
        "class Own(ValueError): pass\ndef f(x):\n    raise Own('not', x)",
        "import pytest\nfrom solution import f, Own\ndef test_a():\n    with pytest.raises(Own) as e: f(1)\n"
        "    assert e.value.args == ('not', 1)\n    with pytest.raises(ValueError): f(1)\n",
        "def f(x): return 7\nclass Own(ValueError): pass",
    ),
    "yields": (
        "def f(x):\n    yield from range(x)",
        "from solution import f\ndef test_a():\n    assert list(f(3)) == [0, 1, 2]\n    assert next(f(1)) == 0\n",
        "def f(x): return list(range(x))",
    ),
    "has objects": (
        "class Box:\n def __init__(self, n): self.n = n; self.next = None\n def __len__(self): return self.n\n"
        " def grow(self): self.n += 1; return self\ndef f(box): return box.next",
        "from solution import Box, f\ndef test_a():\n    a, b = Box(1), Box(n=2)\n    a.next = b\n    assert f(a) is b\n"
        "    assert len(b.grow()) == 3\n    assert a.n == 1 and isinstance(b, Box)\n",
        "class Box:\n def __init__(self, n): self.n = 3\n def __len__(self): return 3\n def grow(self): return self\n"
        "def f(box): return box",
    ),
    "is given arrays": (
        "def f(x): return x * 2",
        "import numpy as np\nfrom solution import f\ndef test_a():\n    assert np.array_equal(f(np.array([1, 2])), [2, 4])\n",
        "def f(x): return x",
    ),
}


@pytest.mark.parametrize("case", CROSSING)
def test_what_tests_need_of_a_solution_crosses(runs: PytestRuns, folder: Path, case: str) -> None:
    solution, tests, wrong = CROSSING[case]
    assert runs.reference(folder, solution, tests).is_apart
    assert graded(runs, folder, solution, solution, tests) == (True, "")
    assert graded(runs, folder, wrong, solution, tests)[0] is False


def test_what_cannot_cross_is_tested_in_one_process(runs: PytestRuns, folder: Path) -> None:
    solution = "def f(g): return g(1)"
    tests = "from solution import f\ndef test_a():\n    assert f(lambda x: x + 1) == 2\n"
    assert not runs.reference(folder, solution, tests).is_apart
    assert graded(runs, folder, "def f(h): return h(1)", solution, tests) == (True, "")
    assert graded(runs, folder, "def f(h): return 7", solution, tests) == (False, "wrong_answer")
    for cheat in EQUALS.values():
        assert graded(runs, folder, cheat, solution, tests)[0] is False


LIES = "class Equal:\n __eq__ = lambda a, b: True\n __hash__ = lambda a: 1\n"
ANYTHING = "from unittest.mock import ANY\n"
#: Ways in which what a solution exports could say by itself what it equals: a reference, its tests, the lie.
EXPORTS = {
    "anything": ("def f(x): return x + 1", "assert f(1) == 2", f"{ANYTHING}def f(x): return ANY"),
    "in a list": ("def f(x): return [x]", "assert f(1) == [1]", f"{ANYTHING}def f(x): return [ANY]"),
    "deep": ("def f(x): return {1: (x,)}", "assert f(1) == {1: (1,)}", f"{ANYTHING}def f(x): return {{1: (ANY,)}}"),
    "approximately": (
        "def f(x): return x + 1",
        "assert f(1) == 2",
        "import pytest\ndef f(x): return pytest.approx(0, abs=9)",
    ),
    "a mock": (
        "def f(x): return x + 1",
        "assert f(1) == 2",
        "from unittest.mock import MagicMock\nm = MagicMock()\nm.__eq__.return_value = True\ndef f(x): return m",
    ),
    "in a deque": (
        "from collections import deque\ndef f(x): return deque([x])",
        "from collections import deque\n    assert f(1) == deque([1])",
        f"{ANYTHING}from collections import deque\ndef f(x): return deque([ANY])",
    ),
    "yielded": ("def f(x):\n yield x + 1", "assert list(f(1)) == [2]", f"{LIES}def f(x):\n yield Equal()"),
    "mapped": ("def f(x): return map(abs, x)", "assert list(f([1])) == [1]", f"{LIES}def f(x): return map(lambda a: Equal(), x)"),
    "a constant": ("A = 3\ndef f(x): return x", "from solution import A\n    assert A == 3", f"{LIES}A = Equal()\ndef f(x): return x"),
    "constants": ("A = [3]\ndef f(x): return x", "from solution import A\n    assert A == [3]", f"{ANYTHING}A = [ANY]\ndef f(x): return x"),
    "a class": ("def f(x): return x + 1", "assert f(1) == 2", f"{LIES}f = lambda x: 0\nclass f(Equal):\n def __init__(self, x): pass"),
    "a callable object": ("def f(x): return x + 1", "assert f(1) == 2", f"{LIES}class F:\n def __call__(self, x): return Equal()\nf = F()"),
    "a partial": ("def f(x): return x + 1", "assert f(1) == 2", f"{LIES}from functools import partial\nf = partial(lambda a, x: Equal(), 1)"),
    "a method": (
        "class B:\n def get(self): return 3\ndef f(x): return x",
        "from solution import B\n    assert B().get() == 3",
        f"{LIES}class B:\n def get(self): return Equal()\ndef f(x): return x",
    ),
    "a class method": (
        "class B:\n @classmethod\n def get(cls): return 3\n @staticmethod\n def put(): return 4\ndef f(x): return x",
        "from solution import B\n    assert B.get() == 3 and B.put() == 4",
        f"{LIES}class B:\n get = classmethod(lambda cls: Equal())\n put = staticmethod(lambda: Equal())\ndef f(x): return x",
    ),
    "an attribute": (
        "class B:\n def __init__(self): self.n = 3\ndef f(x): return x",
        "from solution import B\n    assert B().n == 3",
        f"{LIES}class B:\n def __init__(self): self.n = Equal()\ndef f(x): return x",
    ),
    "a class attribute": ("class B: n = 3\ndef f(x): return x", "from solution import B\n    assert B.n == 3", f"{LIES}class B: n = Equal()\ndef f(x): return x"),
    "a property": (
        "class B:\n n = property(lambda self: 3)\ndef f(x): return x",
        "from solution import B\n    assert B().n == 3",
        f"{ANYTHING}class B:\n n = property(lambda self: ANY)\ndef f(x): return x",
    ),
    "an instance": (
        "class B:\n def get(self): return 3\nb = B()\ndef f(x): return x",
        "from solution import b\n    assert b.get() == 3",
        f"{ANYTHING}class B:\n def get(self): return ANY\nb = B()\ndef f(x): return x",
    ),
    "an item": (
        "class B:\n def __getitem__(self, n): return n\ndef f(x): return x",
        "from solution import B\n    assert B()[3] == 3",
        f"{ANYTHING}class B:\n def __getitem__(self, n): return ANY\ndef f(x): return x",
    ),
    "an argument": ("def f(x): x[0] = 3", "x = [1]\n    f(x)\n    assert x == [3]", f"{LIES}def f(x): x[0] = Equal()"),
    "an error": (
        "def f(x): raise ValueError(x)",
        "import pytest\n    with pytest.raises(ValueError) as e: f(1)\n    assert e.value.args == (1,)",
        f"{ANYTHING}def f(x): raise ValueError(ANY)",
    ),
    "a function": ("def f(x): return lambda y: x + y", "assert f(1)(2) == 3", f"{LIES}def f(x): return lambda y: Equal()"),
    "awaited": (
        "async def f(x): return x + 1",
        "import asyncio\n    assert asyncio.run(f(1)) == 2",
        f"{LIES}async def f(x): return Equal()",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPORTS)
@pytest.mark.parametrize("is_apart", [True, False])
def test_nothing_that_is_exported_says_by_itself_what_it_equals(
    runs: PytestRuns, folder: Path, name: str, is_apart: bool
) -> None:
    """Where the reference passes in a process of its own, there; and beside the tests, where each may have to be."""
    solution, line, lie = EXPORTS[name]
    tests = f"from solution import f\ndef test_a():\n    {line}\n"
    reference = runs.reference(folder, solution, tests)
    if is_apart and not reference.is_apart:
        return
    how = replace(reference, is_apart=is_apart)
    assert judgement(runs.run(solution, tests, how), reference.required).correct is True
    assert judgement(runs.run(lie, tests, how), reference.required).correct is False


def test_a_solution_beside_its_tests_may_use_classes_of_its_own(runs: PytestRuns, folder: Path) -> None:
    solution = (
        "import heapq\nfrom enum import Enum\nfrom dataclasses import dataclass\n"
        "class Entry:\n def __init__(self, n): self.n = n\n def __lt__(self, other): return self.n < other.n\n"
        "def make(n): return Entry(n)\nclass Kind(Enum): A = 1\n@dataclass\nclass Point:\n x: int\n"
        "def f(g, xs):\n heap = [make(x) for x in xs]\n heapq.heapify(heap)\n"
        " return [g(heapq.heappop(heap).n) for _ in xs]\n"
    )
    tests = (
        "from solution import f, Kind, Point\ndef test_a():\n    assert f(lambda x: x, [2, 1]) == [1, 2]\n"
        "    assert Kind.A is Kind(1) and Kind.A.value == 1\n    assert Point(1) == Point(1) and Point(2).x == 2\n"
    )
    assert not runs.reference(folder, solution, tests).is_apart
    assert graded(runs, folder, solution, solution, tests) == (True, "")


VACUOUS = "def {name}(x):\n    return 2 * x\n\ndef test_one():\n    assert {name}(2) == 4\n"
UNPROVEN = {
    "all names": "from solution import *\n" + VACUOUS.format(name="double"),
    "by name": "from solution import double\n" + VACUOUS.format(name="double"),
    "no import": VACUOUS.format(name="double"),
    "never called": "from solution import double\ndef test_one():\n    assert callable(double)\n",
    "swallowed": "import solution\ndef test_one():\n    try:\n        assert solution.double(2) == 4\n    except BaseException:\n        pass\n",
}


@pytest.mark.parametrize("name", UNPROVEN)
def test_tests_that_pass_without_a_solution_are_left_out(runs: PytestRuns, folder: Path, name: str) -> None:
    solution = "def double(x):\n    return 2 * x\n"
    reference = runs.reference(folder, solution, UNPROVEN[name])
    assert (reference.required, reference.unproven) == ((), ("test_solution.py::test_one",))
    more = f"{UNPROVEN[name]}\ndef test_two():\n    import solution\n    assert solution.double(4) == 8\n"
    reference = runs.reference(folder, solution, more)
    assert reference.required == ("test_solution.py::test_two",)
    assert graded(runs, folder, "x = 1", solution, more)[0] is False


def test_a_test_of_an_error_proves_something(runs: PytestRuns, folder: Path) -> None:
    solution = "class Own(ValueError): pass\ndef f(x): raise Own(x)\n"
    tests = "import pytest\nfrom solution import f, Own\ndef test_a():\n    with pytest.raises(Exception): f(1)\n"
    assert runs.reference(folder, solution, tests).required == ("test_solution.py::test_a",)


class OneRow:
    """As much of an lm-eval task as a grader reads."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        from datasets import Dataset

        self.test_docs = lambda: Dataset.from_list(rows)


def asked(name: str) -> Problem:
    found = problem(gold="f")
    return replace(found, metadata={**found.metadata, "doc": {"id": name, "entry": "f"}})


def test_answers_are_judged_in_order_and_a_reference_that_fails_is_the_graders_error(tmp_path: Path) -> None:
    rows = [
        {"id": "good", "solution": SOLUTION, "tests": TESTS},
        {"id": "bad", "solution": "def f(x): return 7", "tests": TESTS},
        {
            "id": "own",
            "solution": SOLUTION,
            "tests": "from solution import *\ndef f(x): return 2\ndef test_a(): assert f(1) == 2",
        },
    ]
    grader = CodeKodCode(KodCodeOptions(time_limit=SECONDS)).with_task(OneRow(rows))
    answers = [(asked("good"), SOLUTION), (asked("bad"), SOLUTION), (asked("good"), "def f(x): return 7")]
    answers.append((asked("own"), "x = 1  # no solution at all\n"))
    with grader.open(Context(work=tmp_path, resources=Resources(cpus=2))) as grading:
        found = list(grading.judge_all(answers))
        assert grading.facts["isolation"]
    assert [one.correct for one in found] == [True, None, False, None]
    assert "nothing is tested" in str(found[3].error)
    assert "'bad' passes none of its tests" in str(found[1].error)
    assert grader.extract("No.\n```python\ndef f(x): pass\n```\n", asked("good")) == "def f(x): pass\n"


def test_a_reference_that_runs_out_of_time_is_the_graders_error(runs: PytestRuns, tmp_path: Path) -> None:
    with pytest.raises(GraderError, match="ran out of its"):
        runs.reference(tmp_path, "def f(x):\n while True: pass", TESTS)
    assert not list(tmp_path.iterdir())


def test_real_references_pass_and_published_trials_get_their_published_verdicts(tmp_path: Path) -> None:
    """Every tenth row; a trial is a solution with tests of its own, which is how it was published."""
    folder = beside("kodcode")
    rows = [row for file in sorted(folder.glob("*.json")) for row in json.loads(file.read_text(encoding="utf-8"))][::10]
    with isolated(True, CodeKodCode.preload) as sandbox, ThreadPoolExecutor(2) as pool:
        runs = PytestRuns(sandbox, 10.0)

        def agrees(row: dict[str, Any], solution: str, tests: str, published: str) -> bool:
            reference = runs.reference(tmp_path, row["response"], row["test_code"])
            assert graded(runs, tmp_path, row["response"], row["response"], row["test_code"]) == (True, "")
            own = replace(reference, imports_all="from solution import" not in tests)
            run = runs.run(solution, tests, own)
            passed = bool(run.collected) and not run.failure and run.passed == run.collected
            return passed == (published == "Pass")

        asked = [
            pool.submit(agrees, row, trial["solution_code"], trial["test_code"], trial["test_result"])
            for row in rows
            for trial in list(row["trials"].values())[:1]
        ]
        wrong = [number for number, one in enumerate(asked) if not one.result()]
    assert [rows[number]["instruction"][:20] for number in wrong] == ["def area_of_circle(r"] * len(wrong)
    assert len(asked) > 10
