"""The fast tokenising path: the same tokens as the tokenizer's own, or none at all."""

from __future__ import annotations

import functools
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from distillbench.errors import StageError
from distillbench_plugins.renderers import tokenise
from distillbench_plugins.renderers.bpe_checks import why_not
from distillbench_plugins.renderers.fast_bpe import FastBpe, fast_bpe, fast_bpe_of
from distillbench_plugins.renderers.tokenise import Tokeniser

REAL = Path(__file__).parents[4] / "shared" / "data" / "tokenizers" / "real"
#: Of Qwen, and of Llama 3, whose numbers have up to three digits.
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    "qwen": rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_TAIL}",
    "llama3": rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_TAIL}",
}
TEXTS = [
    "So let us check: 12 + 34 = 46, and 46 - 3 = 43. Wait, let me re-check this sum again.",
    "def f(x):\n    return x ** 2 + 1\n\n\nprint(f(3))\r\n",
    "Ångström, naïve, Ünïcödé; 你好世界 🙂🙂 ½ ² ٣",
    "\\frac{1}{2} \\boxed{42}   \t  end",
]


def trained(pattern: str, **more: Any) -> Tokenizer:
    """A byte-level BPE of a few hundred tokens."""
    found = Tokenizer(models.BPE(**more))
    found.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    found.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    found.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    found.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(vocab_size=420, initial_alphabet=sorted(alphabet)))
    found.add_special_tokens([AddedToken("<|end|>", special=True)])
    return found


@pytest.fixture(scope="module", params=sorted(PATTERNS))
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return trained(PATTERNS[request.param])


def fast_ids(found: Tokenizer, text: str) -> list[int] | None:
    """What the fast path makes of a text."""
    ids = fast(found).ids(text)
    return None if ids is None else ids.tolist()


def lists(rows: list[Any]) -> list[list[int]]:
    """Rows as lists."""
    return [row.tolist() for row in rows]


def bound(found: Tokenizer) -> Tokeniser:
    return Tokeniser(PreTrainedTokenizerFast(tokenizer_object=found, eos_token="<|end|>"), "renderer 'test'")


def fast(found: Tokenizer) -> FastBpe:
    path = fast_bpe_of(found.to_str())
    assert isinstance(path, FastBpe), path
    return path


PIECES = [*"aA é\u0301ñ\r\n\t 0123½٣你🙂\u200b\ufeff'\u017f\u0378", "'ll", "  ", "the", "\n\n", "12345", "'\u212a"]


@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
    | st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
)
def test_tokens_are_those_of_the_tokenizer_or_it_is_asked(tokenizer: Tokenizer, text: str) -> None:
    text = text.replace("<|end|>", "")
    assert fast_ids(tokenizer, text) in (None, tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize("text", ["half a character \ud800", "not yet given \u0378", "it'\u017f", "\u212aelvin"])
def test_characters_that_may_not_be_known_alike_are_left_to_the_tokenizer(tokenizer: Tokenizer, text: str) -> None:
    assert fast(tokenizer).ids(text) is None
    assert all(fast(tokenizer).ids(one) is not None for one in TEXTS)


def test_a_long_run_of_one_kind_is_the_same_too(tokenizer: Tokenizer) -> None:
    for text in ("a" * 5000, " " * 3000, "\n" * 2000 + "x", "7" * 4000, "🙂" * 900, "a" + "\u0301\u0316" * 40_000):
        assert fast_ids(tokenizer, text) == tokenizer.encode(text, add_special_tokens=False).ids


def _changed(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(trained(PATTERNS["qwen"]).to_str())
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = found
        for parent in parents:
            place = place[int(parent)] if isinstance(place, list) else place[parent]  # type: ignore[assignment]
        place[int(last) if isinstance(place, list) else last] = value  # type: ignore[index]
    return found


SPLIT = {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Isolated", "invert": False}
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model__type": "Unigram"}, "its model is Unigram"),
        ({"normalizer": {"type": "Lowercase"}}, "its normalizer is Lowercase"),
        ({"model__byte_fallback": True}, "its model has byte_fallback"),
        ({"model__dropout": 0.1}, "its model has dropout"),
        ({"model__end_of_word_suffix": "</w>"}, "its model has end_of_word_suffix"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [SPLIT] * 3 + [LEVEL]}}, "does not split by one"),
        ({"pre_tokenizer": None}, "does not split by one"),
        ({"pre_tokenizer__pretokenizers__0__behavior": "Removed"}, "not one that isolates"),
        ({"pre_tokenizer__pretokenizers__1__use_regex": True}, "splits a second time"),
        ({"added_tokens__0__content": "  "}, "white space is among its added tokens"),
        ({"added_tokens__0__content": "a"}, "a word of its vocabulary too"),
        ({"model__unk_token": "a"}, "its model has unk_token"),
    ],
)
def test_what_the_fast_path_cannot_stand_for_goes_the_slow_way(changes: dict[str, Any], why: str) -> None:
    assert why in why_not(_changed(**changes))
    assert not why_not(_changed())


def test_merges_in_another_order_go_the_slow_way() -> None:
    found = _changed()
    found["model"]["merges"][3], found["model"]["merges"][9] = (found["model"]["merges"][n] for n in (9, 3))
    assert why_not(found) == "its merges are not in the order of what they make"


def _with_words(*words: str, **model: Any) -> str:
    found = _changed()
    found["model"]["vocab"] |= {word: 1000 + place for place, word in enumerate(words)}
    found["model"] |= model
    return json.dumps(found)


