"""Repetition and presence penalties of the transformers engine, against plain forward passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from plugin_helpers import Run, Tiny, generate, requests_for

from distillbench.records import Request, Sampling

#: Penalties that the tiny student's greedy text does not survive unchanged.
CASES = [
    Sampling(max_tokens=24, repetition_penalty=1.8),
    Sampling(max_tokens=24, repetition_penalty=0.7),
    Sampling(max_tokens=24, repetition_penalty=0.5, presence_penalty=3.0),
    Sampling(max_tokens=24, presence_penalty=-9.0),
    Sampling(max_tokens=24, repetition_penalty=1.3, presence_penalty=1.5),
]


def by_hand(model: Any, request: Request) -> list[int]:
    """Greedy tokens by one forward pass each, with the penalties as they are defined, and no padding at all."""
    import torch

    prompt, written = request.prompt.input_ids.tolist(), list[int]()
    sampling = request.sampling
    for _ in range(sampling.max_tokens):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([prompt + written])).logits[0, -1].float().tolist()
        for token in {*prompt, *written}:
            factor = sampling.repetition_penalty
            logits[token] = logits[token] / factor if logits[token] > 0 else logits[token] * factor
        for token in set(written):
            logits[token] -= sampling.presence_penalty
        written.append(max(range(len(logits)), key=logits.__getitem__))
        if written[-1] in request.stop_token_ids:
            break
    return written


def apart(found: Sequence[int], wanted: Sequence[int]) -> bool:
    return list(found) != list(wanted)


@pytest.mark.parametrize("sampling", CASES, ids=lambda one: str(one.penalties))
def test_penalties_are_what_their_definitions_say(tiny: Tiny, sampling: Sampling) -> None:
    """In a padded batch, where transformers' own processor would penalise the token that ends a turn."""
    requests = requests_for(tiny, n=6, sampling=sampling) + requests_for(tiny, "digits", n=6, sampling=sampling)
    assert len({len(one.prompt.input_ids) for one in requests}) > 3
    model = tiny.student.load_model(tiny.built, "cpu").eval()
    found = generate(tiny, requests)
    wanted = {one.sample_id: by_hand(model, one) for one in requests}
    # padding changes the last bits of the logits: a choice that lies on the edge may fall to the other side
    assert sum(apart(found[name].token_ids, ids) for name, ids in wanted.items()) <= 1
    plain = generate(tiny, [replace(one, sampling=Sampling(max_tokens=24)) for one in requests])
    assert sum(apart(found[name].token_ids, plain[name].token_ids) for name in plain) >= 3, "they change something"
    for one in found.values():
        told = {name: value for name, value in one.effective.items() if name.endswith("penalty")}
        assert told == sampling.penalties


def test_drawn_samples_are_penalised_too_and_keep_to_themselves(tiny: Tiny, full: Run) -> None:
    (checkpoint,) = full.checkpoints
    hot = Sampling(max_tokens=30, temperature=1.0, presence_penalty=2.0, repetition_penalty=1.5)
    requests = requests_for(tiny, n=8, sampling=hot) + requests_for(tiny, "digits", n=4, sampling=hot, seed=50)
    together, alone = generate(tiny, requests, checkpoint), generate(tiny, requests, checkpoint, batch_size=1)
    assert sum(apart(together[name].token_ids, alone[name].token_ids) for name in alone) <= 1
    free = generate(
        tiny, [replace(one, sampling=Sampling(max_tokens=30, temperature=1.0)) for one in requests], checkpoint
    )

    def repeated(found: Any) -> float:
        """The share of tokens that were there already."""
        texts = [one.token_ids for one in found.values()]
        return sum(len(ids) - len(set(ids)) for ids in texts) / sum(map(len, texts))

    assert repeated(together) < repeated(free) / 2


def test_requests_with_and_without_penalties_do_not_share_a_group(tiny: Tiny) -> None:
    plain = requests_for(tiny, n=4, sampling=Sampling(max_tokens=24))
    penalised = [
        replace(one, sample_id=f"p{one.sample_id}", sampling=Sampling(max_tokens=24, presence_penalty=2.0))
        for one in plain
    ]
    mixed, alone = generate(tiny, plain + penalised), generate(tiny, plain)
    assert [mixed[one.sample_id] for one in plain] == [alone[one.sample_id] for one in plain]
