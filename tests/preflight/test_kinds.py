"""Every finding by its name: something faulty that has it, and the same thing mended, which has not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preflight_factories import (
    Chat,
    FailsOn,
    Fits,
    asks,
    bound,
    evaluation,
    find,
    names,
    only,
    problem,
    tokenizer,
    trace,
    traces,
    trained,
)

from distillbench.findings import KINDS, Finding
from distillbench.preflight import Asked, check, check_problems, check_unbuilt
from distillbench.records import Message, Problem, Prompt, Rendered
from distillbench_plugins.benchmarks.math_boxed import MathBoxed, MathBoxedOptions

BOS = {"bos_token": "<s>"}


class KeepsLast(Chat):
    """Asks with the last message alone, as some chat templates do."""

    def prompt(self, messages: Any, prefill: Any = "auto") -> Prompt:
        return super().prompt(messages[-1:], prefill)


class OtherPrompt(Chat):
    """Trains on another prompt than it asks with: a line break is missing in front of the response."""

    def render(self, trace: Any) -> Rendered:
        row = super().render(trace)
        place = int(row.loss_mask.argmax()) - 1
        return Rendered(np.delete(row.input_ids, place), np.delete(row.loss_mask, place))


class ForgetsEnd(Chat):
    """Leaves the end-of-turn token out of the loss."""

    def render(self, trace: Any) -> Rendered:
        row = super().render(trace)
        row.loss_mask[-1] = False
        return row


class EndsWithLineBreak(Chat):
    """Writes a line break after the end-of-turn token, as many chat templates do."""

    def response(self, trace: Any) -> list[int]:
        return [*super().response(trace), *self.text("\n")]


def contradictory() -> Any:
    return replace(evaluation(), findings=(("greedy_with_temperature", "coins.yaml: both"),))


def doubled() -> Any:
    return replace(evaluation(), findings=(("key_twice", "coins.yaml: 'repeats' on lines 2 and 3"),))


def with_problems(*problems: Problem) -> list[Asked]:
    grader = MathBoxed(MathBoxedOptions())
    found = check_problems(grader, problems, Path("coins.yaml"))
    return [replace(one, findings=found) for one in asks(problems=problems)]


def after_examples(question: str, *examples: str) -> Problem:
    turns = [Message(role, text) for one in examples for role, text in (("user", one), ("assistant", "5"))]  # type: ignore[arg-type]
    asked = problem(question)
    return replace(asked, messages=(*turns, *asked.messages))


class NoLoss(Chat):
    """Masks everything."""

    def render(self, trace: Any) -> Rendered:
        row = super().render(trace)
        return Rendered(row.input_ids, np.zeros_like(row.loss_mask))


class BosInResponse(Chat):
    """Tokenizes the response with the tokenizer's own front token, as `tokenizer(text)` does unless told not to."""

    def response(self, trace: Any) -> list[int]:
        return [*self.marked("<s>"), *super().response(trace)]


with_bos = partial(tokenizer, adds_bos=True, **BOS)
template_bos = partial(tokenizer, chat_template="{{ bos_token }}{{ messages[0]['content'] }}", **BOS)
system_rows = traces(3, asked=problem(system="Be brief."))
cut_in_reasoning = trace("Mon 6", "", "length")

