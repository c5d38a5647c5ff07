"""A report of samples that a store holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from memory_steps.made import Size, Step, Text
from memory_steps.tables import STORE

if TYPE_CHECKING:
    from distillbench.report.results import CheckpointResult

REPORTED = [(cell, evaluation) for cell in ("base", "cell") for evaluation in ("math", "judged")]


def make_graded(folder: Path, size: Size) -> int:
    """Two checkpoints on two evaluations, one of verdicts and one of scores, as `sample` and `grade` leave them."""
    return sum(
        make_stage_files(folder / cell / evaluation, Size(size.n // len(REPORTED), size.scale), evaluation == "judged")
        for cell, evaluation in REPORTED
    )


def make_stage_files(folder: Path, size: Size, judged: bool) -> int:
    """The samples and the verdicts of one checkpoint on one evaluation."""
    from distillbench.store.rows import SAMPLES, VERDICTS, RowWriter

    folder.mkdir(parents=True)
    made = Text(size)
    with RowWriter(folder / SAMPLES) as samples, RowWriter(folder / VERDICTS) as graded:
        for number, n in enumerate(made.lengths()):
            same = {"sample_id": f"task/{number}#0", "problem_id": f"task/{number}", "repeat": 0, "n_tokens": n}
            doc = json.dumps({"doc": {"question": made.text(100), "answer": "7"}})
            asked = {"gold": "7", "metadata": doc, "prompt": made.text(120), "prefill": ""}
            given = {"token_ids": made.token_ids(n), "text": made.text(n), "finish_reason": "stop"}
            samples.append(same | asked | given)
            graded.append(same | made_verdict(made.rng, judged))
    return size.n


def made_verdict(rng: np.random.Generator, judged: bool) -> dict[str, object]:
    """What a grader may say of a sample."""
    outcome = str(rng.choice(["graded", "truncated"] if judged else ["correct", "wrong", "truncated", "no_answer"]))
    answer = str(rng.integers(0, 1000)) if outcome in ("correct", "wrong") else None
    scores = json.dumps({"score": float(rng.random()), "style": 1.0} if outcome == "graded" else {})
    said = {"outcome": outcome, "detail": "", "extracted": answer, "canonical": answer, "scores": scores}
    return said | {"reasoning_state": "closed", "ran_on": False, "sample_digest": "0" * 32}


def report(folder: Path, size: Size) -> int:
    """A whole report of stored samples: every number, and every file with its texts."""
    from distillbench.report.results import CellResult, Results
    from distillbench.report.tables import tables_of
    from distillbench.report.writers.folder import write

    made = tuple(checkpoint_of(folder, cell, evaluation) for cell, evaluation in REPORTED)
    write(tables_of(Results("memory", (CellResult("base"), CellResult("cell")), made)), folder / "report")
    return sum(len(one.scores) for one in made)


def checkpoint_of(folder: Path, cell: str, evaluation: str) -> CheckpointResult:
    """A checkpoint on an evaluation, from the files that its stages left."""
    from distillbench.report.results import CheckpointResult
    from distillbench.report.stored import StoredSamples
    from distillbench.store.rows import SAMPLES, VERDICTS

    files = folder / cell / evaluation
    stored = StoredSamples(files / VERDICTS, files / SAMPLES, is_cut=False)
    is_baseline = cell == "base"
    return CheckpointResult(
        cell=cell,
        step=0 if is_baseline else 100,
        evaluation=evaluation,
        task=evaluation,
        scores=stored.scores(),
        read=stored.read,
        is_baseline=is_baseline,
        baseline=None if is_baseline else "base",
    )


REPORT = ("distillbench.report.writers.folder", "distillbench.report.stored", "scipy.stats")
STEPS = {
    "graded": Step(make_graded, STORE),
    "report": Step(report, (*STORE, *REPORT), after="graded"),
}
