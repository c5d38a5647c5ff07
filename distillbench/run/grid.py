"""All sample stages of one base model in one engine session: every checkpoint, every benchmark, mixed in flight.

Samples are journaled as they come and graded in a thread beside, while the engine goes on.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from distillbench.bench import Bench
from distillbench.errors import StageError
from distillbench.protocols import Engine, EngineSession, Progress, Student
from distillbench.records import Batch, Checkpoint, Generation, Prompt
from distillbench.run.attempts import Attempts
from distillbench.run.proof import N_PROMPTS, Proof, name_of
from distillbench.stages.grade import Grade, GradeRun
from distillbench.stages.sample import Requests, Sample, SampleRun, checkpoint_of
from distillbench.store.store import Made

#: Samples are graded so many at a time, or as many as came in so many seconds.
_GRADED_TOGETHER, _GRADED_AFTER = 64, 10.0


class Grid:
    """Samples and grades the stages of one session.

    Args:
        bench: What steps work with.
        attempts: Claims stages and records how they end.
    """

    def __init__(self, bench: Bench, attempts: Attempts) -> None:
        self.bench = bench
        self.attempts = attempts
        self.requests = Requests(bench)
        # Entered before any grading is, so that it ends after them: what a thread has started may end with the thread.
        self.grader = bench.stack.enter_context(ThreadPoolExecutor(1, "grading"))
        self._samples: dict[str, Sample] = {}
        self._grades: dict[str, list[Grade]] = {}
        self._runs: dict[str, SampleRun] = {}
        self._handed: dict[str, float] = {}
        self._last = 0.0  # when the latest sample came
        self._outcomes: dict[str, Counter[str]] = {}
        self._gradings: dict[str, GradeRun] = {}  # of the grading thread

    def run(self, samples: Sequence[Sample], grades: Sequence[Grade]) -> None:
        """Runs the sample and grade stages of a session; a stage that fails leaves the others alone."""
        for grade in grades:
            self._grades.setdefault(grade.sample.key, []).append(grade)
        self._samples = {stage.key: stage for stage in samples}
        claimed = [stage for stage in self._samples.values() if self.attempts.start(stage)]
        not_there = {stage.key for stage in claimed} | self.attempts.failed | self.attempts.busy
        for key in [key for key in self._grades if key not in not_there]:
            self._grade(key)
        runs = [run for stage in claimed if (run := self._begun(stage)) is not None]
        if runs:
            self._sample(runs)
        self.grader.shutdown(wait=True)
        for grading in self._gradings.values():  # of samples that were not finished
            with suppress(OSError):
                grading.close()

    def _begun(self, stage: Sample) -> SampleRun | None:
        try:
            return SampleRun(stage, checkpoint_of(stage, self.bench), self.requests)
        except StageError as error:
            self.attempts.fail(stage, error)
            return None

    def _sample(self, runs: Sequence[SampleRun]) -> None:
        """Opens the engine and samples; what keeps it from opening fails every stage."""
        self._runs = {run.stage.key: run for run in runs}
        self._last = time.monotonic()
        try:
            with ExitStack() as stack:
                engine: Engine = self.bench.catalog.build(runs[0].stage.engine)
                with self.bench.loading:
                    session = stack.enter_context(self._opened(engine, runs))
                self._prove(session, engine.is_remote)
                self._ask(session)
        except Exception as error:  # an engine may raise anything
            for run in list(self._runs.values()):
                self._drop(run, error)

    def _ask(self, session: EngineSession) -> None:
        """Asks for everything; what the engine raises fails the stages that were under way, and the others go on."""
        while self._runs:
            n_before = len(self._runs)
            try:
                for batch in self._batches(scores_continuations=True):
                    for generation in session.loglikelihood(batch):
                        self._take(batch.key, generation)
                for key, generation in session.generate(self._batches(scores_continuations=False)):
                    self._take(key, generation)
            except Exception as error:  # an engine may raise anything
                for run in self._under_way():
                    self._drop(run, error)
            is_idle = len(self._runs) == n_before and not self._under_way()  # it has asked for nothing
            for run in list(self._runs.values()) if is_idle else self._under_way():
                self._finish(run)  # tells which samples the engine left out

    def _under_way(self) -> list[SampleRun]:
        return [run for run in self._runs.values() if run.is_open]

    def _opened(self, engine: Engine, runs: Sequence[SampleRun]) -> AbstractContextManager[EngineSession]:
        stage = runs[0].stage
        student: Student = self.bench.catalog.build(stage.student)
        distinct = {run.checkpoint.path: run.checkpoint for run in runs if run.checkpoint is not None}
        context = self.bench.session_context(stage, stage.engine, self.attempts.progress(stage))
        return engine.open(student, self.bench.built(stage.built), list(distinct.values()), context)

    def _prove(self, session: EngineSession, is_remote: bool) -> None:
        """Makes every checkpoint ready and proves it, the untouched student too; the stages of one that fails, fail."""
        proof = Proof(session)
        found: dict[Path | None, Mapping[str, Any] | StageError] = {None: {}} if is_remote else {}
        for run in list(self._runs.values()):
            run.facts["engine"] = dict(session.facts)
            checkpoint = run.checkpoint
            path = None if checkpoint is None else checkpoint.path
            if path not in found:
                try:
                    prompts = run.prompts(N_PROMPTS)
                except Exception as error:  # a task's own code may raise anything: its stage fails, and no other
                    self._drop(run, error)
                    continue
                found[path] = _proven(proof, checkpoint, prompts)
            proven = found[path]
            if isinstance(proven, StageError):
                self._drop(run, proven)
            elif checkpoint is not None:
                run.facts["checkpoint"] = dict(proven)

    def _batches(self, scores_continuations: bool) -> Iterator[Batch]:
        """What is asked of the engine, stage by stage, made when the engine has room for it."""
        for run in list(self._runs.values()):
            if run.is_open or run.scores_continuations != scores_continuations:
                continue
            try:
                batch = run.open()
            except Exception as error:  # a task's own code may raise anything: its stage fails
                self._drop(run, error)
                continue
            self._tell(run)
            if run.n_done == run.size:  # a kill came between the last sample and the end of the stage
                self._finish(run)
            else:
                yield batch

    def _take(self, key: str, generation: Generation) -> None:
        run = self._runs[key]
        now = time.monotonic()
        run.take(generation, now - self._last)
        self._last = now
        self._tell(run)
        is_late = time.monotonic() - self._handed.setdefault(key, time.monotonic()) > _GRADED_AFTER
        if run.n_done == run.size:
            self._finish(run)
        elif len(run.fresh) >= _GRADED_TOGETHER or is_late:
            self._hand_over(run)

    def _hand_over(self, run: SampleRun) -> None:
        """Has the samples that have come graded, by every grade stage that reads them."""
        self._handed[run.stage.key] = time.monotonic()
        numbers = run.hand_over()
        for number, grade in enumerate(self._grades.get(run.stage.key, [])):
            self.grader.submit(self._grade_ahead, grade, run, numbers, number == 0)

    def _grade_ahead(self, grade: Grade, run: SampleRun, numbers: Sequence[int], is_told: bool) -> None:
        """Grades samples of a stage that is not finished; the grade stage finds the verdicts in its journal."""
        grading = self._gradings.setdefault(grade.key, GradeRun(grade, self.bench))
        try:
            found = grading.ahead(run.samples(numbers))
        except Exception:  # the grade stage meets it again, and fails with it
            traceback.print_exc()
            return
        if is_told:
            counts = self._outcomes.setdefault(run.stage.key, Counter())
            counts.update(one.verdict.outcome for one in found)
            self.attempts.tell("graded", run.stage, outcomes=dict(counts))

    def _finish(self, run: SampleRun) -> None:
        """Makes a run's samples its stage's result, and has them graded."""
        try:
            made = run.finish()
        except Exception as error:  # samples are missing, or the disk is full
            self._drop(run, error)
            return
        del self._runs[run.stage.key]
        self.attempts.succeed(run.stage, made)
        self._grade(run.stage.key)

    def _drop(self, run: SampleRun, error: Exception) -> None:
        """Fails a run; what it journaled stays for the next one."""
        del self._runs[run.stage.key]
        with suppress(OSError):  # the disk that refused a row refuses it again when its file is closed
            run.close()
        self.attempts.fail(run.stage, error)

    def _grade(self, key: str) -> None:
        """Has the grade stages of a sample stage run in the grading thread."""
        for number, grade in enumerate(self._grades.pop(key, [])):
            sample = self._samples.get(key) if number == 0 else None
            self.grader.submit(self.attempts.run, grade, partial(self._grade_all, grade, sample))

    def _grade_all(self, grade: Grade, sample: Sample | None, progress: Progress) -> Made:
        run = self._gradings.pop(grade.key) if grade.key in self._gradings else GradeRun(grade, self.bench)
        with closing(run):
            made = run.finish(progress)
        if sample is not None:
            self.attempts.tell("graded", sample, outcomes=made.facts["outcomes"])
        return made

    def _tell(self, run: SampleRun) -> None:
        self.attempts.tell_now_and_then(
            "sampled",
            run.stage,
            is_last=run.n_done == run.size,
            done=run.n_done,
            total=run.size,
            tokens=run.n_tokens,
        )


def _proven(proof: Proof, checkpoint: Checkpoint | None, prompts: Sequence[Prompt]) -> Mapping[str, Any] | StageError:
    """What is to be known of a checkpoint, or why none of its stages may be sampled."""
    try:
        return proof.of(checkpoint, prompts)
    except StageError as error:
        return StageError(f"{error}{_whose(checkpoint)}")
    except Exception as error:  # an engine may raise anything over one checkpoint's files, and can use the others
        traceback.print_exc()
        what = f"{name_of(checkpoint)} cannot be used: {type(error).__name__}: {error}"
        return StageError(f"{what}{_whose(checkpoint)}")


def _whose(checkpoint: Checkpoint | None) -> str:
    """Where a checkpoint lies that the store has links to, for whoever knows it by that name."""
    if checkpoint is None:
        return ""
    link = next((one for one in sorted(checkpoint.path.glob("*")) if one.is_symlink()), None)
    return f"\n    it is {link.resolve().parent}" if link else ""
