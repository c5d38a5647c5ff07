"""Grades a session's samples in a thread beside the engine: as they come, and whole once a stage has all of them."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial

from distillbench.bench import Bench
from distillbench.events import Graded
from distillbench.protocols import Progress
from distillbench.run.attempts import Attempts
from distillbench.stages.grade import Grade, GradeRun
from distillbench.stages.sample import Sample, SampleRun
from distillbench.store.store import Made


class Grading:
    """The grade stages of a session.

    Args:
        bench: What steps work with.
        attempts: Claims stages and records how they end.
    """

    def __init__(self, bench: Bench, attempts: Attempts) -> None:
        self.bench = bench
        self.attempts = attempts
        # Entered before any grading is, so that it ends after them: what a thread has started may end with the thread.
        self._thread = bench.stack.enter_context(ThreadPoolExecutor(1, "grading"))
        self._waiting: dict[str, list[Grade]] = {}
        self._outcomes: dict[str, Counter[str]] = {}
        self._begun: dict[str, GradeRun] = {}  # of the grading thread

    def add(self, stage: Grade) -> None:
        """A stage whose samples are still being made."""
        self._waiting.setdefault(stage.sample.key, []).append(stage)

    def now(self, stage: Grade) -> None:
        """A stage whose samples are there already."""
        self._thread.submit(self.attempts.run, stage, partial(self._whole, stage, None))

    def ahead(self, run: SampleRun) -> None:
        """Grades the samples that have come, by every stage that reads them."""
        numbers = run.hand_over()
        for number, grade in enumerate(self._waiting.get(run.stage.key, [])):
            self._thread.submit(self._some, grade, run, numbers, number == 0)

    def whole(self, sample: Sample) -> None:
        """Runs the stages that wait for a stage whose samples are all there."""
        for number, grade in enumerate(self._waiting.pop(sample.key, [])):
            told = sample if number == 0 else None
            self._thread.submit(self.attempts.run, grade, partial(self._whole, grade, told))

    def leave(self, sample: Sample) -> None:
        """Gives the stages back that wait for one which is not made here."""
        for grade in self._waiting.pop(sample.key, []):
            self.attempts.give_back(grade)

    def close(self) -> None:
        """Waits for what is being graded."""
        self._thread.shutdown(wait=True)
        for grading in self._begun.values():  # of samples that were not finished
            with suppress(OSError):
                grading.close()

    def _some(self, grade: Grade, run: SampleRun, numbers: Sequence[int], is_told: bool) -> None:
        """Grades samples of a stage that is not finished; the grade stage finds the verdicts in its journal."""
        grading = self._begun.setdefault(grade.key, GradeRun(grade, self.bench))
        try:
            found = grading.ahead(run.samples(numbers))
        except Exception:  # the grade stage meets it again, and fails with it
            traceback.print_exc()
            return
        if is_told:
            counts = self._outcomes.setdefault(run.stage.key, Counter())
            counts.update(one.verdict.outcome for one in found)
            self.attempts.tell(Graded(stage=run.stage.about, outcomes=dict(counts)))

    def _whole(self, grade: Grade, sample: Sample | None, progress: Progress) -> Made:
        run = self._begun.pop(grade.key) if grade.key in self._begun else GradeRun(grade, self.bench)
        with closing(run):
            made = run.finish(progress)
        if sample is not None:
            self.attempts.tell(Graded(stage=sample.about, outcomes=made.facts["outcomes"], is_whole=True))
        return made
