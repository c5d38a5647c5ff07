"""Adapters are read before an engine does: what would not be applied, or not all of it, is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plugin_helpers import Run, Tiny, made, made_on

from distillbench.errors import StageError
from distillbench.records import ModelSource
from distillbench_plugins.models.adapters import check_full, content_digest, read_adapter
from distillbench_plugins.models.merging import merged

Tensors = dict[str, Any]


def source(tiny: Tiny) -> ModelSource:
    return tiny.student.source(tiny.built)


def changed(run: Run, folder: Path, change: Callable[[Tensors], Tensors] | None = None, **config: Any) -> Path:
    """A copy of the last checkpoint with other weights or another configuration."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(run.checkpoints[-1].path, folder, dirs_exist_ok=True)
    if change is not None:
        file = folder / "adapter_model.safetensors"
        save_file(change(load_file(file)), file)
    stored = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(stored | config))
    return folder


def refusal(path: Path, tiny: Tiny) -> str:
    with pytest.raises(StageError) as caught:
        read_adapter(path, source(tiny))
    assert str(path) in str(caught.value), "the adapter is named"
    return str(caught.value)


def test_every_checkpoint_of_a_training_is_read(tiny: Tiny, lora: Run) -> None:
    for checkpoint in lora.checkpoints:
        adapter = read_adapter(checkpoint.path, source(tiny))
        assert (adapter.rank, len(adapter.modules), adapter.why_merge) == (8, 21, None)  # 3 layers x 7 linear layers
        assert "model.layers.2.mlp.down_proj" in adapter.modules
        assert adapter.facts == {"kind": "adapter", "rank": 8, "modules": 21}
        assert adapter.suffixes == ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")


def test_the_largest_rank_counts(tiny: Tiny, tmp_path: Path) -> None:
    path = made(tiny, tmp_path / "a", rank_pattern={"layers.1.self_attn.q_proj": 24})
    adapter = read_adapter(path, source(tiny))
    assert (adapter.rank, adapter.why_merge, adapter.suffixes) == (24, None, ("q_proj", "v_proj"))


def test_the_order_of_target_modules_decides_nothing(tiny: Tiny, lora: Run, tmp_path: Path) -> None:
    config = json.loads((lora.checkpoints[-1].path / "adapter_config.json").read_text())
    turned = changed(lora, tmp_path / "a", target_modules=config["target_modules"][::-1])
    assert content_digest(turned) == content_digest(lora.checkpoints[-1].path)
    assert content_digest(changed(lora, tmp_path / "b", lora_alpha=3)) != content_digest(turned)
    assert content_digest(lora.checkpoints[0].path) != content_digest(turned)
    assert read_adapter(turned, source(tiny)).modules == read_adapter(lora.checkpoints[-1].path, source(tiny)).modules


def test_a_wrong_prefix(tiny: Tiny, lora: Run, tmp_path: Path) -> None:
    path = changed(lora, tmp_path / "a", lambda found: {f"wrong.{key}": one for key, one in found.items()})
    told = refusal(path, tiny)
    assert "missing:    base_model.model.model.layers.0.mlp.down_proj.lora_A.weight" in told
    assert "unexpected: wrong.base_model.model.model.layers.0.mlp.down_proj.lora_A.weight" in told
    assert "and 39 more" in told
    assert "wrong prefix" in told


def test_missing_and_misshapen_weights(tiny: Tiny, lora: Run, tmp_path: Path) -> None:
    lost = changed(
        lora, tmp_path / "a", lambda found: {key: one for key, one in found.items() if "layers.1" not in key}
    )
    told = refusal(lost, tiny)
    assert "missing:    base_model.model.model.layers.1.mlp" in told
    assert "unexpected" not in told
    narrow = refusal(changed(lora, tmp_path / "b", r=16), tiny)
    assert "shape:      base_model.model.model.layers.0.mlp.down_proj.lora_A.weight [8, " in narrow
    assert "not [16, " in narrow
    more = refusal(changed(lora, tmp_path / "c", target_modules=["q_proj"]), tiny)
    assert "unexpected: base_model.model.model.layers.0.mlp.down_proj.lora_A.weight" in more


@pytest.mark.parametrize("part", ["lora_A", "lora_B"])
def test_zeros(tiny: Tiny, lora: Run, tmp_path: Path, part: str) -> None:
    path = changed(lora, tmp_path / "a", lambda found: {key: one * (part not in key) for key, one in found.items()})
    assert "changes nothing" in refusal(path, tiny)


