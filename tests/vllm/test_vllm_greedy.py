"""Greedy texts through vLLM, through transformers, and of merged weights are the same, whatever is mixed under way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from plugin_helpers import Tiny, request
from vllm_helpers import batches, collect, long_requests, mixed_requests, name_of, told, transformers, vllm

from distillbench.records import Batch, Checkpoint, Request, Sampling
from distillbench_plugins.engines.vllm_session import VllmSession
from distillbench_plugins.models.merging import merged

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def session(tiny: Tiny, kinds: list[Checkpoint | None], work: Path) -> Iterator[VllmSession]:
    with vllm(tiny, kinds, work) as opened:
        for checkpoint in kinds:
            if checkpoint is not None:
                opened.prepare(checkpoint)
        yield opened


def test_every_checkpoint_writes_what_transformers_writes(
    session: VllmSession, tiny: Tiny, kinds: list[Checkpoint | None], work: Path
) -> None:
    asked = batches(mixed_requests(tiny), kinds)
    ours = collect(session.generate(asked))
    with transformers(tiny, work) as other:
        assert told(ours) == told(collect(other.generate(asked)))
    assert len(ours) == len(kinds) * 20
    assert {one.finish_reason for one in ours.values()} == {"stop", "length"}
    texts = {
        name_of(one): [ours[name_of(one), asked[0].requests[n].sample_id].text for n in range(20)] for one in kinds
    }
    assert len({tuple(written) for written in texts.values()}) == len(kinds), "each checkpoint writes its own"
    for (key, sample_id), one in ours.items():
        (wanted,) = [row for row in asked[0].requests if row.sample_id == sample_id]
        assert one.n_prompt_tokens == len(wanted.prompt.input_ids), key
        assert one.effective == {"temperature": 0.0, "max_tokens": 40, "stop": [], "stop_token_ids": [2, 0]}


def test_merged_weights_write_the_same(session: VllmSession, tiny: Tiny, five: list[Checkpoint], work: Path) -> None:
    source = tiny.student.source(tiny.built)
    requests = mixed_requests(tiny)
    adapters = told(collect(session.generate(batches(requests, five))))
    whole = [
        Checkpoint(merged(one.path, source, work / "by-hand" / str(one.step)), "full", one.step, 0) for one in five
    ]
    for one in whole:
        session.prepare(one)
    found = told(collect(session.generate(batches(requests, whole))))
    assert {(one.step, row.sample_id): found[name_of(one), row.sample_id] for one in whole for row in requests} == {
        (one.step, row.sample_id): adapters[name_of(one), row.sample_id] for one in five for row in requests
    }


def test_weights_come_and_go(session: VllmSession, tiny: Tiny, kinds: list[Checkpoint | None], work: Path) -> None:
    """Long prompts, because a cached block of other weights would spoil them; the order brings each back twice."""
    requests = long_requests(tiny)
    base, adapter, full = kinds[0], kinds[3], kinds[-1]
    order = [base, full, adapter, full, base, adapter]
    with transformers(tiny, work) as other:
        wanted = told(collect(other.generate(batches(requests, [base, adapter, full]))))
    for checkpoint in order:
        found = told(collect(session.generate(batches(requests, [checkpoint]))))
        assert found == {name: one for name, one in wanted.items() if name[0] == name_of(checkpoint)}
    together = [Batch(f"{n}", one, requests) for n, one in enumerate(order)]
    found = told(collect(session.generate(together)))
    assert found == {
        (str(n), row.sample_id): wanted[name_of(one), row.sample_id] for n, one in enumerate(order) for row in requests
    }


@pytest.mark.parametrize("window", [1, 7])
def test_the_window_bounds_what_is_under_way_and_changes_nothing(
    session: VllmSession, tiny: Tiny, five: list[Checkpoint], monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    requests = mixed_requests(tiny, 4)
    wanted = told(collect(session.generate(batches(requests, five))))
    monkeypatch.setattr(session, "window", window)
    read: list[str] = []

    def reading() -> Iterator[Batch]:
        for batch in batches(requests, five):
            read.append(batch.key)
            yield batch

    most, found = 0, []
    for one in session.generate(reading()):
        found.append(one)
        most = max(most, session.engine.get_num_unfinished_requests())
        assert len(read) <= (len(found) + window) // len(requests) + 1, "read no further ahead than there is room for"
    assert told(collect(found)) == wanted
    assert most <= window


def test_what_nobody_reads_is_given_up(session: VllmSession, tiny: Tiny, five: list[Checkpoint]) -> None:
    requests = mixed_requests(tiny, 6)
    wanted = told(collect(session.generate(batches(requests, five))))
    begun = session.generate(batches(requests, five))
    next(begun)
    begun.close()  # type: ignore[attr-defined]
    assert session.engine.get_num_unfinished_requests() == 0
    assert told(collect(session.generate(batches(requests, five)))) == wanted


def test_skipped_requests_are_not_computed(session: VllmSession, tiny: Tiny) -> None:
    requests = mixed_requests(tiny, 4)
    whole = told(collect(session.generate([Batch("a", None, requests)])))
    skip = frozenset(one.sample_id for one in requests[::2])
    rest = told(collect(session.generate([Batch("a", None, requests, skip)])))
    assert rest == {name: one for name, one in whole.items() if name[1] not in skip}
    assert collect(session.generate([])) == {}
    assert collect(session.generate([Batch("a", None, requests, frozenset(one.sample_id for one in requests))])) == {}


def test_stop_strings_and_tokens(session: VllmSession, tiny: Tiny, kinds: list[Checkpoint | None], work: Path) -> None:
    stops = (" has", "=", ". ", "boxed")
    requests = mixed_requests(tiny, 6, stop=stops)
    asked = batches(requests, [kinds[0], kinds[2], kinds[-1]])
    ours = collect(session.generate(asked))
    with transformers(tiny, work) as other:
        assert told(ours) == told(collect(other.generate(asked)))
    ended = [one for one in ours.values() if any(stop in one.text for stop in stops)]
    assert len(ended) > 10
    for one in ended:
        assert one.finish_reason == "stop"
        assert one.text.endswith(stops), "the stop string is the last text"
        assert sum(one.text.count(stop) for stop in stops) == 1
    (plain,) = collect(session.generate([Batch("a", None, requests_of(requests[:1], ()))])).values()
    middle = plain.token_ids[3]
    (cut,) = collect(session.generate([Batch("a", None, requests_of(requests[:1], (2, 0, middle)))])).values()
    assert cut.token_ids == plain.token_ids[: plain.token_ids.index(middle) + 1]
    assert cut.text == tiny.tokenizer.decode(cut.token_ids[:-1])
    assert cut.finish_reason == "stop"


def requests_of(requests: list[Request], stop: tuple[int, ...]) -> list[Request]:
    return [Request(one.sample_id, one.prompt, Sampling(max_tokens=40), stop, one.seed) for one in requests]


def test_only_the_given_tokens_end_a_turn(session: VllmSession, tiny: Tiny) -> None:
    """The tokenizer has an end token of its own, which the model writes; it ends nothing unless it is asked to."""
    requests = mixed_requests(tiny, 4)
    ended = collect(session.generate([Batch("a", None, requests)]))
    open_ended = collect(session.generate([Batch("a", None, requests_of(requests, ()))]))
    assert any(one.finish_reason == "stop" for one in ended.values())
    for name, one in open_ended.items():
        assert (len(one.token_ids), one.finish_reason) == (40, "length")
        before = ended[name].token_ids
        assert one.token_ids[: len(before)] == before
        assert one.text == tiny.tokenizer.decode(one.token_ids, skip_special_tokens=False)


def test_what_does_not_fit_or_is_refused_is_an_error_of_its_own(session: VllmSession, tiny: Tiny) -> None:
    """The tiny model has 1024 positions; prompt and budget together may fill them, and not one more."""
    requests = mixed_requests(tiny, 3)
    alone = collect(session.generate([Batch("a", None, requests)]))
    filler = requests[0].prompt.input_ids.tolist() * 80
    fits = request(filler[: 1024 - 48], "fits#0", max_tokens=48)
    too_long = request(filler[: 1024 - 47], "long#0", max_tokens=48)
    hopeless = request(filler[:1100], "hopeless#0", max_tokens=48)
    hot = request(filler[:20], "hot#0", max_tokens=8, temperature=3.0)
    found = collect(session.generate([Batch("a", None, [too_long, *requests, fits, hot, hopeless])]))
    assert {name: found[name] for name in alone} == alone
    assert found["a", "fits#0"].error is None
    for name, n in (("long#0", 977), ("hopeless#0", 1100)):
        one = found["a", name]
        assert one.error == f"prompt of {n} tokens and budget of 48 exceed the model's 1024 positions"
        assert (one.token_ids, one.text, one.finish_reason) == ((), "", None)
    assert "temperature must be in [0, 2]" in str(found["a", "hot#0"].error)


def test_logprobs(session: VllmSession, tiny: Tiny, kinds: list[Checkpoint | None], work: Path) -> None:
    """Against logits of transformers, each continuation computed by itself."""
    prompts = [one.prompt for one in mixed_requests(tiny, 4)]
    rng = np.random.default_rng(0)
    scored = [
        Request(
            str(n), prompt, Sampling(), (2, 0), 0, (), tuple(map(tuple, rng.integers(3, 300, (3, 1 + n % 3)).tolist()))
        )
        for n, prompt in enumerate(prompts)
    ]
    greedy = collect(session.generate([Batch("a", None, mixed_requests(tiny, 4))]))
    likely = [tuple(one.token_ids[:5]) for one in greedy.values()]
    scored += [
        Request(f"greedy/{n}", row.prompt, Sampling(), (2, 0), 0, (), (likely[n], (), likely[n][:1]))
        for n, row in enumerate(mixed_requests(tiny, 4))
    ]
    import json

    with transformers(tiny, work) as other:
        for checkpoint in (kinds[0], kinds[3], kinds[-1]):
            ours = {one.sample_id: one for one in session.loglikelihood(Batch("s", checkpoint, scored))}
            skipped = list(session.loglikelihood(Batch("s", checkpoint, scored, frozenset(ours) - {"1"})))
            assert [one.sample_id for one in skipped] == ["1"]
            theirs = {
                one.sample_id: one
                for one in other.loglikelihood(
                    Batch("s", checkpoint, [row for row in scored if all(row.continuations)])
                )
            }
            assert len(ours) == len(scored)
            for name, one in theirs.items():
                for mine, wanted in zip(json.loads(ours[name].text), json.loads(one.text), strict=True):
                    assert mine[0] == pytest.approx(wanted[0], abs=1e-4)
                    assert mine[1] == wanted[1]
            assert json.loads(ours["greedy/0"].text)[1] == [0.0, True], "nothing to write is certain"
            mine = session.first_token_logprobs(prompts, checkpoint)
            assert mine == session.first_token_logprobs(prompts, checkpoint), "computed the same way twice"
            for told_by_us, told_by_them in zip(mine, other.first_token_logprobs(prompts, checkpoint), strict=True):
                assert len(told_by_us) >= 20
                for token, value in told_by_us.items():
                    assert value == pytest.approx(told_by_them[token], abs=1e-4)
    base = {one.sample_id: json.loads(one.text) for one in session.loglikelihood(Batch("s", None, scored))}
    assert all(base[f"greedy/{n}"][0][1] for n in range(len(prompts))), "what it writes is its greedy continuation"
    assert not all(row[1] for name, rows in base.items() if "greedy" not in name for row in rows)


def test_a_session_says_what_it_is(session: VllmSession, five: list[Checkpoint]) -> None:
    assert session.facts["engine"] == "vllm"
    assert session.facts["dtype"] == "float32"
    assert session.facts["max_model_len"] == 1024
    assert any(name.startswith("vllm") and str(value)[0].isdigit() for name, value in session.facts.items())
    assert session.prepare(five[0]) == {"kind": "adapter", "rank": 8, "modules": 21}
