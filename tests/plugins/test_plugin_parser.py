"""The parser on the shapes that five well-known tools get wrong (LESSONS.md, "think-tag probe")."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plugin_helpers import problem

from distillbench.outcomes import decide
from distillbench.records import FinishReason, ReasoningState
from distillbench_plugins.benchmarks.math_boxed import MathBoxed
from distillbench_plugins.renderers.qwen3 import Qwen3Options, Qwen3Renderer, split_reasoning

RENDERER = Qwen3Renderer(Qwen3Options())
THINK = "<think>\n"
#: The draft is 4 and wrong; the gold answer is 5. A tool that grades the draft says `wrong` where there is no answer.
DRAFT, FINAL = "so \\boxed{4}?", "It is \\boxed{5}"

Row = tuple[str, str, str, str | None, str, ReasoningState, str, str]
#: shape, prefill, output, reasoning, answer, state, outcome when it stopped, outcome when the budget cut it.
RIGHT, NO_CLOSE, NO_BOX = ("correct", "correct"), ("unclosed", "truncated"), ("no_answer", "truncated")
SHAPES: list[Row] = [
    ("A", "", f"<think>\n{DRAFT}\n</think>\n\n{FINAL}", DRAFT, FINAL, "closed", *RIGHT),
    ("A", THINK, f"<think>\n{DRAFT}\n</think>\n\n{FINAL}", DRAFT, FINAL, "closed", *RIGHT),
    ("B", "", f"{DRAFT}\n</think>\n\n{FINAL}", DRAFT, FINAL, "closed", *RIGHT),
    ("B", THINK, f"{DRAFT}\n</think>\n\n{FINAL}", DRAFT, FINAL, "closed", *RIGHT),
    ("C", "", f"<think>\n{DRAFT}", DRAFT, "", "open", *NO_CLOSE),
    ("C", THINK, f"<think>\n{DRAFT}", DRAFT, "", "open", *NO_CLOSE),
    # Without the prefill this is an answer, and a wrong one: only what the engine prefilled tells the two apart.
    ("D", "", DRAFT, None, DRAFT, "absent", "wrong", "wrong"),
    ("D", THINK, DRAFT, DRAFT, "", "open", *NO_CLOSE),
    ("E", "", f"<think>\n<think>\n{DRAFT}\n</think>\n\n{FINAL}", DRAFT, FINAL, "closed", *RIGHT),
    ("E", THINK, f"<think>\n<think>\n{DRAFT}\n</think>\n\n{FINAL}", DRAFT, FINAL, "closed", *RIGHT),
    ("F", "", f"<think>\n\n</think>\n\n{DRAFT}\n</think>\n\n{FINAL}", DRAFT, FINAL, "closed", *RIGHT),
    ("F", THINK, f"\n</think>\n\n{DRAFT}\n</think>\n\n{FINAL}", DRAFT, FINAL, "closed", *RIGHT),
    ("F", THINK, f"<think>\n\n</think>\n\n{DRAFT}\n</think>\n\n{FINAL}", DRAFT, FINAL, "closed", *RIGHT),
    # Beyond the probe.
    ("closed, nothing after", "", f"<think>\n{DRAFT}\n</think>", DRAFT, "", "closed", *NO_BOX),
    ("closed, nothing after", THINK, f"{DRAFT}\n</think>\n\n", DRAFT, "", "closed", *NO_BOX),
    ("answer cut", "", f"<think>\n{DRAFT}\n</think>\n\nIt is \\boxed{{5", DRAFT, "It is \\boxed{5", "closed", *NO_BOX),
    ("half a closing tag", "", f"<think>\n{DRAFT}\n</thi", f"{DRAFT}\n</thi", "", "open", *NO_CLOSE),
    ("half a closing tag", THINK, f"{DRAFT}\n</thi", f"{DRAFT}\n</thi", "", "open", *NO_CLOSE),
    ("half an opening tag", "", "<thi", None, "<thi", "absent", *NO_BOX),
    ("only the opening tag", "", "<think>", "", "", "open", *NO_CLOSE),
    ("only the prefill", THINK, "", "", "", "open", *NO_CLOSE),
    ("nothing", "", "", None, "", "absent", *NO_BOX),
    ("empty pair", "", f"<think>\n\n</think>\n\n{FINAL}", "", FINAL, "closed", *RIGHT),
    ("two pairs", "", f"<think>a</think>\n<think>{DRAFT}</think>\n{FINAL}", f"a\n{DRAFT}", FINAL, "closed", *RIGHT),
    ("second pair open", "", f"<think>a</think>\n<think>{DRAFT}", f"a\n{DRAFT}", "", "open", *NO_CLOSE),
    ("no tags", "", FINAL, None, FINAL, "absent", *RIGHT),
    ("gen_prefix", "It is \\boxed{", "5}", None, FINAL, "absent", *RIGHT),
    ("gen_prefix in a thought", f"{THINK}Mon", f" 1 {DRAFT}</think>{FINAL}", f"Mon 1 {DRAFT}", FINAL, "closed", *RIGHT),
    ("white space before", "", f"\n <think>\n{DRAFT}\n</think>\n\n{FINAL}", DRAFT, FINAL, "closed", *RIGHT),
    ("quoted in the answer", "", f"<think>a</think>{FINAL} `</think>`", "a", f"{FINAL} `</think>`", "closed", *RIGHT),
    ("quoted in code", "", f"```\nx</think>\n```\n{FINAL}", None, f"```\nx</think>\n```\n{FINAL}", "absent", *RIGHT),
]  # fmt: skip


@pytest.mark.parametrize("finish_reason", ["stop", "length"])
@pytest.mark.parametrize("row", SHAPES, ids=lambda row: f"{row[0]}{' prefilled' if row[1] else ''}")
def test_shapes(row: Row, finish_reason: FinishReason) -> None:
    _, prefill, output, reasoning, answer, state, *outcomes = row
    found = RENDERER.parse((1, 2, 3), output, finish_reason, prefill)
    assert (found.reasoning, found.answer, found.reasoning_state) == (reasoning, answer, state)
    assert (found.text, found.token_ids, found.finish_reason, found.prefill) == (
        output,
        (1, 2, 3),
        finish_reason,
        prefill,
    )
    verdict = decide(found, problem(gold="5"), MathBoxed(None))
    assert verdict.outcome == outcomes[finish_reason == "length"]
    if verdict.outcome == "truncated":
        assert verdict.detail == ("in_reasoning" if state == "open" else "in_answer")


@pytest.mark.parametrize("row", SHAPES, ids=lambda row: f"{row[0]}{' prefilled' if row[1] else ''}")
def test_the_prefill_is_as_good_as_written(row: Row) -> None:
    """What stands in the turn counts, whoever wrote it."""
    _, prefill, output, *_ = row
    assert split_reasoning(prefill + output) == split_reasoning(f"{prefill}{output}\n")
    found, whole = RENDERER.parse((), output, "stop", prefill), RENDERER.parse((), prefill + output, "stop", "")
    assert (found.reasoning, found.answer, found.reasoning_state) == (
        whole.reasoning,
        whole.answer,
        whole.reasoning_state,
    )


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "a", "\n", " ", "```", "\\boxed{4}", "<thi", "</"])).map("".join)
)
def test_parsing_is_total_and_never_invents(turn: str) -> None:
    reasoning, answer, state = split_reasoning(turn)
    assert (reasoning is None) == (state == "absent")
    assert state != "open" or answer == ""
    assert answer == answer.strip()
    for part in [*(reasoning or "").split("\n"), *answer.split("\n")]:
        assert part in turn
    if "</think>" not in turn and turn.lstrip().startswith("<think>"):
        assert state == "open"


@pytest.mark.parametrize("turn", [f"Sure.\n<think>\n{DRAFT}", f"Sure. <think>{DRAFT}</think> So"])
def test_a_draft_in_a_thought_that_starts_late_is_no_answer(turn: str) -> None:
    found = RENDERER.parse((), turn, "length", "")
    assert decide(found, problem(gold="5"), MathBoxed(None)).outcome == "truncated"


def test_a_closing_tag_quoted_in_an_answer_without_reasoning_is_text() -> None:
    turn = f"{FINAL}. The tag `</think>` ends a thought."
    assert split_reasoning(turn) == (None, turn, "absent")
