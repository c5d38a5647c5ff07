"""Sampled completions of the transformers engine: seeds, independence of the batch, and the distribution itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from plugin_helpers import Run, Tiny, generate, request, requests_for
from scipy import stats

from distillbench.records import Message, Request, Sampling

HOT = Sampling(max_tokens=40, temperature=1.0)


def token_ids(found: Any) -> dict[str, tuple[int, ...]]:
    return {name: one.token_ids for name, one in found.items()}


def test_a_seed_decides_the_sample(tiny: Tiny, full: Run) -> None:
    (checkpoint,) = full.checkpoints
    first = generate(tiny, requests_for(tiny, n=16, sampling=HOT), checkpoint)
    again = generate(tiny, requests_for(tiny, n=16, sampling=HOT), checkpoint)
    other = generate(tiny, requests_for(tiny, n=16, sampling=HOT, seed=1000), checkpoint)
    greedy = generate(tiny, requests_for(tiny, n=16, sampling=Sampling(max_tokens=40)), checkpoint)
    assert first == again
    for changed in (other, greedy):
        assert sum(first[name].token_ids != changed[name].token_ids for name in first) >= 14


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_batch_does_not_change_a_sample(tiny: Tiny, full: Run, batch_size: int) -> None:
    """Padding may change the last bits of the logits: a draw that lies on the edge may fall to the other side."""
    (checkpoint,) = full.checkpoints
    requests = requests_for(tiny, "coins", 20, HOT) + requests_for(tiny, "digits", 12, HOT, seed=500)
    together = token_ids(generate(tiny, requests, checkpoint))
    apart = token_ids(generate(tiny, requests[::-1], checkpoint, batch_size))
    some = token_ids(generate(tiny, requests[5:9], checkpoint))
    assert sum(together[name] != apart[name] for name in together) <= 1
    assert sum(together[name] != some[name] for name in some) <= 1


def test_repeats_of_one_problem_differ(tiny: Tiny, full: Run) -> None:
    (one,) = requests_for(tiny, n=1, sampling=HOT)
    repeats = [
        Request(f"coins/0#{number}", one.prompt, one.sampling, one.stop_token_ids, number) for number in range(20)
    ]
    assert len(set(token_ids(generate(tiny, repeats, full.checkpoints[0])).values())) >= 15


def test_seeds_as_large_as_the_runner_makes_them(tiny: Tiny) -> None:
    (one,) = requests_for(tiny, n=1, sampling=HOT)
    large = [2**48 - 1, 2**48 - 2, 2**47]
    repeats = [Request(f"coins/0#{seed}", one.prompt, HOT, one.stop_token_ids, seed) for seed in large]
    assert all(found.error is None for found in generate(tiny, repeats).values())


def distribution(tiny: Tiny, prompt: NDArray[np.int32]) -> NDArray[np.float64]:
    """The model's own next-token probabilities, float[V], by one plain forward pass."""
    import torch

    model = tiny.student.load_model(tiny.built, "cpu").eval()
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([prompt.tolist()])).logits[0, -1].double().numpy()
    return logits - np.logaddexp.reduce(logits)


