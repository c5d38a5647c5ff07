"""What statistics need of graded samples: arrays, and no text of theirs.

Letters: n samples, m problems.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distillbench.outcomes import GENERATION_ERROR, OUTCOMES
from distillbench.report.results import GradedSample, ResultsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

REASONING_STATES = ("absent", "open", "closed")
#: Where a sample has no such value.
NONE = -1

#: The columns that are read of a table of verdicts.
COLUMNS: Mapping[str, pa.DataType] = {
    **dict.fromkeys(("problem_id", "outcome", "canonical", "scores", "reasoning_state"), pa.string()),
    **dict.fromkeys(("repeat", "n_tokens"), pa.int64()),
    "ran_on": pa.bool_(),
}


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One number of those samples that have it.

    Attributes:
        places: Which samples.
        values: The number of each.
    """

    places: NDArray[np.int32]
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Some samples as arrays [n], in the order of the samples.

    Attributes:
        names: The problems [m], each once, in the order in which they were asked.
        problem: Places in `names`.
        repeat: Which of the completions of its problem.
        outcome: Places in `OUTCOMES`.
        reasoning: Places in `REASONING_STATES`; NONE where there is no completion.
        n_tokens: NONE where there is no completion.
        ran_on: The model went on after its answer was complete.
        form: Equal for equal answers, in the form that answers are compared in; 0 where there is none.
        metrics: What the grader scored, by name.

    Raises:
        ResultsError: A sample is there twice: the counts would not add up to n.
    """

    names: pa.StringArray
    problem: NDArray[np.int32]
    repeat: NDArray[np.int32]
    outcome: NDArray[np.int8]
    reasoning: NDArray[np.int8]
    n_tokens: NDArray[np.int32]
    ran_on: NDArray[np.bool_]
    form: NDArray[np.uint64]
    metrics: Mapping[str, Metric]

    def __post_init__(self) -> None:
        width = 1 + int(self.repeat.max(initial=0))
        found, times = np.unique(self.problem.astype(np.int64) * width + self.repeat, return_counts=True)
        if len(found) < len(self):
            problem, repeat = divmod(int(found[times.argmax()]), width)
            sample = (self.names[problem].as_py(), repeat)
            raise ResultsError(f"sample {sample!r} (problem, repeat) is there {times.max()} times")

    def __len__(self) -> int:
        return len(self.problem)

    def has(self, outcomes: Iterable[str]) -> NDArray[np.bool_]:
        """Which samples have one of these outcomes [n]."""
        return np.isin(self.outcome, [OUTCOMES.index(outcome) for outcome in outcomes])

    def counts(self) -> dict[str, int]:
        """Samples per outcome, every outcome, in the order of reports; they add up to n."""
        found = np.bincount(self.outcome, minlength=len(OUTCOMES)).tolist()
        return dict(zip(OUTCOMES, found, strict=True))

    def repeats(self) -> int:
        """The most completions that a problem has; 0 without any."""
        return int(np.bincount(self.problem).max(initial=0))

    @classmethod
    def of(cls, samples: Iterable[GradedSample]) -> Self:
        """Those of samples that are held.

        Raises:
            ResultsError: They contradict one another.
        """
        held = tuple(samples)
        rows = {name: [getattr(sample, name) for sample in held] for name in COLUMNS if name != "scores"}
        rows["scores"] = [json.dumps(dict(sample.scores)) for sample in held]
        columns = [pa.array(rows[name], kind) for name, kind in COLUMNS.items()]
        return cls.read([pa.record_batch(columns, names=list(COLUMNS))])

    @classmethod
    def read(cls, batches: Iterable[pa.RecordBatch]) -> Self:
        """Those of a table of verdicts, of which a batch is held at a time.

        Args:
            batches: With `COLUMNS`.

        Raises:
            ResultsError: They contradict one another.
        """
        return cls.joined([_of_batch(batch) for batch in batches])

    @classmethod
    def joined(cls, parts: Sequence[Scores]) -> Self:
        """Several as one.

        Raises:
            ResultsError: A sample is in two of them.
        """
        problems = pa.chunked_array([part.names.take(pa.array(part.problem)) for part in parts], pa.string())
        arrays = [entry.name for entry in fields(cls) if entry.name not in ("names", "problem", "metrics")]
        empty = _of_batch(pa.RecordBatch.from_pylist([], pa.schema(COLUMNS.items())))
        names, codes = _coded(problems)
        return cls(
            names=names,
            problem=codes,
            metrics=_joined_metrics(parts),
            **{name: np.concatenate([getattr(part, name) for part in (empty, *parts)]) for name in arrays},
        )


def _of_batch(batch: pa.RecordBatch) -> Scores:
    names, problem = _coded(pa.chunked_array([batch.column("problem_id")]))
    outcome = _places(batch.column("outcome"), OUTCOMES)
    if (outcome == NONE).any():
        unknown = sorted({*batch.column("outcome").to_pylist()} - {*OUTCOMES})
        raise ResultsError(f"unknown outcomes {unknown}; known: {', '.join(OUTCOMES)}")
    n_tokens = _numbers(batch.column("n_tokens"), NONE)
    n_tokens[outcome == OUTCOMES.index(GENERATION_ERROR)] = NONE
    return Scores(
        names=names,
        problem=problem,
        repeat=_numbers(batch.column("repeat"), 0),
        outcome=outcome,
        reasoning=_places(batch.column("reasoning_state"), REASONING_STATES),
        n_tokens=n_tokens,
        ran_on=batch.column("ran_on").to_numpy(zero_copy_only=False).astype(np.bool_),
        form=np.array([_form(text) for text in batch.column("canonical").to_pylist()], np.uint64),
        metrics=_metrics(batch.column("scores")),
    )


def _coded(texts: pa.ChunkedArray) -> tuple[pa.StringArray, NDArray[np.int32]]:
    """Each text once, in the order of the first of each, and the place of every text among them."""
    coded = texts.combine_chunks().dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):  # as pyarrow gives it where there are no chunks
        coded = pa.array([], pa.string()).dictionary_encode()
    return coded.dictionary, coded.indices.to_numpy()


def _places(texts: pa.Array, known: Sequence[str]) -> NDArray[np.int8]:
    found = pc.index_in(texts, value_set=pa.array(known, pa.string()))
    return _numbers(found, NONE).astype(np.int8)


def _numbers(column: pa.Array, missing: int) -> NDArray[np.int32]:
    """A column as an array that can be written to."""
    return np.array(pc.fill_null(column, missing).to_numpy(zero_copy_only=False), np.int32)


def _form(text: str | None) -> int:
    """A number for an answer. Only the few answers to one problem are compared, so 64 bits tell them apart."""
    if text is None:
        return 0
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) or 1


def _metrics(column: pa.Array) -> dict[str, Metric]:
    found: dict[str, tuple[list[int], list[float]]] = {}
    for place, text in enumerate(column.to_pylist()):
        for name, value in json.loads(text).items():
            places, values = found.setdefault(name, ([], []))
            places.append(place)
            values.append(float(value))
    return {
        name: Metric(np.array(places, np.int32), np.array(values, np.float64))
        for name, (places, values) in found.items()
    }


def _joined_metrics(parts: Sequence[Scores]) -> dict[str, Metric]:
    starts = np.cumsum([0, *(len(part) for part in parts)])
    found: dict[str, list[Metric]] = {}
    for part, start in zip(parts, starts, strict=False):
        for name, metric in part.metrics.items():
            found.setdefault(name, []).append(Metric(metric.places + np.int32(start), metric.values))
    return {
        name: Metric(np.concatenate([one.places for one in metrics]), np.concatenate([one.values for one in metrics]))
        for name, metrics in found.items()
    }