#: By name: what has it, and what is alike and has it not.
CASES: Mapping[str, list[tuple[Callable[[], list[Finding]], Callable[[], list[Finding]]]]] = {
    "bad_row": [
        (lambda: find(bound(FailsOn), [trace(answer="\\boxed{bad}")]), lambda: find(bound(FailsOn), [trace()])),
    ],
    "lost_text": [
        (
            lambda: find(bound(KeepsLast), system_rows),
            lambda: find(bound(), system_rows, asks(problems=[problem(system="Be long.")])),
        ),
        (
            lambda: check(bound(KeepsLast), asks(problems=[problem(system="Be brief.")]), None),
            lambda: check(bound(KeepsLast), asks(problems=[problem()]), None),
        ),
    ],
    "prompt_mismatch": [
        (lambda: find(bound(OtherPrompt), traces(2)), lambda: find(bound(), traces(2))),
        (
            lambda: find(bound(given="<think>\n"), traces(2), asks(evaluation(prefill="none"))),
            lambda: find(bound(), traces(2), asks(evaluation(prefill="none"))),
        ),
    ],
    "prefilled_tag": [
        (
            lambda: find(bound(reasoning="text"), traces(2), asks(evaluation(prefill="think"))),
            lambda: find(bound(reasoning="text"), traces(2), asks(evaluation(prefill="auto"))),
        ),
        (
            lambda: find(bound(), traces(2, reasoning=None), asks(evaluation(prefill="think"))),
            lambda: find(bound(), traces(2), asks(evaluation(prefill="think"))),
        ),
    ],
    "doubled_tag": [
        (lambda: find(bound(), [trace("<think>\nMon 6")]), lambda: find(bound(), [trace("Mon 6")])),
    ],
    "orphan_tag": [
        (lambda: find(bound(), [trace("Mon</think> 6")]), lambda: find(bound(), [trace("Mon 6")])),
        (
            lambda: find(bound(), [trace(None, "Mon 6</think>\\boxed{5}")]),
            lambda: find(bound(), [trace(None, "Mon 6\\boxed{5}")]),
        ),
    ],
    "empty_reasoning": [
        (
            lambda: find(bound(), [trace("")]),
            lambda: find(bound(reasoning="strip", given="<think>\n\n</think>\n\n"), [trace("")]),
        ),
    ],
    "double_bos": [
        (
            lambda: find(bound(tokens=with_bos(), bos="<s><s>"), traces(2), []),
            lambda: find(bound(tokens=with_bos(), bos="<s>"), traces(2), []),
        ),
        (
            lambda: find(bound(BosInResponse, with_bos(), bos="<s>"), traces(2)),
            lambda: find(bound(tokens=with_bos(), bos="<s>"), traces(2)),
        ),
    ],
    "missing_bos": [
        (
            lambda: find(bound(tokens=with_bos()), traces(2), []),
            lambda: find(bound(tokens=with_bos(), bos="<s>"), traces(2), []),
        ),
        (
            lambda: find(bound(tokens=template_bos()), traces(2), []),
            lambda: find(bound(tokens=tokenizer(**BOS)), traces(2), []),  # neither tokenizer nor template write it
        ),
    ],
    "end_without_loss": [
        (lambda: find(bound(ForgetsEnd), traces(2)), lambda: find(bound(), traces(2))),
        (
            lambda: find(bound(EndsWithLineBreak), traces(2)),
            lambda: find(bound(), traces(2, answer="\\boxed{5} an", finish_reason="length")),
        ),
    ],
    "end_is_pad": [
        (
            lambda: find(bound(tokens=tokenizer(pad_token="<|im_end|>")), traces(2), trainer=Fits(masks_pad=True)),
            lambda: find(bound(tokens=tokenizer(pad_token="<|im_end|>")), traces(2), trainer=Fits()),
        ),
        (
            lambda: find(bound(tokens=tokenizer(pad_token=None)), traces(2), trainer=Fits(masks_pad=True)),
            lambda: find(bound(), traces(2), trainer=Fits(masks_pad=True)),
        ),
    ],
    "no_loss": [
        (lambda: find(bound(NoLoss), traces(2)), lambda: find(bound(), traces(2))),
        (
            lambda: find(bound(reasoning="strip"), [cut_in_reasoning]),
            lambda: find(bound(), [cut_in_reasoning]),
        ),
    ],
    "cut_answers": [
        (
            lambda: find(bound(), traces(2), trainer=Fits(10)),
            lambda: find(bound(), traces(2), trainer=Fits(1000)),
        ),
        (
            lambda: find(bound(), traces(2), trainer=Fits(10), max_cut=0.9),
            lambda: find(bound(), traces(2), trainer=Fits(10), max_cut=1.0),
        ),
    ],
    "one_sided_system": [
        (lambda: find(bound(), system_rows), lambda: find(bound(system="Be kind."), system_rows)),
        (
            lambda: find(bound(), traces(3), asks(problems=[problem(system="Be brief.")])),
            lambda: find(bound(), system_rows, asks(problems=[problem(system="Be long.")])),
        ),
        (
            lambda: find(bound(default="You are made up."), system_rows),
            lambda: find(bound(default="Be brief."), system_rows),
        ),
    ],
    "key_twice": [
        (lambda: find(bound(), traces(3), asks(doubled())), lambda: find(bound(), traces(3), asks())),
        (lambda: check_unbuilt(asks(doubled())), lambda: check_unbuilt(asks())),
    ],
    "unusable_gold": [
        (
            lambda: check(bound(), with_problems(problem(), replace(problem(), gold="None")), None),
            lambda: check(bound(), with_problems(problem()), None),
        ),
        (
            lambda: check_unbuilt(with_problems(replace(problem(), gold=""))),
            lambda: check_unbuilt(with_problems(problem())),
        ),
    ],
    "own_example": [
        (
            lambda: check(bound(), with_problems(after_examples("two?", "one?", "two?")), None),
            lambda: check(bound(), with_problems(after_examples("two?", "one?", "three?")), None),
        ),
    ],
    "short_budget": [
        (
            lambda: find(bound(), traces(3), asks(evaluation(max_tokens=3))),
            lambda: find(bound(), traces(3), asks(evaluation(max_tokens=300))),
        ),
    ],
    "answer_format": [
        (lambda: find(bound(), traces(3, answer="five")), lambda: find(bound(), [*traces(3, answer="five"), trace()])),
    ],
    "greedy_with_temperature": [
        (lambda: find(bound(), traces(3), asks(contradictory())), lambda: find(bound(), traces(3), asks())),
        (lambda: check(bound(), asks(contradictory()), None), lambda: check(bound(), asks(), None)),
    ],
}


