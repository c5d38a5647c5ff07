"""Continuous batching of transformers: the same greedy texts as `generate`, and what does not go through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from plugin_helpers import Run, Tiny, asked, generate, request, requests_for

from distillbench.errors import StageError
from distillbench.protocols import Context
from distillbench.records import Batch, Generation, Request, Sampling
from distillbench_plugins.engines import continuous
from distillbench_plugins.engines.transformers import TransformersEngine, TransformersOptions

is_there = pytest.mark.skipif(not continuous.is_there(), reason="this transformers has it in another form, or not")


def opened(tiny: Tiny, wanted: bool | None = True, batch_size: int = 64) -> Any:
    engine = TransformersEngine(TransformersOptions(batch_size=batch_size, continuous=wanted))
    return engine.open(tiny.student, tiny.built, [], Context(work=tiny.built))


def mixed(tiny: Tiny, n: int = 10) -> list[Request]:
    """Prompts and budgets of several lengths."""
    short, long = Sampling(max_tokens=6), Sampling(max_tokens=40)
    return requests_for(tiny, "coins", n, long) + requests_for(tiny, "digits", n, short)


def by_id(found: Sequence[Generation]) -> dict[str, Generation]:
    assert len({one.sample_id for one in found}) == len(found)
    return {one.sample_id: one for one in found}


@is_there
def test_greedy_texts_are_those_of_generate(tiny: Tiny, lora: Run, full: Run) -> None:
    kinds = [None, lora.checkpoints[-1], full.checkpoints[-1], None]
    with opened(tiny, batch_size=4) as session:
        assert session.facts["continuous_batching"] == "greedy completions, no stop strings, no penalties"
        found = [by_id(asked(session, mixed(tiny), which)) for which in kinds]
    for which, one in zip(kinds, found, strict=True):
        assert one == generate(tiny, mixed(tiny), which)
    assert {one.finish_reason for each in found for one in each.values()} == {"stop", "length"}
    assert len({str(sorted((name, one.text) for name, one in each.items())) for each in found}) == 3


@is_there
def test_what_it_cannot_do_is_generated_as_ever(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples keep their own random numbers, and stop strings stop."""
    went: list[str] = []
    original = continuous.generate

    def watched(model: Any, requests: Sequence[Request], *more: Any) -> Any:
        went.extend(one.sample_id for one in requests)
        return original(model, requests, *more)

    monkeypatch.setattr(continuous, "generate", watched)
    hot, stopped = Sampling(max_tokens=20, temperature=1.0), Sampling(max_tokens=20, stop=("oxed",))
    others = requests_for(tiny, n=4, sampling=hot) + requests_for(tiny, "digits", 4, stopped)
    greedy = [
        Request(f"greedy/{number}#0", one.prompt, one.sampling, one.stop_token_ids, 0)
        for number, one in enumerate(requests_for(tiny, n=4))
    ]
    with opened(tiny) as session:
        found = by_id(asked(session, [*others, *greedy]))
    assert found == generate(tiny, [*others, *greedy])
    assert sorted(went) == sorted(one.sample_id for one in greedy)


@is_there
def test_skipped_and_unfitting_requests(tiny: Tiny) -> None:
    requests = mixed(tiny, 4)
    too_long = request(requests[0].prompt.input_ids.tolist() * 80, "long#0", max_tokens=48)
    skip = {one.sample_id for one in requests[::2]}
    with opened(tiny) as session:
        found = by_id(asked(session, [*requests, too_long], skip=skip))
        assert asked(session, requests, skip={one.sample_id for one in requests}) == []
    assert "exceed the model's 1024 positions" in str(found.pop("long#0").error)
    assert found == {name: one for name, one in generate(tiny, requests).items() if name not in skip}


@is_there
def test_what_nobody_reads_is_given_up(tiny: Tiny) -> None:
    requests = mixed(tiny, 4)
    with opened(tiny) as session:
        begun = session.generate([Batch("stage", None, requests)])
        next(begun)
        begun.close()
        assert by_id(asked(session, requests)) == generate(tiny, requests)


@is_there
def test_what_breaks_is_an_error_and_no_empty_text(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Qwen3ForCausalLM

    requests = mixed(tiny, 2)

    def broken(self: Any, *more: Any, **named: Any) -> Any:
        raise RuntimeError("the kernel is gone")

    with opened(tiny) as session:
        with monkeypatch.context() as patch:
            patch.setattr(Qwen3ForCausalLM, "forward", broken)
            try:
                found = asked(session, requests)
            except StageError as error:
                assert "ended with" in str(error)
            else:
                assert all("the kernel is gone" in str(one.error) and not one.text for one in found)
                assert len(found) == len(requests)
        assert by_id(asked(session, requests)) == generate(tiny, requests)


def test_without_a_gpu_it_is_not_chosen(tiny: Tiny) -> None:
    with opened(tiny, wanted=None) as session:
        assert "continuous_batching" not in session.facts
        assert not session.is_continuous


@pytest.mark.skipif(continuous.is_there(), reason="this transformers has it; tox runs older ones")
def test_an_older_transformers_falls_back_and_says_so(tiny: Tiny) -> None:
    requests = mixed(tiny, 3)
    with opened(tiny) as session:
        assert session.facts["continuous_batching"] == "not in this transformers"
        assert by_id(asked(session, requests)) == generate(tiny, requests)
