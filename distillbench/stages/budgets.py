"""A completion as it would have been under a smaller token budget."""

from __future__ import annotations

from dataclasses import replace

from distillbench.errors import StageError
from distillbench.protocols import Renderer
from distillbench.records import Sample


def is_cut(sample: Sample, budget: int) -> bool:
    """Whether a budget leaves something of a sample out.

    Raises:
        StageError: There are no token ids to tell.
    """
    if sample.error is not None:
        return False
    if not len(sample.token_ids) and sample.text:
        raise StageError(
            f"sample {sample.sample_id!r} cannot be cut at {budget} tokens: the engine gave its text without the "
            f"token ids\n    hint: leave `budgets` out for models behind an API, and ask at each `max_tokens` instead"
        )
    return len(sample.token_ids) > budget


def cut(sample: Sample, budget: int, renderer: Renderer) -> Sample:
    """A sample with nothing beyond the budget's last token; as it is where nothing was, or where it failed.

    Args:
        sample: The sample.
        budget: The most tokens, end-of-turn token included.
        renderer: Has the tokenizer that the text is decoded with, as engines do: special tokens are kept.

    Raises:
        StageError: There are no token ids to cut.
    """
    if not is_cut(sample, budget):
        return sample
    kept = sample.token_ids[:budget]
    text = renderer.tokenizer.decode(kept.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return replace(sample, token_ids=kept, text=text, finish_reason="length", n_tokens=budget)
