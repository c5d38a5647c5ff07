"""What is sent to an OpenAI-compatible server, and what is made of its answers. Nothing is guessed.

An answer that is not what was asked for raises `Passing`, which asks again, or `Failed`, where it would come again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import pydantic

from distillbench.errors import StageError
from distillbench.reasoning_formats import join_apart
from distillbench.records import FinishReason, Generation, Request, Sampling
from distillbench_plugins.servers.client import Failed, Passing
from distillbench_plugins.servers.replies import Parts, how_it_ended, parts_of, reasoning_of, usage_of

#: Servers, by what they call themselves in `owned_by`, that take more than OpenAI's parameters, and fill in what is
#: left out from the model's generation_config (vLLM, SGLang) or with defaults of their own (llama.cpp).
TAKE_ALL = ("vllm", "sglang", "llamacpp")
#: Those of them that have `repetition_penalty`; llama.cpp has another, over a window, under another name.
_PENALISE = ("vllm", "sglang")
#: What such a server would otherwise fill in.
_NEUTRAL: Mapping[str, float] = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
#: vLLM's extensions: only our end tokens end a turn, and the tokens come back.
_OUR_TOKENS = {"ignore_eos": True, "skip_special_tokens": False, "return_token_ids": True}
#: A half of a character in JSON, as it is escaped; most have the other half beside them.
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


#: A number of tokens, or a token's; neither is ever larger.
_Whole = Annotated[int, pydantic.Field(ge=0, lt=2**31)]


class _TopLogprobs(pydantic.BaseModel):
    top_logprobs: list[dict[str, float]]


class _Logprob(pydantic.BaseModel):
    logprob: float


class _Continued(pydantic.BaseModel):
    text: str
    finish_reason: Any = None
    stop_reason: Any = None
    matched_stop: Any = None
    token_ids: list[_Whole] | None = None
    prompt_token_ids: list[_Whole] | None = None
    logprobs: _TopLogprobs | None = None
    prompt_logprobs: list[dict[int, _Logprob] | None] | None = None


class _Completions(pydantic.BaseModel):
    choices: list[_Continued] = pydantic.Field(min_length=1, max_length=1)
    usage: Any = None


class _Answered(pydantic.BaseModel):
    message: dict[str, Any]
    finish_reason: Any = None
    stop_reason: Any = None
    matched_stop: Any = None


class _Chat(pydantic.BaseModel):
    choices: list[_Answered] = pydantic.Field(min_length=1)
    usage: Any = None


def sampled_fields(request: Request, max_tokens_field: str, takes_all: bool) -> dict[str, Any]:
    """The sampling parameters as a server takes them; 0 is sent as 0.

    `top_k` and `min_p` are not of OpenAI's API: a server that may not know them is only sent them when they are asked
    for. One that `takes_all` is always told, because it would fill in what is left out.
    """
    sampling = request.sampling
    fields: dict[str, Any] = {
        max_tokens_field: sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": request.seed,
    }
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    if takes_all or sampling.top_k:
        fields["top_k"] = sampling.top_k or -1
    if takes_all or sampling.min_p:
        fields["min_p"] = sampling.min_p
    return {**fields, **(_NEUTRAL if takes_all else {}), **sampling.penalties}


def penalties_mistake(sampling: Sampling, server: str | None) -> str | None:
    """Why a server cannot draw with an evaluation's penalties; None where it can.

    `presence_penalty` is of OpenAI's API. `repetition_penalty` is vLLM's and SGLang's: others ignore or refuse it.

    Args:
        sampling: What is asked.
        server: What it calls itself, of `TAKE_ALL`; None for any other.
    """
    if "repetition_penalty" not in sampling.penalties or server in _PENALISE:
        return None
    what = f"a server of {server}'s" if server else "a server that does not call itself vLLM or SGLang"
    return (
        f"repetition_penalty {sampling.repetition_penalty} cannot be asked of {what}: it may ignore it without a word\n"
        f"    hint: leave it out (1 changes nothing), or set `presence_penalty`, which every OpenAI-compatible server "
        f"has; or `extra_body` of the engine, in the server's own words"
    )


def completion_fields(request: Request) -> dict[str, Any]:
    """A completion of the prompt's own tokens, but for the model and the prompt."""
    return {
        **sampled_fields(request, "max_tokens", takes_all=True),
        "stop_token_ids": list(request.stop_token_ids),
        **_OUR_TOKENS,
    }


