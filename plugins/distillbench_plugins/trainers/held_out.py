"""Rows that are kept out of a training, and how well it comes to predict them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distillbench.records import TrainingRow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Chosen(Sequence[TrainingRow]):
    """Some rows of others.

    Args:
        rows: The others.
        numbers: Which.
    """

    def __init__(self, rows: Sequence[TrainingRow], numbers: Sequence[int]) -> None:
        self._rows = rows
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self._rows[int(place)] for place in self._numbers[number]]
        return self._rows[int(self._numbers[number])]


def held_out(problem_ids: Sequence[str], share: float) -> NDArray[np.bool_]:
    """Which rows are kept out of training, decided by their problems' ids: all rows of a problem go together.

    Args:
        problem_ids: Of each row.
        share: The share of rows to keep out; a little more when several rows share a problem.
    """
    import numpy as np

    digests = np.array([_place(one) for one in problem_ids], np.uint64)
    n_out = n_held_out(len(digests), share)
    return np.isin(digests, digests[np.argsort(digests, kind="stable")[:n_out]])


def _place(problem_id: str) -> int:
    """Where a problem stands in the order in which problems are kept out."""
    return int.from_bytes(hashlib.sha256(problem_id.encode()).digest()[:8], "big")


def n_held_out(n_traces: int, share: float) -> int:
    """How many of so many rows are kept out: one at least, and never all."""
    return min(n_traces - 1, max(1, round(n_traces * share))) if share > 0 else 0


def held_out_nll(model: Any, rows: Sequence[TrainingRow], batch_size: int = 16) -> dict[str, float]:
    """The mean negative log-likelihood of the loss-carrying tokens, in nats per token, and their number.

    Args:
        model: In any mode; it is put back into it.
        rows: Rendered rows, R of them.
        batch_size: Rows of one forward pass.
    """
    import torch
    from torch.nn.functional import cross_entropy

    if not rows:
        return {}
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            batch = [labelled(row) for row in rows[start : start + batch_size]]
            input_ids, labels, mask = (_right_padded(batch, key, fill) for key, fill in PADDING.items())
            logits = model(
                input_ids=input_ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False
            ).logits
            targets = labels[:, 1:].to(logits.device)  # B x T-1
            summed = cross_entropy(logits[:, :-1].float().flatten(0, 1), targets.flatten(), reduction="sum")
            total += float(summed)
            count += int((targets != -100).sum())
    model.train(was_training)
    return {"held_out_nll": total / count, "held_out_tokens": count}


PADDING = {"input_ids": 0, "labels": -100, "attention_mask": 0}


def labelled(row: TrainingRow) -> dict[str, list[int]]:
    """A row as TRL takes it: labels are the ids where there is loss, -100 elsewhere."""
    ids = row.input_ids.tolist()
    labels = [token if loss else -100 for token, loss in zip(ids, row.loss_mask.tolist(), strict=True)]
    return {"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)}


def _right_padded(batch: Sequence[dict[str, list[int]]], key: str, fill: int) -> Any:
    import torch

    longest = max(len(row[key]) for row in batch)
    return torch.tensor([row[key] + [fill] * (longest - len(row[key])) for row in batch])
