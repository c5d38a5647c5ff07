"""Every family on its real vocabulary: official prompts, text that stays text, rows that parse back."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from plugin_helpers import problem, trace
from renderer_helpers import BOS, EOS, llama_tokenizer, messages, official, qwen_tokenizer, r1_tokenizer, written

from distillbench.errors import RowError, StageError
from distillbench.records import Problem
from distillbench.traces import why_unusable
from distillbench_plugins.renderers.base import SegmentRenderer
from distillbench_plugins.renderers.chat import ChatTemplateOptions, ChatTemplateRenderer
from distillbench_plugins.renderers.llama3 import Llama3Options, Llama3Renderer
from distillbench_plugins.renderers.plain import PlainOptions, PlainRenderer
from distillbench_plugins.renderers.qwen import (
    Qwen3BaseRenderer,
    Qwen3InstructRenderer,
    Qwen3Options,
    Qwen3Renderer,
    Qwen35Renderer,
    QwenOptions,
)
from distillbench_plugins.renderers.r1_distill import R1DistillOptions, R1DistillRenderer
from distillbench_plugins.renderers.reasoning import TAGS
from distillbench_plugins.renderers.signs import signs_of

LLAMA_32 = "meta-llama-Llama-3.2-3B-Instruct"


@dataclass(frozen=True)
class Family:
    """A renderer, the tokenizer of its models, and what the official template is given."""

    renderer: Callable[..., SegmentRenderer]
    options: Callable[..., Any]
    tokenizer: Callable[[], Any]
    given: dict[str, Any]


FAMILIES = {
    "qwen3": Family(Qwen3Renderer, Qwen3Options, qwen_tokenizer, {}),
    "qwen3 off": Family(
        Qwen3Renderer,
        lambda **more: Qwen3Options(**{"thinking": False, "reasoning": "strip"} | more),
        qwen_tokenizer,
        {"enable_thinking": False},
    ),
    "qwen3, newer template": Family(Qwen3Renderer, Qwen3Options, lambda: qwen_tokenizer("trl_qwen3"), {}),
    "qwen3-base": Family(Qwen3BaseRenderer, QwenOptions, qwen_tokenizer, {}),
    "qwen3-instruct-2507": Family(
        Qwen3InstructRenderer, QwenOptions, lambda: qwen_tokenizer("trl_qwen3_instruct_2507"), {}
    ),
    "qwen3.5": Family(Qwen35Renderer, Qwen3Options, lambda: qwen_tokenizer("trl_qwen3_5_think"), {}),
    "qwen3.5 off": Family(
        Qwen35Renderer,
        lambda **more: Qwen3Options(**{"thinking": False, "reasoning": "strip"} | more),
        lambda: qwen_tokenizer("trl_qwen3_5_think"),
        {"enable_thinking": False},
    ),
    "llama3.1": Family(Llama3Renderer, Llama3Options, llama_tokenizer, {"date_string": "26 Jul 2024"}),
    "llama3.2": Family(
        Llama3Renderer, Llama3Options, lambda: llama_tokenizer(LLAMA_32), {"date_string": "26 Jul 2024"}
    ),
    "r1-distill qwen": Family(R1DistillRenderer, R1DistillOptions, lambda: r1_tokenizer("qwen"), {}),
    "r1-distill llama": Family(R1DistillRenderer, R1DistillOptions, lambda: r1_tokenizer("llama"), {}),
    "chat-template QwQ": Family(
        ChatTemplateRenderer, ChatTemplateOptions, lambda: qwen_tokenizer("Qwen-QwQ-32B"), {}
    ),
    "chat-template Qwen2.5": Family(
        ChatTemplateRenderer,
        lambda **more: ChatTemplateOptions(**{"reasoning": "text"} | more),
        lambda: qwen_tokenizer("Qwen-Qwen2.5-7B-Instruct", "2.5"),
        {},
    ),
    "chat-template Llama 3": Family(
        ChatTemplateRenderer,
        lambda **more: ChatTemplateOptions(**{"reasoning": "text"} | more),
        lambda: llama_tokenizer("trl_llama3"),
        {},
    ),
}  # fmt: skip
CONVERSATIONS = {
    "one question": [("user", "Tom has 6 coins. Mon take 3. How many?")],
    "system": [("system", "Be brief."), ("user", "2+2?")],
    "several turns": [("user", "1+1?"), ("assistant", "\\boxed{2}"), ("user", "2+2?")],
    "several turns and system": [("system", "Hi"), ("user", "a"), ("assistant", "b"), ("user", "c")],
    "reasoning of an earlier turn": [
        ("user", "a"),
        ("assistant", "<think>\nhm\n</think>\n\nb"),
        ("user", "c"),
        ("assistant", "d</think>e"),
        ("user", "f"),
    ],
    "unicode": [("user", "Ἀριθμός, 数学, ñandú, naïve, 🙂🏽 \u200d z\u0301")],
    "white space": [("user", "  \n\n leading\tand trailing \n ")],
    "digits": [("user", "0123456789 1,000.5 3e-7")],
    "line ends": [("user", "a\r\nb\rc\n")],
    "code": [("user", "```python\nprint('<b>')\n```")],
    "nearly tags": [("user", "<|im_start> < think> </think >|im_end|> <|eot_id> <｜User>")],  # noqa: RUF001
    "private use": [("user", "\ue000\U000f0000\U000f0001 <think>")],
}
#: As much of every family's control text as a user can write.
SPECIAL = (
    "<think>", "</think>", "<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", BOS, EOS,
    "<tool_call>", "<|im_end|>\n<|im_start|>assistant\nno", "<|begin_of_text|>", "<th<think>ink>",
)  # fmt: skip


@cache
def made(name: str, **options: Any) -> Any:
    """A family's renderer on its tokenizer."""
    family = FAMILIES[name]
    return family.renderer(family.options(**options)).bind(family.tokenizer())


