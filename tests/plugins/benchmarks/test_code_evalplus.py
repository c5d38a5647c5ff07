"""The evalplus grader: rules on problems of our own, and evalplus' published verdicts on real solutions."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from code_tasks import Documents

from distillbench.protocols import Context, Grading
from distillbench.records import Judgement, Resources
from distillbench_plugins.benchmarks.code_evalplus import EvalPlus, EvalPlusOptions
from distillbench_plugins.grading import evalplus as rules
from distillbench_plugins.grading.sandbox.runners.functions import LENGTH, VALUE
from distillbench_plugins.grading.sandbox.values import pack

SHARED = Path(__file__).parents[3].parent / "shared" / "data"


def row(name: str, entry_point: str, code: str, base: list[Any], plus: list[Any], atol: float = 0.0) -> dict[str, Any]:
    """A problem in evalplus' schema; the code is what follows `def entry_point`."""
    return {
        "id": name,
        "prompt": f"def {entry_point}",
        "entry_point": entry_point,
        "canonical_solution": code,
        "atol": atol,
        "base_input": json.dumps(base),
        "plus_input": json.dumps(plus),
    }


HUMANEVAL = Documents(
    [
        row("HumanEval/0", "double", "(x):\n    return 2 * x\n", [[1], [2]], [[0], [10**30], [-1]]),
        row("HumanEval/1", "half", "(x):\n    return x / 2\n", [[1], [2]], [[0.1], [3]]),
        row("HumanEval/2", "pair", "(x):\n    return (x, [x])\n", [[1]], [[2]]),
        row("HumanEval/3", "long", "(x):\n    return {i: {i} for i in range(x)}\n", [[3]], [[5000]]),
        row("HumanEval/4", "nan", "(x):\n    return float('nan')\n", [[1]], [[2]]),
        row("HumanEval/5", "sort", "(xs):\n    return sorted(xs)\n", [[[3, 1, 2]]], [[[]], [[2, 1]]]),
        row("HumanEval/32", "find_zero", "(xs):\n    return -xs[0] / xs[1]\n", [[[1, 2]]], [[[3, 4]]], 1e-4),
    ]
)
MBPP = Documents(
    [
        row("Mbpp/2", "similar_elements", "(a, b):\n    return tuple(set(a) & set(b))\n",
            [[[3, 4], [4, 3]]], [[[5], [5, 6]]]),
        row("Mbpp/295", "sum_div", "(n):\n    return n\n", [[1]], [[2]]),
        row("Mbpp/74", "check_str", "(s):\n    return s[:1] or None\n", [["a"]], [[""]]),
        row("Mbpp/581", "surface_Area", "(b, s):\n    return 2 * b * s + b * b\n", [[3, 4]], [[4, 5]]),
    ]
)  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("references")


def opened(documents: Documents, options: EvalPlusOptions, work: Path) -> Iterator[Grading]:
    grader = EvalPlus(options).with_task(documents)
    with grader.open(Context(work, resources=Resources(cpus=2))) as grading:
        yield grading


@pytest.fixture(scope="module")
def humaneval(work: Path) -> Iterator[Grading]:
    yield from opened(HUMANEVAL, EvalPlusOptions("humaneval", memory_gb=1), work)


@pytest.fixture(scope="module")
def exact(work: Path) -> Iterator[Grading]:
    yield from opened(HUMANEVAL, EvalPlusOptions("humaneval", evalplus_exact=True), work)


@pytest.fixture(scope="module")
def mbpp(work: Path) -> Iterator[Grading]:
    yield from opened(MBPP, EvalPlusOptions("mbpp"), work)


def judged(grading: Grading, documents: Documents, name: str, code: str) -> Judgement:
    return next(iter(grading.judge_all([(documents.problem(name), code)])))


