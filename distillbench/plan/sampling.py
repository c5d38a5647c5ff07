"""What of an evaluation decides what is sampled."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from typing import Any

from distillbench.fingerprint import canonical_json
from distillbench.records import Evaluation, Questions, Sampling


def effective_sampling(sampling: Sampling) -> Sampling:
    """What of it decides a completion: at temperature 0 no candidate is left out, and no seed is used."""
    if sampling.temperature > 0:
        return sampling
    return Sampling(**{name: value for name, value in asdict(sampling).items() if name not in Sampling.random})


@lru_cache(maxsize=65536)
def sampling_params(asked: Evaluation | Questions) -> str:
    """Canonical JSON of everything in what is asked that decides what is sampled.

    What asks for nothing is left out, so that an option that comes later changes no key of what does without it.
    """
    found = _of_questions(asked) if isinstance(asked, Questions) else _of_evaluation(asked)
    return canonical_json(found | {"sampling": _drawn(asked.sampling)})


def _drawn(sampling: Sampling) -> dict[str, Any]:
    neutral = asdict(Sampling())
    return {name: value for name, value in asdict(effective_sampling(sampling)).items() if value != neutral[name]}


def _of_questions(asked: Questions) -> dict[str, Any]:
    """A task's problems are known by the task, those of a file by its content; a teacher's are those of its traces."""
    return {"problems": asked.identity, "split": asked.split if asked.task else None, "limit": asked.limit}


def _of_evaluation(evaluation: Evaluation) -> dict[str, Any]:
    subset = evaluation.subset if evaluation.limit is not None else None
    return evaluation.asked | {"task": evaluation.sample_identity, "subset": subset}
