"""The graded samples that a store holds: their numbers at once, their texts one after the other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from distillbench.report.results import GradedSample, ResultsError
from distillbench.report.scores import COLUMNS, Scores
from distillbench.store.rows import batches, iterate

#: What is shown of a sample; its token ids are not.
_SHOWN = ("sample_id", "error", "finish_reason", "text", "prompt", "gold", "metadata")


@dataclass(frozen=True, slots=True)
class StoredSamples:
    """The files of a finished `grade` stage and of the samples that it graded.

    Attributes:
        verdicts: One row for each sample, in the order of the samples.
        samples: What was generated.
        is_cut: They were graded at a smaller budget. Their texts as they were cut are not stored, and the whole ones
            would not be true.
    """

    verdicts: Path
    samples: Path
    is_cut: bool

    def scores(self) -> Scores:
        """The numbers of every sample.

        Raises:
            ResultsError: They contradict one another.
            OSError: A file cannot be read.
        """
        return Scores.read(batches(self.verdicts, tuple(COLUMNS)))

    def read(self) -> Iterator[GradedSample]:
        """Every sample with its texts; a batch is held at a time.

        Raises:
            ResultsError: The files are not of the same samples.
            OSError: A file cannot be read.
        """
        nothing = {"sample_id": None}
        rows = zip_longest(iterate(self.verdicts), iterate(self.samples, _SHOWN), fillvalue=nothing)
        for verdict, sample in rows:
            if verdict["sample_id"] != sample["sample_id"]:
                raise ResultsError(
                    f"{self.verdicts} has a verdict on {verdict['sample_id']!r} where {self.samples} has the sample "
                    f"{sample['sample_id']!r}"
                )
            yield _graded(verdict, sample, self.is_cut)


def _graded(verdict: Mapping[str, Any], sample: Mapping[str, Any], is_cut: bool) -> GradedSample:
    return GradedSample(
        problem_id=verdict["problem_id"],
        repeat=verdict["repeat"],
        outcome=verdict["outcome"],
        detail=verdict["detail"],
        extracted=verdict["extracted"],
        scores=json.loads(verdict["scores"]),
        reasoning_state=verdict["reasoning_state"],
        n_tokens=verdict["n_tokens"] if sample["error"] is None else None,
        ran_on=verdict["ran_on"],
        finish_reason=None if is_cut else sample["finish_reason"],
        text="" if is_cut else sample["text"],
        prompt=sample["prompt"],
        gold=sample["gold"],
        doc=json.loads(sample["metadata"]).get("doc", {}),
        canonical=verdict["canonical"],
        sample_id=verdict["sample_id"],
    )
