"""What vLLM would not apply, or not faithfully, is refused by name, or merged with the reason told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from plugin_helpers import Tiny, diverged, made
from vllm_helpers import batches, collect, mixed_requests, name_of, told, transformers, vllm

from distillbench.errors import StageError
from distillbench.records import Batch, Checkpoint
from distillbench.run.proof import Proof
from distillbench_plugins.engines.vllm_session import VllmSession
from distillbench_plugins.students.hf import HfOptions, HfStudent

pytestmark = pytest.mark.slow


def copied(checkpoint: Checkpoint, folder: Path, change: Any) -> Checkpoint:
    """A checkpoint with other weights under the same configuration."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(checkpoint.path, folder)
    save_file(change(load_file(folder / "adapter_model.safetensors")), folder / "adapter_model.safetensors")
    return Checkpoint(folder, "adapter", 1, 0)


def adapter(tiny: Tiny, folder: Path, **config: Any) -> Checkpoint:
    """An adapter that peft makes and writes, whose texts are not the student's."""
    return Checkpoint(made(tiny, folder, spread=0.15, **config), "adapter", 1, 0)


@pytest.fixture(scope="module")
def checkpoints(tiny: Tiny, five: list[Checkpoint], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    """Spoiled adapters, large and small ones, and some that are more than an adapter."""
    base = tmp_path_factory.mktemp("adapters")
    good = five[-1]
    full = base / "short-of-one"
    shutil.copytree(tiny.built, full)
    (full / "model.safetensors").unlink()
    return {
        "good": good,
        "zero": copied(good, base / "zero", lambda found: {key: one * ("lora_A" in key) for key, one in found.items()}),
        "prefix": copied(good, base / "prefix", lambda found: {f"model.{key}": one for key, one in found.items()}),
        "rank-24": adapter(tiny, base / "rank-24", r=24),
        "rank-pattern": adapter(tiny, base / "rank-pattern", rank_pattern={"layers.0.self_attn.q_proj": 6}),
        "rslora": adapter(tiny, base / "rslora", use_rslora=True, alpha_pattern={"v_proj": 2}),
        "rank-40": adapter(tiny, base / "rank-40", r=40),
        "dora": adapter(tiny, base / "dora", use_dora=True),
        "saved": adapter(tiny, base / "saved", modules_to_save=["norm"]),
        "tied": adapter(tiny, base / "tied", target_modules=["q_proj", "lm_head"]),
        "empty": Checkpoint(full, "full", 1, 0),
        "nowhere": Checkpoint(base / "nowhere", "adapter", 1, 0),
    }


@pytest.fixture(scope="module")
def session(tiny: Tiny, checkpoints: dict[str, Checkpoint], work: Path) -> Iterator[VllmSession]:
    with vllm(tiny, checkpoints.values(), work, max_lora_rank=32) as opened:
        yield opened


def test_room_is_made_for_the_largest_that_is_let_in(session: VllmSession) -> None:
    config = session.engine.vllm_config.lora_config
    assert config is not None
    assert config.max_lora_rank == 32, "24 is none of vLLM's limits"
    assert "lm_head" not in (config.target_modules or [])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("zero", "changes nothing"),
        ("prefix", "wrong prefix"),
        ("rank-40", "has rank 40, and this engine has room for 32"),
        ("tied", "embeddings are its output layer"),
        ("empty", "has no weights"),
        ("nowhere", "has no adapter_config.json"),
    ],
)
def test_refused_by_name(session: VllmSession, checkpoints: dict[str, Checkpoint], name: str, words: str) -> None:
    with pytest.raises(StageError) as caught:
        session.prepare(checkpoints[name])
    assert words in str(caught.value)
    assert str(checkpoints[name].path) in str(caught.value)


def test_what_computes_no_numbers_is_refused_and_spoils_nothing(
    session: VllmSession, tiny: Tiny, tmp_path: Path
) -> None:
    """What it has left in the cache would reach the models after it."""
    requests = mixed_requests(tiny, 6)
    before = told(collect(session.generate(batches(requests, [None]))))
    with pytest.raises(StageError, match="model computes no numbers"):
        Proof(session).of(
            Checkpoint(diverged(tiny, tmp_path / "model"), "full", 1, 0), [one.prompt for one in requests[:4]]
        )
    assert told(collect(session.generate(batches(requests, [None])))) == before


def test_the_others_are_served(
    session: VllmSession, tiny: Tiny, checkpoints: dict[str, Checkpoint], work: Path
) -> None:
    """Adapters of several ranks and scales mixed; what is merged takes its turn. All as transformers and peft do it."""
    names = ("good", "rank-24", "rank-pattern", "rslora", "dora", "saved")
    served = {name: checkpoints[name] for name in names}
    facts = {name: dict(session.prepare(one)) for name, one in served.items()}
    assert {name: one.get("merged") for name, one in facts.items()} == {
        **dict.fromkeys(names),
        "dora": "DoRA",
        "saved": "modules_to_save",
    }
    assert [facts[name]["rank"] for name in names] == [8, 24, 6, 4, 4, 4]
    asked = batches(mixed_requests(tiny, 6), [None, *served.values()])
    ours = told(collect(session.generate(asked)))
    with transformers(tiny, work) as other:
        assert ours == told(collect(other.generate(asked)))
    texts = {
        name_of(one): [text for (key, _), (_, text, *_) in ours.items() if key == name_of(one)]
        for one in served.values()
    }
    base = [text for (key, _), (_, text, *_) in ours.items() if key == "base"]
    assert all(written != base for written in texts.values())
    folders = sorted((work / "merged").iterdir())
    assert len(folders) >= 2
    assert not [one for one in folders if "partial" in one.name]


def test_a_models_own_generation_config_is_not_used(tiny: Tiny, work: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny.built, folder)
    spoiled = {"repetition_penalty": 9.0, "max_new_tokens": 1, "do_sample": True, "temperature": 3.0, "top_k": 2}
    config = json.loads((folder / "generation_config.json").read_text()) | spoiled
    (folder / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": [5, 201], "min_length": 60}))
    student = HfStudent(HfOptions(model=str(folder), dtype="float32"))
    requests = mixed_requests(tiny, 4)
    with vllm(tiny, [], work, student=student) as session:
        found = told(collect(session.generate([Batch("base", None, requests)])))
        assert session.engine.vllm_config.lora_config is None
    with transformers(tiny, work) as other:
        assert found == told(collect(other.generate([Batch("base", None, requests)])))


def test_a_start_that_fails_says_what_vllm_said(tiny: Tiny, work: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(StageError, match=r"does not start with .*cache blocks") as caught,
        vllm(tiny, [], work, kv_cache_gb=1e-5),
    ):
        pass
    assert "kv_cache_gb" in str(caught.value)
    student = HfStudent(HfOptions(model=str(tmp_path), dtype="float32"))
    with pytest.raises(StageError, match="does not start with"), vllm(tiny, [], work, student=student):
        pass


def test_an_engine_that_dies_ends_the_session_with_its_words(
    tiny: Tiny, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with vllm(tiny, [], work) as session:
        runner = session.engine.model_executor.driver_worker.worker.model_runner  # type: ignore[attr-defined]

        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("the device is gone")

        monkeypatch.setattr(runner, "execute_model", broken)
        with pytest.raises(StageError, match=r"vllm stopped: .*the device is gone"):
            list(session.generate([Batch("a", None, mixed_requests(tiny, 2))]))