@pytest.mark.parametrize(
    ("name", "code", "base", "plus", "detail"),
    [
        ("HumanEval/0", "def double(x): return x + x", 1, 1, ""),
        ("HumanEval/0", "def double(x): return float(2 * x) if x != 10**30 else 2 * x", 1, 1, ""),
        ("HumanEval/0", "def double(x): return 2 * abs(x)", 1, 0, "wrong_answer"),
        ("HumanEval/0", "def double(x): return x * x", 0, 0, "wrong_answer"),
        ("HumanEval/0", "def double(x): return str(2 * x)", 0, 0, "wrong_answer"),
        ("HumanEval/0", "def double(x): return 1 / 0", 0, 0, "runtime_error"),
        ("HumanEval/0", "def double(x): return 2 * x if x < 5 else 1 / 0", 1, 0, "runtime_error"),
        ("HumanEval/0", "def double(x):\n while True: pass", 0, 0, "time_limit"),
        ("HumanEval/0", "while True: pass", 0, 0, "time_limit"),
        ("HumanEval/0", "def double(x): return 9 ** 9 ** 9", 0, 0, "time_limit"),
        ("HumanEval/0", "def double(x): return [0] * 10**9", 0, 0, "memory_limit"),
        ("HumanEval/0", "def double(x: return", 0, 0, "syntax_error"),
        ("HumanEval/0", "def other(x): return 2 * x", 0, 0, "runtime_error"),
        ("HumanEval/0", "import no_such_module\ndef double(x): return 2 * x", 0, 0, "runtime_error"),
        ("HumanEval/0", "n = 0\ndef double(x):\n global n; n += 1\n return 2 * x if n < 4 else 0", 1, 1, ""),
        ("HumanEval/0", "import numpy as np\ndef double(x): return np.int64(2 * x) if x < 9 else 2 * x", 1, 1, ""),
        ("HumanEval/0", "def double(x): print('x' * 10**6); return 2 * x", 1, 1, ""),
        ("HumanEval/0", "def double(x): return input()", 0, 0, "runtime_error"),
        ("HumanEval/1", "def half(x): return x * 0.5 + 1e-8", 1, 1, ""),
        ("HumanEval/1", "def half(x): return x * 0.5 + 1e-4", 0, 0, "wrong_answer"),
        ("HumanEval/1", "def half(x): return int(x / 2) if x == 2 else x / 2", 1, 1, ""),
        ("HumanEval/2", "def pair(x): return x, [x]", 1, 1, ""),
        ("HumanEval/2", "def pair(x): return [x, [x]]", 0, 0, "wrong_answer"),
        ("HumanEval/2", "def pair(x): return x, (x,)", 0, 0, "wrong_answer"),
        ("HumanEval/3", "def long(x): return {i: {i} for i in range(x)}", 1, 1, ""),
        ("HumanEval/3", "def long(x): return {i: {i} for i in reversed(range(x))}", 1, 1, ""),
        ("HumanEval/3", "def long(x): return {i: {i} for i in range(x) if i != 4000}", 1, 0, "wrong_answer"),
        ("HumanEval/4", "def nan(x): return float('nan')", 0, 0, "wrong_answer"),
        ("HumanEval/5", "def sort(xs): yield from sorted(xs)", 0, 0, "wrong_answer"),
        ("HumanEval/5", "def sort(xs): return map(int, sorted(xs))", 0, 0, "wrong_answer"),
        ("HumanEval/5", "from collections import deque\ndef sort(xs): return deque(sorted(xs))", 0, 0, "wrong_answer"),
        ("HumanEval/5", "class L:\n def __init__(self, xs): self.xs = xs\n def __iter__(self): return iter(self.xs)\n"
         "def sort(xs): return L(sorted(xs))", 0, 0, "wrong_answer"),
        ("HumanEval/5", "from collections import UserList\ndef sort(xs): return UserList(sorted(xs))", 1, 1, ""),
        ("HumanEval/5", "class L(list): pass\ndef sort(xs): return L(sorted(xs))", 1, 1, ""),
        ("HumanEval/5", "import numpy as np\ndef sort(xs): return np.sort(xs)", 0, 0, "wrong_answer"),
        ("HumanEval/32", "def find_zero(xs): return -xs[0] / xs[1] + 1e-6", 1, 1, ""),
        ("HumanEval/32", "def find_zero(xs): return 5", 0, 0, "wrong_answer"),
    ],
)  # fmt: skip
def test_verdicts(humaneval: Grading, name: str, code: str, base: int, plus: int, detail: str) -> None:
    found = judged(humaneval, HUMANEVAL, name, code)
    assert (found.scores, found.correct, found.detail) == ({"base": base, "plus": plus}, plus == 1, detail)


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos._exit(0)",
        "import os\nos._exit(1)",
        "import os\nos._exit(113)",
        "import sys\nsys.exit(0)",
        "import os\ndef double(x): os._exit(0)",
        "class Same(int):\n def __eq__(self, other): return True\n __hash__ = None\ndef double(x): return Same(7)",
        "class Any:\n def __eq__(self, other): return True\n __hash__ = None\ndef double(x): return Any()",
        "import builtins\nbuiltins.all = builtins.any = lambda *a: True\ndef double(x): return 0",
        "import os\nfor n in range(3, 20):\n try: os.write(n, b'\\0' * 99)\n except OSError: pass\n"
        "def double(x): return 0",
        "import sys\ndef double(x):\n f = sys._getframe()\n while f:\n  for k, v in list(f.f_locals.items()):\n"
        "   if isinstance(v, bytes): f.f_locals[k] = b'v'\n  f = f.f_back\n return 0",
    ],
)
def test_no_trick_passes(humaneval: Grading, code: str) -> None:
    found = judged(humaneval, HUMANEVAL, "HumanEval/0", code)
    assert found.correct is False and found.error is None and found.scores["base"] == 0


