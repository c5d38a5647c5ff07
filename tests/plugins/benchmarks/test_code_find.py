"""Where the code of an answer is, how many solutions run at once, and when a time-out counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillbench.errors import GraderError
from distillbench.records import Judgement, Problem
from distillbench_plugins.grading.code import Attempt, CodeGrading, Quiet, code_blocks, find_code, was_disturbed
from distillbench_plugins.grading.sandbox.sandbox import Ending

F = "```"


@pytest.mark.parametrize(
    ("answer", "entry_point", "code"),
    [
        ("no code", "f", None),
        ("", "f", None),
        (f"{F}python\ndef f(): pass\n{F}", "f", "def f(): pass\n"),
        (f"{F}\ndef f(): pass\n{F}", "f", "def f(): pass\n"),
        (f"{F}python\ndef f(): pass\n{F}\ntests:\n{F}python\nassert f()\n{F}", "f", "def f(): pass\n"),
        (f"{F}python\ndef f(): pass\n{F}\ntests:\n{F}python\nassert f()\n{F}", "", "assert f()\n"),
        (f"{F}python\ndef f(): 1\n{F}\nbetter:\n{F}python\ndef f(): 2\n{F}", "f", "def f(): 2\n"),
        (f"{F}python\ndef g(): 1\n{F}\n{F}python\ndef h(): 2\n{F}", "f", "def h(): 2\n"),
        (f"{F}python\ndef f_longer(): 1\n{F}\n{F}python\nf = max\n{F}\n{F}\nf(1)\n{F}", "f", "f = max\n"),
        (f"{F}python\nclass f: pass\n{F}\n{F}\nf\n{F}", "f", "class f: pass\n"),
        (f"{F}python\nasync def f(): pass\n{F}", "f", "async def f(): pass\n"),
        (f"{F}python\ndef f(): pass\n", "f", None),
        (f"{F}python\ndef f(): 1\n{F}\nor\n{F}python\ndef f(): 2", "f", "def f(): 1\n"),
        (f"{F}python\n\n{F}", "f", None),
        (f"{F}{F}", "f", None),
        (f"the fence {F}x{F} stands in a line", "f", None),
        (f"{F}{F}\n{F}\ndef f(): pass\n{F}\n{F}{F}", "f", f"{F}\ndef f(): pass\n{F}\n"),
        (f"~~~\n{F}\n~~~", "f", f"{F}\n"),
        (f"   {F}py\ndef f(): pass\n   {F}", "f", "def f(): pass\n"),
        (f"{F}python\nx = '''\n{F}python\n'''\n{F}", "f", f"x = '''\n{F}python\n'''\n"),
    ],
)
def test_the_rule(answer: str, entry_point: str, code: str | None) -> None:
    assert find_code(answer, entry_point) == code


ADD = "def add(a, b):\n    return a + b\n"
#: Answers whose code adds, as a function and (but for the first) as the program that is meant.
ADDS = {
    "usage after it": f"{F}python\n{ADD}{F}\nUsage:\n{F}python\nprint(add(1, 2))\n{F}",
    "bash": f"{F}python\n{ADD}{F}\nRun:\n{F}bash\npython add.py\n{F}",
    "a console": f"{F}python\n{ADD}{F}\n{F}pycon\n>>> add(1, 2)\n3\n{F}",
    "output": f"{F}python\n{ADD}{F}\nOutput:\n{F}\n3\n{F}",
    "tagged output": f"{F}python\n{ADD}{F}\nOutput:\n{F}text\n3\n{F}",
    "untagged before output": f"{F}\n{ADD}{F}\nOutput:\n{F}\nCase #1: 3\n{F}\n{F}\n1 2\n{F}",
    "javascript": f"{F}python\n{ADD}{F}\n{F}javascript\nfunction add(a, b) {{ return a + b }}\n{F}",
    "ruby": f"{F}python\n{ADD}{F}\n{F}ruby\ndef add(a, b)\n  a + b\nend\n{F}",
    "c++ before": f"{F}cpp\nint add(int a, int b);\n{F}\n{F}python\n{ADD}{F}",
    "a tag of its own": f"{F}solution\n{ADD}{F}\n{F}text\n3\n{F}",
    "version in the tag": f"{F}Python3.11 title=add.py\n{ADD}{F}\n{F}sh\nls\n{F}",
    "a tag in braces": f"{F}{{.python .numberLines}}\n{ADD}{F}\n{F}{{.c}}\nint x;\n{F}",
    "a docstring with a fence": f'{F}python\ndef add(a, b):\n  """Adds.\n\n  {F}\n  >>> add(1, 2)\n  3\n  {F}\n  """\n'
    f"  return a + b\n{F}",
    "a docstring with a fence at its left": f"{F}python\n'''It's\n{F}python\nadd(1, 2)\n{F}\n'''\n{ADD}{F}\nDone.",
    "an indented docstring": f'1. x\n\n   {F}python\n   def add(a, b):\n     r"""Adds \\""" {F}\n     {F}\n     """\n'
    f"     return a + b\n   {F}\n",
    "quotes that are no string": f'{F}\nit\'s """ odd\n{F}\n{F}python\n{ADD}{F}\n',
    "quotes in a comment": f'{F}python\n# """ no string\nx = \'it\\\'s """\'\n{ADD}{F}\nand\n{F}text\n3\n{F}',
    "a mark before the fence": f"\ufeff{F}python\n{ADD}{F}",
    "a mark before the code": f"{F}python\n\ufeff{ADD}{F}",
    "a mark in a list": f"- x\n  {F}python\n\ufeff  def add(a, b):\n      return a + b\n  {F}",
    "a mark in a list, before the code": f"- x\n  {F}python\n  \ufeffdef add(a, b):\n      return a + b\n  {F}",
    "a fence further right than its code": f"  {F}python\ndef add(a, b):\n  return a + b\n  {F}",
    "text at the left": f'1. x\n   {F}python\n   def add(a, b):\n       s = """\nx\n"""\n       return a + b\n   {F}',
    "behind words": f"**Solution:** {F}python\n{ADD}{F}\n{F}text\n3\n{F}",
    "behind code in the line": f"So `add` is: {F}python\n{ADD}{F}\n",
    "behind a tag": f"<answer>{F}python\n{ADD}{F}</answer>",
    "behind another bullet": f"\u2022 {F}py\n  def add(a, b):\n      return a + b\n  {F}",
    "in a list of tasks": f"- [ ] {F}python3\n  def add(a, b):\n      return a + b\n  {F}",
    "words after the fence": f"{F}python\n{ADD}{F} Done.\n\n{F}text\n3\n{F}",
    "more words after the fence": f"{F}python\n{ADD}{F} This adds.\n\n{F}text\n3\n{F}",
    "in Markdown": f"{F}markdown\nHere:\n{F}python\n{ADD}{F}\n{F}\n",
    "in Markdown with a longer fence": f"{F}`md\nHere:\n{F}python\n{ADD}{F}\n{F}`\n{F}text\n3\n{F}",
    "after a block that was not closed": f"{F}\n1 2\n\nSo:\n{F}python\n{ADD}{F}\n",
    "after Python that was not closed": f"{F}python\nimport os\n\n{F}python\n{ADD}{F}\n{F}python\ndef add(",
    "a session": f"{F}python\n{ADD}{F}\n{F}python\n>>> add(1, 2)\n3\n{F}",
    "closed at the left": f"1. x\n    {F}python\n    def add(a, b):\n        return a + b\n{F}\n{F}text\n{F}",
}


