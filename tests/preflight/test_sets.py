"""What can only be said of all rows together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from preflight_factories import Boxed, Chat, Fits, asks, bound, evaluation, find, names, only, problem, trace, traces
from preflight_factories import trained as trained_with

from distillbench.errors import GraderError, StageError
from distillbench.preflight.material import Lengths
from distillbench.preflight.sets import cut_answers, short_budget
from distillbench.records import Message, Problem, Prompt, Rendered

lengths_of = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def measured(needed: list[int], without_loss: int = 0) -> Lengths:
    return Lengths(len(needed) + without_loss, needed, needed, max(needed), "row 0")


def cut(needed: list[int], limit: int | None, max_cut: float, without_loss: int = 0) -> Any:
    made = trained_with([], trainer=Fits(limit), max_cut=max_cut)
    return cut_answers(made, measured(needed, without_loss))


def test_the_share_of_cut_answers() -> None:
    found = cut([10, 20, 30, 40, 1000], 25, 0.2)
    assert found.text == (
        "3 of 5 rows (60 %) lose the end of their answer at max_length 25, where max_cut allows 20 %, "
        "the first: row 0\n"
        "The longest row has 1,000 tokens. max_length 1,000 would cut none, 40 no more than max_cut allows."
    )
    assert cut([10, 20, 30, 40, 1000], 25, 0.6) is None
    assert cut([10, 20, 30, 40, 1000], 25, 0.59) is not None
    assert cut([10, 20], 20, 0.0) is None
    assert cut([10, 21], 20, 0.0).text.endswith("max_length 21 would cut none.")
    assert cut([10, 21], None, 0.0) is None
    assert ", 20 no more than" in cut([10, 20, 30], 5, 0.3, without_loss=1).text  # 1 of 4 rows, and not 1 of 3


@given(needed=lengths_of, limit=st.integers(1, 45), max_cut=st.floats(0, 1), without_loss=st.integers(0, 5))
def test_the_suggested_length_is_the_smallest_that_is_allowed(
    needed: list[int], limit: int, max_cut: float, without_loss: int
) -> None:
    found = cut(needed, limit, max_cut, without_loss)
    share = sum(length > limit for length in needed) / (len(needed) + without_loss)
    assert (found is not None) == (share > max_cut)
    if found is None:
        return
    assert cut(needed, max(needed), max_cut, without_loss) is None
    if max_cut > 0:
        suggested = int(found.text.split("would cut none, ")[1].split(" ")[0])
        assert cut(needed, suggested, max_cut, without_loss) is None
        assert cut(needed, suggested - 1, max_cut, without_loss) is not None


class TrailingMask(Chat):
    """Five masked tokens after the answer."""

    def render(self, trace: Any) -> Rendered:
        import numpy as np

        row = super().render(trace)
        return Rendered(np.append(row.input_ids, [198] * 5), np.append(row.loss_mask, [False] * 5))


def test_a_cut_that_takes_no_loss_is_none() -> None:
    length = len(bound().render(trace()).input_ids)
    assert find(bound(), [trace()], trainer=Fits(length)) == []
    found = only(find(bound(), [trace(answer="no" * 40), *traces(2)], trainer=Fits(length)), "cut_answers")
    assert found.text.startswith("1 of 3 rows (33.3 %)")
    assert found.text.splitlines()[0].endswith("the first: row 0")
    longest = len(bound().render(trace(answer="no" * 40)).input_ids)
    made = [trace(), trace(answer="no" * 40, number=1), trace(answer="no" * 30, number=2)]
    several = only(find(bound(), made, trainer=Fits(length)), "cut_answers")
    assert several.text.splitlines()[0].endswith("the first: row 1")
    assert f"\nThe longest row has {longest} tokens. max_length {longest} would cut none." in found.text
    assert "cut_answers" not in names(find(bound(TrailingMask), [trace()], trainer=Fits(length)))
    assert "cut_answers" in names(find(bound(TrailingMask), [trace()], trainer=Fits(length - 1)))


def budget(response: list[int], max_tokens: int) -> Any:
    return short_budget(asks(evaluation(max_tokens=max_tokens))[0], measured(response))


@given(response=st.lists(st.sampled_from([1, 2, 40]), min_size=1, max_size=30), max_tokens=st.integers(1, 45))
def test_a_budget_is_short_when_more_than_a_tenth_does_not_fit(response: list[int], max_tokens: int) -> None:
    too_long = sum(length > max_tokens for length in response)
    assert (budget(response, max_tokens) is not None) == (10 * too_long > len(response))


def test_a_short_budget_in_words() -> None:
    found = budget([*range(1, 11)], 8)
    assert found.text == (
        "max_tokens is 8, and the 90th percentile of the training responses 9 tokens (end of turn included): "
        "2 of 10 responses (20 %) would not fit"
    )
    assert found.evaluation == "coins"
    assert found.kind.severity == "warning"
    assert budget([*range(1, 11)], 9) is None
    assert budget([1] * 9 + [40], 1) is None
    assert budget([1] * 8 + [40] * 2, 39) is not None


def test_what_generates_nothing_has_no_budget() -> None:
    scored = replace(evaluation(max_tokens=1), output_type="multiple_choice")
    assert short_budget(asks(scored)[0], measured([40] * 10)) is None
    assert budget([40] * 10, 1) is not None


def test_the_budget_counts_the_response_and_its_end() -> None:
    row = bound().render(trace())
    n = int(row.loss_mask.sum())
    assert n < len(row.input_ids)
    assert find(bound(), [trace()], asks(evaluation(max_tokens=n))) == []
    only(find(bound(), [trace()], asks(evaluation(max_tokens=n - 1))), "short_budget")


class Fails(Boxed):
    """Fails on `Tom has 0 coins?`, each time as it is told."""

    error: Exception = GraderError("no")

    def extract(self, answer: str, problem: Problem) -> str | None:
        if "0" in problem.messages[-1].content:
            raise self.error
        return super().extract(answer, problem)


class FailsOtherwise(Fails):
    error = KeyError("doc")


def test_one_trace_that_shows_the_format_is_enough() -> None:
    assert find(bound(), [*traces(3, answer="five"), trace(number=9)]) == []
    found = only(find(bound(), traces(3, answer="five\x1b")), "answer_format")
    assert found.text == (
        "none of 3 rows that their teacher ended by itself holds an answer as the grader 'boxed' looks for it, "
        "the first: row 0"
    )
    assert found.shown == "its answer ends: 'five\\x1b'"
    assert found.evaluation == "coins"


def test_cut_traces_are_not_expected_to_show_the_format() -> None:
    assert find(bound(), traces(2, answer="so \\box", finish_reason="length")) == []
    made = [*traces(2, finish_reason="length"), trace(answer="five")]  # those that were cut cannot speak for it
    only(find(bound(), made), "answer_format")


@pytest.mark.parametrize(("kind", "told"), [(Fails, "GraderError: no"), (FailsOtherwise, "KeyError: 'doc'")])
def test_a_grader_that_fails_is_never_silent_and_never_a_traceback(kind: type[Fails], told: str) -> None:
    asked = asks(grader=kind(None))
    found = only(find(bound(), traces(3, answer="five"), asked), "answer_format")
    assert found.text.endswith(f"\nThe grader failed on 1 of them, the first: row 0: {told}")
    found = only(find(bound(), traces(1), asked), "answer_format")
    assert f"failed on 1 of them, the first: row 0: {told}" in found.text
    assert find(bound(), traces(2), asked) == []


SAYS = problem(system="Be brief.")
SILENT = problem()


def asked_with(*problems: Problem) -> list[Any]:
    return asks(problems=problems)


@pytest.mark.parametrize(
    ("training", "evaluation_problems", "is_found"),
    [
        ([SAYS], [SILENT], True),
        ([SILENT], [SAYS], True),
        ([SAYS, SAYS], [SILENT, SILENT], True),
        ([SAYS], [problem(system="Be long.")], False),
        ([SAYS, SILENT], [SILENT], False),
        ([SAYS, SILENT], [SAYS], False),
        ([SAYS], [SAYS, SILENT], False),
        ([SILENT], [SILENT], False),
        ([SAYS], [], False),
    ],
)
def test_a_system_prompt_on_one_side(
    training: list[Problem], evaluation_problems: list[Problem], is_found: bool
) -> None:
    made = [trace(asked=one) for one in training]
    found = find(bound(), made, asked_with(*evaluation_problems))
    assert names(found) == (["one_sided_system"] if is_found else [])


def test_both_prompts_are_shown() -> None:
    found = only(find(bound(default="You are made up."), [trace(asked=SAYS)], asked_with(SILENT)), "one_sided_system")
    assert found.text == (
        "all 1 rows bring a system prompt, and none of 1 prompts of the benchmark; the first row: row 0"
    )
    assert found.shown.splitlines()[0].startswith("training")
    assert "training has 'B' (33), evaluation 'Y' (56)" in found.shown
    found = only(find(bound(), [trace(asked=SILENT)], asked_with(SAYS)), "one_sided_system")
    assert found.text.startswith("all 1 prompts of the benchmark bring a system prompt, and none of 1 rows")
    assert "training has 'user' (" in found.shown
    assert found.shown.splitlines()[0].startswith("training")


def test_the_default_that_says_the_same_is_no_difference() -> None:
    assert find(bound(default="Be brief."), [trace(asked=SAYS)], asked_with(SILENT)) == []
    assert find(bound(default="Be brief."), [trace(asked=SILENT)], asked_with(SAYS)) == []


class IgnoresSystem(Chat):
    def prompt(self, messages: Any, prefill: Any = "auto") -> Prompt:
        return super().prompt([message for message in messages if message.role != "system"], prefill)


class NeedsSystem(Chat):
    def prompt(self, messages: Any, prefill: Any = "auto") -> Prompt:
        if messages[0].role != "system":
            raise StageError("no system prompt")
        return super().prompt(messages, prefill)


def test_what_the_renderer_makes_of_it_decides() -> None:
    assert names(find(bound(IgnoresSystem), [trace(asked=SAYS)], asked_with(SILENT))) == ["lost_text"]
    found = find(bound(NeedsSystem), [trace(asked=SAYS)], asked_with(SILENT))
    assert names(found) == ["bad_row", "one_sided_system"]
    assert found[1].shown == ""


class NeedsMessages(Chat):
    def prompt(self, messages: Any, prefill: Any = "auto") -> Prompt:
        return super().prompt(messages, prefill) if messages[0] else super().prompt((), prefill)


def test_a_conversation_of_a_system_message_alone() -> None:
    alone = Problem("coins/1", "coins", (Message("system", "Count."),), "5")
    assert names(find(bound(NeedsMessages), [trace(asked=alone)], asked_with(SILENT))) == ["one_sided_system"]