def test_what_a_reference_returns_is_computed_once(humaneval: Grading, work: Path) -> None:
    judged(humaneval, HUMANEVAL, "HumanEval/0", "def double(x): return 2 * x")
    before = {path: path.stat().st_mtime_ns for path in work.iterdir()}
    for grading in opened(HUMANEVAL, EvalPlusOptions("humaneval"), work):
        assert judged(grading, HUMANEVAL, "HumanEval/0", "def double(x): return 2 * x").correct
    assert before and {path: path.stat().st_mtime_ns for path in work.iterdir()} == before


def test_evalplus_exact_keeps_its_bug(exact: Grading) -> None:
    found = judged(exact, HUMANEVAL, "HumanEval/32", "def find_zero(xs): return -xs[0] / xs[1]")
    assert found.correct is False
    assert judged(exact, HUMANEVAL, "HumanEval/0", "def double(x): return 2 * x").correct
    assert exact.facts["mode"] == "evalplus_exact"


def test_the_exact_mode_mends_no_indentation_as_evalplus_does_not() -> None:
    from evalplus.sanitize import sanitize

    answer = "1. It is:\n   ```python\n   def double(x):\n       return 2 * x\n   ```\n"
    problem, found = HUMANEVAL.problem("HumanEval/0"), []
    for exact in (True, False):
        found.append(EvalPlus(EvalPlusOptions("humaneval", evalplus_exact=exact)).extract(answer, problem))
    assert found == [
        "   def double(x):\n       return 2 * x\n",
        "def double(x):\n    return 2 * x\n",
    ]
    with pytest.raises(SyntaxError):
        compile(sanitize(answer, "double"), "solution.py", "exec")


@pytest.mark.parametrize(
    ("name", "code", "right"),
    [
        ("Mbpp/2", "def similar_elements(a, b): return [x for x in b if x in a] * 2", True),
        ("Mbpp/2", "def similar_elements(a, b): return (x for x in b if x in a)", True),
        ("Mbpp/2", "def similar_elements(a, b): return list(a) + [99]", False),
        ("Mbpp/295", "def sum_div(n): return 0", True),
        ("Mbpp/295", "def sum_div(n): return n + 1", False),
        ("Mbpp/74", "import re\ndef check_str(s): return re.match('.', s)", True),
        ("Mbpp/74", "def check_str(s): return True", False),
        ("Mbpp/581", "def surface_Area(b, h):\n import math\n s = math.sqrt((b / 2) ** 2 + h ** 2)\n"
                     " return round(b * b + 2 * b * s)", True),
        ("Mbpp/581", "def surface_Area(b, h): return 1", False),
    ],
)  # fmt: skip
def test_special_rules_of_mbpp(mbpp: Grading, name: str, code: str, right: bool) -> None:
    assert judged(mbpp, MBPP, name, code).correct is right


