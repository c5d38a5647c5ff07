"""Pretrains the tiny student in about a minute of one core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from distillbench_plugins.students.tiny_qwen3.corpus import Document, documents, tokenizer_texts
from distillbench_plugins.students.tiny_qwen3.tokenizer import train_tokenizer

BATCH_SIZE = 48
#: Muon moves the weight matrices, AdamW embeddings and norms.
MUON_LEARNING_RATE, ADAM_LEARNING_RATE = 0.01, 4e-3
#: Loss weight of the tokens of a prompt.
PROMPT_WEIGHT = 0.05
#: Forward passes of one step; rows of similar length go together, which halves the padding.
PARTS = 3

Row = tuple[list[int], list[float]]  # token ids and loss weights of one document, T of each
Progress = Callable[[int, float], None]


def pretrain(seed: int, steps: int, progress: Progress) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """Trains the tokenizer, then the model.

    Args:
        seed: Of the weights and of the corpus.
        steps: Optimizer steps.
        progress: Called after each step with the steps done and the loss.
    """
    tokenizer = train_tokenizer(tokenizer_texts(seed))
    model = _new_model(tokenizer, seed)
    stream = documents(seed)
    optimizers = _optimizers(model)
    schedules = [_schedule(optimizer, steps) for optimizer in optimizers]
    model.train()
    for step in range(1, steps + 1):
        loss = _backward(model, _encode(list(islice(stream, BATCH_SIZE)), tokenizer))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for each in (*optimizers, *schedules):
            each.step()
        model.zero_grad()
        progress(step, loss)
    return model.eval(), tokenizer


def _new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=192,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _optimizers(model: Qwen3ForCausalLM) -> list[torch.optim.Optimizer]:
    layers = list(model.model.layers.parameters())
    matrices = [parameter for parameter in layers if parameter.ndim == 2]
    rest = [parameter for parameter in layers if parameter.ndim != 2]
    rest += [model.model.embed_tokens.weight, model.model.norm.weight]
    return [
        torch.optim.Muon(matrices, lr=MUON_LEARNING_RATE, weight_decay=0.0, adjust_lr_fn="original"),
        torch.optim.AdamW(rest, lr=ADAM_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _schedule(optimizer: torch.optim.Optimizer, steps: int) -> Any:
    peak = optimizer.param_groups[0]["lr"]
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=peak, total_steps=steps + 1, pct_start=0.05, cycle_momentum=False
    )


def _encode(batch: Sequence[Document], tokenizer: PreTrainedTokenizerFast) -> list[Row]:
    prompts = tokenizer([document.prompt for document in batch])["input_ids"]
    responses = tokenizer([document.response for document in batch])["input_ids"]
    return [
        (prompt + response, [PROMPT_WEIGHT] * len(prompt) + [1.0] * len(response))
        for prompt, response in zip(prompts, responses, strict=True)
    ]


def _backward(model: Qwen3ForCausalLM, rows: Sequence[Row]) -> float:
    """Adds the gradient of one batch; returns its loss, the weighted mean cross entropy of the next token."""
    ordered = sorted(rows, key=lambda row: len(row[0]))
    total = sum(sum(weights[1:]) for _, weights in ordered)
    size = -(-len(ordered) // PARTS)
    loss = 0.0
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        ids = pad_sequence([torch.tensor(tokens) for tokens, _ in part], batch_first=True, padding_value=0)  # B x T
        weights = pad_sequence([torch.tensor(values) for _, values in part], batch_first=True)  # B x T, 0 on padding
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits  # B x T-1 x V
        losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        part_loss = (losses * weights[:, 1:].flatten()).sum() / total
        part_loss.backward()  # type: ignore[no-untyped-call]
        loss += float(part_loss.detach())
    return loss
