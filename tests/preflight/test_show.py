"""Tokens as a person reads them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from preflight_factories import bound, tokenizer, trace

from distillbench.preflight import pieces
from distillbench.preflight.show import Side, aligned, around, compared, escaped, excerpt, first_difference, quoted


@pytest.fixture(scope="module")
def tokens() -> Any:
    return tokenizer()


def ids(tokens: Any, text: str) -> list[int]:
    return list(tokens.encode(text, add_special_tokens=False))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[31m\x07\x00\x7f\x9b", "\\x1b[31m\\x07\\x00\\x7f\\u009b"),
        ("\u202e\u200b\u00a0\u2028\U000e0001", "\\u202e\\u200b\\u00a0\\u2028\\U000e0001"),
        ("\\boxed{5} \\n", "\\\\boxed{5} \\\\n"),
        ("é 你 🙂", "é 你 🙂"),
        ("\udce4\udcff\ud800", "\\xe4\\xff\\ud800"),
        ("it's", "it's"),
    ],
)
def test_escapes(text: str, expected: str) -> None:
    assert escaped(text) == expected


def unescaped(shown: str) -> bytes:
    """The bytes that escaped text stands for."""
    parts = re.findall(r"\\U[0-9a-f]{8}|\\u[0-9a-f]{4}|\\x[0-9a-f]{2}|\\.|[^\\]", shown)
    return b"".join(_unescaped(part) for part in parts)


def _unescaped(part: str) -> bytes:
    if part.startswith("\\x") and int(part[2:], 16) > 0x7F:
        return bytes([int(part[2:], 16)])
    return (part.encode().decode("unicode_escape") if part.startswith("\\") else part).encode()


WHOLE = st.text(st.characters(exclude_categories=["Cs"]))


@given(WHOLE)
def test_escaped_text_is_printable_and_can_be_undone(text: str) -> None:
    assert escaped(text).isprintable()
    assert unescaped(escaped(text)) == text.encode()
    assert quoted(text) == "'" + escaped(text).replace("'", "\\'") + "'"


def test_pieces_of_a_row() -> None:
    renderer = bound()
    row = renderer.render(trace("Mon 6", "\\boxed{5}"))
    found = pieces(renderer.tokenizer, row.input_ids, row.loss_mask)
    assert [piece.token_id for piece in found] == row.input_ids.tolist()
    assert [piece.loss for piece in found] == row.loss_mask.tolist()
    assert "".join(piece.text for piece in found) == (
        "<|im_start|>user\\nTom has 0 coins?<|im_end|>\\n<|im_start|>assistant\\n"
        "<think>\\nMon 6\\n</think>\\n\\n\\\\boxed{5}<|im_end|>"
    )
    control = [piece.text for piece in found if piece.is_control]
    assert control == ["<|im_start|>", "<|im_end|>", "<|im_start|>", "<think>", "</think>", "<|im_end|>"]


def test_text_that_looks_like_a_control_token_is_none(tokens: Any) -> None:
    found = pieces(tokens, bound().text("<think>"))
    assert [piece.text for piece in found] == ["<", "think", ">"]
    assert not any(piece.is_control or piece.loss for piece in found)


def test_a_character_in_several_tokens_is_shown_as_its_bytes(tokens: Any) -> None:
    found = [piece.text for piece in pieces(tokens, ids(tokens, "a你!🙂"))]
    assert found == ["a", "\\xe4", "\\xbd", "\\xa0", "!", "\\xf0", "\\x9f", "\\x99", "\\x82"]


def test_a_replacement_character_of_the_text_is_itself() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE({"ï": 0, "¿": 1, "½": 2, "ï¿": 3, "ï¿½": 4}, [("ï", "¿"), ("ï¿", "½")]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=made)
    assert [piece.text for piece in pieces(fast, [4, 3, 2])] == ["\ufffd", "\\xef\\xbf", "\\xbd"]


def test_spaces_and_bytes_of_a_sentencepiece_vocabulary() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"▁Tom": 0, "▁has": 1, "<0xE4>": 2, "<0xBD>": 3, "<0xA0>": 4, "6": 5}
    made = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=made)
    found = [piece.text for piece in pieces(fast, [0, 1, 5, 2, 3, 4, 1])]
    assert found == ["Tom", " has", "6", "\\xe4", "\\xbd", "\\xa0", " has"]
    later = around(fast, side("one", [5, 5, 1, 5, 5, 5, 5, 5, 5, 5]), 8).splitlines()[0]
    assert later.startswith("one         … ' has' '6'")
    assert compared(fast, side("one", [5, 1]), side("two", [5, 5]), 1).endswith("one has ' has' (1), two '6' (5)")


@given(WHOLE)
def test_no_byte_is_lost(tokens: Any, text: str) -> None:
    assert unescaped("".join(piece.text for piece in pieces(tokens, ids(tokens, text)))) == text.encode()


def test_an_empty_sequence(tokens: Any) -> None:
    assert pieces(tokens, []) == []
    assert around(tokens, side("training", []), 0).split() == ["training"]


def test_the_mask_is_as_long_as_the_row(tokens: Any) -> None:
    with pytest.raises(ValueError, match="shorter"):
        pieces(tokens, [1, 2], [True])


def side(label: str, numbers: list[int], mark: int = 0, meaning: str = "") -> Side:
    return Side(label, np.array(numbers, dtype=np.int32), mark, meaning)


def test_columns_stand_under_one_another(tokens: Any) -> None:
    left = ids(tokens, "Tom has 6 coins.") + ids(tokens, "<|im_end|>")
    right = [*left[:3], *ids(tokens, "<think>"), *left[3:]]
    shown = compared(tokens, side("one", left, 3, "begins"), side("other", right, 4, "goes on"), 3).splitlines()
    assert shown[0].startswith("one")
    assert shown[2].startswith("other")
    assert shown[0].endswith("(| begins)")
    assert shown[2].endswith("(| goes on)")
    place = shown[4].index("^")
    assert all(line[place] != " " and line[place - 1] == " " for line in shown[:4])
    assert shown[0][place - 2] == "|"
    assert shown[2][place - 2] == " "
    assert shown[5] == f"first difference at token 3: one has ' coins' ({left[3]}), other '<think>' (308)"


def test_a_long_sequence_is_shown_around_the_place(tokens: Any) -> None:
    numbers = ids(tokens, "0123456789" * 5)
    shown = aligned(tokens, [side("one", numbers, 45, "begins"), side("two", numbers[:22])], 20).splitlines()
    assert shown[0].startswith("one         … '4' '5' '6' '7' '8' '9' '0' '1'")
    assert shown[0].endswith("'7' …   (begins: token 45)")
    assert shown[2] == "two         … '4' '5' '6' '7' '8' '9' '0' '1'"
    assert len(shown) == 4
    assert around(tokens, side("one", numbers[:28]), 20).splitlines()[0].endswith("'7'")
    assert around(tokens, side("one", numbers[:29]), 20).splitlines()[0].endswith("'7' …")
    assert around(tokens, side("one", numbers), 0).splitlines()[0] == "one           '0' '1' '2' '3' '4' '5' '6' '7' …"


def test_a_very_long_token_is_cut(tokens: Any) -> None:
    from transformers import PreTrainedTokenizerFast

    long = PreTrainedTokenizerFast(tokenizer_object=tokens.backend_tokenizer)
    long.add_tokens(["x" * 100])
    shown = around(long, side("one", ids(long, "x" * 100)), 0)
    assert "x" * 27 + "…'" in shown
    assert "x" * 28 not in shown


@given(left=st.lists(st.integers(0, 1), max_size=6), right=st.lists(st.integers(0, 1), max_size=6))
def test_first_difference(left: list[int], right: list[int]) -> None:
    place = first_difference(np.array(left, dtype=np.int32), np.array(right, dtype=np.int32))
    assert left[:place] == right[:place]
    assert place == min(len(left), len(right)) or left[place] != right[place]


def test_an_excerpt_says_that_it_is_one() -> None:
    assert excerpt("abcdef", 3, 2) == "… 'bcde' …"
    assert excerpt("ab\n", 0, 10) == "'ab\\n'"
    assert excerpt("it's", 0, 10) == "'it\\'s'"