#: Written so that evalplus' process makes them itself; what iterates is used up by one look.
VALUES = """
    [1,2,3] (1,2,3) range(1,4) deque([1,2,3]) array('i',[1,2,3]) np.array([1,2,3]) Lst([1,2,3]) UserList([1,2,3])
    Seq([1,2,3]) It([1,2,3]) [1.0,2.0,3.0] [True,2,3] [np.int64(1),2,3] [1,2] [] ()
    iter([1,2,3]) gen([1,2,3]) map(int,[1,2,3]) filter(None,[1,2,3]) zip([1,2,3]) reversed([3,2,1]) iter([])
    {1,2,3} frozenset({1,2,3}) {1:0,2:0,3:0}.keys() {0:1,1:2,2:3}.values() {1:2}.items() {(1,2)} set()
    [[1,2],[3]] [(1,2),(3,)] [deque([1,2]),[3]] [iter([1,2]),[3]] [map(int,[1,2]),[3]] [np.array([1,2]),[3]]
    [range(1,3),[3]] [P(1,2),(3,)] [{1:2}.keys()] [{1}] {1:iter([1])} {1:[1]} {1:(1,)} [gen([1])] [[1]]
    1 True 1.0 np.int64(1) np.float64(1) np.float32(1) np.bool_(True) Int(1) E.A Decimal(1) Fraction(1) 1+0j '1'
    np.array(1) np.array([1]) [1] {1} None 0 False nan inf np.array([]) 10**30 1e30
    0.1 0.1+1e-8 0.1+1e-4 np.float32(0.1) np.float64(0.1) np.float64(0.1+1e-8) Flt(0.1+1e-8) Decimal('0.1') [0.1]
    [0.1+1e-8] (0.1,) (0.1+1e-8,) [np.float32(0.1)] np.array([0.1]) [nan] [0.1,0.2] [0.1,'a'] [Decimal('0.1')]
    Decimal('sNaN')
    'ab' Str('ab') UserString('ab') ['a','b'] b'ab' bytearray(b'ab') np.str_('ab') np.array('ab')
    np.array(['a','b'])
    {'a':2,'b':1} Counter('aab') Counter(a=2,b=1,c=0) OrderedDict(b=1,a=2) defaultdict(int,a=2,b=1)
    UserDict(a=2,b=1) MappingProxyType({'a':2,'b':1}) Map({'a':2,'b':1}) {'a':2} P(1,2) object()
"""
EXPECTED = """
    [1,2,3] (1,2,3) {1,2,3} [] deque([1,2,3]) [[1,2],[3]] [(1,2),(3,)] {1:[1]} 1 True None [0.1] 0.1 (0.1,) [1] [[1]]
    'ab' b'ab' {'a':2,'b':1} Counter('aab') 10**30 {(1,2)}
"""
MAKING = """
from collections import *
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from array import array
from types import MappingProxyType
import numpy as np
nan, inf = float("nan"), float("inf")
P = namedtuple("P", "x y")
class Str(str): pass
class Int(int): pass
class Flt(float): pass
class Lst(list): pass
class E(IntEnum): A = 1
class It:
    def __init__(self, held): self.held = held
    def __iter__(self): return iter(self.held)
class Seq(It, Sequence):
    def __len__(self): return len(self.held)
    def __getitem__(self, at): return self.held[at]
class Map(Seq, Mapping): pass
def gen(held): yield from held
"""


