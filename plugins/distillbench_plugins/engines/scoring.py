"""Log-likelihoods of given continuations with transformers: many at a time, each input computed once."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distillbench.records import Generation, Request
from distillbench_plugins.engines.grouping import left_padded, positions

if TYPE_CHECKING:
    import torch

#: A request's sample id, and which of its continuations.
Part = tuple[str, int]
#: The log-likelihood in nats, and whether the continuation is the greedy one.
Score = tuple[float, bool]


@dataclass(slots=True)
class BatchRow:
    """What a model is given once: continuations that differ in their last token alone have it together.

    Attributes:
        ids: The prompt and a continuation without its last token.
        parts: Whose it is, each with its continuation.
    """

    ids: tuple[int, ...]
    parts: list[tuple[Part, tuple[int, ...]]] = field(default_factory=list)

    @property
    def n_scored(self) -> int:
        """How many of the last positions are asked for."""
        return max(len(continuation) for _, continuation in self.parts)


def rows_of(requests: Sequence[Request]) -> list[BatchRow]:
    """The rows of all continuations that hold any token, short ones first, in an order that only they decide."""
    rows: dict[tuple[int, ...], BatchRow] = {}
    for request in sorted(requests, key=lambda one: one.sample_id):
        prompt = request.prompt.input_ids.tolist()
        for number, continuation in enumerate(request.continuations):
            if continuation:
                ids = (*prompt, *continuation[:-1])
                rows.setdefault(ids, BatchRow(ids)).parts.append(((request.sample_id, number), continuation))
    return sorted(rows.values(), key=lambda row: (len(row.ids), row.ids))


class Gathering:
    """Puts the scores of continuations together again, request by request.

    Args:
        requests: What was asked.
        limit: The model's positions; None where it has no limit.

    Attributes:
        fitting: The requests that fit into them.
    """

    def __init__(self, requests: Sequence[Request], limit: int | None) -> None:
        self._asked = {request.sample_id: request for request in requests}
        self._limit = limit
        self.fitting = [one for one in requests if limit is None or _longest(one) <= limit]
        self._found: dict[str, dict[int, Score]] = {sample_id: {} for sample_id in self._asked}
        self._given: set[str] = set()

    def at_once(self) -> Iterator[Generation]:
        """What needs no model: errors of requests that do not fit, and requests without any token to score."""
        for request in self._asked.values():
            if self._limit is not None and _longest(request) > self._limit:
                n = _longest(request)
                why = f"prompt and continuation of {n} tokens exceed the model's {self._limit} positions"
                yield self.failed(request.sample_id, why)
            elif not any(request.continuations):
                yield self._generation(request)

    def failed(self, sample_id: str, why: str) -> Generation:
        """What is given for a request that cannot be scored."""
        self._given.add(sample_id)
        return Generation(sample_id, error=why)

    def is_open(self, sample_id: str) -> bool:
        """Whether something is still to be given for a request."""
        return sample_id not in self._given

    def take(self, scores: Mapping[Part, Score]) -> Iterator[Generation]:
        """Takes scores, and gives the requests that are whole with them."""
        for (sample_id, number), score in scores.items():
            self._found[sample_id][number] = score
            request = self._asked[sample_id]
            if self.is_open(sample_id) and len(self._found[sample_id]) == sum(map(bool, request.continuations)):
                yield self._generation(request)

    def _generation(self, request: Request) -> Generation:
        self._given.add(request.sample_id)
        found = self._found[request.sample_id]
        return with_scores(request, [found.get(number, (0.0, True)) for number in range(len(request.continuations))])


def with_scores(request: Request, scores: Sequence[Score]) -> Generation:
    """The generation that holds the scores of a request's continuations; an error where one is no number."""
    if any(math.isnan(score) for score, _ in scores):
        return Generation(
            request.sample_id,
            error="a log-likelihood is not a number: the model's weights are broken, or too large for its dtype",
        )
    n = len(request.prompt.input_ids)
    return Generation(request.sample_id, text=json.dumps(scores), finish_reason="stop", n_tokens=0, n_prompt_tokens=n)


def _longest(request: Request) -> int:
    """The tokens of a prompt and its longest continuation."""
    return len(request.prompt.input_ids) + max(map(len, request.continuations), default=0)


def scored(model: Any, rows: Sequence[BatchRow], device: str) -> dict[Part, Score]:
    """Computes some rows together."""
    import torch

    n_kept = max(row.n_scored for row in rows)
    logits = last_logits(model, [row.ids for row in rows], n_kept, device)
    found: dict[Part, Score] = {}
    for row, of_row in zip(rows, logits, strict=True):
        logprobs = of_row.float().log_softmax(-1)  # K x V, K the positions kept
        likeliest = logprobs.argmax(-1)
        for part, continuation in row.parts:
            wanted = torch.tensor(continuation, device=device)
            ours = logprobs[-len(continuation) :].gather(-1, wanted[:, None])
            found[part] = ours.sum().item(), bool((likeliest[-len(continuation) :] == wanted).all())
    return found


def last_logits(model: Any, rows: Sequence[Sequence[int]], n: int, device: str) -> torch.Tensor:
    """Logits at the last `n` positions of each row, float[B, n, V]; those before are not computed where that can be."""
    import torch

    input_ids, mask = left_padded(rows, 0, device)
    bare = model.get_base_model() if hasattr(model, "peft_config") else model
    kept = {"logits_to_keep": n} if "logits_to_keep" in inspect.signature(bare.forward).parameters else {}
    with torch.inference_mode():
        output = model(input_ids=input_ids, attention_mask=mask, position_ids=positions(mask), use_cache=False, **kept)
    logits: torch.Tensor = output.logits[:, -n:]
    return logits
