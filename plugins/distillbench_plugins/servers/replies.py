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
    stop stopped stop_eos stop_sequence stop_sequences stop_token stop_string stop_str stop_word stop_words stopped_eos
    stopped_word eos eos_token eos_token_id eos_found eot end end_id end_token end_turn end_of_text end_of_turn
    endoftext endofturn end_of_sequence complete completed done finish finished natural normal ok success word
""")
#: The token budget, or the longest context, ended it.
_CUT = _words("""
    length_capped truncated maximum_tokens out_of_tokens max_new_token
    length length_limit max_tokens max_token max_length max_len max_new_tokens max_output_tokens max_completion_tokens
    max_context max_context_length token_limit tokens_limit limit stopped_limit model_length context_length
    context_window context context_length_exceeded context_window_exceeded model_context_window_exceeded
""")
#: The server did not answer this time, and may do so another time.
_FAILED = _words("""
    error abort aborted cancel canceled cancelled user_cancel timeout timed_out time_limit network_error error_limit
    insufficient_system_resource not_finished incomplete load unload other server_error overloaded unspecified
""")
#: A special token as text: what ended the turn, named by itself.
_TOKEN = re.compile(r"</?[a-z]+>|<\|[^<>|]+\|>")
_PREFIX = re.compile(r"^(?:finish_?reason|stop_?reason|reason)[._:]+")

_REASONING = (
    "reasoning_content", "reasoning", "thinking", "reasoning_details", "reasoning_text", "thinking_blocks", "thoughts",
    "thought",
)  # fmt: skip
#: The kinds of parts that are reasoning: `thinking`, `reasoning.text`, `summary_text`, `thought`.
_IS_REASONING = re.compile(r"think|reason|thought|summary", re.IGNORECASE)

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
    if _TOKEN.fullmatch(told.strip()):
        return "stop"
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[\s-]+", "_", told.strip())
    word = _PREFIX.sub("", words.lower())
    if word in ("", "null", "none"):
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
    for name in _REASONING:
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
    if part.get("thought") is True or _IS_REASONING.search(kind):
        return Parts(reasoning=_thought(part))
    if kind == "refusal":
        return Parts(refusal=str(part.get("refusal") or "it does not say why"))
    if "text" in kind:  # `text`, `output_text`, and a kind of text that is none where it holds nothing
        return Parts(answer=_text(part))
    return Parts(answer=part["text"]) if isinstance(part.get("text"), str) else Parts(other=kind)


def _text(part: Mapping[str, Any]) -> str:
    """The text of a part of text, which may lie one deeper, in `value`."""
    found = part.get("text") if part.get("text") is not None else part.get("content")
    found = found.get("value") if isinstance(found, Mapping) else found
    return found if isinstance(found, str) else ""


def _thought(value: Any) -> str:
    """All text in a reasoning, which may lie in parts of parts; signatures and what is encrypted are none."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(_thought, value))
    if isinstance(value, Mapping):
        names = ("thinking", "reasoning", "text", "summary", "content", "think", "thought", "value")
        return next((text for name in names if (text := _thought(value.get(name)))), "")
    return ""


def _count(value: Any) -> int | None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return value if is_whole and 0 <= value < 2**31 else None
