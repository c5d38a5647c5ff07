"""Reads an adapter before an engine does, so that one that would not be applied, or not all of it, is refused by name.

Engines skip what they do not know: a wrong key prefix leaves the untouched student behind, and its scores look like a
result. What must be there is asked of peft itself, on a copy of the model that has shapes and no weights.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from distillbench.errors import StageError
from distillbench.records import ModelSource

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
#: How many keys an error names of each kind.
_NAMED = 3
#: Initialisations that only draw the first weights; the others change the base model when the adapter is loaded.
_PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter all of whose weights belong to a student.

    Attributes:
        path: Its folder.
        rank: The largest rank of any of its modules.
        modules: The modules it changes, as the student names them.
        why_merge: Why an engine that only adds low-rank products cannot apply it; None where one can.
    """

    path: Path
    rank: int
    modules: tuple[str, ...]
    why_merge: str | None

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a report names."""
        return {"kind": "adapter", "rank": self.rank, "modules": len(self.modules)}

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The last names of its modules, such as `q_proj`."""
        return tuple(sorted({module.rpartition(".")[2] for module in self.modules}))


def read_adapter(path: Path, source: ModelSource) -> Adapter:
    """Reads an adapter and compares its weights with those that the student expects.

    Raises:
        StageError: It is not a LoRA adapter of this student, or it changes nothing.
    """
    with told(f"adapter {path} cannot be used", f"compare {CONFIG_FILE} with what peft writes"):
        return _read(path, source)


def _read(path: Path, source: ModelSource) -> Adapter:
    config = adapter_config(path)
    found = adapter_shapes(path)
    _compare(path, source, found, _expected(path, config, source))
    _refuse_without_effect(path, config, found)
    pairs = sorted(key for key in found if _partner(key))
    return Adapter(
        path=path,
        rank=max([config["r"], *(config.get("rank_pattern") or {}).values()]),
        modules=tuple(module_name(key) for key in pairs),
        why_merge=_why_merge(config, found),
    )


def linear_suffixes(source: ModelSource) -> tuple[str, ...]:
    """The last names of a student's linear layers but the output layer, which are peft's `all-linear`.

    Raises:
        StageError: The student cannot be read.
    """
    import torch

    model = _meta_model(source)
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    output = {name for name, module in model.named_modules() if module is model.get_output_embeddings()}
    return tuple(sorted({name.rpartition(".")[2] for name in linear - output}))


def content_digest(path: Path) -> str:
    """A digest of an adapter's weights and of what its configuration says, in whatever order it says it."""
    digest = sha256((path / WEIGHTS_FILE).read_bytes())
    config = {key: sorted(value) if key == "target_modules" and isinstance(value, list) else value
              for key, value in adapter_config(path).items()}  # fmt: skip
    digest.update(json.dumps(config, sort_keys=True).encode())
    return digest.hexdigest()


def check_full(path: Path, source: ModelSource) -> Mapping[str, Any]:
    """Compares the weights of a full checkpoint with the untouched student's, by name and by shape.

    Returns:
        What a report names.

    Raises:
        StageError: Some are missing, left over, or of another shape.
    """
    found, expected = _checkpoint_shapes(path), _source_shapes(source)
    for name in tied_weights(source):  # written by some versions of transformers, left out by others
        found.pop(name, None)
        expected.pop(name, None)
    _compare(path, source, found, expected, what="checkpoint")
    return {"kind": "full", "tensors": len(found)}


def adapter_config(path: Path) -> dict[str, Any]:
    """What peft wrote of an adapter.

    Raises:
        StageError: It is not there, not to be read, or of no LoRA adapter.
    """
    file = path / CONFIG_FILE
    try:
        config = json.loads(file.read_text())
    except FileNotFoundError:
        raise StageError(
            f"adapter {path} has no {CONFIG_FILE}\n"
            f"    wanted: a folder as peft's save_pretrained() writes it, with {CONFIG_FILE} and {WEIGHTS_FILE}"
        ) from None
    except (OSError, ValueError) as error:
        raise StageError(
            f"adapter {path}: {CONFIG_FILE} cannot be read: {error}\n    wanted: JSON as peft writes it"
        ) from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise StageError(
            f"adapter {path}: {CONFIG_FILE} is of no LoRA adapter\n"
            f"    wanted: peft_type: LORA\n    got:    {kind!r}\n"
            f"    hint:   merge other kinds into the weights, and give the result as a full checkpoint"
        )
    rank = config.get("r")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise StageError(
            f"adapter {path}: {CONFIG_FILE} gives no rank\n    wanted: r: a whole number above 0\n    got:    {rank!r}"
        )
    return dict(config)


