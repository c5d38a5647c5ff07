"""Sentencepiece tokenizers, which put a blank before a text: Llama 2 and Phi-3 everywhere, Mistral at the beginning."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plugin_helpers import problem, trace
from renderer_helpers import messages, official, written

from distillbench.errors import StageError
from distillbench_plugins.renderers.chat import ChatTemplateOptions, ChatTemplateRenderer
from distillbench_plugins.renderers.plain import PlainOptions, PlainRenderer
from distillbench_plugins.renderers.tokenise import Tokeniser

#: As Llama 2 and Mistral have it: the marks of turns are plain text.
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
#: As Phi-3 has it: tokens that swallow the white space behind them.
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TEMPLATES = {"inst": INST, "phi": PHI, "bare": INST.replace("{{ bos_token }}", "")}
SCHEMES = ("normalizer", "always", "first", "never")


@cache
def tokenizer(scheme: str, template: str) -> Any:
    """A small one, with the blank put in front by a normalizer (older files) or by the pre-tokenizer (newer ones)."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token="<unk>"))
    if scheme == "normalizer":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    lines = ["How many coins has Tom? It is 5. [INST] Okay [/INST] think </answer>\n", "▁ab a b ab"] * 3
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    made.train_from_iterator(lines, trainer)
    special = ["<|user|>", "<|assistant|>", "<|end|>"]
    made.add_special_tokens([AddedToken(token, special=True, normalized=False, rstrip=True) for token in special])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    made.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", made.token_to_id("<s>"))])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=TEMPLATES[template],
        clean_up_tokenization_spaces=False,
    )


TEXT = st.lists(st.sampled_from(["a", "b", " ", "How many", "\n", "5.", "▁", "[INST]", "  ", "Tom"]), max_size=6).map(
    "".join
)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("template", TEMPLATES)
@given(asked=TEXT, said=TEXT, again=TEXT)
def test_prompts_are_the_official_ones_id_for_id(scheme: str, template: str, asked: str, said: str, again: str) -> None:
    tokens = tokenizer(scheme, template)
    renderer = ChatTemplateRenderer(ChatTemplateOptions(reasoning="text")).bind(tokens)
    for turns in ([("user", asked)], [("user", asked), ("assistant", said), ("user", again)]):
        assert renderer.prompt(messages(turns)).input_ids.tolist() == official(tokens, turns)[1]


@pytest.mark.parametrize("scheme", SCHEMES)
@given(asked=TEXT.filter(bool))
def test_plain_prompts_are_what_the_tokenizer_makes_of_the_text(scheme: str, asked: str) -> None:
    tokens = tokenizer(scheme, "inst")
    renderer = PlainRenderer(PlainOptions()).bind(tokens)
    assert renderer.prompt(messages([("user", asked)])).input_ids.tolist() == tokens(f"{asked}\n")["input_ids"]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("template", TEMPLATES)
def test_rows_go_on_where_prompts_end_and_read_back(scheme: str, template: str) -> None:
    renderer = ChatTemplateRenderer(ChatTemplateOptions(reasoning="text", reasoning_tags=("[INST]", "</answer>"))).bind(
        tokenizer(scheme, template)
    )
    taught = trace("Okay", "It is 5.")
    row, prompt = renderer.render(taught), renderer.prompt(taught.problem.messages)
    start = len(prompt.input_ids)
    assert row.input_ids[:start].tolist() == prompt.input_ids.tolist()
    response = row.input_ids[start:-1].tolist()
    found = renderer.parse(response, written(renderer, response), "stop", prompt.prefill)
    assert (found.reasoning, found.answer) == ("Okay", "It is 5.")


def test_the_sign_that_stands_before_inner_texts_is_refused_in_them() -> None:
    tokens = Tokeniser(tokenizer("first", "inst"), "renderer 'made'")
    [ids] = tokens.encode_rows([["a b"]])
    assert max(ids) < len(tokenizer("first", "inst"))
    with pytest.raises(StageError, match="makes a control token of plain text"):
        tokens.encode_rows([["a\U000ffffdb"]])


def test_a_problem_reads_as_it_was() -> None:
    for scheme in SCHEMES:
        renderer = ChatTemplateRenderer(ChatTemplateOptions(reasoning="text")).bind(tokenizer(scheme, "phi"))
        asked = problem("How many coins has Tom?").messages
        assert "How many coins has Tom?" in renderer.show(renderer.prompt(asked))
