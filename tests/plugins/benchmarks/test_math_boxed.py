"""The math_boxed grader: which box counts, what equals the gold answer, and what a failing grader says."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plugin_helpers import beside, problem

from distillbench.errors import GraderError
from distillbench.outcomes import CORRECT, ERRORS, LOOP, NO_ANSWER, TRUNCATED, WRONG, decide_all
from distillbench.protocols import Context, Grading
from distillbench.records import Completion, FinishReason, Resources, Verdict
from distillbench_plugins.benchmarks.math_boxed import MathBoxed, MathBoxedOptions
from distillbench_plugins.grading.mathematics.boxes import last_boxed

GRADER = MathBoxed(MathBoxedOptions())

Grade = Callable[[str, str], Verdict]


@pytest.fixture(scope="module")
def grading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grading]:
    """One grading for all tests here, as a run has one for all its stages."""
    with GRADER.open(Context(tmp_path_factory.mktemp("grading"))) as opened:
        yield opened


@pytest.fixture(scope="module")
def verdict(grading: Grading) -> Grade:
    """The outcome of an answer without reasoning."""

    def grade(answer: str, gold: str) -> Verdict:
        completion = Completion(answer, (), "stop", "", None, answer, "absent")
        (found,) = decide_all([(completion, problem(gold=gold))], GRADER, grading)
        return found

    return grade


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("\\boxed{5}", "5"),
        ("\\boxed{ 5 }", "5"),
        ("\\boxed {5}", "5"),
        ("\\boxed\n{5}", "5"),
        ("first \\boxed{4}, then \\boxed{5}.", "5"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\frac{\\sqrt{3}}{2^{10}}}", "\\frac{\\sqrt{3}}{2^{10}}"),
        ("\\boxed{\\boxed{5}}", "5"),
        ("\\boxed{\\{1,2\\}}", "\\{1,2\\}"),
        ("\\boxed{\\left\\{1\\right.}", "\\left\\{1\\right."),
        ("\\boxed{a\\}b}", "a\\}b"),
        ("\\boxed{a \\\\ b}", "a \\\\ b"),
        ("\\boxed{a\\\\}", "a\\\\"),
        ("\\boxed{}", None),
        ("\\fbox{4} \\boxed{5}", "5"),
        ("\\boxed{5} and \\boxed{4", "5"),
        ("\\boxed{4", None),
        ("\\boxed{4\\}", None),
        ("\\boxed{{4}", None),
        ("\\boxed", None),
        ("\\boxed5", None),
        ("boxed{5}", None),
        ("5", None),
        ("", None),
        ("\\boxed{5}}", "5"),
        ("\\boxed{\\text{Tom}}", "\\text{Tom}"),
        ("\\boxed{4\\", None),
    ],
)
def test_the_last_complete_box(text: str, box: str | None) -> None:
    assert last_boxed(text) == box


BLANK = [
    "",
    " ",
    "\n",
    "\\ ",
    "~",
    "\\,",
    "\\quad",
    "{}",
    "\\text{}",
    "\\text{ }",
    "\\mathrm{\\,}",
    "?",
    "...",
    "\\ldots",
    "$$",
]
BLANK += ["\\_\\_\\_", "\\underline{\\hspace{1cm}}", "\\text{?}", "\\boxed{}", "**", "\u200b", "\\left.\\right."]
FILLED = [
    "0",
    "\\emptyset",
    "\\{\\}",
    "\\varnothing",
    "-",
    "\\infty",
    "\\text{no}",
    "()",
    "\\square",
    "∅",
    "\\%",
    "\u2212",
    "\\textbf{B}",
]


@pytest.mark.parametrize("blank", BLANK)
def test_a_blank_box_is_no_answer(blank: str) -> None:
    assert last_boxed(f"So \\boxed{{{blank}}}.") is None
    assert last_boxed(f"So \\boxed{{5}}. (Put the answer in \\boxed{{{blank}}}.)") == "5"
    assert last_boxed(f"\\boxed{{{blank}}} " * 50 + "\\boxed{6") is None


@pytest.mark.parametrize("filled", FILLED)
def test_a_box_that_holds_a_sign_is_an_answer(filled: str) -> None:
    assert last_boxed(f"Not \\boxed{{5}}, but \\boxed{{{filled}}}.") == filled


@pytest.mark.parametrize(
    ("text", "ids", "finish", "outcome"),
    [
        ("\\boxed{}. " * 40, tuple(range(5)) * 40, "length", LOOP),
        ("So \\boxed{ } or", tuple(range(50)), "length", TRUNCATED),
        ("I cannot say: \\boxed{}", tuple(range(50)), "stop", NO_ANSWER),
        ("So \\boxed{5}. " + "\\boxed{}. " * 40, tuple(range(5)) * 40, "length", CORRECT),
        ("\\boxed{\\text{ }} so \\boxed{6}", tuple(range(50)), "stop", WRONG),
    ],
)
def test_what_a_completion_with_blank_boxes_is(
    grading: Grading, text: str, ids: tuple[int, ...], finish: FinishReason, outcome: str
) -> None:
    completion = Completion(text, ids, finish, "", None, text, "absent")
    (found,) = decide_all([(completion, problem(gold="5"))], GRADER, grading)
    assert found.outcome == outcome


BALANCED = st.recursive(
    st.text(st.characters(exclude_characters="{}\\", exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.builds("{}{{{}}}{}".format, inner, inner, inner),
    max_leaves=8,
)


@given(before=BALANCED, content=BALANCED, after=BALANCED)
def test_a_balanced_box_is_found_whatever_stands_around_it(before: str, content: str, after: str) -> None:
    text = f"\\boxed{{no}} {before} \\boxed{{x{content}}} {after} \\boxed{{open"
    assert last_boxed(text) == f"x{content}".strip()


@given(st.text(alphabet="{}\\boxed a5"))
def test_what_is_found_is_balanced_and_in_the_text(text: str) -> None:
    found = last_boxed(text)
    if found is not None:
        bare = found.replace("\\\\", "").replace("\\{", "").replace("\\}", "")
        assert bare.count("{") == bare.count("}")
        assert found in text


def test_a_long_text_of_unclosed_boxes_takes_no_time() -> None:
    """A looping student writes such texts; one look for the closing brace from each box would take minutes."""
    begin = time.monotonic()
    assert last_boxed("\\boxed{" * 50_000) is None
    assert last_boxed("\\boxed{5}" + "\\boxed{" * 50_000) == "5"
    assert last_boxed("\\boxed{" * 50_000 + "}" * 50_000) is None
    assert last_boxed("\\" * 100_000) is None
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize(
    ("gold", "box", "is_right"),
    [
        ("5", "5", True),
        ("5", "4", False),
        ("5", "05", True),
        ("025", "25", True),
        ("25", "025", True),
        ("5", "+5", True),
        ("-5", "5", False),
        ("-5", "-5", True),
        ("0", "-0", True),
        ("5", "5.0", True),
        ("5", "5.1", False),
        ("1000", "1,000", True),
        ("1000", "1{,}000", True),
        ("123456789012345678", "123456789012345679", False),
        ("\\frac{1}{2}", "0.5", True),
        ("\\frac{1}{2}", "\\frac12", True),
        ("\\frac{1}{2}", "\\dfrac{1}{2}", True),
        ("\\frac{1}{2}", "1/2", True),
        ("\\frac{1}{2}", "2/4", True),
        ("\\frac{1}{2}", "0.49", False),
        ("0.5", "\\frac{1}{2}", True),
        ("50\\%", "50\\%", True),
        ("50\\%", "50", True),
        ("50\\%", "51\\%", False),
        ("\\$18.90", "18.90", True),
        ("\\$18.90", "\\$18.90", True),
        ("\\$18.90", "18.09", False),
        ("$\\frac{1}{2}$", "0.5", True),
        ("5", "$5$", True),
        ("5", "5 \\text{ coins}", True),
        ("5", "x = 5", True),
        ("x^2+2x+1", "(x+1)^2", True),
        ("x^2+2x+1", "(x+2)^2", False),
        ("\\sqrt{12}", "2\\sqrt{3}", True),
        ("(1,2)", "(1, 2)", True),
        ("(1,2)", "(2,1)", False),
        ("\\{1,2\\}", "\\{2,1\\}", True),
        ("[1,2)", "[1,2]", False),
        ("\\text{Evelyn}", "Evelyn", True),
        ("\\text{Evelyn}", "Carla", False),
        ("5", "\\text{I do not know}", False),
        ("5", "\\frac{}", False),
        ("5", "((((5", False),
        ("5", "5 \\text{ or } 6", False),
        ("5", "日本", False),
        ("5", "\x00", False),
        ("5", "5" * 2000, False),
        ("42", "42.", True),
        ("10", "10\\%", True),
        ("10\\%", "10", True),
        ("12345", "12\\,345", True),
        ("357", "12\\,345", False),
        ("12", "12^{\\mathrm{th}} \\text{ grade}", True),
        ("58,500", "58, 500", False),
    ],
)
def test_what_equals_the_gold_answer(verdict: Grade, gold: str, box: str, is_right: bool) -> None:
    found = verdict(f"So \\boxed{{{box}}}", gold)
    assert found.outcome == (CORRECT if is_right else WRONG), found
    assert found.detail == ("" if is_right else "wrong_answer")
    assert found.extracted == box.strip()


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from(list("0123456789+-*/^_.,=()[]{}$%&~ ab\\")), max_size=20))
def test_no_text_in_a_box_makes_the_grader_fail(verdict: Grade, text: str) -> None:
    found = verdict(f"\\boxed{{x{text}}}", "\\frac{7}{13}")
    assert found.outcome not in ERRORS, found


def test_an_unreadable_gold_answer_is_a_grader_error(verdict: Grade) -> None:
    assert verdict("\\boxed{5}", "").outcome == "grader_error"
    with pytest.raises(GraderError, match="there is no gold answer: ''"):
        GRADER.judge(problem(gold=""), "5")


def test_what_math_verify_raises_is_a_grader_error(verdict: Grade) -> None:
    """It reads 05:00 as a division by zero, and its own users get `False`."""
    found = verdict("\\boxed{04:00}", "05:00")
    assert (found.outcome, found.extracted) == ("grader_error", "04:00")
    assert "ValueError: Can't evaluate nan or zoo" in found.detail


def test_the_report_can_name_what_graded(grading: Grading) -> None:
    named = {"math-verify": version("math-verify"), "seconds_per_answer": 5.0}
    assert grading.facts == {"mode": "math-verify without its known errors"} | named


def test_judgements_keep_the_order_of_answers_with_two_workers(grading: Grading, tmp_path: Path) -> None:
    golds = [f"x^2+{n}" if n % 3 else str(n) for n in range(40)]
    answers = [f"{n}+x^2" if n % 2 else "x" for n in range(40)]
    asked = [(problem(gold=gold), answer) for gold, answer in zip(golds, answers, strict=True)]
    alone = [one.correct for one in grading.judge_all(asked)]
    assert alone == [bool(n % 3 and n % 2) for n in range(40)]
    with GRADER.open(Context(tmp_path, resources=Resources(cpus=2))) as opened:
        assert [one.correct for one in opened.judge_all(asked)] == alone


def test_a_run_that_stops_in_the_middle_leaves_no_stale_judgement(grading: Grading) -> None:
    asked = [(problem(gold="x+1"), answer) for answer in ("1+x", "x", "x+1", "2")]
    assert next(grading.judge_all(asked)).correct is True
    assert [one.correct for one in grading.judge_all(asked)] == [True, False, True, False]


def test_every_gold_answer_of_math500_equals_itself(verdict: Grade) -> None:
    golds = [
        json.loads(line)["answer"]
        for line in beside("math500", "math500.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(golds) == 500
    bad = [(gold, found) for gold in golds if (found := verdict(f"\\boxed{{{gold}}}", gold)).outcome != CORRECT]
    assert bad == []