def first_token_fields() -> dict[str, Any]:
    """One greedy token with the likeliest candidates, named by their ids."""
    greedy = {"max_tokens": 1, "temperature": 0.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0}
    return {**greedy, **_NEUTRAL, **_OUR_TOKENS, "logprobs": 20, "return_tokens_as_token_ids": True}


def scored_fields() -> dict[str, Any]:
    """The log-probabilities of the prompt's own tokens; a server generates one token at least."""
    return {"max_tokens": 1, "temperature": 0.0, **_NEUTRAL, **_OUR_TOKENS, "prompt_logprobs": 1}


def read_completion(content: bytes, request: Request, decode: Callable[[Sequence[int]], str]) -> Generation:
    """A completion with its tokens.

    Raises:
        StageError: The server tells no tokens, or continued others than it was given.
    """
    choice = _continued(content, request.prompt.input_ids.tolist())
    ids, at = choice.token_ids, _stop_string(choice, request)
    if not ids:
        raise Passing("the server sent a completion without any token")
    is_ended = ids[-1] in request.stop_token_ids
    reason = _finish_reason(choice.finish_reason, None if is_ended else len(ids), request)
    if reason == "stop" and not is_ended and not at:
        raise Failed(f"the server ended the turn at token {ids[-1]}, which is none of {list(request.stop_token_ids)}")
    # the server's text ends before a stop string
    text = choice.text.removesuffix(at) + at if at else decode(ids[:-1] if reason == "stop" else ids)
    return Generation(
        request.sample_id,
        tuple(ids),
        text,
        reason,
        n_tokens=len(ids),
        n_prompt_tokens=len(request.prompt.input_ids),
    )


def check_tokens(content: bytes, prompt: Sequence[int]) -> None:
    """Makes sure that a server continued the tokens that it was given, and tells those that it made.

    Raises:
        StageError: It does not.
    """
    _continued(content, prompt)


def _continued(content: bytes, prompt: Sequence[int]) -> _Continued:
    body = _parsed(_Completions, content)
    [choice] = body.choices
    if choice.token_ids is None:
        raise StageError(
            "the server sends text but no token ids, so that nothing can be said of what the model wrote\n"
            "    wanted: a server that knows `return_token_ids`, such as `vllm serve` (0.10.2 or later)\n"
            "    hint:   `mode: chat` asks any server for text alone, with its own chat template"
        )
    told = choice.prompt_token_ids
    n_told = len(told) if told is not None else usage_of(body.usage, bool(choice.text)).prompt
    if n_told != len(prompt) or (told is not None and told != list(prompt)):
        raise StageError(
            f"the server continued {n_told} tokens where it was given {len(prompt)}: it puts something of its own "
            f"before the prompt, or cuts it\n"
            f"    hint: `mode: tokens` needs a server that takes token ids as they are, such as `vllm serve`"
        )
    return choice


def read_first_token(content: bytes) -> dict[int, float]:
    """Log-probabilities of the likeliest first tokens, in nats by token id.

    Raises:
        StageError: The server does not tell them.
    """
    [choice] = _parsed(_Completions, content).choices
    top = choice.logprobs.top_logprobs[0] if choice.logprobs and choice.logprobs.top_logprobs else {}
    named = {name.removeprefix("token_id:"): value for name, value in top.items()}
    if not named or not all(name.isdecimal() for name in named):
        raise StageError(
            "the server does not tell the log-probabilities of first tokens by token id, so that no checkpoint can be "
            "proven to change the model\n"
            "    hint: `vllm serve` does (`logprobs` with `return_tokens_as_token_ids`)"
        )
    return {int(name): value for name, value in named.items()}


def read_score(content: bytes, continuation: Sequence[int]) -> tuple[float, bool]:
    """The log-likelihood of a prompt's last tokens in nats, and whether each of them is the likeliest.

    Raises:
        StageError: The server does not tell it.
    """
    [choice] = _parsed(_Completions, content).choices
    told = choice.prompt_logprobs
    if told is None:
        raise StageError(
            "the server does not tell the log-probabilities of a prompt, which log-likelihood tasks need\n"
            "    hint: `vllm serve` does (`prompt_logprobs`); or sample with a local engine"
        )
    if len(told) < len(continuation):
        raise Passing(f"the server sent {len(told)} `prompt_logprobs` for a prompt that ends with {len(continuation)}")
    rows = told[len(told) - len(continuation) :]
    total, is_greedy = 0.0, True
    for token, row in zip(continuation, rows, strict=True):
        if row is None or token not in row:
            raise Passing("the server left tokens of the prompt out of `prompt_logprobs`")
        total += row[token].logprob
        is_greedy = is_greedy and row[token].logprob >= max(one.logprob for one in row.values())
    return total, is_greedy


