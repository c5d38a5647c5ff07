"""Reasoning in every known format: no draft is graded, whatever a renderer was told of the format."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from plugin_helpers import problem

from distillbench.outcomes import decide
from distillbench.reasoning_formats import FORMATS, PROSE, REMAINS, Format, find_format, join_apart, split_apart
from distillbench.records import FinishReason
from distillbench_plugins.benchmarks.math_boxed import MathBoxed, MathBoxedOptions
from distillbench_plugins.renderers.chat import ChatTemplateOptions, ChatTemplateRenderer
from distillbench_plugins.renderers.hosted import HostedRenderer, HostedRendererOptions
from distillbench_plugins.renderers.qwen import Qwen3Options, Qwen3Renderer
from distillbench_plugins.renderers.reasoning import split_reasoning

GRADER = MathBoxed(MathBoxedOptions())
HOSTED = HostedRenderer(HostedRendererOptions())
RENDERERS = (
    HOSTED,
    HostedRenderer(HostedRendererOptions(reasoning_tags=("<<", ">>"))),
    ChatTemplateRenderer(ChatTemplateOptions(reasoning_tags=("[THINK]", "[/THINK]"))),
    Qwen3Renderer(Qwen3Options()),
)
#: The draft is right by chance, so that a tool which grades it says `correct` where there is no answer.
DRAFT, FINAL, NONE = "So 2 and 3 make \\boxed{5}.", "It is \\boxed{5}.", "I cannot say."
KINDS = st.sampled_from((*FORMATS, *REMAINS))
#: What reasoning may leave open, and an answer that would close it.
LEFT_OPEN = (
    ("", ""),
    ("$x=5", "Thus $x$ is it. "),
    ("$$x=5", "Thus $$x=5$$ "),
    ("\\(x=5", "Thus \\(x\\) is it. "),
    ("\\[x=5", "Thus \\[x\\] is it. "),
    ("`x", "Thus `x` is it. "),
    ("```python\nprint(5)", "Thus\n```python\nprint(5)\n```\n"),
    ("```\n5", "Thus\n```\n5\n```\n"),
    ("```python\nprint(5)\n```", "Thus "),
    ("\\text{so", "Thus \\text{so} "),
)  # fmt: skip
#: Answers that name tags, after real reasoning.
NAMING = (
    "", " (I thought in <think> tags.)", " I put it between <think> and </think>.", ' It said "<thinking>".',
    " `<reasoning>` opens it.", "\n```\n<think>\nx\n</think>\n```\n", " The [THINK] token opens it.",
    " $</think>$", " Use </think> tags.", " My <think>-block was long.",
    "\n~~~\n<think>\nx\n</think>\n~~~\n", "\n```python\ns.split('</thinking>')\n```\n",
)  # fmt: skip
BREAKS = st.sampled_from(["", "\n", " ", "\n\n"])


def outcome(text: str, finish_reason: FinishReason = "stop", prefill: str = "", renderer: object = HOSTED) -> str:
    """What becomes of a completion with gold 5."""
    found = renderer.parse((), text, finish_reason, prefill)  # type: ignore[attr-defined]
    return decide(found, problem(gold="5"), GRADER).outcome


def block(kind: Format, thought: str, before: str = "\n", after: str = "\n\n") -> str:
    """A closed block of reasoning."""
    return f"{kind.opening}{before}{thought}{before}{kind.closing}{after}"


@given(kind=KINDS, left=st.sampled_from(LEFT_OPEN), names=st.sampled_from(NAMING), before=BREAKS, after=BREAKS)
def test_a_closed_block_leaves_the_answer_and_nothing_else(
    kind: Format, left: tuple[str, str], names: str, before: str, after: str
) -> None:
    opened, closed = left
    text = block(kind, f"{DRAFT} {opened}", "" if kind in REMAINS else before or kind.breaks[0], after)
    for renderer in RENDERERS:
        assert outcome(f"{text}{closed}{FINAL}{names}", renderer=renderer) == "correct"
        assert outcome(f"{text}{closed}{NONE}{names}", renderer=renderer) == "no_answer"
        assert outcome(f"{text}{closed}{NONE}", "length", renderer=renderer) == "truncated"


@given(kind=KINDS, left=st.sampled_from(LEFT_OPEN), before=BREAKS)
def test_an_open_block_holds_no_answer(kind: Format, left: tuple[str, str], before: str) -> None:
    text = f"{kind.opening}{'' if kind in REMAINS else before or kind.breaks[0]}{DRAFT} {left[0]}"
    for renderer in RENDERERS:
        assert outcome(text, renderer=renderer) == "unclosed"
        assert outcome(text, "length", renderer=renderer) == "truncated"
        found = renderer.parse((), text, "length", "")
        assert (found.answer, found.reasoning_state) == ("", "open")


@given(kind=KINDS, left=st.sampled_from(LEFT_OPEN))
def test_a_block_whose_opening_tag_was_prefilled(kind: Format, left: tuple[str, str]) -> None:
    prefill = kind.opening + kind.breaks[0]
    text = f"{DRAFT} {left[0]}{kind.breaks[1]}{kind.closing}{kind.breaks[2]}"
    assert outcome(f"{text}{left[1]}{FINAL}", prefill=prefill) == "correct"
    assert outcome(f"{text}{left[1]}{NONE}", prefill=prefill) == "no_answer"
    assert outcome(DRAFT, "length", prefill=prefill) == "truncated"
    assert outcome(DRAFT, prefill=prefill) == "unclosed"


@given(kind=st.sampled_from(FORMATS), other=st.sampled_from(FORMATS), before=BREAKS)
def test_a_model_that_thinks_in_another_format_than_was_prefilled(kind: Format, other: Format, before: str) -> None:
    prefill = f"{other.opening}{before}"
    assert outcome(block(kind, DRAFT) + FINAL, prefill=prefill) == "correct"
    assert outcome(block(kind, DRAFT) + NONE, prefill=prefill) == "no_answer"
    assert outcome(kind.opening + DRAFT, "length", prefill=prefill) == "truncated"
    empty = f"{other.opening}\n\n{other.closing}\n\n"
    assert outcome(block(kind, DRAFT) + NONE, prefill=empty) == "no_answer"
    assert outcome(kind.opening + DRAFT, prefill=empty) == "unclosed"


@given(kind=st.sampled_from(FORMATS), left=st.sampled_from(LEFT_OPEN[:3] + LEFT_OPEN[5:9]))
def test_a_draft_that_leaves_something_open_is_no_answer(kind: Format, left: tuple[str, str]) -> None:
    draft = f"{DRAFT} {left[0]}" if left[0][:3] != "```" else f"{DRAFT}\n{left[0]}"
    text = f"{draft}\n{kind.opening}\nhm\n{kind.closing}\n{left[1]}"
    assert outcome(text + NONE) == "no_answer"
    assert outcome(text + FINAL) == "correct"


@given(kind=st.sampled_from(FORMATS), before=BREAKS)
def test_drafts_before_between_and_doubled(kind: Format, before: str) -> None:
    one = block(kind, "hm")
    assert outcome(f"{DRAFT}\n{one}{NONE}") == "no_answer"
    assert outcome(f"{DRAFT}{before}{one}{NONE}") == "no_answer"
    assert outcome(f"{one}{DRAFT}\n{one}{NONE}") == "no_answer"
    assert outcome(f"{one}{DRAFT}\n{one}{FINAL}") == "correct"
    assert outcome(f"{one}{DRAFT}\n{kind.opening}hm", "length") == "truncated"
    assert outcome(f"{kind.opening}{before}{one.removesuffix(kind.closing)}{FINAL}") == "correct"
    assert outcome(f"{kind.opening}{before}{kind.opening}{DRAFT}", "length") == "truncated"


@given(kind=st.sampled_from(FORMATS), before=BREAKS)
def test_closing_tags_without_an_opening_one(kind: Format, before: str) -> None:
    closing = f"{before}{kind.closing}{before}"
    assert outcome(f"{DRAFT}{closing}{FINAL}") == "correct"
    assert outcome(f"{DRAFT}{closing}{NONE}") == "no_answer"
    assert outcome(f"{DRAFT}{closing}") == "no_answer"
    if "final" not in kind.closing and "content" not in kind.closing:  # headers begin a message
        assert outcome(f"{block(kind, 'hm')}{FINAL}{closing}") == "correct"
        assert outcome(f"{block(kind, 'hm')}{FINAL}{closing}{closing}", "length") == "correct"


@given(kind=st.sampled_from(FORMATS), other=st.sampled_from(FORMATS), before=st.sampled_from(["\n", "\n\n"]))
def test_blocks_of_two_formats(kind: Format, other: Format, before: str) -> None:
    """A second model's format, or a habit: a block on a line of its own is one, and quoted in the line it is text."""
    one, two = block(kind, "hm"), f"{before}{block(other, DRAFT)}"
    assert outcome(f"{one}Well.{two}{NONE}") == "no_answer"
    assert outcome(f"{one}Well.{two}{FINAL}") == "correct"
    assert outcome(f"{one}{DRAFT}{two}{NONE}") == "no_answer"
    assert outcome(f"{one}Well.{two.rpartition(other.closing)[0]}", "length") == "truncated"
    if kind != other:
        assert outcome(f"{one}{NONE}{two}") == "no_answer", "what a block holds is no answer"
        assert outcome(f"{one}{FINAL}{two}") == "correct", "nothing after it, so that it takes no answer away"


