"""What the `transformers` engine computes together: groups of requests, their padding, seeded draws, stop strings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from distillbench.records import Request, Sampling

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase, StoppingCriteria


class SeededSampling:
    """Draws each row's token from its own random numbers, by adding Gumbel noise to the warped logits.

    The argmax of logits plus Gumbel noise is a draw from their softmax, so that generate() can stay greedy.

    Source: Gumbel (1954); Maddison et al. (2014), "A* Sampling", section 2.
    """

    def __init__(self, batch: Sequence[Request], device: str) -> None:
        import torch
        from transformers import (
            LogitsProcessorList,
            MinPLogitsWarper,
            TemperatureLogitsWarper,
            TopKLogitsWarper,
            TopPLogitsWarper,
        )

        sampling = batch[0].sampling
        self.warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
        if sampling.top_k > 0:
            self.warpers.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            self.warpers.append(TopPLogitsWarper(sampling.top_p))
        if sampling.min_p > 0:
            self.warpers.append(MinPLogitsWarper(sampling.min_p))
        self.device = device
        self.generators = [torch.Generator().manual_seed(request.seed) for request in batch]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Adds the noise. `scores` is float[B, V]."""
        import torch

        uniform = torch.stack(
            [torch.rand(scores.shape[1], generator=one, dtype=torch.float64) for one in self.generators]
        )
        noise = -torch.log(-torch.log(uniform.clamp(min=1e-300)))
        warped: torch.Tensor = self.warpers(input_ids, scores.float())
        return warped.double() + noise.to(self.device)


class Penalties:
    """Takes the repetition and presence penalties off the logits of tokens that are there already.

    transformers' own processor counts the padding too, which would penalise the token that ends a turn; and it has no
    presence penalty. This one is vLLM's order and meaning.

    Args:
        sampling: Whose penalties.
        prompts: Token ids, int64[B, T], padded.
        mask: Which of them are no padding.
    """

    def __init__(self, sampling: Sampling, prompts: torch.Tensor, mask: torch.Tensor) -> None:
        self.sampling = sampling
        self.prompts = prompts
        self.mask = mask
        self._asked: torch.Tensor | None = None
        self._written: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The logits less the penalties. `input_ids` is int64[B, T], `scores` float[B, V]."""
        import torch

        if self._asked is None or self._written is None:
            self._written = torch.zeros_like(scores, dtype=torch.bool)
            counts = torch.zeros_like(scores, dtype=torch.long)
            self._asked = counts.scatter_add_(1, self.prompts, self.mask) > 0  # B x V
        if input_ids.shape[1] > self.prompts.shape[1]:
            self._written.scatter_(1, input_ids[:, -1:], True)
        factor = self.sampling.repetition_penalty
        repeated = torch.where(scores > 0, scores / factor, scores * factor)
        penalised: torch.Tensor = torch.where(self._asked | self._written, repeated, scores)
        return penalised - self.sampling.presence_penalty * self._written


def groups(requests: Sequence[Request], size: int) -> Iterator[list[Request]]:
    """Groups requests that can be generated together, short prompts first, in an order that only they decide."""

    def kind(request: Request) -> tuple[Any, ...]:
        sampling = request.sampling
        warping = (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p, *sampling.penalties.items())
        return (sampling.max_tokens, warping, sampling.stop, request.stop_token_ids)

    ordered = sorted(requests, key=lambda one: (kind(one), len(one.prompt.input_ids), one.sample_id))
    group: list[Request] = []
    for request in ordered:
        if group and (len(group) == size or kind(request) != kind(group[0])):
            yield group
            group = []
        group.append(request)
    if group:
        yield group


def left_padded(rows: Sequence[Sequence[int]], pad: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids as int64[B, T] with padding on the left, and their mask."""
    import torch

    longest = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for number, row in enumerate(rows):
        input_ids[number, longest - len(row) :] = torch.as_tensor(row, dtype=torch.long)
        mask[number, longest - len(row) :] = 1
    return input_ids.to(device), mask.to(device)


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Positions of tokens in left-padded rows, int64[B, T]."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def stop_strings(tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], n_prompt: int) -> StoppingCriteria:
    """Ends a completion at a stop string of its own.

    transformers' own criterion looks at the prompt as well, so that a stop string which begins there would end it.

    Args:
        tokenizer: The model's.
        stops: The strings.
        n_prompt: The tokens before the completions, padding included.
    """
    from transformers import StoppingCriteria, StopStringCriteria

    class InCompletion(StoppingCriteria):  # type: ignore[misc]
        found = StopStringCriteria(tokenizer, list(stops))

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            """bool[B]: which rows are done. `input_ids` is int64[B, T]."""
            done: torch.Tensor = self.found(input_ids[:, n_prompt:], scores, **kwargs)
            return done

    return InCompletion()
