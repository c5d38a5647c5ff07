"""Samples as arrays, and their texts read one after the other."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_factories import any_samples, checkpoint, of_samples, repeated, sample, scored, write

from distillbench.report.results import GradedSample, Results, ResultsError
from distillbench.report.scores import Scores
from distillbench.report.stored import StoredSamples
from distillbench.store.rows import SAMPLES, VERDICTS, write_rows


def as_lists(scores: Scores) -> dict[str, Any]:
    arrays = {entry.name: getattr(scores, entry.name) for entry in fields(scores) if entry.name != "metrics"}
    metrics = {name: (one.places.tolist(), one.values.tolist()) for name, one in scores.metrics.items()}
    return {name: array.tolist() for name, array in arrays.items()} | {"metrics": metrics}


@given(any_samples(), st.lists(st.integers(0, 30), max_size=4))
def test_parts_joined_are_the_whole(made: tuple[GradedSample, ...], cuts: list[int]) -> None:
    named = [
        replace(one, canonical=one.outcome[:1], scores={one.outcome: place / 3}) if place % 3 else one
        for place, one in enumerate(made)
    ]
    ends = sorted({0, *cuts, len(named)})
    parts = [Scores.of(named[start:end]) for start, end in pairwise(ends)]
    assert as_lists(Scores.joined(parts)) == as_lists(Scores.of(named))


def test_a_sample_that_is_in_two_parts_is_an_error() -> None:
    parts = [Scores.of(repeated([["correct"], ["wrong"]])), Scores.of([sample("p0001", "correct")])]
    with pytest.raises(ResultsError, match=r"sample \('p0001', 0\) .* is there 2 times"):
        Scores.joined(parts)


def test_arrays_say_what_the_samples_say() -> None:
    made = [
        sample("b", "correct", 1, canonical="3", ran_on=True),
        sample("a", "generation_error", n_tokens=7),
        sample("b", "correct", canonical="3.0", scores={"acc": 1, "style": 0.5}),
        sample("a", "truncated", 1, n_tokens=None),
        sample("b", "wrong", 2, canonical="3"),
    ]
    found = Scores.of(made)
    assert found.names.to_pylist() == ["b", "a"]
    assert (found.problem.tolist(), found.repeat.tolist()) == ([0, 1, 0, 1, 0], [1, 0, 0, 1, 2])
    assert (found.n_tokens.tolist(), found.ran_on.tolist()) == ([11, -1, 11, -1, 11], [True, *[False] * 4])
    assert [int(form == found.form[0]) for form in found.form] == [1, 0, 0, 0, 1]
    assert found.form[1] == found.form[3] == 0
    assert (found.counts()["correct"], found.repeats(), len(found)) == (2, 3, 5)
    assert found.has(["wrong", "truncated"]).tolist() == [False, False, False, True, True]
    assert {name: one.values.tolist() for name, one in found.metrics.items()} == {"acc": [1.0], "style": [0.5]}


def store(folder: Path, made: Sequence[GradedSample]) -> StoredSamples:
    """The files that `sample` and `grade` leave of these samples."""
    samples = [
        {
            "sample_id": f"{one.problem_id}#{one.repeat}",
            "error": "refused" if one.outcome == "generation_error" else None,
            "metadata": json.dumps({"doc": one.doc}),
            "token_ids": np.arange(3, dtype=np.int32),
            **{name: getattr(one, name) for name in ("finish_reason", "text", "prompt", "gold")},
        }
        for one in made
    ]
    shared = ("problem_id", "repeat", "outcome", "detail", "extracted", "canonical", "reasoning_state", "ran_on")
    verdicts = [
        {name: getattr(one, name) for name in shared}
        | {"sample_id": f"{one.problem_id}#{one.repeat}", "scores": json.dumps(one.scores), "n_tokens": one.n_tokens}
        for one in made
    ]
    write_rows(folder / SAMPLES, samples)
    write_rows(folder / VERDICTS, verdicts)
    return StoredSamples(folder / VERDICTS, folder / SAMPLES, is_cut=False)


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    made = [*repeated([["correct", "wrong"], ["generation_error", "loop"]]), *scored(range(3))]
    stored = store(tmp_path, made)
    wanted = [replace(one, sample_id=f"{one.problem_id}#{one.repeat}") for one in made]
    assert list(stored.read()) == list(stored.read()) == wanted
    assert as_lists(stored.scores()) == as_lists(Scores.of(made))
    cut = list(replace(stored, is_cut=True).read())
    assert {(one.text, one.finish_reason) for one in cut} == {("", None)}, "the whole text was not what was graded"
    assert [one.outcome for one in cut] == [one.outcome for one in made]


def test_verdicts_on_other_samples_are_no_result(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    three = repeated([["wrong"]] * 3)
    stored = store(tmp_path, three)
    for others, said in (
        (three[:2], "'p0002#0' where .* has the sample None"),
        (three[::-1], "'p0000#0' where .*'p0002#0'"),
    ):
        other = store(tmp_path / "other", others)
        with pytest.raises(ResultsError, match=said):
            list(replace(stored, samples=other.samples).read())


class Text(str):
    """A text that can be watched."""


def test_a_report_holds_the_texts_of_one_document_at_a_time(tmp_path: Path) -> None:
    alive = most = 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def read() -> Iterator[GradedSample]:
        nonlocal alive, most
        for one in repeated([["correct", "wrong"]] * 200):
            text = Text(one.text)
            weakref.finalize(text, gone)
            alive += 1
            most = max(most, alive)
            yield replace(one, text=text)

    one = replace(of_samples(checkpoint(()), repeated([["correct", "wrong"]] * 200)), read=read)
    write(Results("m", checkpoints=(one,)), tmp_path)
    assert 0 < most < 8
    assert alive < 8
