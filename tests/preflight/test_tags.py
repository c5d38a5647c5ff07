"""The reasoning structure that a row teaches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from preflight_factories import Chat, bound, find, names, only, tokenizer, trace

from distillbench.preflight.tags import wrong_tags
from distillbench.records import Rendered

TAGS = ("<think>", "</think>")
DOUBLED, ORPHAN, EMPTY = "doubled_tag", "orphan_tag", "empty_reasoning"


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ("<think>\na\n</think>\n\nb", {}),
        ("b", {}),
        ("", {}),
        ("<think>a</think>b<think>c</think>d", {}),
        ("<think><think>a</think>b", {DOUBLED: 7}),
        ("<think>\n \n<think>\na</think>b", {DOUBLED: 10}),
        ("<think>a<think>b</think>c", {DOUBLED: 8}),
        ("<think><think><think>a</think>b", {DOUBLED: 7}),
        ("<think>a<think>b</think>c</think>d", {DOUBLED: 8, ORPHAN: 25}),
        ("<think>a</think>b</think>c", {ORPHAN: 17}),
        ("a</think>b", {ORPHAN: 1}),
        ("<think>a", {ORPHAN: 0}),
        ("<think>a</think>b<think>c", {ORPHAN: 17}),
        ("<think>\n \n</think>b", {EMPTY: 10}),
        ("<think></think>a</think>b", {EMPTY: 7, ORPHAN: 16}),
        ("<think><think></think>a", {DOUBLED: 7, EMPTY: 14}),
        # quoted outside reasoning: text
        ("<think>a</think>Write `<think>` and `</think>`.", {}),
        ("<think>a</think>Write `x <think> y`.", {}),
        ("<think>a</think>```\n<think>\n```\nand\n```xml\n</think>\n```", {}),
        ("<think>a</think>```\n<think>", {}),
        ("```\n<think>\n```", {}),
        ("`<think>`", {}),
        # quoted tightly inside reasoning: text as well
        ("<think>The `</think>` tag, and `<think>`</think>b", {}),
        # a stray backtick inside reasoning hides nothing
        ("<think>a ` b ``` c<think></think>d", {DOUBLED: 18, EMPTY: 25}),
        # and none outside, where it is not closed after the tag, or was closed before it
        ("<think>a</think>it's ` and </think>", {ORPHAN: 27}),
        ("<think>a</think>`b` and </think> `c`", {ORPHAN: 24}),
        ("<think>a</think>```\nb\n``` and </think>", {ORPHAN: 30}),
        ("<think>a</think>`\n</think> `b`", {ORPHAN: 18}),
        ("<think>a</think>`b </think>\n`", {ORPHAN: 19}),
        ("<think>a</think>```\nb\n``` and `c </think> d`", {}),
        # a fence that reasoning never closed says nothing about the answer
        ("<think>a ``` b</think>c</think>", {ORPHAN: 23}),
    ],
)
def test_tags(turn: str, expected: dict[str, int]) -> None:
    assert wrong_tags(turn, 0, TAGS, is_complete=True) == expected


@pytest.mark.parametrize(
    ("turn", "masked", "expected"),
    [
        ("<think>\n\n</think>\n\nb", "<think>\n\n</think>\n\n", {}),
        ("<think>\n\n</think>\n\nb", "<think>\n", {EMPTY: 9}),
        ("<think>\n\n</think>\n\nb", "<think>\n\n</think", {EMPTY: 9}),
        ("<think>\na</think>b", "<think>\n", {}),
        ("<think>\n<think>a</think>b", "<think>\n", {DOUBLED: 8}),
        ("<think>\n<think>a</think>b", "<think>\n<think>", {}),
        ("a</think>b", "a</think>", {}),
        ("<think>\na", "<think>\n", {ORPHAN: 0}),  # that it never closes is what is learned
        ("<think>\n\n</think>\n\na</think>b", "<think>\n\n</think>\n\n", {ORPHAN: 20}),
    ],
)
def test_what_is_masked_teaches_nothing(turn: str, masked: str, expected: dict[str, int]) -> None:
    assert turn.startswith(masked)
    assert wrong_tags(turn, len(masked), TAGS, is_complete=True) == expected


@pytest.mark.parametrize("turn", ["<think>a", "<think>a</think>b<think>c"])
def test_a_cut_trace_may_stay_open(turn: str) -> None:
    assert wrong_tags(turn, 0, TAGS, is_complete=False) == {}
    assert wrong_tags(turn + "<think>", 0, TAGS, is_complete=False).keys() == {DOUBLED}


PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="`<")).filter(str.strip)


@given(reasoning=PLAIN, answer=PLAIN, masked=st.sampled_from(["", "<think>", "<think>\n"]))
def test_a_right_turn_has_nothing(reasoning: str, answer: str, masked: str) -> None:
    turn = f"<think>\n{reasoning}\n</think>\n\n{answer}"
    assert wrong_tags(turn, len(masked), TAGS, is_complete=True) == {}
    assert wrong_tags(f"{turn}</think>", len(masked), TAGS, is_complete=True) == {ORPHAN: len(turn)}
    assert wrong_tags(f"<think>{turn}", len(masked), TAGS, is_complete=True) == {DOUBLED: len("<think>")}


@given(st.lists(st.sampled_from(["<think>", "</think>", "`", "```", "\n", "a ", " "]), max_size=12), st.booleans())
def test_any_turn_is_read(parts: list[str], is_complete: bool) -> None:
    turn = "".join(parts)
    found = wrong_tags(turn, 0, TAGS, is_complete)
    assert set(found) <= {DOUBLED, ORPHAN, EMPTY}
    assert all(turn[place:].startswith(TAGS) for place in found.values())
    assert wrong_tags(turn, len(turn), TAGS, is_complete=False) == {}


def test_a_tag_that_training_gives_belongs_to_the_turn() -> None:
    """R1's template opens reasoning: the response alone would look like an orphan, and a second tag like the first."""
    renderer = bound(given="<think>\n")
    assert find(renderer, [trace("a")]) == []
    assert names(find(renderer, [trace("<think>a")])) == [DOUBLED]
    assert names(find(renderer, [trace(" ")])) == [EMPTY]
    assert names(find(renderer, [trace(None)])) == [ORPHAN]
    assert find(renderer, [trace("a", "", "length")]) == []