def adds(code: str | None) -> bool:
    namespace: dict[str, Any] = {}
    exec(compile(code or "", "solution.py", "exec"), namespace)
    return bool(namespace["add"](1, 2) == 3)


@pytest.mark.parametrize("name", ADDS)
def test_the_block_that_is_meant(name: str) -> None:
    assert adds(find_code(ADDS[name], "add"))
    assert name == "usage after it" or adds(find_code(ADDS[name]))


@pytest.mark.parametrize("other", ["def add(a, b)\n  a + b\nend", "def add(a: Int, b: Int) = a + b"])
def test_a_definition_in_another_language_is_none(other: str) -> None:
    assert adds(find_code(f"{F}\n{ADD}{F}\nor\n{F}\n{other}\n{F}", "add"))


@pytest.mark.parametrize("line", [f"Wrap it in {F}python\n\n{F}python\n", f"{F}python\nx = 1\n{F}python\n"])
def test_a_block_that_another_leaves_open_is_none(line: str) -> None:
    assert code_blocks(f"{line}{ADD}{F}") == [ADD]


LINES = st.lists(
    st.sampled_from(["def add(a, b):", "    return a + b", "\treturn", "x = 1", "", "        y", "# add"]), min_size=1
).filter(lambda lines: lines[0][:1] not in ("", " ", "\t"))
#: What stands before a block's first line, and before each other one.
AROUND = [(" " * n, " " * n) for n in (0, 1, 2, 3, 4, 7, 8, 12)] + [("\t", "\t"), ("\t\t", "\t\t"), ("  \t", "    ")]
AROUND += [("- ", "  "), ("1. ", "   "), ("10) ", "    "), ("*\t", "\t"), ("> ", "> "), (">", ">"), ("> - ", ">   ")]


