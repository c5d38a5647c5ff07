"""Text to ids, on tokenizers made to fool: vocabularies that hold special text, odd added tokens, missing parts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plugin_helpers import Tiny, problem, trace
from renderer_helpers import llama_tokenizer, messages, official, qwen_tokenizer, written

from distillbench.errors import StageError
from distillbench_plugins.renderers.chat import ChatTemplateOptions, ChatTemplateRenderer
from distillbench_plugins.renderers.llama3 import Llama3Options, Llama3Renderer
from distillbench_plugins.renderers.plain import PlainOptions, PlainRenderer
from distillbench_plugins.renderers.qwen import Qwen3Options, Qwen3Renderer
from distillbench_plugins.renderers.r1_distill import R1DistillOptions, R1DistillRenderer
from distillbench_plugins.renderers.tokenise import Tokeniser

WORDS = ("a", "b", "user", "assistant", "[UNK]", "<|end|>", "<", "|", "end", ">")
CHAT = (
    "{% for m in messages %}<|start|>{{ m.role }} {{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant {% endif %}"
)


def words_tokenizer(template: str | None = CHAT, **flags: Any) -> Any:
    """Words at white space, some of them the text of a control token."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens([AddedToken("[UNK]", normalized=False)])
    words.add_tokens(
        [AddedToken("<|end|>", **{"normalized": False} | flags), AddedToken("<|start|>", normalized=False)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", eos_token="<|end|>", chat_template=template
    )


def tokeniser(tokenizer: Any) -> Tokeniser:
    return Tokeniser(tokenizer, "renderer 'made'")


def test_a_word_of_the_vocabulary_that_is_a_control_tokens_text_is_broken() -> None:
    tokenizer = words_tokenizer()
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    # Without its added tokens the vocabulary still makes the control token of its text.
    [ids] = tokeniser(tokenizer).encode_rows([["a <|end|> b"]])
    assert end not in ids
    assert ids[0] == 0
    assert ids[-1] == 1
    assert tokeniser(tokenizer).split("a <|end|> b") == ["a ", end, " b"]


def test_what_the_vocabulary_lacks_is_the_unknown_token() -> None:
    assert tokeniser(words_tokenizer()).encode_rows([["a zebra"]])[0].tolist() == [0, 4]


@pytest.mark.parametrize("side", ["lstrip", "rstrip"])
def test_white_space_that_a_token_swallows_is_swallowed(side: str) -> None:
    tokenizer = words_tokenizer(**{side: True})
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    expected = {"lstrip": ["a", end, " b"], "rstrip": ["a ", end, "b"]}
    assert tokeniser(tokenizer).split("a <|end|> b") == expected[side]
    renderer = ChatTemplateRenderer(ChatTemplateOptions(reasoning="text")).bind(tokenizer)
    turns = [("user", " a "), ("assistant", "b"), ("user", " b\n")]
    assert renderer.prompt(messages(turns)).input_ids.tolist() == official(tokenizer, turns)[1]


def test_a_token_that_needs_words_around_it_is_refused_where_a_template_uses_it() -> None:
    with pytest.raises(StageError, match=r"finds '<\|end\|>' only between words"):
        ChatTemplateRenderer(ChatTemplateOptions(reasoning="text")).bind(words_tokenizer(single_word=True))


def test_added_white_space_is_no_control_token() -> None:
    """Gemma's vocabulary has its runs of line breaks as added tokens."""
    from tokenizers import AddedToken, Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE({"a": 0, "\n": 1, "\n\n": 2}, []))
    bpe.add_tokens([AddedToken("\n\n", normalized=False), AddedToken("<|end|>", normalized=False)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe)
    assert tokeniser(tokenizer).split("a\n\na<|end|>") == ["a\n\na", tokenizer.convert_tokens_to_ids("<|end|>")]
    assert tokeniser(tokenizer).encode_rows([["a\n\na"]])[0].tolist() == [0, 2, 0]


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(StageError, match=r"the student's tokenizer \(str\) is not a fast one"):
        tokeniser("slow")


@given(st.lists(st.text(max_size=20) | st.integers(0, 3), max_size=6))
def test_rows_are_encoded_as_their_segments_are(row: list[str | int]) -> None:
    tokens = tokeniser(qwen_tokenizer())
    parts = [[one] if isinstance(one, int) else tokens.encode_rows([[one]])[0] for one in row]
    found = [ids.tolist() for ids in tokens.encode_rows([row, row])]
    assert found == [[token for part in parts for token in part]] * 2


def test_text_without_special_text_is_tokenised_as_the_tokenizer_does() -> None:
    for tokenizer in (qwen_tokenizer(), llama_tokenizer()):
        text = "Let's see: 12345 = \\frac{1}{2}\n\n  naïve 数学 🙂"
        [ids] = tokeniser(tokenizer).encode_rows([[text]])
        assert ids.tolist() == tokenizer.encode(text, add_special_tokens=False)


def test_a_tokenizer_without_a_template_is_sent_to_plain() -> None:
    for renderer in (ChatTemplateRenderer(ChatTemplateOptions()), Qwen3Renderer(Qwen3Options())):
        with pytest.raises(StageError, match=r"wanted a chat template.*\n.*use `renderer: plain`"):
            renderer.bind(words_tokenizer(template=None))


@pytest.mark.parametrize(
    ("renderer", "token"),
    [
        (Qwen3Renderer(Qwen3Options()), r"<\|im_end\|>"),
        (Llama3Renderer(Llama3Options()), r"<\|eot_id\|>"),
        (R1DistillRenderer(R1DistillOptions()), "<.end.of.sentence.>"),
    ],
)
def test_a_tokenizer_of_another_family_is_refused(renderer: Any, token: str) -> None:
    with pytest.raises(StageError, match=rf"renderer '{renderer.name}': .* has no token '{token}'\n.*chat-template"):
        renderer.bind(words_tokenizer())


def test_native_without_think_tokens_is_sent_to_text() -> None:
    tokenizer = qwen_tokenizer("Qwen-Qwen2.5-7B-Instruct", "2.5")
    with pytest.raises(StageError, match=r"has no token '<think>'.*\n.*set `reasoning: text`"):
        ChatTemplateRenderer(ChatTemplateOptions()).bind(tokenizer)


def test_a_template_that_closes_reasoning_itself_wants_strip() -> None:
    options = {"template_options": {"enable_thinking": False}}
    with pytest.raises(StageError, match=r"closes reasoning before the answer.*\n.*set `reasoning: strip`"):
        ChatTemplateRenderer(ChatTemplateOptions(**options)).bind(qwen_tokenizer())
    renderer = ChatTemplateRenderer(ChatTemplateOptions(**options, reasoning="strip")).bind(qwen_tokenizer())
    assert renderer.prompt(problem().messages).prefill == "<think>\n\n</think>\n\n"


def test_a_template_that_writes_today_has_to_be_pinned(tiny: Tiny) -> None:
    tokenizer = llama_tokenizer("meta-llama-Llama-3.2-3B-Instruct")
    with pytest.raises(StageError, match=r"today's date.*\n.*template_options: \{date_string: 26 Jul 2024\}"):
        ChatTemplateRenderer(ChatTemplateOptions(reasoning="text")).bind(tokenizer)
    options = ChatTemplateOptions(reasoning="text", template_options={"date_string": "01 Jan 2030"})
    pinned = ChatTemplateRenderer(options).bind(tokenizer)
    assert "Today Date: 01 Jan 2030\n" in written(pinned, pinned.prompt(problem().messages).input_ids)
    with pytest.raises(StageError, match="cannot be given another"):
        ChatTemplateRenderer(options).bind(words_tokenizer("{{ strftime_now('%d') }}" + CHAT))


def test_a_template_that_refuses_says_its_own_words() -> None:
    template = "{% if messages|length > 1 %}{{ raise_exception('one message only') }}{% endif %}" + CHAT
    tokenizer = words_tokenizer(template)
    with pytest.raises(StageError, match="the chat template refuses these messages: one message only"):
        ChatTemplateRenderer(ChatTemplateOptions(reasoning="text")).bind(tokenizer)


@pytest.mark.parametrize("tags", [("", "b"), ("a", " "), ("a", "a"), ("<t>", "<t>!"), ("x<t>", "<t>")])
def test_tags_that_cannot_be_told_apart_are_refused(tags: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="neither of them within the other"):
        ChatTemplateOptions(reasoning_tags=tags)


def test_template_options_that_are_the_renderers_own_are_refused() -> None:
    with pytest.raises(ValueError, match="add_generation_prompt: the renderer sets that itself"):
        ChatTemplateOptions(template_options={"add_generation_prompt": False})


def test_tags_of_other_models() -> None:
    tags = ("<|begin_of_thought|>", "<|end_of_thought|>")
    options = ChatTemplateOptions(reasoning="text", reasoning_tags=tags)
    renderer = ChatTemplateRenderer(options).bind(qwen_tokenizer("Qwen-Qwen2.5-7B-Instruct", "2.5"))
    row = renderer.render(trace("r", "a"))
    text = "<|begin_of_thought|>\nr\n<|end_of_thought|>\n\na"
    assert written(renderer, row.input_ids[row.loss_mask]) == f"{text}<|im_end|>"
    found = renderer.parse((), text, "stop", "")
    assert (found.reasoning, found.answer, renderer.reasoning_tags()) == ("r", "a", tags)
    assert renderer.prompt(problem().messages, "think").prefill == "<|begin_of_thought|>\n"


def test_a_turn_without_an_end_token_ends_with_the_tokenizers(tiny: Tiny) -> None:
    bare = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"
    renderer = ChatTemplateRenderer(ChatTemplateOptions(reasoning="text")).bind(words_tokenizer(bare))
    assert renderer.stop_token_ids() == (renderer.tokenizer.eos_token_id,)
    nothing = words_tokenizer(bare)
    nothing.eos_token = None
    for one in (ChatTemplateRenderer(ChatTemplateOptions(reasoning="text")), PlainRenderer(PlainOptions())):
        with pytest.raises(StageError, match="set the tokenizer's `eos_token`"):
            one.bind(nothing)


def test_thinking_off_needs_a_template_that_has_it() -> None:
    off = Qwen3Renderer(Qwen3Options(thinking=False, reasoning="strip"))
    with pytest.raises(StageError, match="`thinking: false` changes nothing"):
        off.bind(qwen_tokenizer("trl_qwen3_instruct_2507"))


@pytest.mark.parametrize("turns", [[], [("assistant", "It is")]])
def test_a_conversation_without_a_question_is_the_templates_to_refuse(turns: list[tuple[str, str]]) -> None:
    renderer = Qwen3Renderer(Qwen3Options()).bind(qwen_tokenizer())
    with pytest.raises(StageError, match="the chat template refuses these messages"):
        renderer.prompt(messages(turns))
