"""What of an evaluation decides what is sampled."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache

from distillbench.fingerprint import canonical_json
from distillbench.records import Evaluation, Sampling

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
def sampling_params(evaluation: Evaluation) -> str:
    """Canonical JSON of everything in an evaluation that decides what is sampled.

    What asks for nothing is left out where it came later than stored results, so that these keep their keys.
    """
    drawn = asdict(effective_sampling(evaluation.sampling))
    later = {
        "problems": evaluation.problems,
        "num_fewshot": evaluation.num_fewshot,
        "system": evaluation.system or None,
    }
    return canonical_json(
        {
            "task": evaluation.sample_identity,
            "sampling": {name: value for name, value in drawn.items() if name not in _PENALTIES}
            | evaluation.sampling.penalties,
            "prefill": evaluation.prefill,
            "repeats": evaluation.repeats,
            "limit": evaluation.limit,
            "subset": evaluation.subset if evaluation.limit is not None else None,
        }
        | {name: value for name, value in later.items() if value is not None}
    )
