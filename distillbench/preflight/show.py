"""Tokens as a person reads them: nothing is hidden, and nothing that a terminal would obey is printed raw."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

#: Tokens shown before and after the place that matters.
_BEFORE, _AFTER = 6, 8
_WIDEST = 28
_LABEL = 12
#: A byte that is part of no character, as `surrogateescape` writes it.
_FIRST_BYTE, _LAST_BYTE = 0xDC80, 0xDCFF
_BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, slots=True)
class Piece:
    r"""One token, readable.

    Attributes:
        text: Its text; characters that cannot be printed as `\n` or `\x1b`, a part of a character as its bytes `\xe4`.
        token_id: Its id.
        loss: Whether it carries loss.
        is_control: Whether it is an added token of the vocabulary, and no text.
    """

    text: str
    token_id: int
    loss: bool
    is_control: bool


@dataclass(frozen=True, slots=True)
class Side:
    """One of two sequences that are shown together.

    Attributes:
        label: What it is.
        input_ids: int32[T].
        mark: A place to mark with a bar; T marks the end.
        meaning: What the bar means; empty for no bar.
    """

    label: str
    input_ids: NDArray[np.int32]
    mark: int = 0
    meaning: str = ""

    def legend(self, start: int, stop: int) -> str:
        """What the bar means, or where it would stand outside of what is shown."""
        if not self.meaning:
            return ""
        return f"   (| {self.meaning})" if start <= self.mark < stop else f"   ({self.meaning}: token {self.mark})"


def pieces(
    tokenizer: PreTrainedTokenizerBase, input_ids: Iterable[int], loss_mask: Iterable[bool] | None = None
) -> list[Piece]:
    """Every token of a row or a prompt, readable.

    Args:
        tokenizer: The student's.
        input_ids: T ids.
        loss_mask: T marks; None where nothing carries loss.
    """
    ids = [int(token_id) for token_id in input_ids]
    marks = [False] * len(ids) if loss_mask is None else [bool(mark) for mark in loss_mask]
    added = tokenizer.added_tokens_decoder
    return [
        Piece(_text(tokenizer, ids[max(0, place - 1) : place], token_id), token_id, mark, token_id in added)
        for place, (token_id, mark) in enumerate(zip(ids, marks, strict=True))
    ]


def decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """The text of tokens, control tokens kept, nothing tidied up."""
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def escaped(text: str) -> str:
    r"""Text without anything that a terminal would obey: line breaks, controls and the like as `\n`, `\x1b`."""
    return "".join(_escaped_character(character) for character in text)


def harmless(text: str) -> str:
    """Somebody's message as it is, but for what a terminal would obey; line breaks stay."""
    return "".join(c if c in "\n\\" else _escaped_character(c) for c in text)


def quoted(text: str) -> str:
    """Escaped text between quotes."""
    return "'" + escaped(text).replace("'", "\\'") + "'"


def excerpt(text: str, place: int, around: int = 60) -> str:
    """What stands around a place of a text, escaped and on one line."""
    start, stop = max(0, place - around), place + around
    return ("… " if start else "") + quoted(text[start:stop]) + (" …" if stop < len(text) else "")


def aligned(tokenizer: PreTrainedTokenizerBase, sides: Sequence[Side], place: int) -> str:
    """Sequences around a place, one above the other, a column for each place."""
    return "\n".join(_lines(tokenizer, sides, place, pointed=False))


def around(tokenizer: PreTrainedTokenizerBase, side: Side, place: int) -> str:
    """The tokens around a place of one sequence."""
    return aligned(tokenizer, [side], place)


def compared(tokenizer: PreTrainedTokenizerBase, left: Side, right: Side, place: int) -> str:
    """Two sequences around the first place where they differ, one above the other, and the difference in words.

    Args:
        tokenizer: The student's.
        left: The first sequence.
        right: The second one.
        place: Where they differ first; the length of the shorter one where it is the longer one's beginning.
    """
    got, wanted = (_named(tokenizer, side, place) for side in (left, right))
    return "\n".join(
        [
            *_lines(tokenizer, [left, right], place, pointed=True),
            f"first difference at token {place}: {left.label} has {got}, {right.label} {wanted}",
        ]
    )


def first_difference(left: NDArray[np.int32], right: NDArray[np.int32]) -> int:
    """The first place where two sequences differ; the length of the shorter one where it is the other's beginning."""
    n = min(len(left), len(right))
    differs = left[:n] != right[:n]
    return int(differs.argmax()) if differs.any() else n


