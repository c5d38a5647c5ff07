"""A cut completion against the one that the engine really generates under the smaller budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from plugin_helpers import Tiny, generate, requests_for

from distillbench.records import Generation, Sampling
from distillbench.stages.budgets import cut

Row = dict[str, Any]

#: Whole completions of the tiny student are some 30 to 50 tokens long.
MOST = 64


def row(generation: Generation) -> Row:
    """The columns of a sample that a cut looks at."""
    assert generation.error is None
    return {
        "sample_id": generation.sample_id,
        "token_ids": list(generation.token_ids),
        "text": generation.text,
        "finish_reason": generation.finish_reason,
        "error": None,
        "n_tokens": len(generation.token_ids),
    }


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=0.8, top_p=0.95, seed=3)], ids=["greedy", "warm"]
)
@pytest.mark.parametrize("task", ["coins", "digits"])
def test_a_cut_is_what_the_smaller_budget_generates(tiny: Tiny, task: str, sampling: Sampling) -> None:
    def generated(budget: int) -> dict[str, Row]:
        asked = requests_for(tiny, task, 12, replace(sampling, max_tokens=budget))
        return {sample_id: row(one) for sample_id, one in generate(tiny, asked).items()}

    whole = generated(MOST)
    lengths = sorted(one["n_tokens"] for one in whole.values())
    assert lengths[0] > 2
    for budget in (1, lengths[0], lengths[len(lengths) // 2], MOST - 1):
        smaller = generated(budget)
        for sample_id, one in whole.items():
            assert cut(one, budget, tiny.renderer) == smaller[sample_id]
