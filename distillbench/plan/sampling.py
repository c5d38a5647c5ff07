"""What of an evaluation decides what is sampled."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from typing import Any

from distillbench.fingerprint import canonical_json
from distillbench.records import Evaluation, Questions, Sampling

_PENALTIES = frozenset({"repetition_penalty", "presence_penalty"})


def effective_sampling(sampling: Sampling) -> Sampling:
    """What of it decides a completion: at temperature 0 no candidate is left out, and no seed is used."""
    if sampling.temperature > 0:
        return sampling
    return Sampling(
        max_tokens=sampling.max_tokens,
        stop=sampling.stop,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
    )


@lru_cache(maxsize=65536)
def sampling_params(asked: Evaluation | Questions) -> str:
    """Canonical JSON of everything in what is asked that decides what is sampled.

    What asks for nothing is left out where it came later than stored results, so that these keep their keys.
    """
    return canonical_json(_of_questions(asked) if isinstance(asked, Questions) else _of_evaluation(asked))


def _drawn(sampling: Sampling) -> dict[str, Any]:
    drawn = asdict(effective_sampling(sampling))
    return {name: value for name, value in drawn.items() if name not in _PENALTIES} | sampling.penalties


def _of_questions(asked: Questions) -> dict[str, Any]:
    """A task's problems are known by the task, those of a file by its content; a teacher's are those of its traces."""
    found = {"problems": asked.identity, "split": asked.split if asked.task else None, "limit": asked.limit}
    return found | {"sampling": _drawn(asked.sampling)}


def _of_evaluation(evaluation: Evaluation) -> dict[str, Any]:
    later = {
        "problems": evaluation.problems,
        "num_fewshot": evaluation.num_fewshot,
        "system": evaluation.system or None,
    }
    found = {
        "task": evaluation.sample_identity,
        "sampling": _drawn(evaluation.sampling),
        "prefill": evaluation.prefill,
        "repeats": evaluation.repeats,
        "limit": evaluation.limit,
        "subset": evaluation.subset if evaluation.limit is not None else None,
    }
    return found | {name: value for name, value in later.items() if value is not None}
