"""train: the trainer's checkpoints, and metrics.jsonl."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from distillbench.bench import Bench
from distillbench.errors import StageError
from distillbench.plan.plan import Pairing
from distillbench.plan.stage import Pace, Stage, alike, unkeyed
from distillbench.preflight.look import refuse_mismatch
from distillbench.protocols import Progress, Student, Trainer, TrainingJob
from distillbench.records import Choice, Trace
from distillbench.stages.build import Build
from distillbench.stages.curate import Curate
from distillbench.stages.weights import weight_files
from distillbench.store.rows import KEPT, read_rows, trace_of
from distillbench.store.store import Made


class Train(Stage):
    """Trains a student.

    Attributes:
        student: Who is trained.
        renderer: Makes its rows.
        trainer: Trains it.
        seed: The cell's; None where nothing is trained.
        built: Makes the student.
        kept: The traces that it is trained on; None for a trainer that needs none.
        pairings: What its rows are checked against before it begins.
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
    kept: Curate | None = None
    pairings: tuple[Pairing, ...] = unkeyed(default=())
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
        """Checks the rows, and trains."""
        student: Student = bench.catalog.build(self.student)
        renderer = bench.renderer(self.student, self.renderer, self.built)
        traces: list[Trace] = []
        if self.kept is not None:
            traces = [trace_of(row) for row in read_rows(bench.store.file(self.kept, KEPT))]
            refuse_mismatch(self.pairings, bench, renderer, traces)
        work = bench.store.work(self)
        job = TrainingJob(student, bench.built(self.built), renderer, traces, work)
        trainer: Trainer = bench.catalog.build(self.trainer)
        with bench.catalog.blaming(self.trainer):
            checkpoints = trainer.train(job, bench.context(self, progress, self.seed or 0))
        promised, left = trainer.checkpoint_steps(len(traces)), [checkpoint.step for checkpoint in checkpoints]
        if not set(promised or ()) <= set(left):
            raise StageError(f"the trainer promised checkpoints at steps {list(promised or ())} and left {left}")
        facts = {
            "checkpoints": [
                asdict(replace(checkpoint, path=checkpoint.path.relative_to(work))) for checkpoint in checkpoints
            ]
        }
        return Made(weight_files(work), json.loads(json.dumps(facts, default=str)))