@pytest.mark.parametrize("atol", [0.0, 1e-4])
def test_what_evalplus_accepts_is_accepted_and_nothing_else(atol: float) -> None:
    """Each value for each expected one: evalplus' own verdicts, and ours of what crosses from the sandbox."""
    from evalplus.eval import untrusted_check

    made: dict[str, Any] = {}
    exec(MAKING, made)
    values = VALUES.split()
    code = f"{MAKING}\ndef f(n): return eval({values!r}[n])"
    inputs = [[number] for number in range(len(values))]
    told = [VALUE + pack(eval(one, made)) for one in values]
    for wanted in EXPECTED.split():
        expected = [eval(wanted, made) for _ in values]
        said = untrusted_check("humaneval", code, inputs, "f", expected, atol, [0.25] * len(values))[1]
        whole = [VALUE + pack(one) for one in expected]
        references = [rules.reference(whole, [0.0] * len(values)), rules.reference([], [])]
        tests = rules.Tests("humaneval", row("HumanEval/0", "f", "", [], [], atol))
        compares = rules.Expected(tests, references, False, partial(list, whole))
        ours = [next(compares.check(n, LENGTH.pack(len(one)) + one)) == "" for n, one in enumerate(told)]
        differs = [one for one, mine, theirs in zip(values, ours, said, strict=True) if mine != bool(theirs)]
        assert differs == [], wanted


def test_a_reference_that_fails_is_the_graders_error(work: Path) -> None:
    broken = Documents([row("HumanEval/9", "f", "(x):\n    return 1 / x\n", [[1]], [[0]])])
    for grading in opened(broken, EvalPlusOptions("humaneval"), work):
        found = judged(grading, broken, "HumanEval/9", "def f(x): return 1")
        assert found.correct is None and "reference solution of HumanEval/9 fails on its test 1" in str(found.error)


#: Their tests take seconds.
SLOW = {f"HumanEval/{n}" for n in (0, 15, 25, 31, 32, 36, 59, 83, 94, 100, 130, 139)}
SLOW |= {f"Mbpp/{n}" for n in (83, 103, 123, 138, 255, 271, 389, 392, 462, 574, 592, 599, 603, 765, 779)}


@pytest.mark.parametrize(
    ("dataset", "folder", "file"),
    [("humaneval", "humaneval_plus", "HumanEvalPlus"), ("mbpp", "mbpp_plus", "MbppPlus")],
)
def test_published_verdicts(work: Path, dataset: Any, folder: str, file: str) -> None:
    """A part of the real solutions; `benchmarks/grading.py` compares all of them."""
    source = SHARED / folder / f"{file}.jsonl.gz"
    published = SHARED / "outputs_evalplus" / f"Meta-Llama-3-8B-Instruct_{dataset}_eval_results.json"
    if not (source.exists() and published.exists()):
        pytest.skip(f"not here: {source} and {published}")
    with gzip.open(source) as lines:
        rows = [read(json.loads(line)) for line in lines]
    chosen = sorted((one for one in rows if one["id"] not in SLOW), key=lambda one: len(one["plus_input"]))[:40]
    documents = Documents(chosen)
    verdicts = json.loads(published.read_text())["eval"]
    asked = [(documents.problem(one["id"]), verdicts[one["id"]][0]) for one in chosen]
    for grading in opened(documents, EvalPlusOptions(dataset), work):
        found = list(grading.judge_all([(problem, said["solution"]) for problem, said in asked]))
    for (problem, said), judgement in zip(asked, found, strict=True):
        base = said["base_status"] == "pass"
        wanted = {"base": float(base), "plus": float(base and said["plus_status"] == "pass")}
        assert judgement.scores == wanted, (problem.problem_id, judgement)


def read(row: dict[str, Any]) -> dict[str, Any]:
    """A row of evalplus' file as the task's document."""
    kept = {key: row[key] for key in ("prompt", "entry_point", "canonical_solution")}
    texts = {key: json.dumps(row[key]) for key in ("base_input", "plus_input")}
    return kept | texts | {"id": row["task_id"], "atol": float(row["atol"])}
