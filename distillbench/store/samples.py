"""Samples and verdicts as the rows that are stored of them."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from distillbench.fingerprint import key_of
from distillbench.records import Generation, Problem, Sample, SampleVerdict, Verdict
from distillbench.store.columns import Row, int32
from distillbench.store.rows import problem_of, problem_row

#: The columns of what an engine gave; the others say what it was asked.
GIVEN = ("sample_id", "token_ids", "text", "finish_reason", "error", "n_tokens", "n_prompt_tokens", "effective")


def given_row(generation: Generation) -> Row:
    """What an engine gave, as columns; the number of tokens is null where neither it nor the tokens are known.

    Raises:
        TypeError: Its token ids are none; so is `OverflowError`.
    """
    known = generation.n_tokens if generation.n_tokens is not None else len(generation.token_ids) or None
    return {
        "sample_id": generation.sample_id,
        "token_ids": int32(generation.token_ids),
        "text": generation.text,
        "finish_reason": generation.finish_reason,
        "error": generation.error,
        "n_tokens": known,
        "n_prompt_tokens": generation.n_prompt_tokens,
        "effective": json.dumps(generation.effective, sort_keys=True),
    }


def journal_row(given: Row) -> Row:
    """What an engine gave, as JSON holds it: token ids as the base64 of their bytes."""
    return given | {"token_ids": b64encode(given["token_ids"].astype("<i4").tobytes()).decode()}


def from_journal(row: Row) -> Row:
    """What `journal_row` made a row of."""
    import numpy as np

    return row | {"token_ids": np.frombuffer(b64decode(row["token_ids"]), "<i4")}


def sample_row(sample: Sample) -> Row:
    """A sample as columns."""
    given = {name: getattr(sample, name) for name in GIVEN}
    asked = {name: getattr(sample, name) for name in ("repeat", "prompt", "prefill", "seed")}
    return problem_row(sample.problem) | asked | given | {"effective": json.dumps(sample.effective, sort_keys=True)}


def sample_of(row: Mapping[str, Any], problem: Problem | None = None) -> Sample:
    """The sample that columns hold.

    Args:
        row: The columns.
        problem: What was asked, where it is known; else the columns say it.
    """
    return Sample(
        sample_id=row["sample_id"],
        problem=problem or problem_of(row),
        repeat=row["repeat"],
        prompt=row["prompt"],
        prefill=row["prefill"],
        seed=row["seed"],
        token_ids=row["token_ids"],
        text=row["text"],
        finish_reason=row["finish_reason"],
        error=row["error"],
        n_tokens=row["n_tokens"],
        n_prompt_tokens=row["n_prompt_tokens"],
        effective=json.loads(row["effective"]),
    )


def digest_of(sample: Sample) -> str:
    """The digest of everything in a sample, 32 hex digits."""
    ids = hashlib.sha256(sample.token_ids.astype("<i4").tobytes()).hexdigest()
    return key_of(sample_row(sample) | {"token_ids": ids})


def verdict_row(found: SampleVerdict) -> Row:
    """A verdict on a sample as columns."""
    verdict = found.verdict
    return {
        "sample_id": found.sample_id,
        "problem_id": found.problem_id,
        "repeat": found.repeat,
        "outcome": verdict.outcome,
        "detail": verdict.detail,
        "extracted": verdict.extracted,
        "canonical": found.canonical,
        "scores": json.dumps(verdict.scores, sort_keys=True),
        "reasoning_state": found.reasoning_state,
        "ran_on": verdict.ran_on,
        "n_tokens": found.n_tokens,
        "sample_digest": found.sample_digest,
    }


def verdict_of(row: Mapping[str, Any]) -> SampleVerdict:
    """The verdict on a sample that columns hold."""
    return SampleVerdict(
        sample_id=row["sample_id"],
        problem_id=row["problem_id"],
        repeat=row["repeat"],
        verdict=Verdict(row["outcome"], row["detail"], row["extracted"], json.loads(row["scores"]), row["ran_on"]),
        canonical=row["canonical"],
        reasoning_state=row["reasoning_state"],
        n_tokens=row["n_tokens"],
        sample_digest=row["sample_digest"],
    )
