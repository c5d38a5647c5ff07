"""Secrets: how an API key is read, and how it is kept out of every text that comes from a server.

A server repeats what it was sent: in error pages, headers, names, and in what it says a model wrote. So whatever it
sends passes through `Secrets.hide` where it comes in, before anything is made of it, cut, shown or kept.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

HIDDEN = "[API key]"
_MOST_SHOWN = 300
#: What is shorter is no secret but a word such as `EMPTY`, which answers may hold.
_LEAST_SECRET = 6
#: So many characters of a secret in a row are hidden: what a cut leaves of it.
_PIECE = 8
#: Layers of escaping that are looked through.
_LAYERS = 3
#: A character that is written otherwise: in an address, in JSON, in HTML.
_ESCAPE = re.compile(
    r"%(?P<percent>[0-9a-fA-F]{2})|\\+u\{?(?:00)?(?P<json>[0-9a-fA-F]{2})\}?|\\+x(?P<hex>[0-9a-fA-F]{2})"
    r"|&#x0*(?P<html>[0-9a-fA-F]{2});?|&#0*(?P<decimal>[0-9]{2,3});?"
)
#: White space as JSON writes it.
_BLANK = re.compile(r"\\+[nrtbf]")
#: What may stand between the parts of a text that is written in pieces.
_BETWEEN = dict.fromkeys([*range(33), *map(ord, "\\\"'`,+\x85\xa0\xad\u200b\u200c\u200d\u2028\u2029\u2060\ufeff")])

Spans = list[tuple[int, int]]


class Secrets:
    """Texts that are shown and kept nowhere: whole, in part, and in the forms in which servers repeat them.

    Args:
        values: The secrets. What is too short to be one is let be.
    """

    def __init__(self, values: Iterable[str | None]) -> None:
        secrets = {value for value in values if value and _is_secret(value)}
        self._forms = tuple(dict.fromkeys(_plain(form).lower() for value in secrets for form in _forms(value)))
        self._seeds = tuple((form, seed) for form in self._forms for seed in _seeds(form))

    def __repr__(self) -> str:
        return f"Secrets({len(self._forms)} forms)"

    def hide(self, text: str) -> str:
        """The text with `[API key]` in the place of each secret."""
        spans = [span for view in _views(text) for span in self._found(view)] if self.are_in(text) else []
        whole, place = [], 0
        for begin, end in _merged(spans):
            whole += [text[place:begin], HIDDEN]
            place = end
        return "".join([*whole, text[place:]])

    def are_in(self, text: str) -> bool:
        """Whether a text holds one of them, or a part of one."""
        return any(seed in view for view in _quick_views(text) for _, seed in self._seeds)

    def hide_all(self, value: Any) -> Any:
        """The same plain data, with every text in it hidden, names too."""
        if isinstance(value, str):
            return self.hide(value)
        if isinstance(value, Mapping):
            return {self.hide(str(name)): self.hide_all(entry) for name, entry in value.items()}
        return [self.hide_all(entry) for entry in value] if isinstance(value, list | tuple) else value

    def hide_bytes(self, content: bytes) -> bytes:
        """A server's answer, as what it is: JSON stays JSON, whatever its escapes spell."""
        text = content.decode("utf-8", "replace")
        if not self.are_in(text) and not self.are_in(_BLANK.sub("", text)):
            return content
        with suppress(ValueError, RecursionError):
            text = json.dumps(self.hide_all(json.loads(content)))
        return self.hide(text).encode(errors="replace")  # which may still hold one, in pieces

    def _found(self, view: tuple[str, Spans]) -> Iterator[tuple[int, int]]:
        """Where in a text a view of it holds any part of a secret that is long enough."""
        chars, spans = view
        for form, seed in self._seeds:
            place = chars.find(seed)
            while place >= 0:
                begin, end = _widened(chars, place, form, form.index(seed), len(seed))
                yield spans[begin][0], spans[end - 1][1]
                place = chars.find(seed, max(end - len(seed), place) + 1)