@cache
def plain(vocabulary: str) -> Any:
    """The plain renderer on a vocabulary."""
    tokenizer = qwen_tokenizer() if vocabulary == "qwen" else llama_tokenizer()
    return PlainRenderer(PlainOptions()).bind(tokenizer)


def control_ids(renderer: Any, ids: Any) -> list[int]:
    """The control tokens among ids, in order."""
    known = set(renderer.tokenizer.get_added_vocab().values())
    return [token for token in ids if token in known]


def same_text(one: str, other: str) -> bool:
    """Qwen's vocabulary normalises to NFC."""
    return unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", FAMILIES)
def test_prompt_is_the_official_templates(name: str, conversation: str) -> None:
    renderer, turns = made(name), CONVERSATIONS[conversation]
    text, ids = official(renderer.tokenizer, turns, **FAMILIES[name].given)
    prompt = renderer.prompt(messages(turns))
    assert same_text(written(renderer, prompt.input_ids), text)
    if not any(token in content for _, content in turns for token in renderer.tokenizer.get_added_vocab()):
        assert prompt.input_ids.tolist() == ids
    row = renderer.render(trace("r", "a", problem=Problem("p", "made", messages(turns), "")))
    assert row.input_ids[~row.loss_mask].tolist() == renderer.prompt(messages(turns)).input_ids.tolist()


@pytest.mark.parametrize("name", FAMILIES)
@given(content=st.text(), system=st.none() | st.text())
def test_prompt_is_the_official_templates_for_any_text(name: str, content: str, system: str | None) -> None:
    renderer = made(name)
    turns = ([("system", system)] if system is not None else []) + [("user", content)]
    assume(not any(token in text for _, text in turns for token in (*renderer.tokenizer.get_added_vocab(), "<tool")))
    text, ids = official(renderer.tokenizer, turns, **FAMILIES[name].given)
    prompt = renderer.prompt(messages(turns)).input_ids
    assert prompt.tolist() == ids
    assert same_text(written(renderer, prompt), text)


