"""Adapters mixed in one step without a GPU, without a copy of an adapter's weights for each token.

vLLM's own functions for this gather the weights: T x R x D numbers for each layer, which takes more time than the
model. Here every adapter is applied to every token, and what is not a token's own is left out: two matrix products.
In them a token without an adapter has none, where vLLM's indexing takes the one in the last place. Imported by vLLM.
"""

from __future__ import annotations

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU


def shrink(x: torch.Tensor, down: torch.Tensor, own: torch.Tensor, scale: float) -> torch.Tensor:
    """Multiplies by A^T of each token's own adapter.

    Args:
        x: [T, D] inputs.
        down: [N, R, D] lora_A of all places for adapters.
        own: int[T], the place of each token's adapter; -1 for none.
        scale: Multiplies the result.

    Returns:
        [T, R]; zeros for tokens without an adapter.
    """
    n, rank, _ = down.shape
    every = (x @ down.reshape(n * rank, -1).T).view(-1, n, rank)  # T x N x R
    mine = every[torch.arange(len(own)), own.clamp(min=0)]
    return mine * ((own >= 0) * scale)[:, None]


def expand(x: torch.Tensor, up: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Multiplies by B^T of each token's own adapter.

    Args:
        x: [T, R] shrunk inputs; zeros for tokens without an adapter.
        up: [N, D, R] lora_B of all places for adapters.
        own: int[T], the place of each token's adapter; -1 for none.

    Returns:
        [T, D].
    """
    n, _, rank = up.shape
    every = x.new_zeros(len(x), n, rank)
    every[torch.arange(len(own)), own.clamp(min=0)] = x
    return every.view(-1, n * rank) @ up.transpose(1, 2).reshape(n * rank, -1)


class GroupedPunica(PunicaWrapperCPU):  # type: ignore[misc]
    """Takes the place of vLLM's PunicaWrapperCPU."""

    def _shrink(self, y: torch.Tensor, x: torch.Tensor, w_t_all: torch.Tensor, scale: float) -> None:
        down = w_t_all.squeeze(1).to(y.dtype)
        y[:, : down.shape[1]] = shrink(x.to(y.dtype), down, self.token_lora_indices, scale)

    def _expand(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        w_t_all: torch.Tensor,
        y_offset: int,
        y_slice_size: int,
        add_inputs: bool,
    ) -> None:
        added = expand(x.to(y.dtype), w_t_all.squeeze(1).to(y.dtype), self.token_lora_indices)
        place = y[:, y_offset : y_offset + y_slice_size]
        if add_inputs:
            place.add_(added)
        else:
            place.copy_(added)

    _shrink_prefill = _shrink_decode = _shrink
    _expand_slice_prefill = _expand_slice_decode = _expand