def read_key(variable: str | None) -> str | None:
    """The API key that an environment variable holds, without the white space around it; None where none is named.

    Raises:
        ValueError: It holds none, or what cannot be one, in words that do not show it.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        shown = variable if variable in os.environ or _is_plain_name(variable) else "that is named"
        raise ValueError(f"the environment variable {shown} does not hold an API key")
    if not (key.isascii() and key.isprintable()):
        what = "cannot be an API key: it has characters that no header may hold, such as a line break"
    elif " " in key:
        what = "cannot be an API key: it has a blank in it; wanted is the key alone, without `Bearer`"
    else:
        return key
    raise ValueError(f"what the environment variable {variable} holds {what}")


def on_one_line(text: str) -> str:
    """A server's words on one line, cut where they are long; secrets have been hidden before.

    Halves of characters, which JSON can hold and UTF-8 cannot, become question marks.
    """
    line = " ".join(text.encode(errors="replace").decode().split())
    return line if len(line) <= _MOST_SHOWN else f"{line[:_MOST_SHOWN]}..."


def _is_plain_name(variable: str) -> bool:
    """Whether this is how variables are named, and no key that was written in the place of a name."""
    return re.fullmatch(r"[A-Z][A-Z_]*(?:_[A-Z0-9]{1,8})*", variable) is not None and len(variable) <= 60


def _is_secret(value: str) -> bool:
    return len(value) >= _LEAST_SECRET and not (value.isdecimal() and len(value) < 2 * _PIECE)


def _forms(value: str) -> Iterator[str]:
    """A secret as it is, in hexadecimal digits, and in base64, wherever in a longer text it stands."""
    content = value.encode()
    yield value
    yield content.hex()
    for n_before in range(3):
        first, last = -(-n_before * 8 // 6), (n_before + len(content)) * 8 // 6
        encoded = base64.b64encode(bytes(n_before) + content).decode()[first:last]
        yield encoded
        yield encoded.translate(str.maketrans("+/", "-_"))


def _seeds(form: str) -> Sequence[str]:
    """Parts of a form, one of which stands in every longer part of it, in its begin and in its end."""
    if len(form) <= _PIECE:
        return [form]
    places = [*range(0, len(form) - _PIECE, _PIECE // 2), len(form) - _PIECE]
    return [form[place : place + _PIECE] for place in places]


def _plain(text: str) -> str:
    return text.translate(_BETWEEN)


def _character(escape: re.Match[str]) -> str:
    code = int(escape["decimal"]) if escape["decimal"] else int(next(filter(None, escape.groups())), 16)
    return chr(code)


def _quick_views(text: str) -> Iterator[str]:
    """A text without what may stand between pieces, as it is and with its escapes undone, layer by layer."""
    for _ in range(1 + _LAYERS):
        yield _plain(text).lower()
        text, before = _ESCAPE.sub(_character, text), text
        if text == before:
            return


def _views(text: str) -> Iterator[tuple[str, Spans]]:
    """The same views, with the place in the text of each of their characters."""
    chars, spans = text, [(place, place + 1) for place in range(len(text))]
    for _ in range(1 + _LAYERS):
        kept = [place for place, char in enumerate(chars) if ord(char) not in _BETWEEN]
        # a letter that has two in lower case is none of a secret's
        lower = "".join(char if len(char := chars[place].lower()) == 1 else "?" for place in kept)
        yield lower, [spans[place] for place in kept]
        if not _ESCAPE.search(chars):
            return
        chars, spans = _undone(chars, spans)


def _undone(chars: str, spans: Spans) -> tuple[str, Spans]:
    """A text with one layer of escapes undone, and where its characters stand."""
    parts: list[str] = []
    places: Spans = []
    end = 0
    for escape in _ESCAPE.finditer(chars):
        parts += [chars[end : escape.start()], _character(escape)]
        places += [*spans[end : escape.start()], (spans[escape.start()][0], spans[escape.end() - 1][1])]
        end = escape.end()
    return "".join([*parts, chars[end:]]), [*places, *spans[end:]]


def _widened(chars: str, place: int, form: str, offset: int, length: int) -> tuple[int, int]:
    """The longest part of a form around one that was found at a place."""
    begin, end = place, place + length
    while begin > 0 and offset > 0 and chars[begin - 1] == form[offset - 1]:
        begin, offset = begin - 1, offset - 1
    at = offset + (end - begin)
    while end < len(chars) and at < len(form) and chars[end] == form[at]:
        end, at = end + 1, at + 1
    return begin, end


def _merged(spans: Spans) -> Spans:
    """Spans in order, those that overlap or touch as one."""
    found: Spans = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found
