"""Proof that a model computes numbers, and that a checkpoint changes it, before anything that it writes is scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from distillbench.errors import StageError
from distillbench.protocols import EngineSession
from distillbench.records import Checkpoint, Prompt

#: Prompts whose first tokens are compared.
N_PROMPTS = 4
#: A change must be this many times what the engine differs from itself.
_TIMES_NOISE = 10
#: The least change in nats. What is below is rounding: an adapter scaled by 1e-9 changes the tiny student by 4e-6 in
#: float32, and one that was trained for 20 steps by 12.
_LEAST_CHANGE = 1e-4

TokenLogprobs = Sequence[Mapping[int, float]]


class Proof:
    """Compares checkpoints with the untouched student by the log-probabilities of first tokens.

    Args:
        session: The engine with both.
    """

    def __init__(self, session: EngineSession) -> None:
        self.session = session
        self._base: dict[bytes, tuple[TokenLogprobs, float]] = {}

    def of(self, checkpoint: Checkpoint | None, prompts: Sequence[Prompt]) -> Mapping[str, Any]:
        """Makes a checkpoint ready and proves it.

        Args:
            checkpoint: The checkpoint; None for the untouched student, which has to compute numbers and no more.
            prompts: A few prompts that it will be asked.

        Returns:
            What a report names: what the engine says of the checkpoint, and the largest change in nats. Nothing for
            the untouched student.

        Raises:
            StageError: It would not be applied, it changes nothing, or it computes no numbers.
        """
        if checkpoint is None:
            if not self._base:  # otherwise it was looked at for a checkpoint, and may not be loaded now
                self._logprobs(prompts, None)
            return {}
        facts = self.session.prepare(checkpoint)
        base, noise = self._base_logprobs(prompts)
        change = largest_change(base, self._logprobs(prompts, checkpoint))
        if not change > max(_LEAST_CHANGE, _TIMES_NOISE * noise):
            raise StageError(
                f"checkpoint {checkpoint.path} changes nothing: the log-probabilities of the first token after "
                f"{len(prompts)} prompts differ from the untouched student's by {change:.2g} nats at most\n"
                f"    the engine differs from itself by {noise:.2g}\n"
                f"    it is not scored; see whether the training moved any weight (`loss` in metrics.jsonl), and "
                f"whether the checkpoint belongs to this student"
            )
        return {**facts, "first_token_change": change, "engine_noise": noise, "prompts": len(prompts)}

    def _base_logprobs(self, prompts: Sequence[Prompt]) -> tuple[TokenLogprobs, float]:
        """The untouched student's, and how much the engine differs from itself, in nats."""
        key = b"".join(prompt.input_ids.tobytes() for prompt in prompts)
        if key not in self._base:
            once, again = (self._logprobs(prompts, None) for _ in range(2))
            self._base[key] = once, largest_change(once, again)
        return self._base[key]

    def _logprobs(self, prompts: Sequence[Prompt], checkpoint: Checkpoint | None) -> TokenLogprobs:
        found = self.session.first_token_logprobs(prompts, checkpoint)
        if any(math.isnan(logprob) for by_token in found for logprob in by_token.values()):
            raise StageError(
                f"{name_of(checkpoint)} computes no numbers: log-probabilities of first tokens are NaN\n"
                f"    hint: its weights are broken, or too large for its dtype (float16 ends at 65,504)"
            )
        return found


def name_of(checkpoint: Checkpoint | None) -> str:
    """What errors call it."""
    return "the untouched student" if checkpoint is None else f"checkpoint {checkpoint.path}"


def largest_change(one: TokenLogprobs, other: TokenLogprobs) -> float:
    """The largest difference of a token's log-probability, in nats, over tokens that both name.

    Where two sets of the likeliest tokens share none, the change is infinite.
    """
    changes = []
    for first, second in zip(one, other, strict=True):
        shared = first.keys() & second.keys()
        changes.append(max((abs(first[token] - second[token]) for token in shared), default=float("inf")))
    return max(changes)