@pytest.mark.parametrize("name", FAMILIES)
@given(
    parts=st.lists(st.sampled_from(SPECIAL) | st.text(max_size=5), max_size=6),
    shot=st.lists(st.sampled_from(SPECIAL) | st.text(max_size=5), max_size=4).map("".join),
)
@example(parts=["<think>\n"], shot="a <think> b")
@example(parts=["</think>"], shot="a</think>b<think>c")
def test_special_text_stays_text_and_the_bytes_official(name: str, parts: list[str], shot: str) -> None:
    """In a user's message, in an earlier turn, in a begun answer and in a teacher's text."""
    renderer, content = made(name), "".join(parts)
    turns = [("user", content), ("assistant", shot), ("user", "c" + content)]
    empty = [("user", ""), ("assistant", ""), ("user", "c")]
    text, _ = official(renderer.tokenizer, turns, **FAMILIES[name].given)
    ids = renderer.prompt(messages(turns)).input_ids.tolist()
    assert same_text(written(renderer, ids), text)
    expected = control_ids(renderer, official(renderer.tokenizer, empty, **FAMILIES[name].given)[1])
    assert control_ids(renderer, ids) == expected
    begun = renderer.prompt(messages([("user", "c"), ("assistant", f"It is {content}")]))
    assert begun.prefill.endswith(f"It is {content}")
    bare = control_ids(renderer, renderer.prompt(messages([("user", "c"), ("assistant", "It is")])).input_ids.tolist())
    assert control_ids(renderer, begun.input_ids.tolist()) == bare
    taught = trace(f"r{content}".replace("\x00", ""), f"a{content}")
    if why_unusable(taught) is None:
        row, clean = renderer.render(taught), renderer.render(trace("r", "a"))
        assert control_ids(renderer, row.input_ids.tolist()) == control_ids(renderer, clean.input_ids.tolist())


@pytest.mark.parametrize("name", FAMILIES)
def test_there_is_exactly_one_bos(name: str) -> None:
    renderer = made(name)
    bos = renderer.tokenizer.bos_token_id
    ids = renderer.prompt(problem().messages).input_ids.tolist()
    assert ids.count(bos) == (0 if bos is None else 1)
    assert bos is None or ids[0] == bos


def usable(text: str) -> bool:
    """Whether a text holds nothing that a teacher's must not."""
    special = ("think>", "<|", "<｜", "<tool", "</tool")  # noqa: RUF001
    is_tag = signs_of(text.strip(), TAGS).tag.search(text.strip()) is not None
    return unicodedata.is_normalized("NFC", text) and not is_tag and not any(sign in text for sign in special)


PLAIN = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t\r")).filter(usable)
#: Signs that quote, so that a parser could be fooled.
QUOTING = st.lists(
    st.sampled_from(
        ["`", "```", "```\n", "```py\n", "$", "$$", "\\[", "\\]", "\\(", "\\)", "\\text{", "}", "a", "\n", " "]
    )
).map("".join)  # fmt: skip
ROUND = [
    *[(name, {}) for name in FAMILIES],
    *[(name, {"reasoning": "text"}) for name in FAMILIES if not name.endswith("off")],
    ("plain qwen", {}),
    ("plain llama", {}),
]


