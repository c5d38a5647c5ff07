"""Requests as the `vllm` engine hands them on, and what comes of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distillbench.records import Checkpoint, Generation, Request, Sampling
from distillbench_plugins.engines.scoring import with_scores

if TYPE_CHECKING:
    from vllm import RequestOutput


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt as vLLM gets it.

    Attributes:
        key: The stage's.
        request: What it is a part of.
        checkpoint: The weights.
        ids: Token ids.
        params: Arguments of vLLM's SamplingParams.
        part: Which of the request's continuations.
        tries: How often it was given up.
    """

    key: str
    request: Request
    checkpoint: Checkpoint | None
    ids: list[int]
    params: Mapping[str, Any]
    part: int = 0
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it: vLLM's output, or why there is none."""

    asked: Asked
    effective: Mapping[str, Any]
    output: RequestOutput | None = None
    error: str | None = None


class UnderWay(dict[str, tuple[Asked, Mapping[str, Any]]]):
    """What vLLM has been handed, by the number it knows it by, with the sampling parameters as it took them."""


class Feed:
    """What is still to be handed on, read no further than its first; what is tried again comes before the rest."""

    def __init__(self, asked: Iterable[Asked]) -> None:
        self._rest = iter(asked)
        self._first: deque[Asked] = deque()

    def first(self) -> Asked | None:
        """The next one, which stays; None when there are no more."""
        if not self._first and (found := next(self._rest, None)) is not None:
            self._first.append(found)
        return self._first[0] if self._first else None

    def take(self) -> None:
        """Removes the first."""
        self._first.popleft()

    def again(self, asked: Asked) -> None:
        """Puts one back, to be the first."""
        self._first.appendleft(asked)


def sampling_arguments(request: Request) -> dict[str, Any]:
    """Arguments of vLLM's SamplingParams: only the renderer's stop tokens and the stop strings end a completion."""
    sampling = request.sampling
    drawn = {"top_p": sampling.top_p, "top_k": sampling.top_k, "min_p": sampling.min_p, "seed": request.seed}
    return {
        "temperature": sampling.temperature,
        **(drawn if sampling.temperature else {}),
        **sampling.penalties,
        "max_tokens": sampling.max_tokens,
        "stop": list(sampling.stop),
        "include_stop_str_in_output": True,
        "stop_token_ids": list(request.stop_token_ids),
        "ignore_eos": True,
        "detokenize": bool(sampling.stop),  # vLLM needs the text only to find stop strings in it
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
    }


def as_taken(params: Any) -> dict[str, Any]:
    """The sampling parameters as vLLM took them: what greedy makes meaningless is not there."""
    drawn = {"top_p": params.top_p, "top_k": max(params.top_k, 0), "min_p": params.min_p, "seed": params.seed}
    return {
        "temperature": params.temperature,
        **(drawn if params.temperature else {}),
        **Sampling(repetition_penalty=params.repetition_penalty, presence_penalty=params.presence_penalty).penalties,
        "max_tokens": params.max_tokens,
        "stop": list(params.stop),
        "stop_token_ids": list(params.stop_token_ids),
    }


def cut(text: str, stops: Sequence[str]) -> str:
    """The text up to the end of the stop string that ends first."""
    ends = [place + len(stop) for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def scored(request: Request, parts: Mapping[int, Answer]) -> Generation:
    """The log-likelihoods of a request's continuations, from the answers to each of its parts."""
    errors = [answer.error for answer in parts.values() if answer.error is not None]
    if errors:
        return Generation(request.sample_id, error=errors[0])
    scores = [
        _score(continuation, parts[part].output) if continuation else (0.0, True)
        for part, continuation in enumerate(request.continuations)
    ]
    return with_scores(request, scores)


def _score(continuation: Sequence[int], output: Any) -> tuple[float, bool]:
    """The log-likelihood of a continuation that was sent as the end of a prompt, and whether it is the greedy one."""
    told = output.prompt_logprobs[-len(continuation) :]
    ours = [by_token[token] for by_token, token in zip(told, continuation, strict=True)]
    return sum(one.logprob for one in ours), all(one.rank == 1 for one in ours)
