"""What the tests of renderers share: fast tokenizers of the real vocabularies with the official templates."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from plugin_helpers import beside

from distillbench.records import Message

#: The added tokens of Qwen3 by id, and whether they are special; in LESSONS.md.
QWEN_ADDED = {
    151643: ("<|endoftext|>", True),
    151644: ("<|im_start|>", True),
    151645: ("<|im_end|>", True),
    151657: ("<tool_call>", False),
    151658: ("</tool_call>", False),
    151665: ("<tool_response>", False),
    151666: ("</tool_response>", False),
    151667: ("<think>", False),
    151668: ("</think>", False),
}
#: Qwen2.5's: those of Qwen3 without the last four.
QWEN25_ADDED = {number: token for number, token in QWEN_ADDED.items() if number < 151665}
LLAMA_ADDED = {
    128000: ("<|begin_of_text|>", True),
    128001: ("<|end_of_text|>", True),
    128004: ("<|finetune_right_pad_id|>", True),
    128006: ("<|start_header_id|>", True),
    128007: ("<|end_header_id|>", True),
    128008: ("<|eom_id|>", True),
    128009: ("<|eot_id|>", True),
    128010: ("<|python_tag|>", True),
}
BOS, USER, ASSISTANT, EOS = (
    name.replace("|", "\N{FULLWIDTH VERTICAL LINE}").replace("_", "\N{LOWER ONE EIGHTH BLOCK}")
    for name in ("<|begin_of_sentence|>", "<|User|>", "<|Assistant|>", "<|end_of_sentence|>")
)
#: Of DeepSeek-R1-Distill-Qwen. The Llama one has its own ids, which no fact here depends on.
R1_QWEN_ADDED = {
    151643: (EOS, True),
    151644: (USER, False),
    151645: (ASSISTANT, False),
    151646: (BOS, True),
    151648: ("<think>", False),
    151649: ("</think>", False),
}
R1_LLAMA_ADDED = {
    128000: (BOS, True),
    128001: (EOS, True),
    128011: (USER, False),
    128012: (ASSISTANT, False),
    128013: ("<think>", False),
    128014: ("</think>", False),
}
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA_WORDS = _QWEN_WORDS.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def template(name: str) -> str:
    """An official chat template."""
    return beside("templates", f"{name}.jinja").read_text(encoding="utf-8")


@cache
def _model(path: Path, ignore_merges: bool) -> Any:
    """A BPE of published ranks, once a session.

    Source: merges come out of the ranks as in transformers' TikTokenConverter.
    """
    from tokenizers import models
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    ranks: dict[bytes, int] = {}
    for line in path.read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    shown = bytes_to_unicode()

    def name(token: bytes) -> str:
        return "".join(shown[byte] for byte in token)

    merges = []
    for token in ranks:
        cuts = ((token[:place], token[place:]) for place in range(1, len(token)))
        parts = [(left, right) for left, right in cuts if left in ranks and right in ranks]
        merges += [
            (name(left), name(right)) for left, right in sorted(parts, key=lambda cut: [ranks[one] for one in cut])
        ]
    return models.BPE({name(token): rank for token, rank in ranks.items()}, merges, ignore_merges=ignore_merges)


def _fast(model: Any, words: str, added: dict[int, tuple[str, bool]], first: int, nfc: bool) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers

    bpe = Tokenizer(model)
    if nfc:
        bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    for number in range(first, max(added) + 1):
        text, special = added.get(number, (f"<|unused_{number}|>", True))
        bpe.add_tokens([AddedToken(text, special=special, normalized=False)])
    return bpe


@cache
def qwen_tokenizer(chat_template: str = "Qwen-Qwen3-0.6B", version: str = "3") -> Any:
    """Qwen's published ranks, with the added tokens of Qwen3 or 2.5 and an official template.

    Source: tokenizer.json of Qwen/Qwen3-0.6B.
    """
    from transformers import PreTrainedTokenizerFast

    added = QWEN_ADDED if version == "3" else QWEN25_ADDED
    bpe = _fast(_model(beside("tokenizers", "qwen.tiktoken"), False), _QWEN_WORDS, added, 151643, nfc=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=template(chat_template),
        clean_up_tokenization_spaces=False,
    )


def real_qwen_tokenizer() -> Any:
    """The real Qwen vocabulary with Qwen3's tokens and official template."""
    return qwen_tokenizer()


@cache
def llama_tokenizer(chat_template: str = "meta-llama-Llama-3.1-8B-Instruct") -> Any:
    """Llama 3's published ranks, special tokens and an official template; it puts one BOS in front by itself.

    Source: tokenizer.json of meta-llama/Llama-3.1-8B-Instruct.
    """
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    model = _model(beside("tokenizers", "llama3_tokenizer.model"), True)
    bpe = _fast(model, _LLAMA_WORDS, LLAMA_ADDED, 128000, nfc=False)
    bos = "<|begin_of_text|>"
    bpe.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, 128000)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=bos,
        eos_token="<|eot_id|>",
        pad_token="<|finetune_right_pad_id|>",
        chat_template=template(chat_template),
        clean_up_tokenization_spaces=False,
    )


@cache
def r1_tokenizer(vocabulary: str) -> Any:
    """DeepSeek-R1-Distill's tokens and official template on Qwen's or Llama's vocabulary."""
    from transformers import PreTrainedTokenizerFast

    if vocabulary == "qwen":
        model, words, added, nfc = (
            _model(beside("tokenizers", "qwen.tiktoken"), False),
            _QWEN_WORDS,
            R1_QWEN_ADDED,
            True,
        )
        name, first = "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", 151643
    else:
        model, nfc = _model(beside("tokenizers", "llama3_tokenizer.model"), True), False
        words, added = _LLAMA_WORDS, R1_LLAMA_ADDED
        name, first = "deepseek-ai-DeepSeek-R1-Distill-Llama-8B", 128000
    return PreTrainedTokenizerFast(
        tokenizer_object=_fast(model, words, added, first, nfc),
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        chat_template=template(name),
        clean_up_tokenization_spaces=False,
    )


def messages(turns: Sequence[tuple[str, str]]) -> tuple[Message, ...]:
    """Messages of (role, content) pairs."""
    return tuple(Message(role, content) for role, content in turns)  # type: ignore[arg-type]


def official(tokenizer: Any, turns: Sequence[tuple[str, str]], **options: Any) -> tuple[str, list[int]]:
    """The text and ids of the tokenizer's own template."""
    chat = [{"role": role, "content": content} for role, content in turns]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **options)
    ids = tokenizer.apply_chat_template(chat, tokenize=True, add_generation_prompt=True, return_dict=False, **options)
    return text, list(ids)


def written(renderer: Any, ids: Any) -> str:
    """The text of ids, control tokens and all."""
    return renderer.tokenizer.decode(
        np.asarray(ids).tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