def test_zeros_in_turn(tiny: Tiny, lora: Run, tmp_path: Path) -> None:
    """Neither factor is zero everywhere, and yet every product is."""

    def change(found: Tensors) -> Tensors:
        return {key: one * (("lora_A" in key) == ("q_proj" in key)) for key, one in found.items()}

    assert "changes nothing" in refusal(changed(lora, tmp_path / "a", change), tiny)
    first = "base_model.model.model.layers.0.mlp.up_proj"

    def all_but_one(found: Tensors) -> Tensors:
        return change(found) | {key: one for key, one in found.items() if key.startswith(first)}

    assert len(read_adapter(changed(lora, tmp_path / "b", all_but_one), source(tiny)).modules) == 21


def test_a_scale_of_zero_and_weights_that_are_no_numbers(tiny: Tiny, lora: Run, tmp_path: Path) -> None:
    assert "changes nothing" in refusal(changed(lora, tmp_path / "a", lora_alpha=0), tiny)
    spoiled = changed(lora, tmp_path / "b", lambda found: {key: one * float("nan") for key, one in found.items()})
    assert "not finite" in refusal(spoiled, tiny)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "cannot be read"),
        ("\x00\x01", "cannot be read"),
        ("[1, 2]", "wanted: peft_type: LORA"),
        ('{"peft_type": "IA3"}', "'IA3'"),
        ('{"peft_type": ["LORA"]}', "wanted: peft_type: LORA"),
        ('{"peft_type": "LORA"}', "got:    None"),
        ('{"peft_type": "LORA", "r": -1, "target_modules": ["q_proj"]}', "got:    -1"),
        ('{"peft_type": "LORA", "r": "many", "target_modules": ["q_proj"]}', "got:    'many'"),
        ('{"peft_type": "LORA", "r": 8, "target_modules": ["no_such"]}', "no_such"),
        ('{"peft_type": "LORA", "r": 8, "target_modules": "(["}', "adapter"),
        ('{"peft_type": "LORA", "r": 8, "target_modules": 3}', "adapter"),
        ('{"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"], "rank_pattern": [1]}', "adapter"),
        ('{"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"], "lora_alpha": {}}', "adapter"),
        ('{"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"], "task_type": "NOTHING"}', "adapter"),
    ],
)
def test_garbage_in_the_configuration(tiny: Tiny, lora: Run, tmp_path: Path, text: str, word: str) -> None:
    path = changed(lora, tmp_path / "a")
    (path / "adapter_config.json").write_text(text)
    assert word in refusal(path, tiny)


def test_missing_and_torn_files(tiny: Tiny, lora: Run, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no adapter_config.json" in refusal(empty, tiny)
    torn = changed(lora, tmp_path / "torn")
    weights = torn / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "wanted: a whole safetensors file" in refusal(torn, tiny)
    weights.unlink()
    assert "safe_serialization" in refusal(torn, tiny)


def logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.arange(3, 60)[None]).logits


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "lora_only"}, "biases"),
        ({"target_modules": ["q_proj", "lm_head"]}, "the output layer"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "embeddings"),
        ({"modules_to_save": ["norm"]}, "modules_to_save"),
        ({"trainable_token_indices": [3, 4]}, "trainable tokens"),
        ({"init_lora_weights": "pissa"}, "initialised by pissa"),
    ],
)
def test_what_is_more_than_products_on_linear_layers(tiny: Tiny, tmp_path: Path, config: Any, why: str) -> None:
    assert read_adapter(made(tiny, tmp_path / "a", **config), source(tiny)).why_merge == why


@pytest.mark.parametrize(
    "config", [{}, {"use_dora": True}, {"use_rslora": True, "r": 16}, {"modules_to_save": ["norm"]}]
)
def test_merged_weights_are_the_adapter(tiny: Tiny, tmp_path: Path, config: Any) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path, folder = made(tiny, tmp_path / "a", **config), tmp_path / "out" / "merged"
    assert merged(path, source(tiny), folder) == folder
    assert [one.name for one in folder.parent.iterdir()] == ["merged"], "nothing half-written is left"
    plain = AutoModelForCausalLM.from_pretrained(str(folder)).eval()
    assert plain.dtype == torch.float32
    base = tiny.student.load_model(tiny.built, "cpu").eval()
    adapted = PeftModel.from_pretrained(tiny.student.load_model(tiny.built, "cpu"), str(path)).eval()
    torch.testing.assert_close(logits(plain), logits(adapted), atol=1e-4, rtol=1e-4)
    assert (logits(plain) - logits(base)).abs().max() > 1e-2
    assert AutoTokenizer.from_pretrained(str(folder)).encode("Tom has 6 coins") == tiny.tokenizer.encode(
        "Tom has 6 coins"
    )
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert merged(path, source(tiny), folder) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before, "what is there is used again"


