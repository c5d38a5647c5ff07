"""Log-likelihoods of given continuations, and first tokens: what the transformers engine says against plain logits."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plugin_helpers import Run, Tiny, request, requests_for

from distillbench.protocols import Context, EngineSession
from distillbench.records import Batch, Checkpoint, Generation, Prompt, Request
from distillbench_plugins.engines.scoring import rows_of
from distillbench_plugins.engines.transformers import TransformersEngine, TransformersOptions

#: In float32, padded and shared rows against one continuation alone.
CLOSE = 1e-4


def plain(model: Any, one: Request) -> list[tuple[float, bool]]:
    """Each continuation alone: a forward pass over prompt and continuation, without padding or cache."""
    import torch

    found = []
    prompt = one.prompt.input_ids.tolist()
    for continuation in one.continuations:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*prompt, *continuation]]), use_cache=False).logits[0].double()
        total, is_greedy = 0.0, True
        for place, token in enumerate(continuation, len(prompt)):
            logprobs = logits[place - 1].log_softmax(-1)
            total += float(logprobs[token])
            is_greedy &= int(logprobs.argmax()) == token
        found.append((total, is_greedy))
    return found


def many(tiny: Tiny, n: int = 16) -> list[Request]:
    """Prompts of both tasks; some continuations share all but their last token, some are long, some are greedy."""
    drawn = random.Random(3)
    likely = greedy(tiny, requests_for(tiny, n=n))
    asked = []
    for number, one in enumerate(requests_for(tiny, "coins", n) + requests_for(tiny, "digits", n)):
        stem = [drawn.randrange(20, 300) for _ in range(number % 4)]
        same = [(*stem, token) for token in drawn.sample(range(20, 300), 4)]
        other = [tuple(drawn.randrange(20, 300) for _ in range(1 + number % 9)) for _ in range(number % 3)]
        best = [likely[one.sample_id][: 1 + number % 5]] if one.sample_id in likely else []
        asked.append(replace(one, continuations=(*same, *best, *other)))
    return asked


def greedy(tiny: Tiny, requests: Sequence[Request]) -> dict[str, tuple[int, ...]]:
    with opened(tiny) as session:
        return {one.sample_id: one.token_ids for _, one in session.generate([Batch("s", None, requests)])}


def opened(tiny: Tiny, batch_size: int = 64) -> Any:
    engine = TransformersEngine(TransformersOptions(batch_size=batch_size))
    return engine.open(tiny.student, tiny.built, [], Context(work=tiny.built))


def scores(
    session: EngineSession, requests: Sequence[Request], checkpoint: Checkpoint | None = None, skip: Iterable[str] = ()
) -> dict[str, Generation]:
    found = list(session.loglikelihood(Batch("stage", checkpoint, requests, frozenset(skip))))
    assert len({one.sample_id for one in found}) == len(found), "a request was answered twice"
    return {one.sample_id: one for one in found}


def check(found: Generation, wanted: list[tuple[float, bool]]) -> None:
    told = json.loads(found.text)
    assert [number for number, _ in told] == pytest.approx([number for number, _ in wanted], abs=CLOSE)
    assert [is_greedy for _, is_greedy in told] == [is_greedy for _, is_greedy in wanted]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_each_score_is_that_of_the_continuation_alone(tiny: Tiny, batch_size: int) -> None:
    requests = many(tiny)
    model = tiny.student.load_model(tiny.built, "cpu").eval()
    with opened(tiny, batch_size) as session:
        found = scores(session, requests)
    assert set(found) == {one.sample_id for one in requests}
    for one in requests:
        check(found[one.sample_id], plain(model, one))
        assert found[one.sample_id].n_prompt_tokens == len(one.prompt.input_ids)
        assert (found[one.sample_id].finish_reason, found[one.sample_id].n_tokens) == ("stop", 0)
    flags = [is_greedy for one in found.values() for _, is_greedy in json.loads(one.text)]
    assert 10 < sum(flags) < len(flags) - 10, "both kinds must be among what is compared"


def test_each_checkpoint_scores_with_its_own_weights(tiny: Tiny, lora: Run, full: Run) -> None:
    from peft import PeftModel

    requests = many(tiny, 3)
    with opened(tiny) as session:
        base, adapted, changed, again = (
            scores(session, requests, which) for which in (None, lora.checkpoints[-1], full.checkpoints[-1], None)
        )
    assert base == again
    with_adapter = PeftModel.from_pretrained(
        tiny.student.load_model(tiny.built, "cpu"), str(lora.checkpoints[-1].path)
    ).eval()
    trained = tiny.student.load_model(tiny.built, "cpu", weights=full.checkpoints[-1].path).eval()
    for one in requests:
        check(adapted[one.sample_id], plain(with_adapter, one))
        check(changed[one.sample_id], plain(trained, one))
        assert len({found[one.sample_id].text for found in (base, adapted, changed)}) == 3


def test_skipped_requests_change_nothing(tiny: Tiny) -> None:
    requests = many(tiny)
    with opened(tiny, 5) as session:
        whole = scores(session, requests)
        for skip in ({one.sample_id for one in requests[::2]}, {requests[3].sample_id}, set(whole)):
            assert scores(session, requests, skip=skip) == {
                name: one for name, one in whole.items() if name not in skip
            }


def test_what_does_not_fit_is_an_error_of_its_own(tiny: Tiny) -> None:
    requests = many(tiny, 2)
    filler = requests[0].prompt.input_ids.tolist() * 80
    fits = replace(request(filler[:1020], "fits#0"), continuations=((5, 6, 7, 8), (9,)))
    too_long = replace(request(filler[:1020], "long#0"), continuations=((5,), (5, 6, 7, 8, 9)))
    nothing = replace(request(filler[:9], "nothing#0"), continuations=((), ()))
    half = replace(request(filler[:9], "half#0"), continuations=((), (5, 6)))
    with opened(tiny) as session:
        alone = scores(session, requests)
        found = scores(session, [*requests, fits, too_long, nothing, half])
    for name, one in alone.items():
        check(found[name], json.loads(one.text))
    assert found["fits#0"].error is None
    assert found["long#0"].error == "prompt and continuation of 1025 tokens exceed the model's 1024 positions"
    assert found["long#0"].text == ""
    assert json.loads(found["nothing#0"].text) == [[0.0, True], [0.0, True]], "the probability of nothing more is 1"
    assert json.loads(found["half#0"].text)[0] == [0.0, True]
    assert json.loads(found["half#0"].text)[1][0] < -0.1


def test_what_is_not_a_number_is_an_error_and_no_score(tiny: Tiny) -> None:
    """As a float16 model computes that overflows; lm-eval would take the argmax over NaN for an answer."""
    asked = many(tiny, 2)
    with opened(tiny) as session:
        session.base.get_output_embeddings().weight.data.mul_(math.inf)
        found = list(session.loglikelihood(Batch("", None, asked)))
        (told,) = session.first_token_logprobs([asked[0].prompt], None)
    assert {one.sample_id for one in found} == {one.sample_id for one in asked}
    assert all(one.error is not None and "not a number" in one.error and not one.text for one in found)
    assert all(math.isnan(logprob) for logprob in told.values())


def test_memory_that_runs_out_halves_the_group(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import Qwen3ForCausalLM

    requests = many(tiny, 4)
    with opened(tiny) as session:
        wanted = scores(session, requests)
    original, sizes, most = Qwen3ForCausalLM.forward, [], 8

    def small(self: Any, input_ids: Any, **more: Any) -> Any:
        sizes.append(len(input_ids))
        if len(input_ids) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, input_ids=input_ids, **more)

    monkeypatch.setattr(Qwen3ForCausalLM, "forward", small)
    with opened(tiny) as session:
        found = scores(session, requests)
        most = 0
        failed = scores(session, requests)
    assert max(sizes) > 8
    for name, one in wanted.items():
        check(found[name], json.loads(one.text))
    assert set(failed) == set(wanted)
    assert {one.error for one in failed.values()} == {"out of memory: CUDA out of memory"}


REQUESTS = st.lists(
    st.tuples(
        st.lists(st.integers(1, 3), min_size=1, max_size=3),
        st.lists(st.lists(st.integers(1, 3), max_size=3).map(tuple), max_size=4),
    ),
    max_size=12,
).map(
    lambda drawn: [
        replace(request(ids, f"p/{number}#0"), continuations=tuple(continuations))
        for number, (ids, continuations) in enumerate(drawn)
    ]
)


@given(requests=REQUESTS, rnd=st.randoms(use_true_random=False))
def test_rows(requests: list[Request], rnd: Any) -> None:
    rows = rows_of(requests)
    assert len({row.ids for row in rows}) == len(rows), "each input once"
    assert [len(row.ids) for row in rows] == sorted(len(row.ids) for row in rows)
    found = {part: (row.ids, continuation) for row in rows for part, continuation in row.parts}
    wanted = {
        (one.sample_id, number): ((*one.prompt.input_ids.tolist(), *continuation[:-1]), continuation)
        for one in requests
        for number, continuation in enumerate(one.continuations)
        if continuation
    }
    assert found == wanted
    assert sum(len(row.parts) for row in rows) == len(wanted), "nothing twice"
    shuffled = requests[:]
    rnd.shuffle(shuffled)
    assert [row.ids for row in rows_of(shuffled)] == [row.ids for row in rows]


def test_first_tokens_are_those_of_plain_logits(tiny: Tiny, lora: Run) -> None:
    from peft import PeftModel

    prompts = [one.prompt for one in (*requests_for(tiny, n=4), *requests_for(tiny, "digits", 4))]
    assert len({len(prompt.input_ids) for prompt in prompts}) > 1, "some are padded"
    base = tiny.student.load_model(tiny.built, "cpu").eval()
    with opened(tiny) as session:
        untouched, again = (session.first_token_logprobs(prompts, None) for _ in range(2))
        adapted = session.first_token_logprobs(prompts, lora.checkpoints[-1])
    assert untouched == again
    check_first_tokens(base, prompts, untouched)  # before peft changes the model in place
    check_first_tokens(PeftModel.from_pretrained(base, str(lora.checkpoints[-1].path)).eval(), prompts, adapted)


def check_first_tokens(model: Any, prompts: Sequence[Prompt], found: Sequence[Mapping[int, float]]) -> None:
    """Each prompt alone; the likeliest tokens, and their log-probabilities."""
    import torch

    for prompt, told in zip(prompts, found, strict=True):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([prompt.input_ids.tolist()])).logits[0, -1].double()
        wanted = logits.log_softmax(-1).numpy()
        assert len(told) >= 20
        assert set(told) == set(np.argsort(-wanted)[: len(told)].tolist())
        assert all(math.isclose(number, wanted[token], abs_tol=CLOSE) for token, number in told.items())