def test_a_word_that_its_merges_do_not_make_is_in_no_text() -> None:
    text = _with_words("zqzq")
    assert fast_ids(Tokenizer.from_str(text), "a zqzq") == Tokenizer.from_str(text).encode("a zqzq").ids


def test_a_word_that_is_taken_only_where_it_stands_alone_goes_the_slow_way() -> None:
    """`tiktoken` would join any two tokens that spell it, and the merges lack `zq` and `zq`."""
    found = fast_bpe_of(_with_words("zq", "zqzq", ignore_merges=True))
    assert found == "its merges do not make 'zq', which is in its vocabulary"


def test_a_vocabulary_of_other_characters_goes_the_slow_way() -> None:
    assert "no text of bytes" in str(fast_bpe_of(_with_words("語")))


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"\w+|.", "its pattern has"),
        (r"\p{L}+|\p{N}|[^\p{L}\p{N}\n]", "does not find '\\n', which tiktoken would leave out"),
        (r"\p{L}+| ?[^\s\p{L}]+", "does not find '\\t', which tiktoken would leave out"),
        (r"\p{L}+(?=a)|\p{L}|\P{L}", "its pattern has '(?=a'"),
        (r"(?<!x)\p{L}+|\p{L}|\P{L}", "its pattern has '(?<!"),
        (r"^\p{L}+|\p{L}|\P{L}", "its pattern has '^'"),
        (r"\p{L}{1,3}+|\P{L}", "its pattern has '{1,3}+'"),
        (r"[[:alpha:]]+|[^a]|a", "its pattern has '[:'"),
        (r"\h+|\p{L}|\P{L}", "its pattern has '\\\\h'"),
        (r"\p{Han}+|\p{L}|\P{L}", "its pattern has '\\\\p{Han}'"),
    ],
)
def test_a_pattern_that_loses_text_or_may_be_read_otherwise_goes_the_slow_way(pattern: str, why: str) -> None:
    assert why in str(fast_bpe_of(trained(pattern).to_str()))


@pytest.mark.parametrize("pattern", [r"\s?\p{L}+|\s?\p{N}+|\s?[^\s\p{L}\p{N}]+|\s+", r"\p{Lu}?\p{L}|\P{L}{1,2}|\n+"])
@given(text=st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_another_pattern_that_finds_all_text_is_fast_too(pattern: str, text: str) -> None:
    found = made(pattern)
    assert fast_ids(found, text) in (None, found.encode(text, add_special_tokens=False).ids)


made = functools.cache(trained)


def test_many_texts_go_the_fast_way_and_few_do_not(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    few = bound(tokenizer)
    few.encode_rows([TEXTS])
    assert few.how() == "tokenizers (few texts so far)"
    monkeypatch.setattr(tokenise, "_WORTH_IT", 10)
    many = bound(tokenizer)
    rows = [[one, 3, two] for one in TEXTS for two in TEXTS]
    assert lists(many.encode_rows(rows)) == lists(bound_slowly(tokenizer).encode_rows(rows))
    assert many.how() == "tiktoken"


def bound_slowly(tokenizer: Tokenizer) -> Tokeniser:
    found = bound(tokenizer)
    found._fast = "for a test"
    return found


class _Fails:
    """An encoding that fails as one written in Rust does, on some texts."""

    def __init__(self, real: Any, on: str, how: BaseException) -> None:
        self.real, self.on, self.how = real, on, how

    def encode_to_numpy(self, text: str, **options: Any) -> Any:
        if self.on in text:
            raise self.how
        found = self.real.encode_to_numpy(text, **options)
        return found


class PanicException(BaseException):
    """As pyo3 raises it."""


def test_a_text_on_which_it_fails_goes_the_slow_way(tokenizer: Tokenizer) -> None:
    found = bound(tokenizer)
    real = fast(tokenizer)
    found._fast = FastBpe(_Fails(real._encoding, "Wait", PanicException("stack overflow")), True)
    assert lists(found.encode_rows([TEXTS])) == lists(bound_slowly(tokenizer).encode_rows([TEXTS]))
    found._fast = FastBpe(_Fails(real._encoding, "Wait", KeyboardInterrupt()), True)
    with pytest.raises(KeyboardInterrupt):
        found.encode_rows([TEXTS])


def test_one_difference_is_an_error_that_names_the_text(tokenizer: Tokenizer) -> None:
    class Wrong:
        def encode_to_numpy(self, text: str, **options: Any) -> Any:
            return np.array([5, 6, 7], np.uint32)

    found = bound(tokenizer)
    found._fast = FastBpe(Wrong(), True)
    with pytest.raises(StageError, match=r"renderer 'test': tiktoken makes other tokens .*(\n.*)*So let us check"):
        found.encode_rows([TEXTS[:1]])


@pytest.mark.parametrize(("name", "is_fast"), [("qwen3", True), ("llama3_1", True), ("deepseek_v3", False)])
def test_the_real_tokenizers(name: str, is_fast: bool) -> None:
    path = REAL / name / "tokenizer.json.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        real = Tokenizer.from_str(file.read())
    made = fast_bpe(PreTrainedTokenizerFast(tokenizer_object=real))
    assert isinstance(made, FastBpe) is is_fast
    if isinstance(made, FastBpe):
        for text in TEXTS:
            found = made.ids(text)
            assert found is not None and found.tolist() == real.encode(text, add_special_tokens=False).ids