def test_every_name_has_a_case() -> None:
    assert list(CASES) == list(KINDS)


@pytest.mark.parametrize(
    ("name", "faulty", "right"), [(name, *case) for name, cases in CASES.items() for case in cases]
)
def test_found_where_it_is_and_only_there(
    name: str, faulty: Callable[[], list[Finding]], right: Callable[[], list[Finding]]
) -> None:
    found = faulty()
    assert name in names(found)
    assert len(set(names(found))) == len(found) <= 2
    assert right() == []


@pytest.mark.parametrize("given", ["", "<think>\n", "<think>\n\n</think>\n\n"])
@pytest.mark.parametrize("prefill", ["auto"])
def test_auto_fits_whatever_training_gives(given: str, prefill: Any) -> None:
    reasoning = "strip" if "</think>" in given else "native"
    renderer = bound(given=given, reasoning=reasoning)
    assert find(renderer, traces(4), asks(evaluation(prefill=prefill))) == []


def test_a_baseline_has_its_prompts_checked() -> None:
    right, without = bound(tokens=with_bos(), bos="<s>"), bound(tokens=with_bos())
    doubled = bound(tokens=with_bos(), bos="<s><s>")
    problems = [problem("How many?", number=7), problem("How much?", number=8)]
    assert check(right, asks(problems=problems), None) == []
    found = only(check(without, asks(problems=problems), None), "missing_bos")
    assert found.text == "2 of 2 prompts of coins (all) do not begin with <s>, the first: problem coins/7"
    assert found.evaluation == "coins"
    assert "'<|im_start|>'" in found.shown
    found = only(check(doubled, asks(problems=problems), None), "double_bos")
    assert found.text.startswith("2 of 2 prompts of coins (all) begin with <s> twice")


class NoThink(Chat):
    """Cannot prefill a tag, and cannot ask what holds `bad`."""

    def prompt(self, messages: Any, prefill: Any = "auto") -> Prompt:
        from distillbench.errors import StageError

        if prefill == "think" or any("bad" in message.content for message in messages):
            raise StageError(f"no tag for {prefill}")
        return super().prompt(messages, prefill)


