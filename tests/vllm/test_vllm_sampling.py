"""Sampled completions come from their own seeds: nothing that goes on beside them changes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from plugin_helpers import Tiny, request
from vllm_helpers import batches, collect, mixed_requests, told, vllm

from distillbench.records import Batch, Checkpoint, Generation, Request, Sampling
from distillbench_plugins.engines.vllm_session import VllmSession

pytestmark = pytest.mark.slow

DRAWN = {"temperature": 0.9, "top_p": 0.95, "top_k": 50, "min_p": 0.01}


@pytest.fixture(scope="module")
def session(tiny: Tiny, five: list[Checkpoint], work: Path) -> Iterator[VllmSession]:
    with vllm(tiny, five, work) as opened:
        for checkpoint in five:
            opened.prepare(checkpoint)
        yield opened


def test_seeds_and_nothing_else(
    session: VllmSession, tiny: Tiny, five: list[Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = mixed_requests(tiny, 6, **DRAWN)
    asked = batches(requests, [None, five[-1]])
    alone = told(collect(session.generate(asked)))
    beside = batches(mixed_requests(tiny, 10, temperature=1.0), [five[0], five[2]])
    beside = [replace(one, key=f"beside/{one.key}") for one in beside]
    mixed = told(collect(session.generate([beside[0], *asked, beside[1]])))
    assert {name: one for name, one in mixed.items() if "beside" not in name[0]} == alone
    with monkeypatch.context() as patch:
        patch.setattr(session, "window", 3)
        assert told(collect(session.generate(asked))) == alone
    reseeded = [replace(one, seed=one.seed + 1000) for one in requests]
    other = told(collect(session.generate(batches(reseeded, [None, five[-1]]))))
    assert sum(other[name][0] != one[0] for name, one in alone.items()) > len(alone) // 2
    greedy = told(collect(session.generate(batches(mixed_requests(tiny, 6), [None]))))
    assert sum(alone[name][0] != one[0] for name, one in greedy.items()) > 3


def test_repeats_of_a_prompt_differ_by_their_seeds(session: VllmSession, tiny: Tiny) -> None:
    (one,) = mixed_requests(tiny, 1, temperature=2.0)[:1]
    repeats = [replace(one, sample_id=f"coins/0#{n}", seed=n % 8) for n in range(16)]
    found = collect(session.generate([Batch("a", None, repeats)]))
    texts = [found["a", f"coins/0#{n}"].text for n in range(16)]
    assert texts[:8] == texts[8:], "the same seed draws the same, under another name"
    assert len(set(texts[:8])) > 4


def test_effective_parameters_are_vllms(session: VllmSession, tiny: Tiny) -> None:
    ids = mixed_requests(tiny, 1)[0].prompt.input_ids.tolist()

    def effective(**sampling: float) -> Generation:
        (one,) = collect(
            session.generate([Batch("a", None, [request(ids, seed=7, max_tokens=4, **sampling)])])
        ).values()
        return one

    ends = {"max_tokens": 4, "stop": [], "stop_token_ids": [2, 0]}
    assert effective(**DRAWN).effective == {**DRAWN, "seed": 7, **ends}
    off = {"top_p": 1.0, "top_k": 0, "min_p": 0.0}
    assert effective(temperature=1.0).effective == {"temperature": 1.0, **off, "seed": 7, **ends}
    assert effective(top_p=0.5, top_k=3).effective == {"temperature": 0.0, **ends}, "greedy is greedy"
    penalties = {"repetition_penalty": 1.2, "presence_penalty": 1.5}
    assert effective(**penalties).effective == {"temperature": 0.0, **penalties, **ends}, "and yet penalised"
    # vLLM raises what is too near to zero, and we tell what it computed with.
    assert effective(temperature=0.001).effective["temperature"] == pytest.approx(0.01)


def test_the_distribution_is_the_models(session: VllmSession, tiny: Tiny, five: list[Checkpoint]) -> None:
    """One token, 1500 draws: the shares of the likeliest tokens are their probabilities."""
    import math

    (one,) = mixed_requests(tiny, 1, max_tokens=1, temperature=1.0)[:1]
    (logprobs,) = session.first_token_logprobs([one.prompt], five[1])
    n = 1500
    drawn = [replace(one, sample_id=f"a#{number}", seed=number) for number in range(n)]
    found = collect(session.generate([Batch("a", five[1], drawn)]))
    first = [row.token_ids[0] for row in found.values()]
    for token, logprob in logprobs.items():
        share = math.exp(logprob)
        assert first.count(token) / n == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / n) + 1 / n)
    few = [replace(row, sampling=Sampling(temperature=1.0, top_k=2, max_tokens=1)) for row in drawn[:300]]
    likeliest = sorted(logprobs, key=lambda token: -logprobs[token])[:2]
    assert {row.token_ids[0] for row in collect(session.generate([Batch("b", five[1], few)])).values()} == set(
        likeliest
    )


def test_a_request_that_is_given_up_is_tried_again(session: VllmSession, tiny: Tiny) -> None:
    """Requests are aborted behind the session's back, as vLLM does when it gives one up."""
    requests = mixed_requests(tiny, 2, **DRAWN)
    wanted = told(collect(session.generate([Batch("a", None, requests)])))
    given_up: dict[str, int] = {}
    add, once, always = session.engine.add_request, requests[0], requests[1]

    def adding(number: str, prompt: dict[str, list[int]], *more: object, **named: object) -> None:
        add(number, prompt, *more, **named)
        for row, times in ((once, 1), (always, 99)):
            name = row.sample_id
            if prompt["prompt_token_ids"] == row.prompt.input_ids.tolist() and given_up.get(name, 0) < times:
                given_up[name] = given_up.get(name, 0) + 1
                broken.add(number)

    broken: set[str] = set()
    step = session.engine.step

    def stepping() -> list[object]:
        outputs = step()
        for output in outputs:
            if output.request_id in broken:
                output.outputs[0].finish_reason = "error"
        return outputs

    session.engine.add_request, session.engine.step = adding, stepping  # type: ignore[method-assign, assignment]
    try:
        found = collect(session.generate([Batch("a", None, requests)]))
    finally:
        session.engine.add_request, session.engine.step = add, step  # type: ignore[method-assign]
    failed = found.pop(("a", always.sample_id))
    assert failed.error == "vllm gave the request up 3 times: error"
    assert (failed.token_ids, failed.text, failed.finish_reason) == ((), "", None)
    assert given_up == {once.sample_id: 1, always.sample_id: 3}
    assert told(found) == {name: one for name, one in wanted.items() if name[1] != always.sample_id}


