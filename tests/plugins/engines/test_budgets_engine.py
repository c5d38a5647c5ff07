"""A cut completion against the one that the engine really generates under the smaller budget."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plugin_helpers import Tiny, generate, requests_for, sample_from

from distillbench.records import Sample, Sampling
from distillbench.stages.budgets import cut
from distillbench.store.samples import digest_of

#: Whole completions of the tiny student are some 30 to 50 tokens long.
MOST = 64


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=0.8, top_p=0.95, seed=3)], ids=["greedy", "warm"]
)
@pytest.mark.parametrize("task", ["coins", "digits"])
def test_a_cut_is_what_the_smaller_budget_generates(tiny: Tiny, task: str, sampling: Sampling) -> None:
    def generated(budget: int) -> dict[str, Sample]:
        asked = requests_for(tiny, task, 12, replace(sampling, max_tokens=budget))
        return {sample_id: sample_from(one) for sample_id, one in generate(tiny, asked).items()}

    whole = generated(MOST)
    lengths = sorted(len(one.token_ids) for one in whole.values())
    assert lengths[0] > 2
    for budget in (1, lengths[0], lengths[len(lengths) // 2], MOST - 1):
        smaller = generated(budget)
        for sample_id, one in whole.items():
            assert digest_of(cut(one, budget, tiny.renderer)) == digest_of(smaller[sample_id])
