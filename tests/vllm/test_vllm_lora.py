"""Adapters of a step applied together are what each token's own adapter gives, and nothing for a token without one."""

from __future__ import annotations

import pytest
import vllm_helpers  # noqa: F401  (skips where vLLM is not installed)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(("tokens", "wide", "rank", "out"), [(1, 5, 2, 7), (13, 7, 4, 6), (40, 96, 8, 33)])
def test_each_token_gets_its_own(n: int, tokens: int, wide: int, rank: int, out: int) -> None:
    import torch

    from distillbench_plugins.engines.vllm_lora import expand, shrink

    torch.manual_seed(tokens)
    x, down, up = torch.randn(tokens, wide), torch.randn(n, rank, wide), torch.randn(n, out, rank)
    own = torch.randint(-1, n, (tokens,))
    shrunk = shrink(x, down, own, 0.5)
    grown = expand(shrunk, up, own)
    assert shrunk.shape == (tokens, rank)
    assert grown.shape == (tokens, out)
    for row, place in enumerate(own.tolist()):
        wanted = up[place] @ (0.5 * down[place] @ x[row]) if place >= 0 else torch.zeros(out)
        torch.testing.assert_close(grown[row], wanted, atol=1e-4, rtol=1e-4)


def test_vllms_own_functions_agree_where_every_token_has_one() -> None:
    import torch
    from vllm.lora.ops.torch_ops import bgmv_expand_slice, bgmv_shrink

    from distillbench_plugins.engines.vllm_lora import expand, shrink

    torch.manual_seed(0)
    x, down, up = torch.randn(11, 6), torch.randn(4, 1, 3, 6), torch.randn(4, 1, 5, 3)
    own = torch.randint(0, 4, (11,))
    theirs = torch.zeros(11, 3)
    bgmv_shrink(x, down, theirs, own, 2.0)
    ours = shrink(x, down.squeeze(1), own, 2.0)
    torch.testing.assert_close(ours, theirs)
    grown = torch.zeros(11, 9)
    bgmv_expand_slice(theirs, up, grown, own, 4, 5)
    torch.testing.assert_close(expand(ours, up.squeeze(1), own), grown[:, 4:])


def test_it_is_the_one_that_is_used() -> None:
    from distillbench_plugins.engines.vllm import _import
    from distillbench_plugins.engines.vllm_lora import GroupedPunica

    _, on_cpu = _import()
    if not on_cpu:
        pytest.skip("this vLLM has a GPU, and kernels of its own")
    from vllm.lora.punica_wrapper.punica_selector import get_punica_wrapper

    assert isinstance(get_punica_wrapper(8, max_batches=2, device="cpu"), GroupedPunica)