def test_prompts_longer_than_a_step(session: VllmSession, tiny: Tiny, five: list[Checkpoint]) -> None:
    """Many long prompts at once, of which a step has no room for all; each draws what it draws alone."""
    import numpy as np

    rng = np.random.default_rng(0)
    rows = [
        request(rng.integers(3, 300, int(n)).tolist(), f"long/{n}#0", seed=int(n), max_tokens=8, **DRAWN)
        for n in rng.integers(600, 1010, 24)
    ]
    together = told(collect(session.generate([Batch("a", five[0], rows)])))
    assert [one[3] for one in together.values()] == [None] * len(together)
    for row in rows[::6]:
        (alone,) = told(collect(session.generate([Batch("a", five[0], [row])]))).values()
        assert together["a", row.sample_id] == alone


def test_requests_of_equal_prompts(session: VllmSession, tiny: Tiny, five: list[Checkpoint]) -> None:
    """The prefix cache knows which adapter a block was computed with."""
    import numpy as np

    one = mixed_requests(tiny, 1)[0]
    long = replace(one, prompt=replace(one.prompt, input_ids=np.tile(one.prompt.input_ids, 8)))
    asked: list[Request] = [long]
    apart = [told(collect(session.generate(batches(asked, [which])))) for which in (None, *five)]
    together = told(collect(session.generate(batches(asked, [*five, None]))))
    assert together == {name: row for found in apart for name, row in found.items()}