class GivesWhatItWrote(Chat):
    """Asks with a tag that its rows carry with loss: one tag, and not two."""

    def prompt(self, messages: Any, prefill: Any = "auto") -> Any:
        return super().prompt(messages, "think" if prefill == "auto" else prefill)

    def render(self, trace: Any) -> Rendered:
        return Chat(self.options).bind(self.tokenizer).render(trace)


def test_a_tag_is_not_counted_twice_where_it_is_trained_and_given() -> None:
    assert DOUBLED not in names(find(bound(GivesWhatItWrote), [trace("a")]))
    assert EMPTY in names(find(bound(GivesWhatItWrote), [trace("")]))


class GivesThePairThatItWrote(GivesWhatItWrote):
    def prompt(self, messages: Any, prefill: Any = "auto") -> Any:
        made = Chat.prompt(self, messages, "none")
        return type(made)(np.append(made.input_ids, self.marked("<think>\n\n</think>\n\n")), "<think>\n\n</think>\n\n")


def test_a_pair_that_carries_loss_is_learned_wherever_else_it_stands() -> None:
    assert EMPTY in names(find(bound(GivesThePairThatItWrote), [trace("")]))
    assert EMPTY not in names(find(bound(given="<think>\n\n</think>\n\n"), [trace(None)]))


def test_the_last_token_of_a_cut_trace_is_no_end_of_turn() -> None:
    assert names(find(bound(), [trace(None, "a</think>", "length")])) == [ORPHAN]
    assert names(find(bound(), [trace(None, "a</think>")])) == ["orphan_tag", "answer_format"]


class MasksMore(Chat):
    """Masks the opening tag, which its prompt does not give."""

    def render(self, trace: Any) -> Rendered:
        row = super().render(trace)
        row.loss_mask[int(row.loss_mask.argmax())] = False
        return row


def test_a_masked_tag_that_is_not_given_still_opens() -> None:
    assert names(find(bound(MasksMore), [trace("a")])) == ["prompt_mismatch"]


def test_tags_that_a_tokenizer_calls_special() -> None:
    special = tokenizer()
    special.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    assert find(bound(tokens=special), [trace("a")]) == []
    assert names(find(bound(tokens=special), [trace("")])) == [EMPTY]


class NoTags(Chat):
    def reasoning_tags(self) -> None:  # type: ignore[override]
        return None


class OtherTags(Chat):
    def reasoning_tags(self) -> tuple[str, str]:
        return ("[THINK]", "[/THINK]")


def test_a_renderer_says_what_its_tags_are() -> None:
    assert find(bound(NoTags), [trace("<think>")]) == []
    assert find(bound(OtherTags), [trace("<think>")]) == []
    assert names(find(bound(OtherTags), [trace(None, "[/THINK]\\boxed{5}")])) == [ORPHAN]


def test_the_place_is_shown() -> None:
    found = only(find(bound(), [trace("a" * 200 + "</think>" + "b" * 200)]), ORPHAN)
    assert found.shown == "the assistant's turn: … '" + "b" * 59 + "\\n</think>\\n\\n\\\\boxed{5}'"
    found = only(find(bound(), [trace("<think>" + "a" * 100)]), DOUBLED)
    assert found.shown == "the assistant's turn: '<think>\\n<think>" + "a" * 53 + "' …"
