"""The transformers engine: greedy as generate() is, batches, adapters, full checkpoints, what does not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plugin_helpers import Run, Tiny, asked, diverged, generate, made, request, requests_for

from distillbench.errors import StageError
from distillbench.protocols import Context, NoOptions, Student
from distillbench.records import Batch, Checkpoint, Generation, Request, Sampling
from distillbench.run.proof import Proof, largest_change
from distillbench_plugins.engines.grouping import groups
from distillbench_plugins.engines.transformers import TransformersEngine, TransformersOptions
from distillbench_plugins.students.hf import HfOptions, HfStudent
from distillbench_plugins.students.tiny_qwen3 import TinyQwen3, TinyQwen3Options


def greedy_loop(model: Any, one: Request) -> tuple[int, ...]:
    """One prompt alone, without padding, cache or generate(): the most likely token, again and again."""
    import torch

    ids = one.prompt.input_ids.tolist()
    new: list[int] = []
    with torch.inference_mode():
        while len(new) < one.sampling.max_tokens and (not new or new[-1] not in one.stop_token_ids):
            logits = model(input_ids=torch.tensor([ids + new]), use_cache=False).logits[0, -1]
            new.append(int(logits.argmax()))
    return tuple(new)


def check_form(tiny: Tiny, one: Request, found: Generation) -> None:
    """What every generation promises, whatever the model wrote."""
    assert found.error is None
    ended = found.token_ids[-1] in one.stop_token_ids
    assert found.finish_reason == ("stop" if ended else "length")
    assert not set(found.token_ids[:-1]) & set(one.stop_token_ids)
    assert ended or len(found.token_ids) == one.sampling.max_tokens
    body = found.token_ids[:-1] if ended else found.token_ids
    assert found.text == tiny.tokenizer.decode(body, skip_special_tokens=False)
    assert "<|im_end|>" not in found.text


def mixed_requests(tiny: Tiny, max_tokens: int = 40) -> list[Request]:
    """Prompts of both tasks, of many lengths."""
    sampling = Sampling(max_tokens=max_tokens)
    return requests_for(tiny, "coins", 12, sampling) + requests_for(tiny, "digits", 12, sampling)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_greedy_is_the_plain_loop(tiny: Tiny, full: Run, batch_size: int) -> None:
    """On the fine-tuned weights, because their outputs are long and some are cut off."""
    requests = mixed_requests(tiny)
    (checkpoint,) = full.checkpoints
    model = tiny.student.load_model(tiny.built, "cpu", weights=checkpoint.path).eval()
    found = generate(tiny, requests, checkpoint, batch_size)
    assert set(found) == {one.sample_id for one in requests}
    for one in requests:
        assert found[one.sample_id].token_ids == greedy_loop(model, one)
        check_form(tiny, one, found[one.sample_id])
    untouched = generate(tiny, requests, None, batch_size)
    reasons = {one.finish_reason for one in (*found.values(), *untouched.values())}
    assert reasons == {"stop", "length"}, "both ways to end must be among what is compared"
    assert any("<think>" in one.text and "</think>" in one.text for one in found.values()), "the tags stay in the text"


def test_greedy_is_transformers_own_generate(tiny: Tiny) -> None:
    import torch

    requests = mixed_requests(tiny)
    model = tiny.student.load_model(tiny.built, "cpu").eval()
    found = generate(tiny, requests)
    for one in requests:
        prompt = torch.tensor([one.prompt.input_ids.tolist()])
        output = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=one.sampling.max_tokens,
            eos_token_id=list(one.stop_token_ids),
            pad_token_id=0,
        )
        assert found[one.sample_id].token_ids == tuple(output[0, prompt.shape[1] :].tolist())


def test_a_budget_cuts_at_its_last_token(tiny: Tiny) -> None:
    whole = generate(tiny, requests_for(tiny, n=4))
    for budget in (1, 2, 3):
        cut = generate(tiny, requests_for(tiny, n=4, sampling=Sampling(max_tokens=budget)))
        for sample_id, one in cut.items():
            assert one.token_ids == whole[sample_id].token_ids[:budget]
            assert one.finish_reason == "length"
    # The end-of-turn token counts: the same answer in a budget that just holds it, and in one without room for it.
    n = len(whole["coins/0#0"].token_ids)
    exact, short = (
        generate(tiny, requests_for(tiny, n=1, sampling=Sampling(max_tokens=room)))["coins/0#0"] for room in (n, n - 1)
    )
    assert (exact.finish_reason, short.finish_reason) == ("stop", "length")
    assert exact.text == short.text


def test_any_stop_token_stops(tiny: Tiny) -> None:
    (whole,) = generate(tiny, requests_for(tiny, n=1)).values()
    middle = whole.token_ids[1]
    (one,) = requests_for(tiny, n=1)
    other = Request(one.sample_id, one.prompt, one.sampling, (*one.stop_token_ids, middle), one.seed)
    (cut,) = generate(tiny, [other]).values()
    assert cut.token_ids == whole.token_ids[: whole.token_ids.index(middle) + 1]
    assert cut.finish_reason == "stop"
    assert cut.text == tiny.tokenizer.decode(whole.token_ids[: whole.token_ids.index(middle)])


def test_a_stop_string_is_the_last_text(tiny: Tiny, full: Run) -> None:
    """As vLLM with include_stop_str_in_output: the text ends with the string, whatever else its last token holds."""
    stops = (" has", "=", "oxed")
    plain = generate(tiny, requests_for(tiny, n=12, sampling=Sampling(max_tokens=40)), full.checkpoints[0])
    found = generate(tiny, requests_for(tiny, n=12, sampling=Sampling(max_tokens=40, stop=stops)), full.checkpoints[0])
    ended = 0
    for sample_id, one in found.items():
        whole = plain[sample_id]
        places = [place + len(stop) for stop in stops if (place := whole.text.find(stop)) >= 0]
        if not places:
            assert (one.text, one.token_ids, one.finish_reason) == (whole.text, whole.token_ids, whole.finish_reason)
            continue
        ended += 1
        assert (one.text, one.finish_reason) == (whole.text[: min(places)], "stop")
        assert one.token_ids == whole.token_ids[: len(one.token_ids)]
        shorter, kept = (tiny.tokenizer.decode(one.token_ids[:n]) for n in (len(one.token_ids) - 1, len(one.token_ids)))
        assert kept.startswith(one.text) and not shorter.startswith(one.text), "the fewest tokens that hold the text"
    assert ended >= 8


def test_a_stop_string_does_not_begin_in_the_prompt(tiny: Tiny) -> None:
    """As in vLLM, which searches the completion alone."""
    (one,) = requests_for(tiny, n=1, sampling=Sampling(max_tokens=12))
    (free,) = generate(tiny, [one]).values()
    end = tiny.tokenizer.decode(one.prompt.input_ids[-1:])
    across = Request(
        one.sample_id, one.prompt, Sampling(max_tokens=12, stop=(end + free.text[0],)), one.stop_token_ids, 0
    )
    assert end and not free.text.count(end + free.text[0])
    (found,) = generate(tiny, [across]).values()
    assert (found.text, found.token_ids, found.finish_reason) == (free.text, free.token_ids, free.finish_reason)


def test_stop_strings_of_one_request_are_not_anothers(tiny: Tiny) -> None:
    plain, stopped = Sampling(max_tokens=20), Sampling(max_tokens=20, stop=("oxed",))
    first, second = requests_for(tiny, n=4, sampling=plain), requests_for(tiny, "digits", 4, stopped)
    together = generate(tiny, [*first, *second])
    assert together == generate(tiny, first) | generate(tiny, second)


def test_an_adapter_of_wrong_keys_is_refused_by_name(tiny: Tiny, lora: Run, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    (good, *_) = lora.checkpoints
    shutil.copytree(good.path, tmp_path / "cooked")
    weights = tmp_path / "cooked" / "adapter_model.safetensors"
    save_file({f"other.{name}": tensor for name, tensor in load_file(weights).items()}, weights)
    with TransformersEngine(TransformersOptions()).open(
        tiny.student, tiny.built, [], Context(work=tmp_path)
    ) as session:
        assert session.prepare(good)["kind"] == "adapter"
        with pytest.raises(StageError, match=r"(?s)cooked would not be applied .* unexpected: other\.base_model\."):
            session.prepare(Checkpoint(tmp_path / "cooked", "adapter", 1, 1))


def test_a_prefill_is_continued_and_not_repeated(tiny: Tiny) -> None:
    (one,) = requests_for(tiny, n=1)
    (plain,) = generate(tiny, [one]).values()
    longer = np.concatenate([one.prompt.input_ids, np.array(plain.token_ids[:2], dtype=np.int32)])
    (rest,) = generate(tiny, [request(longer.tolist(), stop=one.stop_token_ids, max_tokens=46)]).values()
    assert rest.token_ids == plain.token_ids[2:]


def test_a_models_own_generation_config_is_not_used(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny.built, folder)
    spoiled = {"repetition_penalty": 9.0, "max_new_tokens": 1, "do_sample": True, "temperature": 3.0, "top_k": 2}
    config = json.loads((folder / "generation_config.json").read_text()) | spoiled
    (folder / "generation_config.json").write_text(json.dumps(config | {"bad_words_ids": [[3]], "min_length": 60}))
    student = HfStudent(HfOptions(model=str(folder), dtype="float32"))
    with TransformersEngine(TransformersOptions()).open(student, None, [], Context(work=tmp_path)) as session:
        found = {one.sample_id: one for one in asked(session, mixed_requests(tiny))}
    assert found == generate(tiny, mixed_requests(tiny))


REQUESTS = st.lists(
    st.builds(
        lambda length, budget, temperature, stop, seed: (length, budget, temperature, stop, seed),
        st.integers(1, 6),
        st.sampled_from([4, 8]),
        st.sampled_from([0.0, 0.7]),
        st.sampled_from([(2, 0), (2,)]),
        st.integers(0, 3),
    ),
    max_size=24,
).map(
    lambda rows: [
        request(range(1, length + 1), f"p/{number}#0", seed, stop, max_tokens=budget, temperature=temperature)
        for number, (length, budget, temperature, stop, seed) in enumerate(rows)
    ]
)


def names(found: Sequence[Sequence[Request]]) -> list[list[str]]:
    return [[one.sample_id for one in batch] for batch in found]


@given(requests=REQUESTS, size=st.integers(1, 7), rnd=st.randoms(use_true_random=False))
def test_batches(requests: list[Request], size: int, rnd: Any) -> None:
    found = list(groups(requests, size))
    assert sorted(name for batch in names(found) for name in batch) == sorted(one.sample_id for one in requests)
    assert all(1 <= len(batch) <= size for batch in found)
    for batch in found:
        assert len({(one.sampling, one.stop_token_ids) for one in batch}) == 1, "one setting a batch"
        lengths = [len(one.prompt.input_ids) for one in batch]
        assert lengths == sorted(lengths)
    shuffled = requests[:]
    rnd.shuffle(shuffled)
    assert names(list(groups(shuffled, size))) == names(found), "the order of asking decides nothing"
    settings = [(batch[0].sampling, batch[0].stop_token_ids) for batch in found]
    least = sum(-(-sum((one.sampling, one.stop_token_ids) == key for one in requests) // size) for key in set(settings))
    assert len(found) == least, "no batch is smaller than it must be"


def test_requests_of_several_settings_go_together(tiny: Tiny) -> None:
    settings = [Sampling(max_tokens=6), Sampling(max_tokens=40), Sampling(max_tokens=40, temperature=0.8)]
    alone: dict[str, Generation] = {}
    together: list[Request] = []
    for number, sampling in enumerate(settings):
        for one in requests_for(tiny, n=5, sampling=sampling):
            renamed = Request(f"{number}-{one.sample_id}", one.prompt, one.sampling, one.stop_token_ids, one.seed)
            alone |= generate(tiny, [renamed])
            together.append(renamed)
    assert generate(tiny, together) == alone


def test_skip_keeps_the_batches_and_gives_only_what_is_missing(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Qwen3ForCausalLM

    made: list[int] = []
    original = Qwen3ForCausalLM.generate

    def counting(self: Any, input_ids: Any, **more: Any) -> Any:
        made.append(len(input_ids))
        return original(self, input_ids=input_ids, **more)

    monkeypatch.setattr(Qwen3ForCausalLM, "generate", counting)
    requests = mixed_requests(tiny)
    whole = generate(tiny, requests, batch_size=5)
    order = names(list(groups(requests, 5)))
    assert made == [len(batch) for batch in order]
    made.clear()
    skip = {*order[0], *order[2][1:], *order[3][:1]}
    rest = generate(tiny, requests, batch_size=5, skip=skip)
    assert rest == {name: one for name, one in whole.items() if name not in skip}
    assert made == [len(batch) for number, batch in enumerate(order) if number != 0], "whole batches, or none"
    made.clear()
    assert generate(tiny, requests, batch_size=5, skip=set(whole)) == {}
    assert made == []


def test_an_empty_list_of_requests_is_no_work(tiny: Tiny) -> None:
    assert generate(tiny, []) == {}


def test_an_adapter_comes_and_goes(tiny: Tiny, lora: Run) -> None:
    import torch
    from peft import PeftModel

    requests = mixed_requests(tiny)
    with TransformersEngine(TransformersOptions()).open(
        tiny.student, tiny.built, [], Context(work=tiny.built)
    ) as session:
        weights = {name: tensor.clone() for name, tensor in session.base.state_dict().items()}  # type: ignore[attr-defined]
        seen = []
        for checkpoint in (None, *lora.checkpoints, None, lora.checkpoints[0], None):
            seen.append({one.sample_id: one for one in asked(session, requests, checkpoint)})
            asked(session, requests[:1])
            after = session.base.state_dict()  # type: ignore[attr-defined]
            assert list(after) == list(weights), "no module of the adapter is left"
            assert all(torch.equal(after[name], tensor) for name, tensor in weights.items())
    base, *trained, base_again, first_again, base_at_last = seen
    assert base == base_again == base_at_last
    assert first_again == trained[0]
    assert len({json.dumps([one.token_ids for one in found.values()]) for found in (base, *trained)}) == 4
    for checkpoint, found in zip(lora.checkpoints, trained, strict=True):
        plain = PeftModel.from_pretrained(tiny.student.load_model(tiny.built, "cpu"), str(checkpoint.path)).eval()
        for one in requests[::3]:
            assert found[one.sample_id].token_ids == greedy_loop(plain, one)


@pytest.mark.parametrize(
    "config",
    [
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": [5, 6, 7]},
        {"target_modules": ["q_proj", "embed_tokens"]},
    ],
)
def test_no_kind_of_adapter_leaves_anything_behind(tiny: Tiny, lora: Run, tmp_path: Path, config: Any) -> None:
    """Some put weights of their own in the place of the base's, which peft does not put back."""
    from peft import PeftModel

    other = Checkpoint(made(tiny, tmp_path / "other", **config), "adapter", 1, 1)
    requests = requests_for(tiny, "coins", 4, Sampling(max_tokens=12))
    with TransformersEngine(TransformersOptions()).open(tiny.student, tiny.built, [], Context(tmp_path)) as session:

        def texts(checkpoint: Checkpoint | None) -> list[tuple[int, ...]]:
            batch = Batch("", checkpoint, requests)
            return [found.token_ids for _, found in session.generate([batch])]

        prompts = [one.prompt for one in requests]
        untouched, first = texts(None), session.first_token_logprobs(prompts, None)
        for checkpoint in (other, lora.checkpoints[0]):
            session.prepare(checkpoint)
        plain = texts(lora.checkpoints[0])
        own = texts(other)
        assert texts(lora.checkpoints[0]) == plain
        assert texts(None) == untouched
        assert largest_change(session.first_token_logprobs(prompts, None), first) < 1e-5
    fresh = PeftModel.from_pretrained(tiny.student.load_model(tiny.built, "cpu"), str(other.path)).eval()
    ordered = sorted(requests, key=lambda one: (len(one.prompt.input_ids), one.sample_id))
    assert own == [greedy_loop(fresh, one) for one in ordered]