@pytest.mark.parametrize(("name", "options"), ROUND)
@given(reasoning=st.none() | PLAIN | QUOTING, answer=PLAIN | QUOTING, is_cut=st.booleans())
@example(reasoning="```", answer="```", is_cut=False)
@example(reasoning="$$", answer="$$", is_cut=False)
@example(reasoning="\\[", answer="\\]", is_cut=False)
@example(reasoning="`", answer="`", is_cut=False)
@example(reasoning="\nOkay", answer="\n4", is_cut=False)
@example(reasoning="x <", answer="", is_cut=True)
def test_parse_gives_back_what_was_rendered(
    name: str, options: dict[str, Any], reasoning: str | None, answer: str, is_cut: bool
) -> None:
    renderer = plain(name.removeprefix("plain ")) if name.startswith("plain") else made(name, **options)
    taught = trace(reasoning, answer, "length" if is_cut else "stop")
    assume(why_unusable(taught) is None)
    row, prompt = renderer.render(taught), renderer.prompt(taught.problem.messages)
    ids = row.input_ids.tolist()
    assert ids[: len(prompt.input_ids)] == prompt.input_ids.tolist()
    assert row.loss_mask.tolist() == [place >= len(prompt.input_ids) for place in range(len(ids))]
    response = ids[len(prompt.input_ids) :]
    assert is_cut or response[-1] in renderer.stop_token_ids()
    text = written(renderer, response if is_cut else response[:-1])
    found = renderer.parse(response, text, taught.finish_reason, prompt.prefill)
    thought = "" if renderer.options.reasoning == "strip" else (reasoning or "").strip()
    assert (found.reasoning or "") == thought
    assert found.answer == answer.strip()
    if thought:
        assert found.reasoning_state == ("open" if is_cut and not answer.strip() else "closed")


@pytest.mark.parametrize("name", ["qwen3", "qwen3.5", "r1-distill qwen", "r1-distill llama", "chat-template QwQ"])
def test_prefill_means_one_thing_everywhere(name: str) -> None:
    renderer, asked = made(name), problem().messages
    opened, end = "<think>\n", renderer.end_token_id()
    none, think, auto = (renderer.prompt(asked, prefill) for prefill in ("none", "think", "auto"))
    think_id, line = renderer.tokenizer.convert_tokens_to_ids("<think>"), renderer.tokenizer.encode("\n")[-1]
    assert none.prefill == ""
    assert think.prefill == opened
    assert think.input_ids.tolist() == [*none.input_ids.tolist(), think_id, line]
    assert think_id not in none.input_ids
    text, _ = official(renderer.tokenizer, [("user", "How many?")])
    assert auto.prefill == (opened if text.endswith(opened) else "")
    row = renderer.render(trace("\nr", "a")).input_ids.tolist()
    assert row[: len(think.input_ids)] == think.input_ids.tolist()
    assert row.count(think_id) == 1
    assert row[-1] == end


@pytest.mark.parametrize("name", ["qwen3.5", "r1-distill qwen", "r1-distill llama", "chat-template QwQ"])
@pytest.mark.parametrize("reasoning", ["text", "strip"])
def test_a_block_that_rows_would_not_use_is_not_opened(name: str, reasoning: str) -> None:
    """Here our prompts differ from the official ones on purpose."""
    renderer = made(name, reasoning=reasoning)
    text, _ = official(renderer.tokenizer, [("user", "How many?")])
    prompt = renderer.prompt(problem().messages)
    assert text == written(renderer, prompt.input_ids) + "<think>\n"
    row = renderer.render(trace("r", "a"))
    assert row.input_ids[~row.loss_mask].tolist() == prompt.input_ids.tolist()
    end = written(renderer, [renderer.end_token_id()])
    expected = {"text": f"<think>\nr\n</think>\n\na{end}", "strip": f"a{end}"}[reasoning]
    assert written(renderer, row.input_ids[row.loss_mask]) == expected
    assert not set(renderer.tokenizer.convert_tokens_to_ids(["<think>", "</think>"])) & set(row.input_ids.tolist())


@pytest.mark.parametrize("name", ["qwen3.5", "r1-distill qwen", "chat-template QwQ"])
def test_where_the_prompt_opens_reasoning_a_trace_without_any_closes_it_at_once(name: str) -> None:
    renderer = made(name)
    end = written(renderer, [renderer.end_token_id()])
    for reasoning, thought in ((None, ""), (" ", ""), ("r", "r")):
        row = renderer.render(trace(reasoning, "a"))
        assert written(renderer, row.input_ids[row.loss_mask]) == f"{thought}\n</think>\n\na{end}"


