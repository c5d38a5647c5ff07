"""The students: a recipe that gives equal bytes, local folders, models that are not there, and presets."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plugin_helpers import Tiny, coins_traces

from distillbench.catalog import Catalog
from distillbench.errors import MatrixError, StageError
from distillbench.fingerprint import digest_path
from distillbench.manager import make_manager
from distillbench.matrix.resolve import load_matrix
from distillbench.protocols import Context, Student
from distillbench_plugins.students.hf import ATTENTION, HfOptions, HfStudent
from distillbench_plugins.students.tiny_qwen3 import TinyQwen3, TinyQwen3Options

BUILD = """
import sys
from pathlib import Path
from distillbench.protocols import Context
from distillbench_plugins.students.tiny_qwen3 import TinyQwen3, TinyQwen3Options
TinyQwen3(TinyQwen3Options(steps=2)).build(Path(sys.argv[1]), Context(work=Path(sys.argv[1])))
"""


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def build(folder: Path, **options: Any) -> dict[str, str]:
    folder.mkdir()
    TinyQwen3(TinyQwen3Options(**options)).build(folder, Context(work=folder))
    return digests(folder)


def test_the_recipe_gives_equal_bytes_in_every_process(tmp_path: Path) -> None:
    here = build(tmp_path / "here", steps=2)
    (tmp_path / "there").mkdir()
    environment = os.environ | {
        "PYTHONHASHSEED": "4711",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path / "there")], env=environment, check=True, capture_output=True
    )
    assert digests(tmp_path / "there") == here
    assert {"model.safetensors", "tokenizer.json", "config.json"} <= set(here)


def test_seed_and_steps_change_the_weights(tmp_path: Path) -> None:
    weights = {
        build(tmp_path / name, **options)["model.safetensors"]
        for name, options in {"a": {"steps": 1}, "b": {"steps": 2}, "c": {"steps": 1, "seed": 1}}.items()
    }
    assert len(weights) == 3


def test_building_reports_its_progress(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    context = Context(work=tmp_path, progress=lambda done, total, note: seen.append((done, total)))
    TinyQwen3(TinyQwen3Options(steps=3)).build(tmp_path, context)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_it_is_small_and_in_float32(tiny: Tiny) -> None:
    import torch

    model = tiny.student.load_model(tiny.built, "cpu")
    n_parameters = sum(one.numel() for one in model.parameters())
    assert 0.3e6 < n_parameters < 1e6
    assert {one.dtype for one in model.parameters()} == {torch.float32}
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert len(tiny.tokenizer) == model.config.vocab_size == model.get_input_embeddings().num_embeddings


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_its_tokenizer_gives_every_text_back(tiny: Tiny, text: str) -> None:
    ids = tiny.tokenizer.encode(text, add_special_tokens=False)
    assert tiny.tokenizer.decode(ids, skip_special_tokens=False) == text
    assert max(ids, default=0) < len(tiny.tokenizer)


def test_its_tokenizer_has_qwens_chat_tokens_and_splits_digits(tiny: Tiny) -> None:
    tokenizer = tiny.tokenizer
    named = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    ids = tokenizer.convert_tokens_to_ids(named)
    assert len(set(ids)) == 5
    assert None not in ids
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think></think>", "the tags are not special, as in Qwen3"
    assert [tokenizer.decode([one]) for one in tokenizer.encode("1234")] == ["1", "2", "3", "4"]
    assert tokenizer("a")["input_ids"] == tokenizer.encode("a", add_special_tokens=False), "no BOS comes by itself"
    assert list(tokenizer("a")) == ["input_ids", "attention_mask"]


def test_its_words_are_learned(tiny: Tiny) -> None:
    """Traces stay short: the verbose teacher's favourite words are few tokens."""
    lengths = [len(tiny.renderer.render(one).input_ids) for one in coins_traces(200, "verbose")]
    assert max(lengths) < 256
    assert len(tiny.tokenizer.encode(" coins. Wait, let me re-check")) <= 12


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of the tiny student's folder, to be spoiled."""
    shutil.copytree(tiny.built, tmp_path / "model")
    return tmp_path / "model"


def hf(model: Path | str, **options: Any) -> HfStudent:
    return HfStudent(HfOptions(model=str(model), **options))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_local_folder_loads_in_its_dtype(tiny: Tiny, dtype: Any) -> None:
    import torch

    student = hf(tiny.built, dtype=dtype)
    model, tokenizer = student.load_model(None, "cpu"), student.load_tokenizer(None)
    assert {one.dtype for one in model.parameters()} == {getattr(torch, dtype)}
    assert tokenizer.get_vocab() == tiny.tokenizer.get_vocab()
    same = tiny.student.load_model(tiny.built, "cpu").state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, same[name].to(tensor.dtype))
    assert model(torch.tensor([[1, 5, 9]])).logits.shape == (1, 3, len(tokenizer))


