"""Continuous batching of transformers: a request that ends makes room for the next one at once.

It takes greedy requests. Its random numbers are one stream for all requests, so that a sample would depend on what else
is computed; and it neither looks for stop strings nor knows penalties. All of these are left to `generate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from distillbench.errors import StageError
from distillbench.records import Request

#: Positions that are kept together.
_BLOCK = 256
#: On a CPU, where nothing says how much memory may be taken: how many tokens are computed in one step.
_STEP_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request: its new tokens, or why there are none."""

    request: Request
    token_ids: tuple[int, ...] = ()
    error: str | None = None


def is_there() -> bool:
    """Whether the installed transformers has it in the form that is used here, which is that of 5.8 and later."""
    import transformers

    return hasattr(transformers, "ContinuousBatchingConfig")


def takes(request: Request) -> bool:
    """Whether a request can go through it."""
    return request.sampling.temperature == 0 and not request.sampling.stop and not request.sampling.penalties


def generate(model: Any, requests: Sequence[Request], n_at_once: int, device: str) -> Iterator[Answer]:
    """Yields what comes of each request, as they finish.

    Args:
        model: A model of transformers, or peft's around one.
        requests: Requests that fit into the model's positions, which it `takes`.
        n_at_once: How many are computed together at most, where memory does not decide it.
        device: Where the model is.

    Raises:
        StageError: It ended before all requests did.
    """
    from transformers import GenerationConfig

    waiting = {request.sample_id: request for request in requests}
    if not waiting:
        return
    settings = GenerationConfig(do_sample=False, eos_token_id=list(requests[0].stop_token_ids), max_new_tokens=1)
    how = _config(requests, n_at_once, device)
    with (
        _own_attention_after(model),
        model.continuous_batching_context_manager(
            generation_config=settings, continuous_batching_config=how, warmup=False
        ) as manager,
    ):
        for request in sorted(requests, key=lambda one: (len(one.prompt.input_ids), one.sample_id)):
            manager.add_request(
                request.prompt.input_ids.tolist(),
                request_id=request.sample_id,
                max_new_tokens=request.sampling.max_tokens,
                eos_token_id=list(request.stop_token_ids),
            )
        try:
            yield from _answers(manager, waiting)
        finally:
            for sample_id in waiting:  # nobody reads any further
                manager.cancel_request(sample_id)


@contextmanager
def _own_attention_after(model: Any) -> Iterator[None]:
    """Gives the model its attention back, which transformers 5.8 does not: left as it is, it would see padding."""
    before = model.config._attn_implementation
    try:
        yield
    finally:
        if model.config._attn_implementation != before:
            model.set_attn_implementation(before)


def _answers(manager: Any, waiting: dict[str, Request]) -> Iterator[Answer]:
    while waiting:
        found = manager.get_result(timeout=1)
        if found is None:
            _refuse_silence(manager, len(waiting))
        elif found.is_finished():
            yield _answer(waiting.pop(found.request_id), found)


def _answer(request: Request, found: Any) -> Answer:
    if found.error is not None:
        return Answer(request, error=f"continuous batching failed: {found.error}")
    return Answer(request, tuple(found.generated_tokens))


def _refuse_silence(manager: Any, n_waiting: int) -> None:
    if not manager.is_running():
        raise StageError(
            f"continuous batching of transformers ended with {n_waiting} requests unanswered\n"
            f"    what was finished is kept\n"
            f"    hint: set `continuous: false` for the engine, or look for the cause above"
        )


def _config(requests: Sequence[Request], n_at_once: int, device: str) -> Any:
    """Memory for `n_at_once` of the longest requests; on a GPU, transformers takes what is free.

    The attention stays the model's own: another one, such as a flash kernel, would be fetched from the Hub.
    """
    from transformers import ContinuousBatchingConfig

    known = {one.name for one in fields(ContinuousBatchingConfig)}
    same_attention = {"auto_switch_to_flash": False} if "auto_switch_to_flash" in known else {}
    if device == "cuda":
        return ContinuousBatchingConfig(**same_attention)
    longest = max(len(one.prompt.input_ids) + one.sampling.max_tokens for one in requests)
    n_blocks = min(n_at_once, len(requests)) * -(-longest // _BLOCK)
    return ContinuousBatchingConfig(num_blocks=n_blocks, max_batch_tokens=_STEP_TOKENS, **same_attention)
