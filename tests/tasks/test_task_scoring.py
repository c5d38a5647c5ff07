"""What the stock `lm_eval` scores is what the grader says, for the same text."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plugin_helpers import problem, tasks

from distillbench.errors import MatrixError
from distillbench.outcomes import CORRECT, decide_all
from distillbench.protocols import Context, Grading
from distillbench.records import FinishReason
from distillbench_plugins.benchmarks.math_boxed import MathBoxed, MathBoxedOptions
from distillbench_plugins.renderers.qwen import Qwen3Options, Qwen3Renderer
from distillbench_tasks.coins.scoring import process_results
from distillbench_tasks.scoring import graded_by

GRADER = MathBoxed(MathBoxedOptions())
PIECES = (
    "<think>", "</think>", "\\boxed{5}", "\\boxed{7}", "\\boxed{05}", "\\boxed{\\boxed{5}}", "\\boxed{", "}", "\\}",
    "{", "\n", " ", "Mon 2+3=5", "Wait,", "```", "5", "\\boxed{}", "\\boxed {5}", "\\frac{10}{2}", "<thi",
)  # fmt: skip


def stock(response: str, gold: str) -> float:
    """The metric of the stock command."""
    return process_results({"answer": gold}, [response])["exact_match"]


@pytest.fixture(scope="module")
def grading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grading]:
    """One grading for all tests here, as a run has one for all its stages."""
    with GRADER.open(Context(tmp_path_factory.mktemp("grading"))) as opened:
        yield opened


def ours(grading: Grading, response: str, gold: str, finish_reason: FinishReason) -> bool:
    """The outcome of our own pipeline: parser, then grader."""
    completion = Qwen3Renderer(Qwen3Options()).parse((), response, finish_reason, "")
    (verdict,) = decide_all([(completion, problem(gold=gold))], GRADER, grading)
    return verdict.outcome == CORRECT


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("\\boxed{5}", 1),
        ("\\boxed{05}", 1),
        ("\\boxed{5.0}", 1),
        ("\\boxed{\\frac{10}{2}}", 1),
        ("\\boxed{4}", 0),
        ("5", 0),
        ("", 0),
        ("\\boxed{5", 0),
        ("\\boxed{4} no, \\boxed{5}", 1),
        ("\\boxed{5} no, \\boxed{4}", 0),
        ("\\boxed{5} and \\boxed{", 1),
        ("<think>\nMon 2+3=5\n</think>\n\n\\boxed{5}", 1),
        ("<think>\n\\boxed{4}\n</think>\n\n\\boxed{5}", 1),
        ("<think>\n\\boxed{5}\n</think>\n\n\\boxed{4}", 0),
        ("<think>\n\\boxed{5}\n</think>\n\n5", 0),
        ("<think>\n\\boxed{5}", 0),
        ("<think>\n<think>\nMon</think>\\boxed{5}", 1),
        ("Mon 2+3=5\n</think>\n\n\\boxed{5}", 1),
        ("\\boxed{5}\n</think>\n\n", 0),
        ("<think>\n\n</think>\n\n\\boxed{4}\n</think>\n\n\\boxed{5}", 1),
        ("<think>a</think>\\boxed{4}<think>b</think>\\boxed{5}", 1),
    ],
)
def test_scores(grading: Grading, response: str, score: int) -> None:
    assert stock(response, "5") == score
    for finish_reason in ("stop", "length"):
        assert ours(grading, response, "5", finish_reason) == bool(score)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join), st.sampled_from(["5", "7"]))
@example("I <think> it is \\boxed{5}", "5")
@example("\\boxed{5} <think>is it?</think> yes", "5")
@example("<think>a</think>\\boxed{5}</think>", "5")
def test_stock_scoring_is_the_graders(grading: Grading, response: str, gold: str) -> None:
    for finish_reason in ("stop", "length"):
        assert stock(response, gold) == float(ours(grading, response, gold, finish_reason))


def test_the_yaml_uses_this_scoring() -> None:
    task = tasks().load("coins")
    doc = task.test_docs()[0]
    right = f"<think>\n\\boxed{{99}}\n</think>\n\n\\boxed{{{doc['answer']}}}"
    assert task.process_results(doc, [right]) == {"exact_match": 1.0}
    assert task.process_results(doc, ["<think>" + right.partition("</think>")[0]]) == {"exact_match": 0.0}


def test_options_that_a_grader_has_not_are_told_with_their_names() -> None:
    score = graded_by("math_boxed", "exact_match", {"nope": 1, "time_limit": -3}, gold="answer")
    with pytest.raises(MatrixError) as caught:
        score({"answer": "5"}, ["\\boxed{5}"])
    assert [mistake.place.keys for mistake in caught.value.mistakes] == [("scoring", "nope"), ("scoring", "time_limit")]