@pytest.mark.parametrize(
    ("targets", "why"), [(["q_proj", "k_proj", "v_proj", "o_proj"], None), ("all-linear", "MoE experts")]
)
def test_a_mixture_of_experts(tiny: Tiny, tmp_path: Path, targets: Any, why: str | None) -> None:
    """As Qwen3-30B-A3B: adapters on attention are as any other, those on experts are merged."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, Qwen3MoeConfig

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 16, "head_dim": 8}
    counts = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 4}
    config = Qwen3MoeConfig(vocab_size=len(tiny.tokenizer), num_experts_per_tok=2, **sizes, **counts)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "student")
    tiny.tokenizer.save_pretrained(tmp_path / "student")
    of = ModelSource(str(tmp_path / "student"), "float32")

    def load(path: Path | str = of.name) -> Any:
        return AutoModelForCausalLM.from_pretrained(path).eval()

    path = made_on(load(), tmp_path / "a", target_modules=targets)
    assert read_adapter(path, of).why_merge == why
    plain, adapted = load(merged(path, of, tmp_path / "m")), PeftModel.from_pretrained(load(), str(path)).eval()
    torch.testing.assert_close(logits(plain), logits(adapted), atol=1e-4, rtol=1e-4)
    assert (logits(plain) - logits(load())).abs().max() > 1e-2
    assert check_full(tmp_path / "m", of)["kind"] == "full"


def test_merged_in_the_students_dtype(tiny: Tiny, lora: Run, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = merged(lora.checkpoints[-1].path, ModelSource(str(tiny.built), "bfloat16"), tmp_path / "m")
    assert AutoModelForCausalLM.from_pretrained(str(folder), dtype="auto").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"target_modules": ["q_proj", "lm_head"]}, "embeddings are its output layer"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, "embeddings are its output layer"),
        ({"alora_invocation_tokens": [5, 6]}, "depends on the tokens before it"),
    ],
)
def test_what_cannot_be_merged(tiny: Tiny, tmp_path: Path, config: Any, why: str) -> None:
    path = made(tiny, tmp_path / "a", **config)
    with pytest.raises(StageError, match=why):
        merged(path, source(tiny), tmp_path / "m")
    assert list(tmp_path.iterdir()) == [path], "a refusal leaves nothing half-written"


def test_a_spoiled_adapter_is_not_merged(tiny: Tiny, lora: Run, tmp_path: Path) -> None:
    path = changed(lora, tmp_path / "a", lambda found: {key: one * ("lora_A" in key) for key, one in found.items()})
    with pytest.raises(StageError, match="changes nothing"):
        merged(path, source(tiny), tmp_path / "m")
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_checkpoint_is_compared_too(tiny: Tiny, full: Run, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    (checkpoint,) = full.checkpoints
    assert check_full(checkpoint.path, source(tiny)) == {"kind": "full", "tensors": 35}
    tensors = load_file(checkpoint.path / "model.safetensors")
    save_file(
        tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, tmp_path / "model.safetensors"
    )
    assert check_full(tmp_path, source(tiny))["tensors"] == 35, "the tied output layer may be written or not"
    gone = tensors.pop("model.norm.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(StageError, match=r"missing:    model\.norm\.weight"):
        check_full(tmp_path, source(tiny))
    save_file(tensors | {"model.norm.weight": gone[:5].clone()}, tmp_path / "model.safetensors")
    with pytest.raises(StageError, match=r"shape:      model\.norm\.weight \[5\], not \["):
        check_full(tmp_path, source(tiny))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(StageError, match="has no weights"):
        check_full(tmp_path, source(tiny))


def test_an_adapter_of_another_student(tiny: Tiny, lora: Run, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(tiny.built)
    config.intermediate_size *= 2
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(StageError, match=r"shape: .*down_proj\.lora_A\.weight \[8, \d+\], not \[8, \d+\]"):
        read_adapter(lora.checkpoints[-1].path, ModelSource(str(tmp_path), "float32"))
    with pytest.raises(StageError, match="cannot be read"):
        read_adapter(lora.checkpoints[-1].path, ModelSource(str(tmp_path / "nowhere"), "float32"))
