"""Log-likelihoods of given continuations: vLLM and transformers agree, for every kind of checkpoint."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from plugin_helpers import Tiny
from vllm_helpers import long_requests, mixed_requests, transformers, vllm

from distillbench.records import Batch, Checkpoint, Generation, Request
from distillbench_plugins.engines.vllm_session import VllmSession

pytestmark = pytest.mark.slow
#: In nats, in float32.
CLOSE = 1e-3


@pytest.fixture(scope="module")
def session(tiny: Tiny, kinds: list[Checkpoint | None], work: Path) -> Iterator[VllmSession]:
    with vllm(tiny, kinds, work) as opened:
        for checkpoint in kinds:
            if checkpoint is not None:
                opened.prepare(checkpoint)
        yield opened


def with_continuations(session: VllmSession, requests: list[Request]) -> list[Request]:
    """Letters after one context, texts of several tokens, what the untouched student would write, and nothing."""
    drawn = random.Random(5)
    likely = {one.sample_id: one.token_ids for _, one in session.generate([Batch("likely", None, requests)])}
    return [
        replace(
            one,
            continuations=(
                *((token,) for token in drawn.sample(range(20, 300), 3)),
                tuple(drawn.randrange(20, 300) for _ in range(2 + number % 6)),
                likely[one.sample_id][: 1 + number % 4],
                (),
            ),
        )
        for number, one in enumerate(requests)
    ]


def agree(ours: dict[str, Generation], theirs: dict[str, Generation]) -> None:
    assert ours.keys() == theirs.keys()
    for name, one in ours.items():
        assert one.error is None
        mine, other = json.loads(one.text), json.loads(theirs[name].text)
        assert [number for number, _ in mine] == pytest.approx([number for number, _ in other], abs=CLOSE), name
        assert [is_greedy for _, is_greedy in mine] == [is_greedy for _, is_greedy in other], name
        assert one.n_prompt_tokens == theirs[name].n_prompt_tokens


@pytest.mark.parametrize("length", ["short", "long"])
def test_every_checkpoint_scores_as_with_transformers(
    session: VllmSession, tiny: Tiny, kinds: list[Checkpoint | None], work: Path, length: str
) -> None:
    """Long prompts begin alike and fill cached blocks, from which no score may be taken under other weights."""
    short = length == "short"
    asked = with_continuations(session, mixed_requests(tiny, 6) if short else long_requests(tiny))
    texts = set()
    with transformers(tiny, work) as other:
        for checkpoint in [kinds[0], kinds[-1], kinds[2], kinds[-2], kinds[0]]:
            batch = Batch("scores", checkpoint, asked)
            ours = {one.sample_id: one for one in session.loglikelihood(batch)}
            agree(ours, {one.sample_id: one for one in other.loglikelihood(batch)})
            texts.add(ours[asked[0].sample_id].text)
    assert len(texts) == 4, "each checkpoint has its own"


def test_what_is_skipped_is_not_given(session: VllmSession, tiny: Tiny) -> None:
    asked = with_continuations(session, mixed_requests(tiny, 3))
    skip = frozenset(one.sample_id for one in asked[::2])
    found = [one.sample_id for one in session.loglikelihood(Batch("scores", None, asked, skip))]
    assert sorted(found) == sorted(one.sample_id for one in asked if one.sample_id not in skip)
