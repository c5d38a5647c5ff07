"""The parser on the shapes that five well-known tools get wrong (LESSONS.md, "think-tag probe")."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plugin_helpers import problem

from distillbench.outcomes import decide
from distillbench.records import Completion, FinishReason, ReasoningState
from distillbench_plugins.benchmarks.math_boxed import MathBoxed, MathBoxedOptions
from distillbench_plugins.renderers.qwen import Qwen3Options, Qwen3Renderer
from distillbench_plugins.renderers.reasoning import split_reasoning

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


#: shape, prefill, output, reasoning, answer, state.
MORE: list[tuple[str, str, str, str | None, str, ReasoningState]] = [
    ("second pair open after text", "", f"<think>a</think>{DRAFT}<think>b", "a\nb", "", "open"),
    (
        "pairs with text between",
        "",
        f"<think>a</think>Well,<think>{DRAFT}</think>{FINAL}",
        f"a\nWell,\n{DRAFT}",
        FINAL,
        "closed",
    ),
    ("orphan after a full pair", "", f"<think>a</think>{DRAFT}</think>{FINAL}", f"a\n{DRAFT}", FINAL, "closed"),
    ("orphan, nothing after", "", f"{DRAFT}</think>", DRAFT, "", "closed"),
    ("two orphans", "", f"{DRAFT}</think>a</think>{FINAL}", f"{DRAFT}\na", FINAL, "closed"),
    (
        "tag named in reasoning",
        "",
        f"<think>Is <think> needed? {DRAFT}</think>{FINAL}",
        f"Is <think> needed? {DRAFT}",
        FINAL,
        "closed",
    ),
    (
        "close quoted in reasoning",
        "",
        f"<think>`</think>` ends it. {DRAFT}</think>{FINAL}",
        f"`</think>` ends it. {DRAFT}",
        FINAL,
        "closed",
    ),
    ("only a quoted close", "", f"<think>`</think>` ends it. {DRAFT}", f"`</think>` ends it. {DRAFT}", "", "open"),
    (
        "example block in reasoning",
        THINK,
        f"```\n<think>\nx\n</think>\n```\n{DRAFT}",
        f"```\n<think>\nx\n</think>\n```\n{DRAFT}",
        "",
        "open",
    ),
    (
        "close within a fenced line",
        THINK,
        f"```\nprint('</think>')\n```\n{DRAFT}",
        f"```\nprint('</think>')\n```\n{DRAFT}",
        "",
        "open",
    ),
    (
        "unclosed fence in reasoning",
        THINK,
        f"```python\n{DRAFT}\n</think>\n\n{FINAL}",
        f"```python\n{DRAFT}",
        FINAL,
        "closed",
    ),
    (
        "unclosed fence, code in the answer",
        THINK,
        f"```python\n{DRAFT}\n</think>\n\n```python\nx\n```\n{FINAL}",
        f"```python\n{DRAFT}",
        f"```python\nx\n```\n{FINAL}",
        "closed",
    ),
    (
        "unclosed bare fence, bare code in the answer",
        THINK,
        f"```\n{DRAFT}\n</think>\n\n```\nx\n```\n{FINAL}",
        f"```\n{DRAFT}",
        f"```\nx\n```\n{FINAL}",
        "closed",
    ),
    (
        "fenced in the answer",
        "",
        f"<think>a</think>```\n<think>\n</think>\n```\n{FINAL}",
        "a",
        f"```\n<think>\n</think>\n```\n{FINAL}",
        "closed",
    ),
    (
        "close fenced in the answer",
        "",
        f"<think>a</think>\n```\n</think>\n```\n{FINAL}",
        "a",
        f"```\n</think>\n```\n{FINAL}",
        "closed",
    ),
    *[
        (f"LaTeX in the answer: {quoted}", "", f"<think>a</think>{quoted} {FINAL}", "a", f"{quoted} {FINAL}", "closed")
        for quoted in (
            "$<think>$",
            "$x </think> y$",
            "$$\n</think>\n$$",
            "\\(<think>\\)",
            "\\[\n<think> \\times </think>\n\\]",
            "\\text{</think>}",
            "\\texttt{<think>}",
            "\\verb|</think>|",
            "\\verb!<think>!",
            "``</think>``",
            "`<think>`",
        )
    ],
    ("prices are no LaTeX", "", f"It costs $5. <think> {DRAFT} costs $x$ more", f"{DRAFT} costs $x$ more", "", "open"),
    ("lone backtick", "", f"<think>a ` b\n</think>\n\n{FINAL} ` c", "a ` b", f"{FINAL} ` c", "closed"),
    ("lone $$", THINK, f"$$ {DRAFT}\n</think>\n\n$$x$$ {FINAL}", f"$$ {DRAFT}", f"$$x$$ {FINAL}", "closed"),
]
LEFT = {"open": NO_CLOSE, "closed": RIGHT}
SHAPES += [(*row, *(LEFT[row[-1]] if row[4] or row[5] == "open" else NO_BOX)) for row in MORE]


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
    verdict = decide(found, problem(gold="5"), MathBoxed(MathBoxedOptions()))
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
    assert decide(found, problem(gold="5"), MathBoxed(MathBoxedOptions())).outcome == "truncated"


def test_a_closing_tag_quoted_in_an_answer_without_reasoning_is_text() -> None:
    turn = f"{FINAL}. The tag `</think>` ends a thought."
    assert split_reasoning(turn) == (None, turn, "absent")


@pytest.mark.parametrize("prefill", ["", THINK])
@pytest.mark.parametrize("cut", ["</t", "</thi", "</think"])
def test_half_a_closing_tag_that_the_budget_cut_is_no_text(prefill: str, cut: str) -> None:
    output = f"{DRAFT}\n{cut}" if prefill else f"<think>\n{DRAFT}\n{cut}"
    found = RENDERER.parse((), output, "length", prefill)
    assert (found.reasoning, found.answer, found.reasoning_state) == (DRAFT, "", "open")
    stopped = RENDERER.parse((), output, "stop", prefill)  # then the model meant it
    assert (stopped.reasoning, stopped.answer, stopped.reasoning_state) == (f"{DRAFT}\n{cut}", "", "open")


@pytest.mark.parametrize("cut", ["<th", "<thi", "\n<think"])
def test_half_an_opening_tag_that_the_budget_cut_is_open_reasoning(cut: str) -> None:
    assert split_reasoning(cut, "length") == ("", "", "open")
    assert split_reasoning(cut, "stop") == (None, cut.strip(), "absent")
    assert split_reasoning(f"<think>\n{cut}", "length") == ("", "", "open")


def test_a_sign_that_could_begin_a_tag_is_no_tag() -> None:
    assert split_reasoning("<think>x <", "length") == ("x <", "", "open")
    assert split_reasoning("x <", "length") == (None, "x <", "absent")


def test_tags_are_the_callers() -> None:
    tags = ("<|begin_of_thought|>", "<|end_of_thought|>")
    turn = f"<|begin_of_thought|>\n\n<think>{DRAFT}\n\n<|end_of_thought|>\n\n{FINAL}"
    assert split_reasoning(turn, "stop", tags) == (f"<think>{DRAFT}", FINAL, "closed")
    assert split_reasoning(turn[:-60], "length", tags)[1:] == ("", "open")
    odd = ("$a (", "[b*")  # signs of regular expressions, of LaTeX and of formats
    assert split_reasoning("$a (r[b*x", "stop", odd) == ("r", "x", "closed")


PIECES = (
    "<think>", "</think>", "a", "\n", " ", "\n\n", "`", "``", "```", "```\n", "```py\n", "$", "$$", "\\(", "\\)", "\\[",
    "\\]", "\\text{", "}", "\\verb|", "|", "\\boxed{4}", "<thi", "</", "\u2028", "\x1f",
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join), st.sampled_from(["stop", "length"]))
def test_a_completion_is_always_whole(turn: str, finish_reason: FinishReason) -> None:
    for prefill in ("", THINK, "<think>\n\n</think>\n\n", "It is "):
        found = RENDERER.parse((1,), turn, finish_reason, prefill)
        assert isinstance(found, Completion)
        assert (found.reasoning is None) == (found.reasoning_state == "absent")
        assert isinstance(found.answer, str)
        assert found.reasoning_state != "open" or found.answer == ""
        if prefill == THINK and "</think>" not in turn:
            assert found.reasoning_state == "open"


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join), st.text())
def test_text_before_a_bare_closing_tag_is_never_graded(draft: str, answer: str) -> None:
    """However a prefilled thought is spoiled, what comes before the tag that closes it is no answer."""
    clean = draft.replace("<think>", "").replace("</think>", "")
    found = RENDERER.parse((), f"{clean}DRAFT\n</think>\n\n{answer}", "stop", THINK)
    assert "DRAFT" not in found.answer


@pytest.mark.parametrize(
    "unit",
    [*PIECES, "<think></think>", "<think>a", "</think>a", "</think>\n```\n", "```\n</think>\n", "$ ", "a$", "`` ` ",
     "\\verb|\\verb!\\verb+", "\n ", "    \n", "<think>`", "$$\n", "\\[\n", "\t```"],
)  # fmt: skip
def test_hostile_text_takes_linear_time(unit: str) -> None:
    """100,000 characters of anything take a second or less; a quadratic parser takes minutes."""
    ticks = "".join("`" * n + " " for n in range(1, 447))
    for text in (unit * (100_000 // len(unit)), unit + ticks, f"{unit}{' ' * 50_000}{unit * 5000}"):
        for turn in (text, f"<think>{text}", f"<think>a{text}</think>", f"</think>{text}"):
            begin = time.process_time()
            split_reasoning(turn, "length")
            assert time.process_time() - begin < 20.0