def read_chat(content: bytes, request: Request) -> Generation:
    r"""A chat completion; reasoning that came apart stands before the answer, so that both can be told apart again.

    Reasoning stays open where no answer follows it: the budget cut it, or the model ended without closing it, which
    servers that take it apart do not tell from an empty answer.
    """
    body = _parsed(_Chat, content)
    choice = body.choices[0]
    parts = parts_of(choice.message.get("content"))
    reasoning, answer = parts.reasoning or reasoning_of(choice.message), parts.answer
    usage = usage_of(body.usage, bool(reasoning or answer))
    reason = _finish_reason(choice.finish_reason, usage.completion, request)
    _check_message(choice.message, parts)
    if at := _stop_string(choice, request):
        if answer or not reasoning:
            answer = answer.removesuffix(at) + at
        else:
            reasoning = reasoning.removesuffix(at) + at
    if not reasoning and not answer:
        _check_empty(choice.message.get("content"), reason, usage.completion)
    return Generation(
        request.sample_id,
        text=join_apart(reasoning, answer) if reasoning else answer,
        finish_reason=reason,
        n_tokens=usage.completion,
        n_prompt_tokens=usage.prompt,
    )


def _check_message(message: Mapping[str, Any], parts: Parts) -> None:
    """Refuses a message that is no answer, or has parts that are no text."""
    content = message.get("content")
    if refusal := parts.refusal or message.get("refusal"):
        raise Failed(f"the server refused to answer: {refusal}")
    if content is not None and not isinstance(content, str | list | dict):
        raise Passing(f"the server sent no completion (choices.0.message.content: {type(content).__name__}): {content}")
    if parts.other:
        raise Failed(f"the server's answer has a part that is no text ({parts.other})")


def _check_empty(content: Any, reason: str, written: int | None) -> None:
    """Refuses an empty answer unless the server says that tokens were spent on it: reasoning that it hides, say."""
    if content is None and reason == "stop":
        raise Passing("the server sent a message without content (finish reason 'stop')")
    if not written:
        raise Passing(f"the server sent an empty message (finish reason {reason!r}) and counts no tokens for it")


def _stop_string(choice: _Answered | _Continued, request: Request) -> str:
    """The stop string that ended an answer, which vLLM and SGLang name and leave out of the text; empty for none.

    Others name there what ended the turn in words of their own.
    """
    named = choice.matched_stop if choice.stop_reason is None else choice.stop_reason
    return named if isinstance(named, str) and named in request.sampling.stop else ""


def _finish_reason(told: Any, written: int | None, request: Request) -> FinishReason:
    """How an answer ended; one of which the server says nothing was cut where it is as long as it may be."""
    how = how_it_ended(told)
    if how == "unknown":
        return "length" if written is not None and written >= request.sampling.max_tokens else "stop"
    if how == "failed":
        raise Passing(f"the server ended the answer with finish reason {told!r}")
    if how == "decided":
        raise Failed(f"the server ended the answer with finish reason {told!r}")
    return how


Body = TypeVar("Body", bound=pydantic.BaseModel)


def _parsed(model: type[Body], content: bytes) -> Body:
    try:
        return model.model_validate_json(_whole_characters(content), strict=True)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        shown = _error_in(content) or content.decode(errors="replace")
        raise Passing(f"the server sent no completion ({where}: {first['msg']}): {shown}") from error


def _whole_characters(content: bytes) -> bytes:
    """The same JSON, where half a character that the budget cut off is U+FFFD: UTF-8 has no halves."""
    if not _HALF.search(content):
        return content
    try:
        text = json.dumps(json.loads(content), ensure_ascii=False)
    except (ValueError, RecursionError):
        return content
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def _error_in(content: bytes) -> str | None:
    """The error that some servers send with status 200."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    error = found.get("error") if isinstance(found, Mapping) else None
    return json.dumps(error, ensure_ascii=False) if error else None
