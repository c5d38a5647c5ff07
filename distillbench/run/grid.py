"""All sample stages of one student in one engine session: every checkpoint, every benchmark, mixed in flight.

The engine is opened when there is something to sample, and stays open while more may come: checkpoints are sampled as
soon as they are there. Samples are journaled as they come and graded in a thread beside, while the engine goes on.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from distillbench.bench import Bench
from distillbench.errors import StageError
from distillbench.events import Closed, Opened, Sampled
from distillbench.plan.stage import Stage
from distillbench.protocols import Engine, EngineSession, Student
from distillbench.records import Batch, Checkpoint, Generation, Prompt
from distillbench.run.attempts import Attempts
from distillbench.run.grading import Grading
from distillbench.run.orders import Idle, Intake
from distillbench.run.proof import N_PROMPTS, Proof, name_of
from distillbench.stages.grade import Grade
from distillbench.stages.sample import Requests, Sample, SampleRun, checkpoint_of
from distillbench.stages.train import Train

#: Samples are graded so many at a time, or as many as came in so many seconds.
_GRADED_TOGETHER, _GRADED_AFTER = 64, 10.0


class OpenEngine:
    """An engine that holds a student, and what has been proven with it.

    Args:
        session: What samples.
        stack: Closes it.
        name: The session's.
        is_remote: Whether a server computes, so that the untouched student is its affair.
    """

    def __init__(self, session: EngineSession, stack: ExitStack, name: str, is_remote: bool) -> None:
        self.session = session
        self.stack = stack
        self.name = name
        self.proof = Proof(session)
        self.proven: dict[Path | None, Mapping[str, Any] | StageError] = {None: {}} if is_remote else {}


class Grid:
    """Samples and grades the stages of one session.

    Args:
        bench: What steps work with.
        attempts: Claims stages and records how they end.
        intake: Gives the stages.
        awaited: Trainings whose checkpoints will be among them.
    """

    def __init__(self, bench: Bench, attempts: Attempts, intake: Intake, awaited: Sequence[Train] = ()) -> None:
        self.bench = bench
        self.attempts = attempts
        self.intake = intake
        self.awaited = awaited
        self.requests = Requests(bench)
        self.grading = Grading(bench, attempts)
        self._runs: dict[str, SampleRun] = {}
        self._handed: dict[str, float] = {}
        self._last = 0.0  # when the latest sample came
        self._open: OpenEngine | None = None

    def run(self) -> None:
        """Runs the stages that are given until there are no more; one that fails leaves the others alone."""
        try:
            while (stages := self.intake.wait()) is not None:
                self._take_in(stages)
                while self._runs:
                    self._serve()
                self.attempts.tell(Idle(self.intake.n_taken))
            self._close()
        finally:
            self.grading.close()

    def _take_in(self, stages: Sequence[Stage]) -> None:
        """Claims stages. The untouched student comes first: its numbers are what others are compared with."""
        for stage in stages:
            if not isinstance(stage, Sample | Grade):  # checkpoints that are there already
                self.attempts.run(stage, partial(stage.run, self.bench))
        samples = sorted((stage for stage in stages if isinstance(stage, Sample)), key=lambda one: one.step > 0)
        begun = {stage.key: self._begun(stage) for stage in samples}
        for stage in stages:
            if isinstance(stage, Grade):
                self._take_in_grade(stage, begun.get(stage.sample.key) or self._runs.get(stage.sample.key))
        self._runs.update((key, run) for key, run in begun.items() if run is not None)

    def _take_in_grade(self, stage: Grade, run: SampleRun | None) -> None:
        if run is not None:
            self.grading.add(stage)
        elif stage.sample.key in self.attempts.returned | self.attempts.failed:
            self.attempts.give_back(stage)
        else:
            self.grading.now(stage)

    def _begun(self, stage: Sample) -> SampleRun | None:
        """A stage that is to be sampled; None for one that is done, or cannot be, or is left to others."""
        if not self.attempts.start(stage):
            return None
        try:
            return SampleRun(stage, checkpoint_of(stage, self.bench), self.requests)
        except StageError as error:
            self.attempts.fail(stage, error)
            return None

    def _serve(self) -> None:
        """Opens the engine where it is not open, and samples what there is; what keeps it from opening fails all."""
        self._last = time.monotonic()
        try:
            if self._open is None:
                self._open = self._opened()
            self._prove(self._open)
            self._ask(self._open)
        except Exception as error:  # an engine may raise anything
            for run in list(self._runs.values()):
                self._drop(run, error)

    def _opened(self) -> OpenEngine:
        """Loads the student, with room for the checkpoints that are there and those that will come."""
        runs, begin = list(self._runs.values()), time.monotonic()
        stage, stack = runs[0].stage, ExitStack()
        student: Student = self.bench.catalog.build(stage.student)
        there = {run.checkpoint.path: run.checkpoint for run in runs if run.checkpoint is not None}
        shapes = (self.bench.catalog.build(train.trainer).adapter_shape(student) for train in self._awaited())
        known = [*there.values(), *(shape for shape in shapes if shape is not None)]
        context = self.bench.session_context(stage, stage.engine, self.attempts.progress(stage))
        engine: Engine = self.bench.catalog.build(stage.engine)
        with self.bench.loading:
            session = stack.enter_context(engine.open(student, self.bench.built(stage.built), known, context))
        self.attempts.tell(
            Opened(
                session=stage.group,
                student=stage.student.label,
                engine=stage.engine.label,
                seconds=round(time.monotonic() - begin, 3),
            )
        )
        return OpenEngine(session, stack, stage.group, engine.is_remote)

    def _awaited(self) -> Iterator[Train]:
        """Trainings that will leave checkpoints, once for each."""
        here = {run.stage.train for run in self._runs.values()}
        for train in self.awaited:
            if train not in here:
                yield from [train] * max(1, len(train.steps or ()))

    def _close(self) -> None:
        if self._open is not None:
            self._open.stack.close()
            self.attempts.tell(Closed(session=self._open.name))

    def _prove(self, engine: OpenEngine) -> None:
        """Makes every checkpoint ready and proves it, the untouched student too; the stages of one that fails, fail."""
        for run in [run for run in self._runs.values() if not run.is_open]:
            run.facts["engine"] = dict(engine.session.facts)
            path = _path(run)
            if path not in engine.proven:
                try:
                    prompts = run.prompts(N_PROMPTS)
                except Exception as error:  # a task's own code may raise anything: its stage fails, and no other
                    self._drop(run, error)
                    continue
                engine.proven[path] = _proven(engine.proof, run.checkpoint, prompts)
            self._note_proof(engine, run)

    def _note_proof(self, engine: OpenEngine, run: SampleRun) -> None:
        proven = engine.proven[_path(run)]
        if isinstance(proven, StageError):
            self._drop(run, proven)
        elif run.checkpoint is not None:
            run.facts["checkpoint"] = dict(proven)

    def _ask(self, engine: OpenEngine) -> None:
        """Asks for everything that is proven; what the engine raises fails the stages that were under way."""
        before = list(self._runs)
        try:
            for batch in self._batches(engine, scores_continuations=True):
                for generation in engine.session.loglikelihood(batch):
                    self._take(batch.key, generation)
            for key, generation in engine.session.generate(self._batches(engine, scores_continuations=False)):
                self._take(key, generation)
        except Exception as error:  # an engine may raise anything
            for run in self._under_way():
                self._drop(run, error)
        left = [self._runs[key] for key in before if key in self._runs]
        has_asked_nothing = len(left) == len(before) and not self._under_way()
        for run in left if has_asked_nothing else self._under_way():
            self._finish(run)  # tells which samples the engine left out

    def _under_way(self) -> list[SampleRun]:
        return [run for run in self._runs.values() if run.is_open]

    def _batches(self, engine: OpenEngine, scores_continuations: bool) -> Iterator[Batch]:
        """What is asked of the engine, stage by stage, made when the engine has room for it.

        What is given meanwhile is asked too, where its checkpoint is proven: none can be while the engine generates.
        """
        while (run := self._next(engine, scores_continuations)) is not None:
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

    def _next(self, engine: OpenEngine, scores_continuations: bool) -> SampleRun | None:
        self._take_in(self.intake.now())
        for run in list(self._runs.values()):
            if not run.is_open and run.scores_continuations == scores_continuations and _path(run) in engine.proven:
                if "engine" not in run.facts:  # it came after the proofs
                    run.facts["engine"] = dict(engine.session.facts)
                    self._note_proof(engine, run)
                if run.stage.key in self._runs:
                    return run
        return None

    def _take(self, key: str, generation: Generation) -> None:
        run = self._runs[key]
        now = time.monotonic()
        run.take(generation, now - self._last)
        self._last = now
        self._tell(run)
        is_late = now - self._handed.setdefault(key, now) > _GRADED_AFTER
        if run.n_done == run.size:
            self._finish(run)
        elif len(run.fresh) >= _GRADED_TOGETHER or is_late:
            self._handed[key] = now
            self.grading.ahead(run)

    def _finish(self, run: SampleRun) -> None:
        """Makes a run's samples its stage's result, and has them graded."""
        try:
            made = run.finish()
        except Exception as error:  # samples are missing, or the disk is full
            self._drop(run, error)
            return
        del self._runs[run.stage.key]
        self.attempts.succeed(run.stage, made)
        self.grading.whole(run.stage)

    def _drop(self, run: SampleRun, error: Exception) -> None:
        """Fails a run; what it journaled stays for the next one."""
        del self._runs[run.stage.key]
        with suppress(OSError):  # the disk that refused a row refuses it again when its file is closed
            run.close()
        self.attempts.fail(run.stage, error)
        self.grading.leave(run.stage)

    def _tell(self, run: SampleRun) -> None:
        event = Sampled(stage=run.stage.about, done=run.n_done, total=run.size, tokens=run.n_tokens)
        self.attempts.tell_now_and_then(event, is_last=run.n_done == run.size)


def _path(run: SampleRun) -> Path | None:
    return None if run.checkpoint is None else run.checkpoint.path


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
