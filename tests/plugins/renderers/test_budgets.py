"""Completions cut at smaller budgets: what is left is parsed and graded as if the model had been stopped there."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plugin_helpers import problem, sample_with

from distillbench.errors import StageError
from distillbench.outcomes import COMPLETED, decide
from distillbench.records import Completion, Judgement, Problem, Sample
from distillbench.stages.budgets import cut
from distillbench_plugins.benchmarks.math_boxed import MathBoxed, MathBoxedOptions
from distillbench_plugins.grading.mathematics.exact import shortcut
from distillbench_plugins.renderers.qwen import Qwen3Options, Qwen3Renderer
from distillbench_plugins.students.tiny_qwen3 import TinyQwen3, TinyQwen3Options

#: Pieces of completions: reasoning that is opened, closed, doubled and quoted; boxes that are whole, open and drafted.
PIECES = [
    "<think>",
    "</think>",
    "\n",
    "So there are 3 coins. ",
    "\\boxed{3}",
    "\\boxed{4}",
    "\\boxed{",
    "}",
    "`</think>`",
    "$x$",
    "é漢字",
    "STOP",
    "<|im_start|>",
]
PROBLEM = problem("How many?", "3")


class Boxed(MathBoxed):
    """The grader, without a process: the answers here are integers."""

    def judge(self, problem: Problem, extracted: str) -> Judgement:
        return Judgement(shortcut(problem.gold, extracted.strip()) is True)


@cache
def renderer() -> Qwen3Renderer:
    tokenizer = TinyQwen3(TinyQwen3Options()).preview_tokenizer()
    assert tokenizer is not None
    return Qwen3Renderer(Qwen3Options()).bind(tokenizer)


def sample(text: str, ended: bool) -> Sample:
    """A sample as an engine leaves it."""
    bound = renderer()
    ids = bound.tokenizer.encode(text, add_special_tokens=False)
    shown = bound.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    whole = [*ids, bound.stop_token_ids()[0]] if ended else ids
    return sample_with(whole, shown, "stop" if ended else "length", PROBLEM)


def read(row: Sample) -> Completion:
    assert row.finish_reason is not None
    return renderer().parse(tuple(row.token_ids.tolist()), row.text, row.finish_reason, row.prefill)


def graded(row: Sample) -> Any:
    return decide(read(row), PROBLEM, Boxed(MathBoxedOptions()), ("STOP",))


texts = st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join)


@settings(deadline=None, max_examples=150)
@given(texts, st.booleans())
def test_a_budget_that_holds_it_all_changes_nothing_and_a_smaller_one_says_length(text: str, ended: bool) -> None:
    row = sample(text, ended)
    whole = len(row.token_ids)
    for budget in range(1, whole + 3):
        found = cut(row, budget, renderer())
        if budget >= whole:
            assert found is row
            assert graded(found) == graded(row)
        else:
            assert found.finish_reason == "length"
            assert found.token_ids.tolist() == row.token_ids[:budget].tolist()
            assert found.n_tokens == budget
            assert row.text.startswith(found.text.rstrip("\N{REPLACEMENT CHARACTER}"))


@settings(deadline=None, max_examples=150)
@given(texts, st.booleans())
def test_a_complete_answer_stays_one_while_more_is_written_after_it(text: str, ended: bool) -> None:
    """So the completion rate can only fall where later text is read as a closed reasoning: the answer then changed."""
    row = sample(text, ended)
    rows = [cut(row, budget, renderer()) for budget in range(1, len(row.token_ids) + 1)]
    for before, after in pairwise(rows):
        earlier, later = read(before), read(after)
        goes_on = later.answer.startswith(earlier.answer) and later.reasoning_state == earlier.reasoning_state
        if goes_on and graded(before).outcome in COMPLETED:
            assert graded(after).outcome in COMPLETED


def test_a_cut_inside_the_reasoning_is_truncated_and_a_draft_there_is_no_answer() -> None:
    row = sample("<think>\\boxed{3}, so far as I see.</think>It is \\boxed{4}", ended=True)
    outcomes = [graded(cut(row, budget, renderer())).outcome for budget in range(1, len(row.token_ids) + 1)]
    assert outcomes == ["truncated"] * outcomes.count("truncated") + ["wrong"] * outcomes.count("wrong")
    assert 1 < outcomes.count("truncated") < len(outcomes)
    assert graded(cut(row, len(row.token_ids) - 1, renderer())).ran_on  # the budget ended it, not the model


def test_an_end_of_turn_within_the_budget_is_still_the_models_own() -> None:
    row = sample("no box", ended=True)
    assert graded(cut(row, len(row.token_ids), renderer())).outcome == "no_answer"
    assert graded(cut(row, len(row.token_ids) - 1, renderer())).outcome == "truncated"


def test_special_tokens_in_a_completion_are_kept() -> None:
    row = sample("a<|im_start|>b \\boxed{3}", ended=True)
    assert len(renderer().tokenizer.encode("<|im_start|>", add_special_tokens=False)) == 1
    assert "<|im_start|>" in cut(row, len(row.token_ids) - 2, renderer()).text


def test_what_failed_stays_failed() -> None:
    row = replace(sample("", ended=False), error="out of memory", finish_reason=None)
    assert cut(row, 1, renderer()) is row


def test_a_completion_without_token_ids_cannot_be_cut() -> None:
    row = replace(sample("\\boxed{3}", ended=True), token_ids=np.zeros(0, np.int32))
    with pytest.raises(StageError, match=r"sample 'p#0' cannot be cut at 5 tokens.*\n.*hint: leave `budgets` out"):
        cut(row, 5, renderer())
