"""Text and control tokens to ids: the text of a control token in somebody's data never becomes that token."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distillbench.errors import StageError
from distillbench_plugins.renderers.fast_bpe import FastBpe, fast_bpe, known

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

#: Stands before a text that does not begin its row, while it is tokenised; a private-use character.
_BEFORE = "\U000ffffd"
#: Characters from which on it is worth the two seconds that it takes to make the faster way.
_WORTH_IT = 500_000
#: Of the texts that the faster way takes, the first ones and one of so many are compared.
_FIRST, _COMPARED = 8, 400


@dataclass(frozen=True, slots=True)
class Beginning:
    """Text at the beginning of a whole text, where some tokenizers put a blank."""

    text: str


#: The id of a control token, or text that is tokenised on its own.
Segment = int | str | Beginning


class Tokeniser:
    """A tokenizer taken apart: its vocabulary and merges for text, its added tokens only where they are asked for.

    Control tokens are all added tokens, special or not (`<think>` is not special), but those of white space alone.
    `split_special_tokens=True` of transformers would leave `<think>` in user text a control token.

    Sentencepiece tokenizers put a blank before a text, some of them before every text between control tokens (Llama 2,
    Phi-3), others only where the whole text begins (Mistral): there a text after the beginning is tokenised behind a
    token that is taken away again.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, owner: str) -> None:
        """Takes a tokenizer apart, in microseconds: the vocabulary is shared, not copied.

        Args:
            tokenizer: A fast one.
            owner: Whose it is, for the messages: `renderer 'qwen3'`.

        Raises:
            StageError: It is no fast tokenizer, or splits text in a way that depends on what stands before.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise StageError(
                f"{owner}: the student's tokenizer ({type(tokenizer).__name__}) is not a fast one\n"
                f"    wanted: a tokenizer with a `tokenizer.json`, as AutoTokenizer loads it by default"
            )
        self._owner = owner
        added: Mapping[int, Any] = backend.get_added_tokens_decoder()
        self._added = {token.content: token for token in added.values() if token.content.strip()}
        self.control_ids = {token.content: number for number, token in added.items() if token.content.strip()}
        self._control_text = any_of(self.control_ids)
        self._plain = self._without_control(backend, added)
        # Characters that the vocabulary lacks become the unknown token: that is what it is there for.
        unknown = getattr(backend.model, "unk_token", None)
        self._never = frozenset(number for text, number in self.control_ids.items() if text != unknown)
        self._odd = {text: token for text, token in self._added.items() if self._is_odd(text, token)}
        self._inner = self._behind_a_token(backend)
        self._refuse_context(backend)
        self._tokenizer = tokenizer
        self._fast: FastBpe | str | None = None
        self._n_characters = self._n_fast = 0

    def control_id(self, token: str) -> int:
        """The id of a control token.

        Raises:
            StageError: The tokenizer has no such token.
        """
        found = self.control_ids.get(token)
        if found is None:
            raise StageError(
                f"{self._owner}: the student's tokenizer has no token {token!r}\n"
                f"    hint: take the renderer of the student's own family, or `renderer: chat-template`, which follows "
                f"the tokenizer's own template"
            )
        return found

    def split(self, text: str, hidden: Mapping[str, str] | None = None, begins: bool = False) -> list[Segment]:
        """Splits a template's text at its control tokens; text between two of them stays one segment.

        Args:
            text: Every control token's text in it is that token.
            hidden: Placeholder characters in it, and the text that they stand for.
            begins: Whether it is the beginning of a row.
        """
        parts = self._control_text.split(text)  # text, token, text, ..., token, text
        segments: list[Segment] = []
        for place in range(1, len(parts), 2):
            if parts[place] in self._odd:
                self._strip_around(parts, place)
        for place, part in enumerate(parts):
            if place % 2:
                segments.append(self.control_ids[part])
            elif part:
                whole = restored(part, hidden) if hidden else part
                segments.append(Beginning(whole) if begins and not place else whole)
        return segments

    def encode_rows(self, rows: Sequence[Iterable[Segment]]) -> list[NDArray[np.int32]]:
        """The ids of many rows of segments, each int32[T]; a text that many rows share is tokenised once."""
        import numpy as np

        texts = dict.fromkeys(segment for row in rows for segment in row if not isinstance(segment, int))
        controls = {segment for row in rows for segment in row if isinstance(segment, int)}
        ids = self._encode(list(texts)) | {number: np.array([number], np.int32) for number in controls}
        none = np.zeros(0, np.int32)
        return [np.concatenate([ids[segment] for segment in row] or [none]) for row in rows]

    def how(self) -> str:
        """How texts become tokens, for people: the library, and where it is the slower one, why."""
        if self._fast is None:
            return "tokenizers (few texts so far)"
        return f"tokenizers ({self._fast})" if isinstance(self._fast, str) else "tiktoken"

    def _encode(self, segments: Sequence[str | Beginning]) -> dict[Segment, NDArray[np.int32]]:
        """The ids of each text, none of them a control token's."""
        import numpy as np

        fast = self._fast_path(segments)
        found: dict[Segment, NDArray[np.int32]] = {}
        if not isinstance(fast, str):
            made = {one: fast.ids(one.text if isinstance(one, Beginning) else one) for one in segments}
            found = {one: ids for one, ids in made.items() if ids is not None}
            self._compare([one for one in segments if one in found], found)
        rest = [one for one in segments if one not in found]
        again = zip(rest, self._safe_ids(rest), strict=True)
        return found | {one: np.array(ids, np.int32) for one, ids in again}

    def _safe_ids(self, segments: Sequence[str | Beginning]) -> list[list[int]]:
        """As `_ids`, and none of them a control token's."""
        return [
            ids if self._never.isdisjoint(ids) else self._encode_broken(one)  # its text is a word of the vocabulary
            for one, ids in zip(segments, self._ids(segments), strict=True)
        ]

    def _fast_path(self, segments: Sequence[str | Beginning]) -> FastBpe | str:
        """The faster way; why there is none, which may be that it is not worth its making yet."""
        if self._fast is None and not self._lead:
            self._fast = known(self._tokenizer)
        if self._fast is None:
            self._n_characters += sum(len(one.text if isinstance(one, Beginning) else one) for one in segments)
            if self._n_characters < _WORTH_IT:
                return "few texts so far"
            self._fast = "a text after a control token is another one" if self._lead else fast_bpe(self._tokenizer)
        return self._fast

    def _compare(self, texts: Sequence[str | Beginning], found: Mapping[Segment, NDArray[np.int32]]) -> None:
        """Compares the first texts, and one of many after them, with what the tokenizer itself makes.

        Raises:
            StageError: It makes something else.
        """
        n = self._n_fast
        self._n_fast += len(texts)
        chosen = [one for place, one in enumerate(texts, n) if place % _COMPARED == 0 or place < _FIRST]
        for segment, theirs in zip(chosen, self._safe_ids(chosen), strict=True):
            ours = found[segment].tolist()
            if ours != theirs:
                raise StageError(self._difference(segment, ours, theirs))

    def _difference(self, segment: str | Beginning, ours: list[int], theirs: list[int]) -> str:
        text = segment.text if isinstance(segment, Beginning) else segment
        differs = (n for n, (mine, other) in enumerate(zip(ours, theirs, strict=False)) if mine != other)
        place = next(differs, min(len(ours), len(theirs)))
        return (
            f"{self._owner}: tiktoken makes other tokens of a text than the student's tokenizer, from {place} on\n"
            f"    text:       {text[:200]!r}\n"
            f"    tiktoken:   {ours[max(0, place - 2) : place + 6]}\n"
            f"    tokenizers: {theirs[max(0, place - 2) : place + 6]}\n"
            f"    this is a fault of distillbench: please report it with the text"
        )

    def _ids(self, segments: Sequence[str | Beginning]) -> list[list[int]]:
        """The ids of each text, where it stands."""
        texts = [one.text if isinstance(one, Beginning) else f"{self._lead}{one}" for one in segments]
        encodings = self._inner.encode_batch_fast(texts, add_special_tokens=False)
        skipped = len(self._lead)
        return [
            one.ids if isinstance(segment, Beginning) else one.ids[skipped:]
            for segment, one in zip(segments, encodings, strict=True)
        ]

    def _encode_broken(self, segment: str | Beginning) -> list[int]:
        """The ids of a text in which every control token's text is broken after its first character."""
        text = segment.text if isinstance(segment, Beginning) else segment
        places = [match.start() + 1 for match in self._control_text.finditer(text)]
        parts = [text[start:stop] for start, stop in zip([0, *places], [*places, len(text)], strict=True)]
        first: list[str | Beginning] = [Beginning(parts[0]) if isinstance(segment, Beginning) else parts[0]]
        ids = [number for part in self._ids([*first, *parts[1:]]) for number in part]
        if not self._never.isdisjoint(ids):
            raise StageError(
                f"{self._owner}: the student's tokenizer makes a control token of plain text: {text[:80]!r}\n"
                f"    hint: its vocabulary reaches a control token without that token's text; take another tokenizer"
            )
        return ids

    def _without_control(self, backend: Any, added: Mapping[int, Any]) -> Any:
        """The tokenizer without control tokens and without what it puts around a text."""
        from tokenizers import Tokenizer

        plain = Tokenizer(backend.model)
        if backend.normalizer is not None:
            plain.normalizer = backend.normalizer
        if backend.pre_tokenizer is not None:
            plain.pre_tokenizer = backend.pre_tokenizer
        blank = {token.content: number for number, token in added.items() if not token.content.strip()}
        plain.add_tokens([token for token in added.values() if token.content in blank])
        if any(plain.token_to_id(text) != number for text, number in blank.items()):
            raise StageError(f"{self._owner}: the student's tokenizer adds white space to its vocabulary: {[*blank]}")
        return plain

    def _behind_a_token(self, backend: Any) -> Any:
        """The tokenizer for texts that do not begin a row: with a token to stand before them, where that matters."""
        from tokenizers import AddedToken

        inner = self._without_control(backend, backend.get_added_tokens_decoder())
        inner.add_tokens([AddedToken(_BEFORE, normalized=False)])
        told = inner.encode(f"{_BEFORE}a b", add_special_tokens=False).ids[1:]
        is_moved = told != self._plain.encode("a b", add_special_tokens=False).ids
        self._lead = _BEFORE if is_moved else ""
        self._never |= {inner.token_to_id(_BEFORE)} if is_moved else set()
        return inner if is_moved else self._plain

    def _is_odd(self, text: str, token: Any) -> bool:
        """Whether a token is found in another way than by its text alone."""
        normalizer = self._plain.normalizer
        is_changed = token.normalized and normalizer is not None and normalizer.normalize_str(text) != text
        return bool(token.lstrip or token.rstrip or token.single_word or is_changed)

    def _strip_around(self, parts: list[str], place: int) -> None:
        """Takes the white space away that a token swallows, as the tokenizer does."""
        token = self._odd[parts[place]]
        if not (token.lstrip or token.rstrip) or token.single_word:
            raise StageError(
                f"{self._owner}: the student's tokenizer finds {parts[place]!r} only between words or after rewriting "
                f"the text; no renderer can follow that"
            )
        if token.lstrip:
            parts[place - 1] = parts[place - 1].rstrip()
        if token.rstrip:
            parts[place + 1] = parts[place + 1].lstrip()

    def _refuse_context(self, backend: Any) -> None:
        """Refuses a tokenizer that splits a text after a control token in a way that cannot be followed."""
        token = next((text for text in self.control_ids if text not in self._odd), None)
        if token is None:
            return
        whole = backend.encode(f"{token}a b", add_special_tokens=False).ids
        if whole != [self.control_ids[token], *self._ids(["a b"])[0]]:
            raise StageError(
                f"{self._owner}: the student's tokenizer splits a text after a control token differently than alone, "
                f"so that rows would not be the official template's\n"
                f"    hint: take the tokenizer that the model's publisher ships, as AutoTokenizer loads it"
            )


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Finds any of some texts, the leftmost and of these the longest, as tokenizers do; nothing when there are none."""
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("(" + ("|".join(map(re.escape, longest_first)) or r"(?!)") + ")")


def restored(text: str, hidden: Mapping[str, str]) -> str:
    """A text with what its placeholder characters stand for."""
    return text.translate({ord(char): meant for char, meant in hidden.items()})