@given(
    LINES,
    st.sampled_from(AROUND),
    st.sampled_from([F, "~~~", "`````"]),
    st.sampled_from(["", "python", " py", "Python3 x"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\ufeff"]),
    st.sampled_from(["", "Text.\n\n", f"{F}sh\nls\n{F}\n"]),
)
def test_code_is_found_wherever_its_fence_stands(
    lines: list[str], around: tuple[str, str], fence: str, tag: str, end: str, mark: str, before: str
) -> None:
    first, others = around
    written = [f"{first}{fence}{tag}", *(f"{others}{line}" for line in lines), f"{others}{fence}", "", "That is it."]
    found = find_code(mark + before + end.join(written), "add")
    assert found == "".join(f"{line}{end}" for line in lines)


PIECES = st.sampled_from(
    [F, f"{F}python", "~~~", "\n", "def f(): pass", " ", "text", "````", "`", '"""', "> ", "- ", "\t"]
)


@given(st.lists(PIECES, max_size=30).map("".join), st.sampled_from(["", "f"]))
def test_what_is_found_stands_in_the_answer_and_is_a_block(answer: str, entry_point: str) -> None:
    found = find_code(answer, entry_point)
    assert found is None or (found in code_blocks(answer) and found.strip())
    assert found is None or all(line.strip() in answer for line in found.split("\n"))


HOSTILE = {
    "blank lines": f"{F}python\n" + "\n" * 400_000 + F,
    "lines of blanks": f"{F}\n" + " \n\t\n" * 200_000 + F,
    "fences": f"{F}\n" * 200_000,
    "backticks": "`" * 1_000_000,
    "an indented fence": " " * 1_000_000 + F,
    "definitions": F + "\n def f" * 200_000,
    "marks of quotes": ">" * 200_000 + f"{F}\n" + "x\n" * 200_000 + F,
    "marks of lists": "- " * 400_000 + F,
    "strings": f"{F}\n" + '"""' * 300_000 + f"\n{F}",
    "escapes": f"{F}\n" + '\\"' * 500_000 + f"\n{F}\n" + "'''" + "\\" * 500_000,
    "strings that do not end": f'{F}\n"""\n{F}\n' * 100_000,
    "fences with tags": f"{F}python\nx\n" * 100_000,
    "Markdown in Markdown": "".join(f"{'`' * n}md\n" for n in range(1400, 3, -1)) + f"{F}\nx\n" * 200_000,
    "words after fences": f"{F}python\n" + f"{F} {'x' * 500_000}\n" + f"{F}\n",
    "code in the line before a fence": "`x` " * 200_000 + f"x``y{F}python\n",
    "words before fences": f"x {F}python\n" * 100_000,
    "deeper and deeper": "\n".join(" " * n + F for n in range(1400)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_take_linear_time(name: str) -> None:
    """A megabyte each; to look at each line from each other line takes many minutes."""
    begun = time.process_time()
    find_code(HOSTILE[name], "f")
    assert time.process_time() - begun < 60


PROBLEM = Problem("p", "t", (), "")


def answers(n: int) -> Iterator[tuple[Problem, str]]:
    return ((PROBLEM, str(number)) for number in range(n))


def test_judgements_come_in_order_and_side_by_side() -> None:
    both = threading.Barrier(2, timeout=20)

    def attempt(problem: Problem, code: str) -> Attempt:
        if int(code) < 2:
            both.wait()  # passes only when two run at once
        return Attempt(Judgement(int(code) % 2 == 0))

    found = list(CodeGrading(attempt, 2, {}).judge_all(answers(50)))
    assert [judgement.correct for judgement in found] == [number % 2 == 0 for number in range(50)]


def test_answers_are_read_only_so_far_ahead() -> None:
    read = []

    def reading() -> Iterator[tuple[Problem, str]]:
        for item in answers(5000):
            read.append(item)
            yield item

    judged = CodeGrading(lambda problem, code: Attempt(Judgement(True)), 2, {}).judge_all(reading())
    next(judged)
    assert len(read) < 1000


def test_a_suspect_time_out_is_run_once_more_alone() -> None:
    running, most_alone, runs = set(), [], []

    def attempt(problem: Problem, code: str) -> Attempt:
        is_again = code in runs
        runs.append(code)
        running.add(code)
        time.sleep(0.005)
        if is_again:
            most_alone.append(len(running))
        running.discard(code)
        return Attempt(
            Judgement(is_again, "" if is_again else "time_limit"), suspect=code in ("3", "7") and not is_again
        )

    found = list(CodeGrading(attempt, 4, {}).judge_all(answers(20)))
    assert [number for number, judgement in enumerate(found) if judgement.correct] == [3, 7]
    assert sorted(runs.count(str(number)) for number in (3, 7)) == [2, 2] and len(runs) == 22
    assert most_alone == [1, 1]


def test_a_grader_error_costs_its_own_answer() -> None:
    def attempt(problem: Problem, code: str) -> Attempt:
        if code == "1":
            raise GraderError("no such document")
        return Attempt(Judgement(True))

    found = list(CodeGrading(attempt, 2, {}).judge_all(answers(3)))
    assert [judgement.error for judgement in found] == [None, "no such document", None]


def test_quiet_lets_nothing_begin_beside_it() -> None:
    quiet, log = Quiet(), []
    with quiet.shared():
        alone = threading.Thread(target=lambda: _enter(quiet.alone, log, "alone"))
        alone.start()
        time.sleep(0.05)
        later = threading.Thread(target=lambda: _enter(quiet.shared, log, "later"))
        later.start()
        time.sleep(0.05)
        log.append("first")
    alone.join(10)
    later.join(10)
    assert log == ["first", "alone", "later"]


def _enter(how: object, log: list[str], name: str) -> None:
    with how():  # type: ignore[operator]
        log.append(name)


def test_what_disturbed_means() -> None:
    assert not was_disturbed(Ending(124, 1.0, 1.1, 0))
    assert was_disturbed(Ending(124, 1.0, 2.0, 0))
    assert was_disturbed(Ending(-9, 0.01, 10.0, 0))