@pytest.mark.parametrize("stray", ["</think>.", "</think>\n```", "</think>\n<|im_end|>", "</think>\n</think>\n\n---"])
def test_a_stray_closing_tag_that_no_word_follows_takes_no_answer_away(stray: str) -> None:
    for reason in ("stop", "length"):
        assert outcome(f"<think>hm</think>{FINAL}{stray}", reason) == "correct"
        assert outcome(f"{FINAL}{stray}", reason, prefill="<think>\n\n</think>\n\n") == "correct"
        assert outcome(f"{DRAFT}{stray}{NONE}", prefill="<think>") == "no_answer"


@pytest.mark.parametrize("stray", ["</think>", "\n</think>\n", "</think></think>", " </think> \n </think>"])
def test_a_stray_closing_tag_is_taken_out_of_the_answer(stray: str) -> None:
    for prefill, text in (("<think>", f"2+3=5</think>{FINAL}{stray}"), ("", f"<think>\n\n</think>\n\n{FINAL}{stray}")):
        found = HOSTED.parse((), text, "stop", prefill)
        assert (found.answer, found.reasoning_state) == (FINAL, "closed")


@pytest.mark.parametrize(
    "tag",
    ['<think foo="bar">', "<think foo='b' x=1>", "<think >", "<Think>", "<THINK>", "<thinking mode=deep>", "<Thought>"],
)
def test_a_tag_with_attributes_or_in_capitals_is_a_tag(tag: str) -> None:
    closing = f"</{tag.strip('<>').split()[0]}>"
    assert outcome(f"{tag}{DRAFT}", "length") == "truncated"
    assert outcome(f"{tag}\n{DRAFT}\n{closing}\n{NONE}") == "no_answer"
    assert outcome(f"{tag}\n{DRAFT}\n{closing}\n{FINAL}") == "correct"


