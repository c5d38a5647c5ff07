"""What servers of many kinds say in a chat completion: its texts, how it ended, what was counted.

What decides an answer is read strictly; what only goes with it, and is odd, is unknown: an answer that is there has
been paid for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: The model ended its turn, or wrote a stop string. OpenAI, Anthropic, Gemini, Cohere, Bedrock, watsonx, TGI, SGLang,
#: llama.cpp, Ollama, TensorRT-LLM.
_STOPPED = _words("""
    stop stopped stop_sequence stop_sequences stop_token stop_string stop_str stop_word stop_words stopped_eos
    stopped_word eos eos_token eot end end_id end_turn end_of_text end_of_turn endoftext endofturn complete completed
    done finish finished normal word
""")
#: The token budget, or the longest context, ended it.
_CUT = _words("""
    length length_limit max_tokens max_token max_length max_len max_new_tokens max_output_tokens max_completion_tokens
    max_context max_context_length token_limit tokens_limit limit stopped_limit model_length context_length
    context_window context context_length_exceeded context_window_exceeded model_context_window_exceeded
""")
#: The server did not answer this time, and may do so another time.
_FAILED = _words("""
    error abort aborted cancel canceled cancelled user_cancel timeout timed_out time_limit network_error error_limit
    insufficient_system_resource not_finished incomplete load unload other server_error overloaded unspecified
""")
_PREFIX = re.compile(r"^(?:finish_?reason|stop_?reason|reason)[._:]+")

_Kind = Literal["stop", "length", "failed", "decided", "unknown"]


@dataclass(frozen=True, slots=True)
class Parts:
    """The texts of a message's content.

    Attributes:
        other: The kind of a part that holds none; empty where there is no such part.
    """

    reasoning: str = ""
    answer: str = ""
    refusal: str = ""
    other: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """The numbers of tokens that a server tells; None where it does not, or tells what cannot be."""

    prompt: int | None
    completion: int | None


def how_it_ended(told: Any) -> _Kind:
    """What a finish reason means; `decided` where the server ended this answer, and would end it so again."""
    if isinstance(told, Mapping):  # SGLang's own form: {"type": "stop", "matched": 151645}
        told = told.get("type")
    if told is None or told == "":
        return "unknown"
    if not isinstance(told, str):
        return "decided"
    word = _PREFIX.sub("", re.sub(r"[\s-]+", "_", told.strip().lower()))
    if not word or word == "null":
        return "unknown"
    return "stop" if word in _STOPPED else "length" if word in _CUT else "failed" if word in _FAILED else "decided"


def parts_of(content: Any) -> Parts:
    """The texts of a content: one text, or a list of parts as OpenAI, Anthropic, Gemini and Mistral send them."""
    if isinstance(content, str):
        return Parts(answer=content)
    entries = content if isinstance(content, list) else [content] if isinstance(content, Mapping) else []
    found = [_part(entry) for entry in entries]
    return Parts(
        "".join(part.reasoning for part in found),
        "".join(part.answer for part in found),
        "".join(part.refusal for part in found),
        next((part.other for part in found if part.other), ""),
    )


def reasoning_of(message: Mapping[str, Any]) -> str:
    """The reasoning that a server sends apart from the content, under any of its names."""
    for name in ("reasoning_content", "reasoning", "thinking", "reasoning_details"):
        if text := _thought(message.get(name)):
            return text
    return ""


def usage_of(usage: Any, has_text: bool) -> Usage:
    """The counts of a `usage`; one that cannot be is unknown, and says nothing of the answer."""
    if not isinstance(usage, Mapping):
        return Usage(None, None)
    prompt, completion = (
        next((count for name in names if (count := _count(usage.get(name))) is not None), None)
        for names in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
    )
    return Usage(prompt, None if completion == 0 and has_text else completion)


def _part(part: Any) -> Parts:
    if isinstance(part, str):
        return Parts(answer=part)
    if not isinstance(part, Mapping):
        return Parts(other=type(part).__name__)
    kind = str(part.get("type") or ("text" if isinstance(part.get("text"), str) else "part"))
    if part.get("thought") is True or "thinking" in kind or "reasoning" in kind or "summary" in kind:
        return Parts(reasoning=_thought(part))
    if kind == "refusal":
        return Parts(refusal=str(part.get("refusal") or "it does not say why"))
    if isinstance(part.get("text"), str):
        return Parts(answer=part["text"])
    return Parts(other=kind)


def _thought(value: Any) -> str:
    """All text in a reasoning, which may lie in parts of parts; signatures and what is encrypted are none."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(_thought, value))
    if isinstance(value, Mapping):
        names = ("thinking", "reasoning", "text", "summary", "content")
        return next((text for name in names if (text := _thought(value.get(name)))), "")
    return ""


def _count(value: Any) -> int | None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return value if is_whole and 0 <= value < 2**31 else None
