"""What the tests on real vLLM share. Where vLLM is not installed they are skipped, and say so."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from plugin_helpers import Tiny, requests_for

from distillbench.protocols import Context
from distillbench.records import Batch, Checkpoint, Generation, Request, Sampling
from distillbench_plugins.engines.transformers import TransformersEngine, TransformersOptions
from distillbench_plugins.engines.vllm import VllmEngine, VllmOptions
from distillbench_plugins.engines.vllm_session import VllmSession

if importlib.util.find_spec("vllm") is None:
    warnings.warn("NOT TESTED: vLLM is not installed; `tox -e vllm` has it", stacklevel=2)
    pytest.skip("NOT TESTED: vLLM is not installed; `tox -e vllm` has it", allow_module_level=True)

Found = dict[tuple[str, str], Generation]


@contextmanager
def vllm(
    tiny: Tiny, checkpoints: Iterable[Checkpoint | None], work: Path, student: Any = None, **options: Any
) -> Iterator[VllmSession]:
    """A session on the tiny student, or on another one."""
    known = [one for one in checkpoints if one is not None]
    engine = VllmEngine(VllmOptions(**{"kv_cache_gb": 0.1} | options))
    built = None if student is not None else tiny.built
    with engine.open(student or tiny.student, built, known, Context(work=work)) as session:
        assert isinstance(session, VllmSession)
        yield session


@contextmanager
def transformers(tiny: Tiny, work: Path) -> Iterator[Any]:
    """The same student in the other engine, which is what vLLM is compared with."""
    engine = TransformersEngine(TransformersOptions(batch_size=16))
    with engine.open(tiny.student, tiny.built, [], Context(work=work)) as session:
        yield session


def batches(requests: Sequence[Request], checkpoints: Iterable[Checkpoint | None]) -> list[Batch]:
    """The same requests for every checkpoint."""
    return [Batch(name_of(one), one, requests) for one in checkpoints]


def name_of(checkpoint: Checkpoint | None) -> str:
    return "base" if checkpoint is None else f"{checkpoint.kind}/{checkpoint.path.parent.name}/{checkpoint.path.name}"


def collect(found: Iterable[tuple[str, Generation]]) -> Found:
    """Generations by stage and sample; none may be there twice."""
    rows = list(found)
    by_name = {(key, one.sample_id): one for key, one in rows}
    assert len(by_name) == len(rows), "a request was answered twice"
    return by_name


def told(found: Found) -> dict[tuple[str, str], tuple[Any, ...]]:
    """What two engines must agree on."""
    return {name: (one.token_ids, one.text, one.finish_reason, one.error) for name, one in found.items()}


def mixed_requests(tiny: Tiny, n: int = 10, **sampling: Any) -> list[Request]:
    """Prompts of both tasks, of many lengths."""
    settings = Sampling(**{"max_tokens": 40} | sampling)
    return requests_for(tiny, "coins", n, settings) + requests_for(tiny, "digits", n, settings)


def long_requests(tiny: Tiny, **sampling: Any) -> list[Request]:
    """Prompts of several of vLLM's cache blocks (128 tokens), which begin alike."""
    import numpy as np

    short = mixed_requests(tiny, 4, **sampling)
    filler = np.concatenate([one.prompt.input_ids for one in short])[:300]
    return [
        replace(one, prompt=replace(one.prompt, input_ids=np.concatenate([filler, one.prompt.input_ids])))
        for one in short
    ]