def test_the_content_of_a_local_folder_is_in_its_identity(folder: Path) -> None:
    (found,) = hf(folder).inputs()
    assert found == folder
    before = digest_path(found)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert digest_path(found) != before
    assert hf("Qwen/Qwen3-0.6B").inputs() == ()


def test_a_folder_below_home_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    student = hf("~/model", dtype="float32")
    assert student.inputs() == (folder,)
    assert student.load_tokenizer(None)
    assert student.load_model(None, "cpu")


def spoil_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def cut_weights(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])


def drop_a_layer(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "layers.1.mlp" not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    "spoil",
    [
        shutil.rmtree,
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: spoil_config(folder, model_type="qwen_of_the_future", architectures=["QwenOfTheFuture"]),
        cut_weights,
        lambda folder: spoil_config(folder, hidden_size=64),
        drop_a_layer,
    ],
    ids=[
        "no folder",
        "no config",
        "no weights",
        "config is no JSON",
        "unknown model",
        "half the weights",
        "other shapes",
        "a layer missing",
    ],
)
def test_a_model_that_cannot_be_loaded_is_said_clearly(folder: Path, spoil: Any) -> None:
    """The last one would load: transformers draws what is missing at random, and warns."""
    spoil(folder)
    with pytest.raises(StageError, match="cannot be loaded") as caught:
        hf(folder).load_model(None, "cpu")
    assert str(folder) in str(caught.value)
    assert "wanted:" in str(caught.value) or "lacks 3 weights, model.layers.1.mlp.down_proj.weight" in str(caught.value)


@pytest.mark.parametrize("load", ["load_tokenizer", "load_model"])
@pytest.mark.parametrize("model", ["nobody/has-this-model", "no such name!!", "/nowhere/at/all", ""])
def test_a_model_that_is_not_there_is_said_clearly(model: str, load: str) -> None:
    student = hf(model)
    with pytest.raises(StageError, match="cannot be loaded") as caught:
        student.load_model(None, "cpu") if load == "load_model" else student.load_tokenizer(None)
    assert "config.json, tokenizer and weights, or a Hub id" in str(caught.value)


def test_a_folder_without_a_tokenizer_is_said_clearly(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(StageError, match=r"cannot be loaded|has no tokenizer"):
        hf(folder).load_tokenizer(None)


@pytest.mark.parametrize(
    ("name", "model", "renderer", "targets"),
    [
        ("qwen3-30b-a3b-base", "Qwen/Qwen3-30B-A3B-Base", "qwen3-base", list(ATTENTION)),
        ("qwen3-30b-a3b-instruct-2507", "Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3-instruct-2507", list(ATTENTION)),
        ("llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct", "llama3", "all-linear"),
        ("qwen3.5-4b", "Qwen/Qwen3.5-4B", "qwen3.5", "all-linear"),
    ],
)
def test_presets(name: str, model: str, renderer: str, targets: Any) -> None:
    kind = Catalog(make_manager()).kind("student")[name]
    student = kind(kind.Options())
    assert isinstance(student, Student)
    assert (student.options.model, student.renderer(), student.lora_targets()) == (model, renderer, targets)
    assert student.options.dtype == "bfloat16"
    assert student.resources().gpus == 1
    assert not student.builds
    changed = kind(kind.Options(dtype="float32", lora_targets=("q_proj",), gpus=2))
    assert (changed.lora_targets(), changed.resources().gpus) == (["q_proj"], 2)


def plan_of(folder: Path, model: str) -> str:
    """The identity of an `hf` student in a matrix."""
    path = folder / "matrix.yaml"
    path.write_text(f"students: {{s: {{use: hf, model: '{model}'}}}}\nevaluations: {{coins: {{}}}}\n")
    (cell,) = load_matrix(path, Catalog(make_manager())).cells
    return cell.student.identity


def test_a_folder_counts_by_what_is_in_it_and_not_by_where_it_lies(tmp_path: Path) -> None:
    for place, content in (("here", "{}"), ("there", "{}"), ("other", "[]")):
        (tmp_path / place / "model").mkdir(parents=True)
        (tmp_path / place / "model" / "config.json").write_text(content)
    here, there, other = (plan_of(tmp_path, f"{tmp_path}/{place}/model") for place in ("here", "there", "other"))
    assert here == there != other
    assert str(tmp_path) not in here


def test_a_folder_that_is_not_there_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match=r"matrix\.yaml:1: students\.s\.model|matrix\.yaml:1"):
        plan_of(tmp_path, str(tmp_path / "nowhere"))