def test_a_prompt_that_cannot_be_rendered() -> None:
    problems = [problem("fine"), problem("bad", number=3), problem("bad", number=4)]
    found = only(check(bound(NoThink), asks(problems=problems), None), "bad_row")
    assert (
        found.text == "2 of 3 prompts of coins (66.7 %) cannot be rendered, the first: problem coins/3\nno tag for auto"
    )
    assert found.evaluation == "coins"


@pytest.mark.parametrize("problems", [[], [problem("fine")]])
def test_a_prefill_that_cannot_be_rendered_is_one_finding(problems: list[Any]) -> None:
    asked = asks(evaluation(prefill="think"), evaluation("other"), problems=problems)
    found = only(find(bound(NoThink), traces(3), asked), "bad_row")
    assert (found.evaluation, "no tag for think" in found.text) == ("coins", True)
    assert found.text.startswith("1 of 1 prompts of coins" if problems else "3 of 3 rows (all) have messages")


def test_findings_come_in_the_order_of_kinds_and_evaluations() -> None:
    asked = asks(*(evaluation(name, "think", 3) for name in ("z", "a")), problems=[problem(system="Be brief.")])
    made = [trace("<think>a</think>", "no"), trace("", "no"), trace(None, "no")]
    found = find(bound(), made, asked, trainer=Fits(10))
    order = [(one.name, one.evaluation) for one in found]
    both = ("z", "a")
    assert order == [
        *(("prefilled_tag", name) for name in both),
        ("doubled_tag", ""),
        ("orphan_tag", ""),
        ("empty_reasoning", ""),
        ("cut_answers", ""),
        *((kind, name) for kind in ("one_sided_system", "short_budget", "answer_format") for name in both),
    ]


def test_evaluations_of_one_prefill_share_their_comparison_and_each_has_its_finding() -> None:
    asked = asks(evaluation("one", "think"), evaluation("two", "auto"), evaluation("three", "think"))
    found = find(bound(reasoning="text"), traces(2), asked)
    assert [(one.name, one.evaluation) for one in found] == [("prefilled_tag", "one"), ("prefilled_tag", "three")]
    assert found[0] == replace(found[1], evaluation="one")


def test_no_rows_and_no_evaluations_are_nothing_to_find() -> None:
    assert check(bound(), [], None) == []
    assert check(bound(), asks(), trained([])) == []
    assert check(bound(), asks(problems=[]), trained([], trainer=Fits(3))) == []
    assert find(bound(), traces(1), []) == []


class LossOnEverything(Chat):
    def render(self, trace: Any) -> Rendered:
        row = super().render(trace)
        return Rendered(row.input_ids, np.ones_like(row.loss_mask))


def test_what_is_no_second_bos() -> None:
    right = bound(LossOnEverything, with_bos(), bos="<s>")
    assert names(find(right, traces(1))) == ["prompt_mismatch"]  # a BOS with loss is still the first
    ends_too = bound(tokens=tokenizer(bos_token="<|im_end|>"), reasoning="strip")
    assert "double_bos" not in names(find(ends_too, [trace("a", "")]))  # nothing but the end: no beginning


@pytest.mark.parametrize(
    "template",
    ["<s>{{ messages[0]['content'] }}", {"default": "{{ messages }}", "tools": "{{ bos_token }}{{ messages }}"}],
)
def test_a_template_that_writes_the_bos_in_any_way(template: Any) -> None:
    made = tokenizer(bos_token="<s>")
    made.chat_template = template
    assert names(find(bound(tokens=made), traces(1), [])) == ["missing_bos"]
    made.chat_template = None
    assert find(bound(tokens=made), traces(1), []) == []


def test_where_loss_ends_is_shown() -> None:
    found = only(find(bound(ForgetsEnd), traces(1)), "end_without_loss")
    assert "'}' | '<|im_end|>'" in found.shown
    found = only(find(bound(EndsWithLineBreak), traces(1)), "end_without_loss")
    assert "'<|im_end|>' '\\n' |" in found.shown
