"""What makes a trace unusable, whatever the student and the renderer.

What a teacher gives is not trusted to be what it should: rows of published sets hold nulls, lists and numbers where a
text belongs, and a row of which nobody knows how it ended may be half an answer.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from distillbench.records import FinishReason, Message, Problem, Role, Trace

#: C0 and C1 controls but tab, line feed and carriage return; the characters that UTF-8 cannot write.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
_UNWRITABLE = re.compile("[\ud800-\udfff]")


def why_unusable(trace: Trace) -> str | None:
    """Why a trace cannot be trained on; None for a usable one.

    It is no trace at all (see `why_malformed`), it is empty, or it has characters that no text holds.

    Returns:
        `category: detail`; the category is what rejected traces are counted by.
    """
    if reason := why_malformed(trace):
        return reason
    if not trace.answer.strip() and not (trace.reasoning or "").strip():
        return "empty: neither reasoning nor answer"
    for part, text, forbidden in _texts(trace):
        if found := forbidden.search(text):
            return f"control character: U+{ord(found.group()):04X} at place {found.start()} of the {part}"
    return None


def why_malformed(given: Any) -> str | None:
    """Why something that a teacher gave is no trace: a field holds what it cannot, or is empty and may not be.

    Returns:
        As `why_unusable`; None for a trace, whatever its texts say.
    """
    for place, value, wanted in _fields(given):
        if not _is(value, wanted):
            return f"malformed: {place}: wanted {wanted}, got {_shown(value)}"
    if not given.problem.messages:
        return "no messages: nothing was asked"
    try:
        if given.problem.metadata:
            json.dumps(given.problem.metadata, sort_keys=True, default=str)
    except (TypeError, ValueError, RecursionError) as error:
        return f"malformed: metadata: cannot be written as JSON: {error}"
    return None


def _fields(given: Any) -> Iterator[tuple[str, Any, str]]:
    """Every field, with what it must hold; a field is only looked into once it is what it must be."""
    yield "trace", given, "a Trace"
    yield "problem", given.problem, "a Problem"
    problem = given.problem
    yield "problem_id", problem.problem_id, "a text that is not empty"
    yield from ((name, getattr(problem, name), "a text") for name in ("domain", "gold"))
    yield "metadata", problem.metadata, "a mapping"
    yield "messages", problem.messages, "a list of messages"
    for number, message in enumerate(problem.messages, 1):
        yield f"message {number}", message, "a Message"
        yield f"role of message {number}", message.role, _ROLE
        yield f"content of message {number}", message.content, "a text"
    yield "reasoning", given.reasoning, "a text or null"
    yield from ((name, getattr(given, name), "a text") for name in ("answer", "teacher", "source"))
    yield "finish_reason", given.finish_reason, _FINISH_REASON
    yield "n_tokens", given.n_tokens, "a whole number or null"
    yield "trace_id", given.trace_id, "a text"


_ROLE = "one of: " + ", ".join(get_args(Role))
_FINISH_REASON = "one of: " + ", ".join(get_args(FinishReason))
#: What is wanted, in words, and the words that are it.
_WORDS: Mapping[str, frozenset[str]] = {
    _ROLE: frozenset(get_args(Role)),
    _FINISH_REASON: frozenset(get_args(FinishReason)),
}
#: What is wanted, in words, and the types that are it.
_TYPES: Mapping[str, tuple[type, ...]] = {
    "a Trace": (Trace,),
    "a Problem": (Problem,),
    "a Message": (Message,),
    "a text": (str,),
    "a text or null": (str, type(None)),
    "a mapping": (dict, Mapping),  # the usual one first: whether a class is abstractly a mapping takes long to say
    "a list of messages": (tuple, list),
}


def _is(value: Any, wanted: str) -> bool:
    if wanted in _TYPES:
        return isinstance(value, _TYPES[wanted])
    if wanted == "a text that is not empty":
        return isinstance(value, str) and bool(value.strip())
    if wanted == "a whole number or null":
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return value is None or (is_whole and 0 <= value < 2**63)
    return isinstance(value, str) and value in _WORDS[wanted]


def _texts(trace: Trace) -> Iterator[tuple[str, str, re.Pattern[str]]]:
    """Every text, with what it may not hold."""
    problem = trace.problem
    yield from ((f"{message.role} message", message.content, _FORBIDDEN) for message in problem.messages)
    yield from (("reasoning", trace.reasoning or "", _FORBIDDEN), ("answer", trace.answer, _FORBIDDEN))
    yield "gold answer", problem.gold, _FORBIDDEN
    for name, text in (("problem_id", problem.problem_id), ("domain", problem.domain), ("teacher", trace.teacher)):
        yield name, text, _UNWRITABLE
    yield from (("source", trace.source, _UNWRITABLE), ("trace_id", trace.trace_id, _UNWRITABLE))


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {reprlib.repr(value)}" if value is not None else "null"
