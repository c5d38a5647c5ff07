"""The transformers engine against a bare `generate()` of the same batches: `python benchmarks/engine_speed.py [SIZE]`.

SIZE is `tiny` (the quick start's shape, the default without a GPU) or `600m` (Qwen3-0.6B's shape, the default with
one). Weights are random: what is timed is the machinery, not the answers. Prints seconds, tokens per second and our
ratio to the floor, minima of three runs each from one process, and checks that both wrote the same tokens.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from distillbench.protocols import Context
from distillbench.records import Batch, Message, Request, Sampling
from distillbench_plugins.engines.grouping import groups, left_padded
from distillbench_plugins.engines.transformers import TransformersEngine, TransformersOptions
from distillbench_plugins.renderers.qwen import Qwen3Options, Qwen3Renderer
from distillbench_plugins.students.hf import HfOptions, HfStudent
from distillbench_plugins.students.tiny_qwen3.corpus import tokenizer_texts
from distillbench_plugins.students.tiny_qwen3.tokenizer import train_tokenizer
from distillbench_tasks.coins.problems import draw
from distillbench_tasks.splits import stream

SHAPES = {
    "tiny": {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 3, "head_dim": 32, "heads": (4, 2)},
    "600m": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "head_dim": 128,
        "heads": (16, 8),
    },
}
N_PROMPTS, BATCH_SIZE, MAX_TOKENS, RUNS = 256, 64, 96, 3


def save_model(folder: Path, size: str) -> None:
    """Writes a Qwen3 of random weights and a tokenizer."""
    shape = dict(SHAPES[size])
    heads, kv_heads = shape.pop("heads")
    tokenizer = train_tokenizer(tokenizer_texts(0))
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **shape,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_requests(renderer: Qwen3Renderer) -> list[Request]:
    """Greedy requests for coins problems."""
    docs = stream(draw, "coins", "test", 0)
    return [
        Request(
            sample_id=f"coins/{number}#0",
            prompt=renderer.prompt([Message("user", next(docs)["question"])]),
            sampling=Sampling(max_tokens=MAX_TOKENS),
            stop_token_ids=renderer.stop_token_ids(),
            seed=number,
        )
        for number in range(N_PROMPTS)
    ]


def bare(model: Any, requests: Sequence[Request], device: str) -> dict[str, tuple[int, ...]]:
    """The floor: nothing but `generate()` on the same batches."""
    found = {}
    settings = GenerationConfig(
        max_new_tokens=MAX_TOKENS,
        do_sample=False,
        eos_token_id=list(requests[0].stop_token_ids),
        pad_token_id=requests[0].stop_token_ids[0],
    )
    model.generation_config = GenerationConfig()
    for batch in groups(requests, BATCH_SIZE):
        input_ids, mask = left_padded(
            [one.prompt.input_ids.tolist() for one in batch], batch[0].stop_token_ids[0], device
        )
        with torch.inference_mode():
            output = model.generate(input_ids=input_ids, attention_mask=mask, generation_config=settings)
        rows = output[:, input_ids.shape[1] :].tolist()
        found |= {request.sample_id: tuple(row) for request, row in zip(batch, rows, strict=True)}
    return found


def minimum(run: Callable[[], Any]) -> tuple[float, Any]:
    """The least wall time of several runs, in seconds, and what the last one returned."""
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        found = run()
        times.append(time.perf_counter() - begin)
    return min(times), found


def main() -> None:
    """Prints ours, the floor and the ratio."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = sys.argv[1] if len(sys.argv) > 1 else ("600m" if device == "cuda" else "tiny")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder, size)
        student = HfStudent(HfOptions(model=name, dtype="bfloat16" if device == "cuda" else "float32"))
        requests = make_requests(Qwen3Renderer(Qwen3Options()).bind(student.load_tokenizer(None)))
        engine = TransformersEngine(TransformersOptions(batch_size=BATCH_SIZE))
        with engine.open(student, None, [], Context(work=folder)) as session:
            ours_seconds, ours = minimum(
                lambda: {one.sample_id: one for _, one in session.generate([Batch("stage", None, requests)])}
            )
        model = student.load_model(None, device).eval()
        floor_seconds, floor = minimum(lambda: bare(model, requests, device))
    same = sum(floor[key][: len(one.token_ids)] == one.token_ids for key, one in ours.items())
    tokens = sum(len(one.token_ids) for one in ours.values())
    print(f"device {device}, {size}, {N_PROMPTS} prompts, {tokens} tokens, torch threads {torch.get_num_threads()}")
    print(f"ours   {ours_seconds:8.2f} s  {tokens / ours_seconds:10.0f} tokens/s")
    print(f"floor  {floor_seconds:8.2f} s  {tokens / floor_seconds:10.0f} tokens/s")
    print(f"ratio  {ours_seconds / floor_seconds:8.2f}    same tokens: {same} of {len(ours)}")


if __name__ == "__main__":
    main()