@pytest.mark.parametrize(
    "text", ["<thinker>", "<think about it>", "< think>", "a < b > c", "[THINKS]", "[T]", "<thin>"]
)
def test_what_only_looks_like_a_tag_is_text(text: str) -> None:
    assert split_reasoning(f"{text} {FINAL}") == (None, f"{text} {FINAL}", "absent")


ANALYSIS, HARMONY_FINAL = "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"
ASSISTANT = "<|end|><|start|>assistant"
NEXT = f"{ASSISTANT}<|channel|>"


@pytest.mark.parametrize(
    ("text", "reason", "wanted"),
    [
        (f"{ANALYSIS}2 and 3 make 5, so \\boxed{{5}}", "length", "truncated"),
        (f"{ANALYSIS}\\boxed{{5}}{ASSISTANT}{HARMONY_FINAL}No.", "stop", "no_answer"),
        (f"{ANALYSIS}a<|end|>", "stop", "no_answer"),
        (f"{ANALYSIS}\\boxed{{5}}{NEXT}commentary<|message|>b", "length", "truncated"),
        (f"{ANALYSIS}a{NEXT}commentary to=f <|constrain|>json<|message|>{{}}<|call|>", "stop", "no_answer"),
        (f"{ANALYSIS}a{NEXT}final <|constrain|>json<|message|>\\boxed{{5}}<|return|>", "stop", "correct"),
        (f"{HARMONY_FINAL}\\boxed{{5}}", "stop", "correct"),
        (f"<|start|>assistant{ANALYSIS}\\boxed{{5}}", "length", "truncated"),
        (f"{HARMONY_FINAL}\\boxed{{5}}{ASSISTANT}{ANALYSIS}hm", "length", "truncated"),
        ("analysisWe add them: \\boxed{5}", "length", "truncated"),
        ("analysisWe add: \\boxed{5}assistantfinalI cannot say.", "stop", "no_answer"),
        ("analysisWe add.assistantfinalIt is \\boxed{5}", "stop", "correct"),
        ("analysis of the sum: \\boxed{5}", "stop", "correct"),
        ("<|channel>thought\n\\boxed{5}", "length", "truncated"),
        ("<|channel>thought\n\\boxed{5}<channel|>No.", "stop", "no_answer"),
        ("<|channel>thought\n<channel|>\\boxed{5}", "stop", "correct"),
        ("<|START_THINKING|>\\boxed{5}<|END_THINKING|><|START_RESPONSE|>No.<|END_RESPONSE|>", "stop", "no_answer"),
        ("<|begin_of_thought|>\\boxed{5}<|begin_of_solution|>\\boxed{5}<|end_of_solution|>", "stop", "correct"),
        ("Here is my thought process: \\boxed{5}", "stop", "correct"),
        ("Here is my thought process: \\boxed{5} Here is my response: No.", "stop", "no_answer"),
        ("I say: here is my response: \\boxed{5}", "stop", "correct"),
        ("<think>\n\\boxed{5}\n```</think>\nNo.", "stop", "no_answer"),
        ("<think>I test it.\n```python\nprint(4)\n```</think>\n\nIt is \\boxed{5}.", "stop", "correct"),
        ("<think>so $$x=5\n</think>\nThus $$x=5$$ \\boxed{5}", "stop", "correct"),
        ("<th", "length", "truncated"),
        ("[TH", "length", "truncated"),
        ("<|channel|>ana", "length", "truncated"),
    ],
)  # fmt: skip
def test_shapes_of_their_own(text: str, reason: FinishReason, wanted: str) -> None:
    assert outcome(text, reason) == wanted