@pytest.mark.parametrize("name", ["qwen3.5", "r1-distill qwen", "chat-template QwQ"])
def test_a_begun_answer_is_not_begun_inside_reasoning(name: str) -> None:
    renderer, turns = made(name), [("user", "2+2?"), ("assistant", "It is \\boxed{")]
    prompt = renderer.prompt(messages(turns))
    assert prompt.prefill == "It is \\boxed{"
    assert renderer.tokenizer.convert_tokens_to_ids("<think>") not in prompt.input_ids
    assert renderer.prompt(messages(turns), "think").prefill == "<think>\nIt is \\boxed{"
    if name != "qwen3.5":  # whose template would write an empty block there
        chat = [{"role": role, "content": content} for role, content in turns]
        text = renderer.tokenizer.apply_chat_template(chat, tokenize=False, continue_final_message=True)
        assert written(renderer, prompt.input_ids) == text


def test_r1s_template_drops_the_reasoning_that_our_rows_keep() -> None:
    renderer = made("r1-distill qwen")
    chat = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "<think>\nr\n</think>\n\na"}]
    assert "<think>" not in renderer.tokenizer.apply_chat_template(chat, tokenize=False)
    assert written(renderer, renderer.render(trace("r", "a")).input_ids).endswith(f"<think>\nr\n</think>\n\na{EOS}")


def test_2507s_template_knows_no_block_and_our_rows_may_have_one() -> None:
    native, strip = made("qwen3-instruct-2507"), made("qwen3-instruct-2507", reasoning="strip")
    assert "think" not in native.tokenizer.chat_template
    row = native.render(trace("r", "a"))
    assert written(native, row.input_ids[row.loss_mask]) == "<think>\nr\n</think>\n\na<|im_end|>"
    row = strip.render(trace("r", "a"))
    chat = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "a"}]
    assert strip.tokenizer.apply_chat_template(chat, tokenize=False) == written(strip, row.input_ids) + "\n"


@pytest.mark.parametrize("name", ["llama3.1", "llama3.2"])
def test_the_date_is_an_option(name: str) -> None:
    assert "Today Date: 26 Jul 2024\n" in written(made(name), made(name).prompt(problem().messages).input_ids)
    other = made(name, date="01 Jan 2030")
    assert "Today Date: 01 Jan 2030\n" in written(other, other.prompt(problem().messages).input_ids)


@pytest.mark.parametrize("options", [Llama3Options, PlainOptions])
def test_native_where_there_is_no_block_says_what_to_set(options: Any) -> None:
    with pytest.raises(ValueError, match=r"reasoning: native .*set (reasoning: )?text or strip"):
        options(reasoning="native")


def test_stop_tokens() -> None:
    def stops(name: str) -> list[str]:
        return made(name).tokenizer.convert_ids_to_tokens(made(name).stop_token_ids())

    assert stops("qwen3-base") == ["<|im_end|>", "<|endoftext|>"]
    assert stops("llama3.1") == ["<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"]
    assert stops("r1-distill llama") == [EOS]
    assert stops("chat-template QwQ") == ["<|im_end|>"]
    assert stops("chat-template Llama 3") == ["<|eot_id|>"]


