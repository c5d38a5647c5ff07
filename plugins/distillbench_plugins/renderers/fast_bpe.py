"""Byte-level BPE by `tiktoken`, which makes the same tokens several times faster where a tokenizer allows it."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from distillbench_plugins.renderers.bpe_checks import BYTE_OF, LOOKS_AHEAD, unmade, why_not

if TYPE_CHECKING:
    import numpy as np
    import tiktoken
    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

#: Encodings that are held; one is about 100 MB for 150,000 tokens.
_MOST = 2
#: A token that is never asked for: without one, looking for any would take as long as the words.
_SPECIAL = {"\U0010fffd\U0010fffe": 2**31 - 1}
#: Of the characters beyond the first thousand, those that are tried: one of so many.
_TRIED = 61
#: Characters that the first version of Unicode may not have had.
_BEYOND = re.compile("[^\x00-\xff]+")


class FastBpe:
    """A byte-level BPE vocabulary with its one pattern.

    It applies merges by the ids of what they make, from the left. That is the order of the tokenizer's own list where
    this never falls, and what `why_not` looks at.
    """

    def __init__(self, encoding: tiktoken.Encoding, is_nfc: bool) -> None:
        self._encoding = encoding
        self._is_nfc = is_nfc

    def ids(self, text: str) -> NDArray[np.int32] | None:
        """The ids of a text, int32[T]; None where it fails on it, or where the two may not know a character alike."""
        if not text.isascii():
            beyond = set("".join(_BEYOND.findall(text)))
            if any(map(_is_unsure, beyond)):
                return None
            if self._is_nfc:
                text = _nfc(text, beyond)
        try:
            found: NDArray[np.int32] = self._encoding.encode_to_numpy(text, disallowed_special=()).view("int32")
        except ValueError:
            return None
        except BaseException as error:  # a panic of its Rust code is no Exception
            if type(error).__name__ != "PanicException":
                raise
            return None
        return found


#: What was found of a tokenizer that had so many tokens.
_KNOWN: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, FastBpe | str]] = WeakKeyDictionary()


def known(tokenizer: PreTrainedTokenizerBase) -> FastBpe | str | None:
    """What `fast_bpe` found of a tokenizer; None where it has not looked yet."""
    n_tokens, found = _KNOWN.get(tokenizer, (0, None))
    return found if n_tokens == len(tokenizer) else None


def fast_bpe(tokenizer: PreTrainedTokenizerBase) -> FastBpe | str:
    """The fast path of a tokenizer, or why there is none. Made once for each, and for all that are alike.

    Args:
        tokenizer: A fast one.
    """
    found = known(tokenizer)
    if found is None:
        backend: Any = tokenizer.backend_tokenizer
        found = fast_bpe_of(backend.to_str())
        _KNOWN[tokenizer] = len(tokenizer), found
    return found


@lru_cache(_MOST)
def fast_bpe_of(text: str) -> FastBpe | str:
    """As `fast_bpe`, of what a tokenizer.json says."""
    found = json.loads(text)
    if why := why_not(found):
        return why
    import tiktoken

    try:
        ranks = _ranks(found["model"], _by_merges(found))
        pattern = _grouped(found["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"])
        encoding = tiktoken.Encoding("student", pat_str=pattern, mergeable_ranks=ranks, special_tokens=_SPECIAL)
    except ValueError as error:
        return str(error)
    if lost := next((char for char in _some_characters() if not encoding.encode_ordinary(char)), None):
        return f"its pattern does not find {lost!r}, which tiktoken would leave out"
    return FastBpe(encoding, found["normalizer"] is not None)


def _by_merges(tokenizer: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer without added tokens, and with no word that its merges do not make."""
    from tokenizers import Tokenizer

    model = {**tokenizer["model"], "ignore_merges": False}
    return Tokenizer.from_str(json.dumps({**tokenizer, "model": model, "added_tokens": [], "post_processor": None}))


def _ranks(model: Mapping[str, Any], plain: Tokenizer) -> dict[bytes, int]:
    """The tokens that can be made, as bytes, by their ids.

    Raises:
        ValueError: The vocabulary is not one of bytes, or holds what merges cannot make.
    """
    vocabulary: Mapping[str, int] = model["vocab"]
    if odd := next((token for token in vocabulary if not BYTE_OF.keys() >= set(token)), None):
        raise ValueError(f"its vocabulary has {odd!r}, which is no text of bytes")
    lost = set(unmade(model, plain))
    if lost and model.get("ignore_merges"):  # such a word is taken where it stands alone, and only there
        raise ValueError(f"its merges do not make {min(lost)!r}, which is in its vocabulary")
    ranks = {
        bytes(BYTE_OF[char] for char in token): number for token, number in vocabulary.items() if token not in lost
    }
    if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        raise ValueError(f"its vocabulary lacks the byte {missing[0]}")
    return ranks


def _grouped(pattern: str) -> str:
    """The same pattern, for a matcher that is a third faster where alternatives without a look ahead are one group."""
    first = pattern.removesuffix(LOOKS_AHEAD)
    return pattern if first == pattern else f"(?:{first}){LOOKS_AHEAD}"


def _some_characters() -> Iterator[str]:
    """Characters of every kind: where a pattern that looks at nothing around finds each, it finds all of any text."""
    numbers = chain(range(1000), range(1000, sys.maxunicode, _TRIED))
    return (chr(number) for number in numbers if unicodedata.category(chr(number)) != "Cs")


def _is_unsure(char: str) -> bool:
    """Whether Python, tiktoken and tokenizers may not take a character for the same.

    That is one that Python's Unicode lacks, or half of one, or an `s` or `k` where case does not count.
    """
    return char in "\u017f\u212a" or unicodedata.category(char) in ("Cn", "Cs")


def _nfc(text: str, beyond: Iterable[str]) -> str:
    """The text in NFC. Python is the faster one, but takes the square of the time where marks follow one another."""
    from tokenizers.normalizers import NFC

    if any(map(unicodedata.combining, beyond)):
        return str(NFC().normalize_str(text))
    return unicodedata.normalize("NFC", text)