TEXTS = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "[THINK]", '<think apart="0">', '</think apart="0">', "$", "`", "```\n", "\n", DRAFT]
    )
).map("".join)


@given(TEXTS.filter(lambda text: bool(text.strip())), TEXTS)
@example("I close with </think> and then \\boxed{5}", "")
@example("a", "\\boxed{5} (I thought in <think> tags)")
def test_what_a_server_sends_apart_comes_out_as_it_was(reasoning: str, answer: str) -> None:
    joined = join_apart(reasoning, answer)
    assert split_apart(joined) == (reasoning.strip(), answer.strip() or None)
    for reason in ("stop", "length"):
        found = HOSTED.parse((), joined, reason, "")
        assert found.reasoning == reasoning.strip()
        assert (found.answer, found.reasoning_state) == (answer.strip(), "closed" if answer.strip() else "open")


def test_the_closing_token_settles_what_its_text_does_not() -> None:
    turn = f"<think>$x=5</think>Thus $5x$ or 5$ {FINAL}"
    assert split_reasoning(turn, meant=[True])[2] == "closed"
    quoted = f"<think>`</think>` ends it. {DRAFT}"
    assert split_reasoning(quoted, meant=[True])[2] == "closed"
    assert split_reasoning(f"{quoted}</think>{FINAL}", meant=[False, True]) == (
        f"`</think>` ends it. {DRAFT}",
        FINAL,
        "closed",
    )
    assert split_reasoning(f"<think>a\n</think>\n{DRAFT}\n</think>\n{NONE}", meant=[False, True])[1] == NONE


@pytest.mark.parametrize("prefill", ["", "<think>\n", "<think>\n\n</think>\n\n"])
def test_a_format_of_sentences_is_open_only_where_it_is_asked_for(prefill: str) -> None:
    [granite] = PROSE
    asked = HostedRenderer(HostedRendererOptions(reasoning_tags=granite.tags))
    assert outcome(f"{granite.opening} {DRAFT}", "length", renderer=asked) == "truncated"
    assert outcome(f"{granite.opening} {DRAFT}", renderer=asked) == "unclosed"
    text = f"{granite.opening} {DRAFT} {granite.closing} "
    for renderer in (asked, HOSTED):
        assert outcome(text + NONE, prefill=prefill, renderer=renderer) == "no_answer"
        assert outcome(text + FINAL, prefill=prefill, renderer=renderer) == "correct"


@pytest.mark.parametrize("kind", (*FORMATS, *PROSE), ids=lambda kind: kind.name)
def test_the_template_or_the_tokens_show_the_format(kind: Format) -> None:
    template = "{{ x.split(" + repr(kind.closing).replace("\\n", "\n") + ") }}"
    assert find_format(template, ()) == kind
    assert find_format("{{ messages }}", ("<s>", *kind.tags)) == kind
    assert find_format("{{ messages }}", ("<s>",)) is None