def _named(tokenizer: PreTrainedTokenizerBase, side: Side, place: int) -> str:
    if place >= len(side.input_ids):
        return "nothing more"
    piece = pieces(tokenizer, side.input_ids[max(0, place - 1) : place + 1])[-1]
    return f"{_quoted_piece(piece)} ({piece.token_id})"


def _quoted_piece(piece: Piece) -> str:
    text = piece.text if len(piece.text) <= _WIDEST else piece.text[: _WIDEST - 1] + "…"
    return "'" + text.replace("'", "\\'") + "'"


def _lines(tokenizer: PreTrainedTokenizerBase, sides: Sequence[Side], place: int, pointed: bool) -> list[str]:
    """For each side a line of tokens and a line of ids, in columns, and a pointer to the place."""
    start, stop = max(0, place - _BEFORE), place + _AFTER
    columns = [_cells(tokenizer, side, start, stop) for side in sides]
    widths = [max(len(part) for cells in columns for part in cells[number]) for number in range(stop - start)]
    marks = {side.mark - start for side in sides if side.meaning}
    gaps = ["   " if number in marks else " " for number in range(stop - start)]
    lines = []
    for side, cells in zip(sides, columns, strict=True):
        bars = [" | " if side.meaning and start + number == side.mark else gap for number, gap in enumerate(gaps)]
        texts = _row([text for text, _ in cells], widths, bars)
        more = " …" if len(side.input_ids) > stop else ""
        lines.append(f"{side.label:{_LABEL}}{'…' if start else ' '}{texts}{more}{side.legend(start, stop)}")
        lines.append(" " * (_LABEL + 1) + _row([token_id for _, token_id in cells], widths, gaps))
    if pointed:
        spaces = sum(map(len, gaps[: place - start + 1])) + sum(widths[: place - start])
        lines.append(" " * (_LABEL + 1 + spaces) + "^")
    return lines


def _row(parts: Sequence[str], widths: Sequence[int], gaps: Sequence[str]) -> str:
    return "".join(gap + part.ljust(width) for part, width, gap in zip(parts, widths, gaps, strict=True)).rstrip()


def _cells(tokenizer: PreTrainedTokenizerBase, side: Side, start: int, stop: int) -> list[tuple[str, str]]:
    """Text and id of the tokens from `start` to `stop`; empty ones where the sequence has ended."""
    context = max(0, start - 1)  # some tokenizers need the token before to write a space
    found = pieces(tokenizer, side.input_ids[context:stop])[start - context :]
    cells = [(_quoted_piece(piece), str(piece.token_id)) for piece in found]
    return cells + [("", "")] * (stop - start - len(cells))


def _text(tokenizer: PreTrainedTokenizerBase, before: list[int], token_id: int) -> str:
    """A token's own text, as it reads after the token before it."""
    head, whole = decoded(tokenizer, before), decoded(tokenizer, [*before, token_id])
    text = whole.removeprefix(head) if before and whole.startswith(head) else decoded(tokenizer, [token_id])
    if text and "\ufffd" not in text:
        return escaped(text)
    raw = tokenizer.convert_ids_to_tokens(token_id)
    return escaped(_bytes(raw).decode("utf-8", "surrogateescape") if isinstance(raw, str) else text)


def _bytes(raw: str) -> bytes:
    """The bytes behind a token of the vocabulary: byte-level, a byte of a byte fallback, or plain text."""
    if found := _BYTE_TOKEN.fullmatch(raw):
        return bytes([int(found.group(1), 16)])
    if all(character in _BYTES for character in raw):
        return bytes(_BYTES[character] for character in raw)
    return raw.encode("utf-8", "surrogatepass")


def _byte_characters() -> dict[str, int]:
    """The character that stands for each byte in a byte-level vocabulary.

    Source: bytes_to_unicode of openai/gpt-2.
    """
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + number): byte for number, byte in enumerate(others)}


_BYTES = _byte_characters()


def _escaped_character(character: str) -> str:
    if _FIRST_BYTE <= ord(character) <= _LAST_BYTE:
        return f"\\x{ord(character) - 0xDC00:02x}"
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    if 0x80 <= ord(character) <= 0xFF:  # with two digits it would look like a byte that is part of no character
        return f"\\u{ord(character):04x}"
    return character.encode("unicode_escape").decode("ascii")