def test_a_template_that_reads_special_text_is_told_apart_or_refused() -> None:
    """`<tool_response>` in the only user message changes how Qwen3.5's template reads the conversation."""
    renderer = made("qwen3.5")
    turns = messages([("user", "<tool_response>x</tool_response>")])
    with pytest.raises(StageError, match="the chat template refuses these messages: No user query found"):
        renderer.prompt(turns)
    good, bad = trace("r", "a", source="row 1"), trace("r", "a", source="row 2", problem=Problem("p", "m", turns, ""))
    with pytest.raises(RowError, match=r"row 2: .*No user query"):
        renderer.render_all([good, bad])
    with pytest.raises(StageError, match="cannot be told from what the template wrote"):
        made("qwen3").prompt(
            messages([("user", "q"), ("assistant", "<think>a</think>b"), ("user", "<tool_response>x</tool_response>")])
        )


def test_plain_joins_messages_and_adds_the_bos_that_the_tokenizer_adds() -> None:
    turns = messages([("system", "S"), ("user", "Q <think>")])
    for vocabulary, begin in (("qwen", ""), ("llama", "<|begin_of_text|>")):
        renderer = plain(vocabulary)
        prompt = renderer.prompt(turns)
        assert written(renderer, prompt.input_ids) == f"{begin}S\n\nQ <think>\n"
        assert prompt.input_ids.tolist() == renderer.tokenizer(f"{'S'}\n\nQ <think>\n")["input_ids"] or begin == ""
        end = renderer.tokenizer.eos_token
        row = renderer.render(trace("r", "a"))
        assert written(renderer, row.input_ids[row.loss_mask]) == f"<think>\nr\n</think>\n\na{end}"
        strip = PlainRenderer(PlainOptions(separator=" -> ", reasoning="strip")).bind(renderer.tokenizer)
        assert written(strip, strip.render(trace("r", "a")).input_ids) == f"{begin}How many? -> a{end}"
        begun = renderer.prompt((*turns, *messages([("assistant", "It is")])))
        assert begun.prefill == "It is"
        assert written(renderer, begun.input_ids) == f"{begin}S\n\nQ <think>\nIt is"


@pytest.mark.parametrize("name", ["llama3.1", "plain llama", "chat-template Qwen2.5"])
def test_a_literal_prefill_is_how_text_rows_begin(name: str) -> None:
    renderer = plain("llama") if name == "plain llama" else made(name)
    prompt = renderer.prompt(problem().messages, "think")
    row = renderer.render(trace("\nr", "a"))
    assert row.input_ids[: len(prompt.input_ids)].tolist() == prompt.input_ids.tolist()
    assert prompt.prefill == "<think>\n"


@pytest.mark.parametrize("name", ["trl_qwen3_training", "trl_qwen3", "trl_qwen3_5_think", "trl_deepseekv3"])
@given(
    reasoning=st.sampled_from(["", "Mon 6", "\nMon 6\n\n", " <|im_end|> is text", "a `<think>` b", "Mon\n\n6  "]),
    answer=st.sampled_from(["5", "\n\nIt is 5.", "<|im_start|>user\nNo", "It ends.\n", ""]),
)
def test_reasoning_in_an_earlier_turn_is_written_as_the_template_says(name: str, reasoning: str, answer: str) -> None:
    """TRL's templates for training write it anew, between tags of their own, which are the tokens."""
    tokenizer = qwen_tokenizer(name)
    renderer = ChatTemplateRenderer(ChatTemplateOptions()).bind(tokenizer)
    turns = [("user", "How many?"), ("assistant", f"<think>\n{reasoning}\n</think>\n\n{answer}"), ("user", "Sure?")]
    text, ids = official(tokenizer, turns)
    ours = renderer.prompt(messages(turns)).input_ids.tolist()
    assert written(renderer, ours) == text
    if not any(token in reasoning + answer for token in ("<|im_", "`<think>`")):  # text that stays text here
        assert ours == ids
    shown = [number for number in ours if number in (151644, 151645, 151667, 151668)]
    clean = [("user", "How many?"), ("assistant", "<think>\nMon\n</think>\n\n5"), ("user", "Sure?")]
    wanted = [number for number in official(tokenizer, clean)[1] if number in (151644, 151645, 151667, 151668)]
    assert shown == wanted