def adapter_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The names and shapes of an adapter's weights.

    Raises:
        StageError: They are not there, or not to be read.
    """
    file = path / WEIGHTS_FILE
    if not file.exists():
        raise StageError(
            f"adapter {path} has no {WEIGHTS_FILE}\n"
            f"    hint: pickled weights are not read; save it again with safe_serialization=True"
        )
    return _header(file)


def _header(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a file, without their content."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt") as tensors:
            return {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise StageError(f"{file} cannot be read: {error}\n    wanted: a whole safetensors file") from error


@lru_cache(maxsize=2)
def _meta_model(source: ModelSource) -> Any:
    """The student without weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with told(f"student {source.name} cannot be read"):
        config = AutoConfig.from_pretrained(source.name, revision=source.revision)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)


def _expected(path: Path, config: Mapping[str, Any], source: ModelSource) -> Shapes:
    """The weights that peft itself would write for this configuration and this student."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    model = copy.deepcopy(_meta_model(source))
    with told(f"adapter {path} does not fit {source.name}", f"compare {CONFIG_FILE} with the modules of the student"):
        known = {key: value for key, value in config.items() if key in LoraConfig.__dataclass_fields__}
        changed = {"init_lora_weights": True, "base_model_name_or_path": None, "inference_mode": True}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted = get_peft_model(model, LoraConfig(**{**known, **changed}))
            return {key: tuple(tensor.shape) for key, tensor in get_peft_model_state_dict(adapted).items()}


def _compare(path: Path, source: ModelSource, found: Shapes, expected: Shapes, what: str = "adapter") -> None:
    missing, unexpected = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    other = [key for key in sorted(found.keys() & expected.keys()) if found[key] != expected[key]]
    if not missing and not unexpected and not other:
        return
    lines = [f"{what} {path} would not be applied as it is: its weights are not those that {source.name} expects"]
    if missing:
        lines.append(f"missing:    {_few(missing)}")
    if unexpected:
        lines.append(f"unexpected: {_few(unexpected)}")
    if other:
        lines.append(f"shape:      {_few([f'{key} {list(found[key])}, not {list(expected[key])}' for key in other])}")
    if missing and unexpected:
        lines.append("hint:       the names differ, so look for a wrong prefix, or for another student's weights")
    elif what == "adapter":
        lines.append(f"hint:       {CONFIG_FILE} and {WEIGHTS_FILE} must be of the same training of this student")
    else:
        lines.append("hint:       a full checkpoint must hold every weight of its student")
    raise StageError("\n    ".join(lines))


def _few(names: list[str]) -> str:
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _refuse_without_effect(path: Path, config: Mapping[str, Any], found: Shapes) -> None:
    """An adapter is a sum of products B x A: where each has a factor of zeros, the student stays as it was."""
    from safetensors import safe_open

    pairs = {key: _partner(key) for key in found if _partner(key) in found}
    has_more = len(found) > 2 * len(pairs)
    changes = False
    with safe_open(str(path / WEIGHTS_FILE), framework="pt") as tensors:
        for key, partner in pairs.items():
            down, up = tensors.get_tensor(key), tensors.get_tensor(partner)
            if not (down.isfinite().all() and up.isfinite().all()):
                raise StageError(f"adapter {path} is broken: {key} or {partner} holds numbers that are not finite")
            changes = changes or bool(down.any() and up.any())
    scales = [config.get("lora_alpha"), *(config.get("alpha_pattern") or {}).values()]
    if not has_more and not (changes and any(scales)):
        raise StageError(
            f"adapter {path} changes nothing: in each of its {len(pairs)} modules lora_A or lora_B is all zeros, "
            f"or lora_alpha is 0\n"
            f"    it is not scored; see whether the training moved any weight (`loss` in metrics.jsonl)"
        )


def _partner(key: str) -> str:
    """The name of lora_B for the name of lora_A; empty for any other name."""
    if key.endswith(".lora_A.weight"):
        return f"{key.removesuffix('.lora_A.weight')}.lora_B.weight"
    if key.endswith(".lora_embedding_A"):
        return f"{key.removesuffix('.lora_embedding_A')}.lora_embedding_B"
    return ""


def module_name(key: str) -> str:
    """The module that a weight of an adapter changes, as the student names it."""
    name = key.removesuffix(".lora_A.weight").removesuffix(".lora_embedding_A")
    return name.removeprefix("base_model.model.")


def _why_merge(config: Mapping[str, Any], found: Shapes) -> str | None:
    """What in an adapter is more than low-rank products on linear layers.

    Source: vLLM 0.32, lora/peft_helper.py, which refuses some of these; issues #18120 and #40005 for MoE experts.
    """
    modules = [module_name(key) for key in found if _partner(key)]
    init = config.get("init_lora_weights", True)
    reasons = (
        ("DoRA", bool(config.get("use_dora"))),
        ("biases", config.get("bias", "none") != "none" or bool(config.get("lora_bias"))),
        ("modules_to_save", bool(config.get("modules_to_save"))),
        ("trainable tokens", bool(config.get("trainable_token_indices"))),
        (f"initialised by {init}", isinstance(init, str) and init.lower() not in _PLAIN_INITS),
        ("MoE experts", bool(config.get("target_parameters")) or any(".experts" in name for name in modules)),
        ("embeddings", any(key.endswith(".lora_embedding_A") for key in found)),
        ("the output layer", any(name.rpartition(".")[2] == "lm_head" for name in modules)),
        ("activated LoRA", bool(config.get("alora_invocation_tokens"))),
        ("replicated layers", bool(config.get("layer_replication"))),
        ("weights of another kind", len(found) > 2 * len(modules)),
    )
    return next((reason for reason, holds in reasons if holds), None)


def _checkpoint_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise StageError(
            f"checkpoint {folder} has no weights\n"
            f"    wanted: model.safetensors, or its parts, as save_pretrained() writes them"
        )
    return {key: shape for file in files for key, shape in _header(file).items()}


@lru_cache(maxsize=2)
def _source_header(source: ModelSource) -> Shapes:
    folder = source_folder(source)
    if any(folder.glob("model*.safetensors")):
        return _checkpoint_shapes(folder)
    return {name: tuple(tensor.shape) for name, tensor in _meta_model(source).state_dict().items()}


def _source_shapes(source: ModelSource) -> dict[str, tuple[int, ...]]:
    return dict(_source_header(source))


def source_folder(source: ModelSource) -> Path:
    """The folder of a student's files: its own, or the one that the Hub's client keeps."""
    if Path(source.name).is_dir():
        return Path(source.name)
    from huggingface_hub import snapshot_download

    with told(f"student {source.name} cannot be read"):
        return Path(
            snapshot_download(source.name, revision=source.revision, allow_patterns=["*.safetensors", "*.json"])
        )


def tied_weights(source: ModelSource) -> list[str]:
    """The weights that are others under a second name, such as an output layer that is the embeddings."""
    model = _meta_model(source)
    if not model.config.get_text_config().tie_word_embeddings:
        return []
    return list(getattr(model, "_tied_weights_keys", None) or [])


@contextmanager
def told(what: str, hint: str = "") -> Iterator[None]:
    """Turns whatever a library raises over a user's files into one error that says which files."""
    try:
        yield
    except StageError:
        raise
    except Exception as error:  # peft, transformers, safetensors and torch each raise their own when files are spoiled
        words = f"{what}: {type(error).__name__}: {error}"
        raise StageError(f"{words}\n    hint: {hint}" if hint else words) from error
