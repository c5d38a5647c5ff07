"""The math_boxed grader: which box counts, what equals the gold answer, and what a failing grader says."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plugin_helpers import beside, problem

from distillbench.errors import GraderError
from distillbench.outcomes import CORRECT, ERRORS, WRONG, decide
from distillbench.protocols import NoOptions
from distillbench.records import Completion, FinishReason, Verdict
from distillbench_plugins.benchmarks import math_boxed
from distillbench_plugins.benchmarks.math_boxed import MathBoxed, is_equal, last_boxed

GRADER = MathBoxed(NoOptions())


def verdict(answer: str, gold: str, finish_reason: FinishReason = "stop") -> Verdict:
    """The outcome of an answer without reasoning."""
    completion = Completion(answer, (), finish_reason, "", None, answer, "absent")
    return decide(completion, problem(gold=gold), GRADER)


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
        ("\\boxed{}", ""),
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


BALANCED = st.recursive(
    st.text(st.characters(exclude_characters="{}\\", exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.builds("{}{{{}}}{}".format, inner, inner, inner),
    max_leaves=8,
)


@given(before=BALANCED, content=BALANCED, after=BALANCED)
def test_a_balanced_box_is_found_whatever_stands_around_it(before: str, content: str, after: str) -> None:
    assert last_boxed(f"\\boxed{{no}} {before} \\boxed{{{content}}} {after} \\boxed{{open") == content.strip()


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
    assert time.monotonic() - begin < 2


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
        ("5", "", False),
        ("5", "\\text{I do not know}", False),
        ("5", "\\frac{}", False),
        ("5", "((((5", False),
        ("5", "5 \\text{ or } 6", False),
        ("5", "日本", False),
        ("5", "\x00", False),
        ("5", "5" * 2000, False),
    ],
)
def test_what_equals_the_gold_answer(gold: str, box: str, is_right: bool) -> None:
    found = verdict(f"So \\boxed{{{box}}}", gold)
    assert found.outcome == (CORRECT if is_right else WRONG), found
    assert found.detail == ("" if is_right else "wrong_answer")
    assert found.extracted == box.strip()


@pytest.mark.parametrize(
    ("gold", "box", "says"),
    [("42", "42.", False), ("10", "10\\%", True), ("12345", "12\\,345", False), ("5", "5,5", True)],
)
def test_quirks_of_math_verify_that_issue_4_may_mend(gold: str, box: str, says: bool) -> None:
    """Not what a person would say; pinned so that a change of math-verify, or of ours, is seen."""
    assert is_equal(gold, box) is says


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from(list("0123456789+-*/^_.,=()[]{}$%&~ ab\\")), max_size=20))
def test_no_text_in_a_box_makes_the_grader_fail(text: str) -> None:
    found = verdict(f"\\boxed{{{text}}}", "\\frac{7}{13}")
    assert found.outcome not in ERRORS, found


@pytest.mark.parametrize("bomb", ["9^{9^{9^{9}}}", "9999999999999!"])
def test_a_bomb_is_a_grader_error_within_its_time(bomb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math_boxed, "_TIME_LIMIT", 1)
    begin = time.monotonic()
    found = verdict(f"\\boxed{{{bomb}}}", "5")
    assert time.monotonic() - begin < 4
    assert found.outcome == "grader_error"
    assert "1 s" in found.detail
    assert verdict("\\boxed{5}", "5").outcome == CORRECT, "the next sample is graded as if nothing had been"


def test_an_unreadable_gold_answer_is_a_grader_error() -> None:
    with pytest.raises(GraderError, match="cannot read the gold answer"):
        is_equal("", "5")
    assert verdict("\\boxed{5}", "").outcome == "grader_error"


def rows(path: Path) -> list[dict[str, Any]]:
    """A JSON-lines file's rows."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_gold_answer_of_math500_equals_itself() -> None:
    golds = [str(row["answer"]) for row in rows(beside("math500", "math500.jsonl"))]
    assert len(golds) == 500
    bad = [(gold, found) for gold in golds if (found := verdict(f"\\boxed{{{gold}}}", gold)).outcome != CORRECT]
    assert bad == []


def test_real_transcripts_are_graded_without_an_error() -> None:
    """A published score by another grader is a second opinion: it is listed, and a landslide would be a bug."""
    transcripts = rows(beside("outputs_math", "Qwen2.5-14B-Instruct_math500.jsonl"))[::2]
    found = [verdict(str(row["code"][0]), str(row["gt"])) for row in transcripts]
    assert not [one for one in found if one.outcome in ERRORS]
    differ = []
    for row, one in zip(transcripts, found, strict=True):
        theirs = bool(row["score"][0])
        if theirs != (one.outcome == CORRECT):
            differ.append(
                f"idx {row['idx']}: gold {row['gt']!r}, ours {one.outcome} {one.extracted!r}, theirs {theirs}"
            )
    print(f"{len(transcripts)} transcripts; graded otherwise by the published grader: {len(differ)}", *differ, sep="\n")
    assert len(differ) < 0.05 * len(transcripts)
