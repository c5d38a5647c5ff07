"""A cut completion against the one that vLLM really generates under the smaller budget."""

from __future__ import annotations

from pathlib import Path

import pytest
from plugin_helpers import Tiny, sample_from
from vllm_helpers import batches, collect, mixed_requests, vllm

from distillbench.records import Sample
from distillbench.stages.budgets import cut
from distillbench.store.samples import digest_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("drawn", [{}, {"temperature": 0.9, "top_p": 0.95}], ids=["greedy", "warm"])
def test_a_cut_is_what_the_smaller_budget_generates(tiny: Tiny, work: Path, drawn: dict[str, float]) -> None:
    with vllm(tiny, [], work) as session:

        def generated(budget: int) -> dict[str, Sample]:
            found = collect(session.generate(batches(mixed_requests(tiny, 8, max_tokens=budget, **drawn), [None])))
            return {sample_id: sample_from(one) for (_, sample_id), one in found.items()}

        whole = generated(64)
        for budget in (1, 10, 33):
            smaller = generated(budget)
            assert whole.keys() == smaller.keys()
            for sample_id, one in whole.items():
                assert digest_of(cut(one, budget, tiny.renderer)) == digest_of(smaller[sample_id])
