"""Where the code of an answer is, how many solutions run at once, and when a time-out counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

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


PIECES = st.sampled_from([F, f"{F}python", "~~~", "\n", "def f(): pass", " ", "text", "````", "`"])


@given(st.lists(PIECES, max_size=30).map("".join), st.sampled_from(["", "f"]))
def test_what_is_found_stands_in_the_answer_and_is_a_block(answer: str, entry_point: str) -> None:
    found = find_code(answer, entry_point)
    assert found is None or (found in answer and found in code_blocks(answer) and found.strip())


def test_hostile_answers_take_linear_time() -> None:
    for answer in ("```\n" * 200_000, "`" * 1_000_000, " " * 1_000_000 + "```", "```" + "\n def f" * 200_000):
        begun = time.process_time()
        find_code(answer, "f")
        assert time.process_time() - begun < 5


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
