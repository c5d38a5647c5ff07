"""train: the trainer's checkpoints, and metrics.jsonl."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from distillbench.bench import Bench
from distillbench.errors import StageError
from distillbench.plan.stage import Pace, Stage, alike, unkeyed
from distillbench.protocols import ListedRows, Progress, Student, Trainer, TrainingJob, TrainingRows
from distillbench.records import Choice
from distillbench.stages.build import Build
from distillbench.stages.render import Render
from distillbench.stages.weights import weight_files
from distillbench.store.store import Made


class Train(Stage):
    """Trains a student.

    Attributes:
        student: Who is trained.
        renderer: Makes its rows.
        trainer: Trains it.
        seed: The cell's; None where nothing is trained.
        built: Makes the student.
        rows: What it is trained on; None for a trainer that needs nothing.
        steps: At which it leaves checkpoints; None while that is not known.
    """

    kind = "train"
    is_long = True
    is_heavy = True

    student: Choice
    renderer: Choice
    trainer: Choice
    seed: int | None = None
    built: Build | None = None
    rows: Render | None = None
    steps: tuple[int, ...] | None = unkeyed(default=None)

    def pace(self) -> Pace:
        """Optimizer steps."""
        return Pace(
            None if self.steps is None else max(self.steps, default=0), alike(self.kind, self.student, self.trainer)
        )

    def did(self, facts: Mapping[str, Any], seconds: float) -> tuple[float, float]:
        """Optimizer steps."""
        return max((one["step"] for one in facts["checkpoints"]), default=0), seconds

    def run(self, bench: Bench, progress: Progress) -> Made:
        """Trains on the rows."""
        student: Student = bench.catalog.build(self.student)
        renderer = bench.renderer(self.student, self.renderer, self.built)
        rows: TrainingRows = ListedRows()
        if self.rows is not None:
            if self.built is not None and self.rows.built is None:
                self.rows.refuse_other_tokens(bench, renderer)
            rows = self.rows.rows(bench.store)
        work = bench.store.work(self)
        job = TrainingJob(student, bench.built(self.built), renderer, rows, work)
        trainer: Trainer = bench.catalog.build(self.trainer)
        with bench.catalog.blaming(self.trainer):
            checkpoints = trainer.train(job, bench.context(self, self.trainer, progress, self.seed or 0))
        counts = None if self.rows is None else self.rows.counts(bench.store)
        promised, left = trainer.checkpoint_steps(counts), [checkpoint.step for checkpoint in checkpoints]
        if not set(promised or ()) <= set(left):
            raise StageError(f"the trainer promised checkpoints at steps {list(promised or ())} and left {left}")
        facts = {
            "checkpoints": [
                asdict(replace(checkpoint, path=checkpoint.path.relative_to(work))) for checkpoint in checkpoints
            ]
        }
        return Made(weight_files(work), json.loads(json.dumps(facts, default=str)))
