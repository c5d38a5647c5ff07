"""Answers that a server sends in pieces (server-sent events), put together as if they had come whole.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html for the framing, OpenAI's chat API for the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distillbench_plugins.servers.replies import parts_of, reasoning_of

_DONE = "[DONE]"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")


class BrokenStream(Exception):
    """What came is no whole answer; the text says why."""


def is_stream(content_type: str, content: bytes) -> bool:
    """Whether an answer came in pieces, whatever was asked for."""
    named = content_type.partition(";")[0].strip().lower() == "text/event-stream"
    return named or content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(_FIELDS)


def whole_answer(content: bytes) -> bytes:
    """The answer that the pieces make, as JSON.

    Raises:
        BrokenStream: An error came instead of a piece, or the stream ended before the answer did.
    """
    choice: dict[str, Any] = {}
    usage: Any = None
    is_ended = False
    for name, data in _events(content.decode("utf-8", "replace")):
        if data.strip() == _DONE:
            is_ended = True
            break
        piece = _piece(name, data)
        usage = piece.get("usage") or usage
        for part in piece.get("choices") or ():
            _add(choice, part)
    if not is_ended and choice.get("finish_reason") is None:
        raise BrokenStream("the stream ended before the answer did")
    if not choice:
        raise BrokenStream("the stream held no answer")
    choice.setdefault("finish_reason", None)
    return json.dumps({"choices": [choice], "usage": usage}).encode()


def _events(text: str) -> Iterator[tuple[str, str]]:
    """The name and the data of each event; comments and other fields are left out."""
    name, lines = "", list[str]()
    for line in [*text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n"), ""]:
        field, _, value = line.partition(":")
        if not line:
            yield from ((name, data) for data in _data(lines))
            name, lines = "", []
        elif field == "data":
            lines.append(value.removeprefix(" "))
        elif field == "event":
            name = value.strip()


def _data(lines: Sequence[str]) -> Sequence[str]:
    """One event's data; one for each line where a server forgot the empty lines between events."""
    whole = "\n".join(lines)
    if len(lines) < 2:
        return [whole] if whole.strip() else []
    try:
        json.loads(whole)
    except (ValueError, RecursionError):
        return [line for line in lines if line.strip()]
    return [whole]


def _piece(name: str, data: str) -> Mapping[str, Any]:
    try:
        piece = json.loads(data)
    except (ValueError, RecursionError):
        raise BrokenStream(f"a piece of the stream is no JSON: {data}") from None
    if not isinstance(piece, dict) or name == "error":
        raise BrokenStream(f"the stream broke off: {data}")
    if error := piece.get("error"):
        raise BrokenStream(f"the stream broke off: {json.dumps(error, ensure_ascii=False)}")
    choices = piece.get("choices") or []
    if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
        raise BrokenStream(f"a piece of the stream is none of an answer: {data}")
    return piece


def _add(choice: dict[str, Any], part: Mapping[str, Any]) -> None:
    """Adds a piece to the one answer that was asked for."""
    if part.get("index") not in (0, None):
        return
    for name in ("finish_reason", "stop_reason", "matched_stop", "prompt_token_ids", "logprobs", "prompt_logprobs"):
        if part.get(name) is not None:
            choice[name] = part[name]
    for name, kind in (("text", str), ("token_ids", list)):
        if isinstance(part.get(name), kind):
            choice[name] = choice.get(name, kind()) + part[name]
    if isinstance(part.get("delta"), dict):
        _add_message(choice.setdefault("message", {}), part["delta"])
    elif isinstance(part.get("message"), dict):  # some servers send all of it again at the end
        choice["message"] = part["message"]


def _add_message(message: dict[str, Any], delta: Mapping[str, Any]) -> None:
    parts = parts_of(delta.get("content"))
    more = {
        "content": parts.answer,
        "reasoning_content": parts.reasoning or reasoning_of(delta),
        "refusal": parts.refusal or delta.get("refusal") or "",
    }
    for name, text in more.items():
        if text and isinstance(text, str):
            message[name] = message.get(name, "") + text
    if delta.get("tool_calls"):
        message["tool_calls"] = True