def warped(
    log_p: NDArray[np.float64], temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> NDArray[np.float64]:
    """What the samplers' definitions say, in this order: temperature, top-k, top-p, min-p."""
    scaled = log_p / temperature
    p = np.exp(scaled - np.logaddexp.reduce(scaled))
    order = np.argsort(-p)
    if top_k:
        p[order[top_k:]] = 0
        p /= p.sum()
    if top_p < 1:  # the smallest set of the most likely tokens that holds at least top_p
        before = np.cumsum(p[order]) - p[order]
        p[order[before >= top_p]] = 0
        p /= p.sum()
    if min_p:
        p[p < min_p * p.max()] = 0
        p /= p.sum()
    return p


@pytest.fixture(scope="module")
def open_prompt(tiny: Tiny) -> NDArray[np.int32]:
    """A place where the model is unsure: a digit in a box."""
    asked = [Message("user", "Tom has 6 coins. Mon take 3, Tue add 2. How many?"), Message("assistant", "\\boxed{")]
    return tiny.renderer.prompt(asked).input_ids


N = 3000


def drawn(tiny: Tiny, prompt: NDArray[np.int32], **sampling: Any) -> Counter[int]:
    """The first tokens of N samples under the seeds 0..N-1."""
    requests = [
        request(prompt.tolist(), f"p#{seed}", seed, tiny.renderer.stop_token_ids(), max_tokens=1, **sampling)
        for seed in range(N)
    ]
    return Counter(one.token_ids[0] for one in generate(tiny, requests, batch_size=500).values())


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1.0},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"temperature": 1.0, "top_k": 3},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 1.0, "top_p": 0.6},
        {"temperature": 1.0, "top_p": 1e-9},
        {"temperature": 1.0, "min_p": 0.3},
        {"temperature": 1.5, "top_k": 8, "top_p": 0.8, "min_p": 0.2},
    ],
    ids=str,
)
def test_frequencies_are_the_models_probabilities(
    tiny: Tiny, open_prompt: NDArray[np.int32], sampling: dict[str, Any]
) -> None:
    p = warped(distribution(tiny, open_prompt), **sampling)
    counts = drawn(tiny, open_prompt, **sampling)
    assert not [token for token in counts if p[token] == 0], "a token that the warping leaves out was drawn"
    often = np.flatnonzero(p * N >= 10)
    observed = [*(counts[token] for token in often), N - sum(counts[token] for token in often)]
    expected = [*(p[often] * N), N - p[often].sum() * N]
    if expected[-1] < 5:  # what is rare goes to the last of the others
        observed[-2:], expected[-2:] = [sum(observed[-2:])], [sum(expected[-2:])]
    if len(observed) == 1:
        assert observed == [N]
    else:
        assert stats.chisquare(observed, np.array(expected) * N / sum(expected)).pvalue > 1e-5


def test_the_test_above_would_notice_a_wrong_temperature(tiny: Tiny, open_prompt: NDArray[np.int32]) -> None:
    p = warped(distribution(tiny, open_prompt), temperature=1.2)
    counts = drawn(tiny, open_prompt, temperature=1.0)
    often = np.flatnonzero(p * N >= 10)
    observed = [*(counts[token] for token in often), N - sum(counts[token] for token in often)]
    expected = np.array([*(p[often] * N), N - p[often].sum() * N])
    assert stats.chisquare(observed, expected * N / expected.sum()).pvalue < 1e-5
    assert len(often) >= 5, "the place is one where the model is unsure"


def test_later_tokens_are_drawn_from_their_own_distribution(tiny: Tiny, open_prompt: NDArray[np.int32]) -> None:
    """Draws of a row do not repeat or correlate: the second token given the first has the model's frequencies."""
    sampling = {"temperature": 1.5, "max_tokens": 2}
    requests = [
        request(open_prompt.tolist(), f"p#{seed}", seed, tiny.renderer.stop_token_ids(), **sampling)
        for seed in range(N)
    ]
    pairs = [one.token_ids for one in generate(tiny, requests, batch_size=500).values()]
    (first, n_first), *_ = Counter(pair[0] for pair in pairs if len(pair) == 2).most_common()
    assert n_first >= 200
    second = Counter(pair[1] for pair in pairs if pair[0] == first)
    longer = np.append(open_prompt, np.int32(first))
    p = warped(distribution(tiny, longer), temperature=1.5)
    often = np.flatnonzero(p * n_first >= 5)
    observed = [*(second[token] for token in often), n_first - sum(second[token] for token in often)]
    expected = np.array([*(p[often] * n_first), n_first - p[often].sum() * n_first])
    assert stats.chisquare(observed, expected * n_first / expected.sum()).pvalue > 1e-5
