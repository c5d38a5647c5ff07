"""Whether `tiktoken` can stand for a tokenizer: what its tokenizer.json says, looked at before anything is made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def _byte_of() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for.

    Source: GPT-2's `bytes_to_unicode` (openai/gpt-2, src/encoder.py): printable characters stand for themselves, the
    other bytes for the characters from 256 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


#: How the patterns of Qwen and Llama 3 end: white space, but for the one before a word.
LOOKS_AHEAD = r"|\s+(?!\S)|\s+"
#: In a pattern, all but categories of characters, white space, classes, alternatives, groups and repetition: what looks
#: around, or what libraries read differently.
_ODD = re.compile(
    r"\\(?![sSrnt]|[pP]\{[LMNPSZC][a-z]?\}|[^\w\s])(?:[pP]\{[^}]*\}|.)"
    r"|\(\?(?!i?:)..?|\[:|&&|\{[\d,]+\}[+*?{]|\$|(?<!\[)\^|--|~~"
)
#: The byte that each character of a byte-level vocabulary stands for.
BYTE_OF: Mapping[str, int] = _byte_of()


def why_not(tokenizer: Mapping[str, Any]) -> str:
    """Why a tokenizer is not one that `tiktoken` can stand for, in words; empty where nothing speaks against it.

    Args:
        tokenizer: What its tokenizer.json says.
    """
    return next(_reasons(tokenizer), "")


def _reasons(tokenizer: Mapping[str, Any]) -> Iterator[str]:
    model, normalizer = tokenizer["model"], tokenizer["normalizer"]
    if model["type"] != "BPE":
        yield f"its model is {model['type']}, not BPE"
        return
    if normalizer is not None and normalizer["type"] != "NFC":
        yield f"its normalizer is {normalizer['type']}"
    affixes = ("unk_token", "continuing_subword_prefix", "end_of_word_suffix", "dropout", "byte_fallback", "fuse_unk")
    yield from (f"its model has {name}" for name in affixes if model.get(name))
    yield from _reasons_of_split(tokenizer["pre_tokenizer"])
    yield from _reasons_of_added(tokenizer)
    made = [model["vocab"].get("".join(pair_of(merge)), -1) for merge in model["merges"]]
    if any(later < earlier for earlier, later in pairwise(made)):
        yield "its merges are not in the order of what they make"


def _reasons_of_split(steps: Mapping[str, Any] | None) -> Iterator[str]:
    parts = (steps or {}).get("pretokenizers", [])
    if [one["type"] for one in parts] != ["Split", "ByteLevel"]:
        yield "it does not split by one pattern and then into bytes"
        return
    split, level = parts
    if split["behavior"] != "Isolated" or split["invert"] or "Regex" not in split["pattern"]:
        yield "its pattern is not one that isolates what it finds"
    elif odd := _ODD.search(split["pattern"]["Regex"].removesuffix(LOOKS_AHEAD)):
        yield f"its pattern has {odd.group()!r}, which need not mean the same to tiktoken"
    if level["add_prefix_space"] or level["use_regex"]:
        yield "it adds a blank or splits a second time"


def _reasons_of_added(tokenizer: Mapping[str, Any]) -> Iterator[str]:
    added = [token["content"] for token in tokenizer["added_tokens"]]
    if not all(map(str.strip, added)):
        yield "white space is among its added tokens"
    if not tokenizer["model"]["vocab"].keys().isdisjoint(added):
        yield "an added token is a word of its vocabulary too"


def pair_of(merge: str | Sequence[str]) -> tuple[str, str]:
    """The two tokens that a merge of a tokenizer.json joins, however it is written."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def unmade(model: Mapping[str, Any], plain: Tokenizer) -> Iterator[str]:
    """Tokens that merges in their order do not make, and that joining any two tokens might.

    Where the tokens of a text stand side by side, merges have made them of the characters between them as if these
    stood alone. So a token that its own characters do not become is in no text at all. Joining any two tokens makes
    it only where the merges lack a pair of tokens that spell it.

    Args:
        model: Of a tokenizer.json.
        plain: The tokenizer, with no word taken that merges do not make.
    """
    vocabulary: Mapping[str, int] = model["vocab"]
    tokenize = plain.model.tokenize
    merges = {pair_of(merge) for merge in model["merges"]}
    for token in vocabulary:
        if len(token) > 1 and len(tokenize(token)) != 1:
            pairs = [(token[:place], token[place:]) for place in range(1, len(token))]
            spelled = [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
            if not model.get("ignore_merges") or not merges.issuperset(spelled):
                yield token
