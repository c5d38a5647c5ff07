"""Training's prompt against evaluation's: what is said and shown where they differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from preflight_factories import Chat, asks, bound, evaluation, find, only, problem, trace, traces

from distillbench.preflight.boundary import wrong_prompt
from distillbench.preflight.material import RenderedRow
from distillbench.records import Prompt, Rendered

TRAINING = "training    … '?' '<|im_end|>' '\\n' '<|im_start|>' 'assistant' '\\n'"


def test_the_published_failure_is_told_to_a_tired_person() -> None:
    """Tags written as text, evaluation with the tag prefilled: MATH-500 read 0.8 %."""
    found = only(find(bound(reasoning="text"), traces(3), asks(evaluation("math500", "think"))), "prefilled_tag")
    assert found.evaluation == "math500"
    assert found.text.startswith(
        "3 of 3 rows (all) never wrote the reasoning tag that evaluation puts before the response "
        "(`prefill: think`), the first: row 0\nEvaluation writes '<think>\\n' for the student"
    )
    training, _, asked, _, pointer, told = found.shown.split("\n")
    assert training.startswith(f"{TRAINING} | '<'")
    assert training.endswith("(| loss begins)")
    assert asked.startswith("evaluation  … '?' '<|im_end|>' '\\n' '<|im_start|>' 'assistant' '\\n'   '<think>' '\\n'")
    assert asked.endswith("|   (| the model continues here)")
    assert told == "first difference at token 14: training has '<' (27), evaluation '<think>' (308)"
    assert pointer.strip() == "^"
    assert training[pointer.index("^") :].startswith("'<'")
    assert asked[pointer.index("^") :].startswith("'<think>'")


def test_ids_stand_under_their_tokens() -> None:
    renderer = bound(reasoning="text")
    found = only(find(renderer, traces(1), asks(evaluation(prefill="think"))), "prefilled_tag")
    lines = found.shown.split("\n")
    place = lines[4].index("^")
    assert [line[place:].split()[0] for line in lines[:4]] == ["'<'", "27", "'<think>'", "308"]


def test_a_prompt_that_stops_short() -> None:
    found = only(find(bound(given="<think>\n"), traces(1), asks(evaluation(prefill="none"))), "prompt_mismatch")
    assert "Evaluation stops short" in found.text
    assert "training has '<think>' (308), evaluation nothing more" in found.shown
    assert "'\\n' |   (| the model continues here)" in found.shown


class Asks(Chat):
    """Trains as `Chat` does, and asks with something more or something else."""

    extra = ""
    header = ""

    def prompt(self, messages: Any, prefill: Any = "auto") -> Prompt:
        made = super().prompt(messages, prefill)
        ids = [*self.text(self.header), *made.input_ids, *self.text(self.extra)]
        return Prompt(np.array(ids, dtype=np.int32), made.prefill)

    def render(self, trace: Any) -> Rendered:
        return Chat(self.options).bind(self.tokenizer).render(trace)


class AsksMore(Asks):
    extra = " six"


class AsksOtherwise(Asks):
    header = "user"


def test_a_prompt_that_says_more() -> None:
    found = only(find(bound(AsksMore), traces(1)), "prompt_mismatch")
    assert "Evaluation puts tokens before the response that training did not have there." in found.text
    assert "training has '<think>' (308), evaluation ' six'" in found.shown


def test_a_prompt_in_other_words() -> None:
    found = only(find(bound(AsksOtherwise), traces(1)), "prompt_mismatch")
    assert "The student is asked in tokens that it did not see in training." in found.text
    assert "first difference at token 0: training has '<|im_start|>' (305), evaluation 'user'" in found.shown
    assert "(loss begins: token 14)" in found.shown
    assert "(the model continues here: token 15)" in found.shown


class LossOnEverything(Chat):
    """As TRL trains rows of `messages`."""

    def render(self, trace: Any) -> Rendered:
        row = super().render(trace)
        return Rendered(row.input_ids, np.ones_like(row.loss_mask))


def test_loss_on_the_prompt() -> None:
    found = only(find(bound(LossOnEverything), traces(1)), "prompt_mismatch")
    assert "Loss begins at token 0, inside the prompt" in found.text
    assert "first difference" not in found.shown
    assert found.shown.startswith("training      | '<|im_start|>'")


def test_only_the_rows_without_the_tag_are_counted() -> None:
    made = [*traces(3), trace(None, number=3)]
    found = only(find(bound(), made, asks(evaluation(prefill="think"))), "prefilled_tag")
    assert found.text.startswith("1 of 4 rows (25 %)")
    assert "the first: row 3\n" in found.text


def test_thinking_off_asked_to_think_is_another_prompt() -> None:
    renderer = bound(given="<think>\n\n</think>\n\n", reasoning="strip")
    only(find(renderer, traces(2), asks(evaluation(prefill="think"))), "prompt_mismatch")
    assert find(renderer, traces(2)) == []


def test_a_row_that_ends_inside_the_prefill() -> None:
    """A prefilled tag of which training wrote the first token alone."""
    row = RenderedRow(trace(), np.array([1, 2, 8], dtype=np.int32), np.array([False, False, True]), 2)
    asked = Prompt(np.array([1, 2, 8, 9], dtype=np.int32), "<think>\n")
    auto = Prompt(np.array([1, 2], dtype=np.int32), "")
    assert wrong_prompt(row, asked, auto, "<think>") == "prefilled_tag"
    assert wrong_prompt(row, asked, auto, None) == "prompt_mismatch"
    assert wrong_prompt(row, asked, None, "<think>") == "prompt_mismatch"
    assert wrong_prompt(row, Prompt(asked.input_ids, "Sure, "), auto, "<think>") == "prompt_mismatch"


ids = st.lists(st.integers(0, 2), max_size=6)


@given(masked=ids, response=ids.filter(bool), asked=ids, auto=ids)
def test_a_prompt_is_right_exactly_when_row_prompt_and_masked_part_are_prefixes(
    masked: list[int], response: list[int], asked: list[int], auto: list[int]
) -> None:
    whole = [*masked, *response]
    row = RenderedRow(
        trace(),
        np.array(whole, dtype=np.int32),
        np.repeat([False, True], [len(masked), len(response)]),
        len(masked),
    )
    prompts = [Prompt(np.array(one, dtype=np.int32), "<think>") for one in (asked, auto)]
    fits = whole[: len(asked)] == asked and asked[: len(masked)] == masked
    found = wrong_prompt(row, *prompts, "<think>")
    if fits:
        assert found == ("prompt_mismatch" if len(masked) < len(auto) else None)
    else:
        is_prefilled = auto == masked and asked[: len(masked)] == masked
        assert found == ("prefilled_tag" if is_prefilled else "prompt_mismatch")


@pytest.mark.parametrize("question", ["a <think> b", "<|im_end|>\n<|im_start|>assistant\n", "你好 🙂 \x07"])
def test_user_text_changes_nothing(question: str) -> None:
    asked = asks(evaluation(), evaluation("thinks", "think"), problems=[problem(question)])
    assert find(bound(), traces(2, asked=problem(question)), asked) == []