def test_a_model_that_computes_no_numbers_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    student = HfStudent(HfOptions(str(diverged(tiny, tmp_path / "model")), dtype="float32"))
    prompts = [one.prompt for one in requests_for(tiny, "coins", 2)]
    with (
        TransformersEngine(TransformersOptions()).open(student, None, [], Context(tmp_path)) as session,
        pytest.raises(StageError, match="the untouched student computes no numbers"),
    ):
        Proof(session).of(None, prompts)


def test_an_adapter_that_cannot_be_loaded_leaves_nothing_behind(
    tiny: Tiny, lora: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel

    (prompt,) = [one.prompt for one in requests_for(tiny, "coins", 1)]
    with TransformersEngine(TransformersOptions()).open(tiny.student, tiny.built, [], Context(tmp_path)) as session:
        untouched = session.first_token_logprobs([prompt], None)
        with monkeypatch.context() as patch:  # its layers are in place by then
            patch.setattr(PeftModel, "load_adapter", lambda *_, **__: (_ for _ in ()).throw(MemoryError))
            with pytest.raises(MemoryError):
                session.first_token_logprobs([prompt], lora.checkpoints[0])
        assert session.first_token_logprobs([prompt], None) == untouched
        assert not any("lora" in name for name, _ in session.base.named_modules())  # type: ignore[attr-defined]
        assert session.first_token_logprobs([prompt], lora.checkpoints[0]) != untouched


def test_an_adapter_goes_when_nobody_reads_to_the_end(tiny: Tiny, lora: Run) -> None:
    requests = mixed_requests(tiny)
    with TransformersEngine(TransformersOptions(batch_size=4)).open(
        tiny.student, tiny.built, [], Context(work=tiny.built)
    ) as session:
        base = asked(session, requests)
        begun = session.generate([Batch("stage", lora.checkpoints[-1], requests)])
        next(iter(begun))
        begun.close()  # type: ignore[attr-defined]
        assert asked(session, requests) == base


def test_a_full_checkpoint_replaces_the_weights_for_its_requests_only(tiny: Tiny, full: Run, lora: Run) -> None:
    from transformers import AutoModelForCausalLM

    requests = mixed_requests(tiny)
    (checkpoint,) = full.checkpoints
    with TransformersEngine(TransformersOptions()).open(
        tiny.student, tiny.built, [], Context(work=tiny.built)
    ) as session:
        base, changed, adapted, base_again = (
            {one.sample_id: one for one in asked(session, requests, which)}
            for which in (None, checkpoint, lora.checkpoints[-1], None)
        )
    assert base == base_again
    assert adapted == generate(tiny, requests, lora.checkpoints[-1])
    assert changed != base
    plain = AutoModelForCausalLM.from_pretrained(str(checkpoint.path)).eval()
    for one in requests[::4]:
        assert changed[one.sample_id].token_ids == greedy_loop(plain, one)


def test_what_does_not_fit_is_an_error_of_its_own(tiny: Tiny) -> None:
    """The tiny model has 1024 positions; prompt and budget together may fill them, and not one more."""
    requests = requests_for(tiny, n=4)
    alone = generate(tiny, requests)
    filler = requests[0].prompt.input_ids.tolist() * 80
    stop = requests[0].stop_token_ids
    fits = request(filler[: 1024 - 48], "fits#0", stop=stop, max_tokens=48)
    too_long = request(filler[: 1024 - 47], "long#0", stop=stop, max_tokens=48)
    hopeless = request(filler[:1100], "hopeless#0", stop=stop, max_tokens=48)
    found = generate(tiny, [*requests, fits, too_long, hopeless], batch_size=8)
    assert {name: found[name] for name in alone} == alone
    assert found["fits#0"].error is None
    assert found["fits#0"].token_ids
    for name, n in (("long#0", 977), ("hopeless#0", 1100)):
        assert found[name].error == f"prompt of {n} tokens and budget of 48 exceed the model's 1024 positions"
        assert (found[name].token_ids, found[name].text, found[name].finish_reason) == ((), "", None)
    only_errors = generate(tiny, [too_long, hopeless])
    assert all(one.error for one in only_errors.values())
    budget = generate(tiny, requests_for(tiny, n=2, sampling=Sampling(max_tokens=2000)))
    assert all("budget of 2000" in str(one.error) for one in budget.values())


class Builder(Student):
    """As a plugin may write one: it builds and loads, and says nothing of files."""

    name = "builder"
    builds = True

    def load_tokenizer(self, built: Path | None) -> Any:
        return TinyQwen3(TinyQwen3Options()).load_tokenizer(built)

    def load_model(self, built: Path | None, device: str, weights: Path | None = None) -> Any:
        return TinyQwen3(TinyQwen3Options()).load_model(built, device, weights)


def test_adapters_of_a_student_that_says_nothing_of_its_files(tiny: Tiny, lora: Run) -> None:
    student, checkpoint, requests = Builder(NoOptions()), lora.checkpoints[-1], mixed_requests(tiny)[:4]
    with TransformersEngine(TransformersOptions()).open(student, tiny.built, [], Context(work=tiny.built)) as session:
        assert session.prepare(checkpoint)["rank"] > 0
        assert asked(session, requests, checkpoint) == list(generate(tiny, requests, checkpoint).values())
    with pytest.raises(StageError, match="its class is to be given `source`"):
        student.source(None)
