"""Sessions of the api engine against a server of the test's own, and what is asked in them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from api_server import Server
from plugin_helpers import Tiny

from distillbench.protocols import Context, EngineSession
from distillbench.records import Batch, Generation, Message, Prompt, Request, Sampling
from distillbench_plugins.engines.api import ApiEngine, ApiOptions
from distillbench_plugins.students.hosted import HostedOptions, HostedStudent

NO_IDS = np.array([], dtype=np.int32)


@contextmanager
def opened(server: Server, **options: Any) -> Iterator[EngineSession]:
    """A session with a hosted model, whose pauses between tries are short."""
    quick = {"timeout": 10.0, "retries": 2, "backoff": 0.01, "concurrency": 4}
    engine = ApiEngine(ApiOptions(base_url=server.base_url, **(quick | options)))  # type: ignore[arg-type]
    with engine.open(HostedStudent(HostedOptions("m")), None, (), Context(work=Path())) as session:
        yield session


def asks(*names: str, **sampling: Any) -> list[Request]:
    """Requests that a server tells apart by what the user says."""
    return [
        Request(name, Prompt(NO_IDS, ""), Sampling(**sampling), (), seed=7, messages=(Message("user", name),))
        for name in names
    ]


def batch(requests: Sequence[Request], **more: Any) -> Batch:
    return Batch("stage", more.pop("checkpoint", None), requests, **more)


def answers(session: EngineSession, requests: Sequence[Request]) -> dict[str, Generation]:
    """What a session gives, each sample once."""
    found = list(session.generate([batch(requests)]))
    by_id = {one.sample_id: one for _, one in found}
    assert {key for key, _ in found} <= {"stage"}
    assert len(by_id) == len(found), "a request was answered twice"
    assert set(by_id) == {one.sample_id for one in requests}, "none is lost"
    return by_id


def check_is_error(found: Generation, *words: str) -> None:
    assert found.error
    for word in words:
        assert word in found.error
    assert (found.text, found.token_ids, found.finish_reason) == ("", (), None), "an error is no answer"


def engine_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "api-engine"]


@contextmanager
def opened_tokens(server: Server, tiny: Tiny, **options: Any) -> Iterator[EngineSession]:
    """A session in `mode: tokens` with the tiny student, which has a tokenizer."""
    quick = {"timeout": 10.0, "retries": 1, "backoff": 0.01, "concurrency": 4}
    engine = ApiEngine(ApiOptions(base_url=server.base_url, **(quick | options)))  # type: ignore[arg-type]
    with engine.open(tiny.student, tiny.built, (), Context(work=tiny.built)) as session:
        yield session


def ids_request(tiny: Tiny, *ids: int, **sampling: Any) -> Request:
    prompt = Prompt(np.array(ids, dtype=np.int32), "")
    return Request(" ".join(map(str, ids)), prompt, Sampling(**sampling), tiny.renderer.stop_token_ids(), seed=7)
