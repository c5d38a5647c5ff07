"""grade: one outcome for each sample."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

from filelock import Timeout

from distillbench.bench import Bench
from distillbench.events import About
from distillbench.outcomes import COMPLETED, GENERATION_ERROR, GRADER_ERROR, decide_all
from distillbench.plan.stage import UNKEYED, Pace, Stage, alike, unkeyed
from distillbench.protocols import Progress
from distillbench.records import Choice, Completion, Evaluation, Problem, Sample, SampleVerdict, Verdict
from distillbench.stages.budgets import cut, is_cut
from distillbench.stages.known import KnownVerdicts
from distillbench.stages.sample import Sample as SampleStage
from distillbench.store.columns import Row
from distillbench.store.journal import Journal
from distillbench.store.places import Places, Whereabouts
from distillbench.store.rows import SAMPLES, VERDICTS, RowWriter, count_rows, iterate
from distillbench.store.samples import digest_of, sample_of, verdict_row
from distillbench.store.store import Made

#: In a grade stage's scratch folder: verdicts, those on samples that came while others were still being made too.
_JOURNAL = "verdicts.jsonl"
#: Where a verdict lies: in the journal, in an earlier result of the stage, or in that of the stage that grades whole.
_JOURNALED, _EARLIER, _WHOLE = range(3)
#: Samples of which something is held while they are graded.
_TOGETHER = 1024


class Grade(Stage):
    """Grades the samples of a stage, whole or cut at a budget.

    Attributes:
        grader: Says which answers are right.
        asked: What was asked, and how it is graded.
        parser: Splits completions, in words with its version.
        sample: Has the samples.
        budget: Where they are cut; None where they are graded whole.
        renderer: Whose parser it is.
        whole: Grades them whole: its verdicts hold where a budget cuts nothing.
    """

    kind = "grade"

    grader: Choice
    asked: Evaluation = field(metadata=UNKEYED)
    parser: str
    sample: SampleStage
    budget: int | None = None
    renderer: Choice = field(metadata=UNKEYED)
    whole: Grade | None = unkeyed(default=None)

    @property
    def evaluation(self) -> Evaluation:
        """What was asked."""
        return self.asked

    @property
    def about(self) -> About:
        """With what was asked."""
        return About(self.key, self.kind, self.label, evaluation=self.asked.name, step=self.sample.step)

    @property
    def until(self) -> tuple[str, ...]:
        """What ends an answer; a stop string is the completion's last text."""
        return (*self.asked.until, *self.asked.sampling.stop)

    def inputs(self) -> dict[str, tuple[Stage, ...]]:
        """The samples; a verdict on whole ones is the same verdict, found sooner."""
        return {"sample": (self.sample,)}

    def key_parts(self) -> dict[str, Any]:
        """Of an evaluation, what decides a verdict."""
        parts = {name: value for name, value in super().key_parts().items() if name != "whole"}
        return parts | {"task": self.asked.grade_identity, "until": list(self.until)}

    def pace(self) -> Pace:
        """Samples."""
        n_samples = self.asked.n_samples
        return Pace(n_samples, f"{alike(self.kind, self.grader)} {self.asked.is_partial}")

    def did(self, facts: Mapping[str, Any], seconds: float) -> tuple[float, float]:
        """Samples."""
        return sum(facts["outcomes"].values()), seconds

    def run(self, bench: Bench, progress: Progress) -> Made:
        """Grades what is not graded yet."""
        with closing(GradeRun(self, bench)) as run:
            return run.finish(progress)


@dataclass(frozen=True, slots=True)
class Graded:
    """One checkpoint of a cell on one evaluation, and the stages that sample and grade it.

    Attributes:
        evaluation: The evaluation.
        step: The checkpoint's.
        sample: Samples it.
        grade: Grades it.
        budget: Tokens at which the completions are cut before they are graded; None where they are graded as they are.
    """

    evaluation: Evaluation
    step: int
    sample: SampleStage
    grade: Grade
    budget: int | None = None


class GradeRun:
    """A grade stage under way: what it has verdicts on is kept at hand while samples come. One thread uses it.

    Verdicts are journaled as they come. Where the grader failed nothing is known: these samples are graded again.

    Args:
        stage: The stage.
        bench: What it works with.
    """

    def __init__(self, stage: Grade, bench: Bench) -> None:
        self.stage = stage
        self._bench = bench
        self._journal: Journal | None = None
        self._known = Places()

    @cached_property
    def _grader(self) -> _Grader:
        return _Grader(self.stage, self._bench)

    def ahead(self, samples: Iterable[Sample]) -> list[SampleVerdict]:
        """Verdicts on some samples of a stage that is still being sampled, left where `finish` finds them.

        Nothing is graded, and nothing returned, while another process runs the grade stage.
        """
        lock = self._bench.store.lock(self.stage.key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return []
        try:
            journal = self._opened()
            own = ((sample, digest_of(sample)) for sample in samples if self._needs_verdict(sample))
            found = []
            for verdict in self._grader.verdicts(one for one in own if self._known.get(one[1]) is None):
                self._keep(journal, verdict)
                found.append(verdict)
            return found
        finally:
            lock.release()

    def finish(self, progress: Progress) -> Made:
        """One outcome for each sample; what is known already of the same samples is kept."""
        store = self._bench.store
        path = store.file(self.stage.sample, SAMPLES)
        journal = self._opened()
        earlier = KnownVerdicts(self.stage, store, VERDICTS, "sample_digest")
        stored = earlier, KnownVerdicts(self.stage.whole, store, VERDICTS, "sample_digest", failed_too=True)
        where = Whereabouts(count_rows(path), [journal.rows_at, *(one.rows_at for one in stored)])
        asked: deque[int] = deque()
        for verdict in self._grader.verdicts(self._unknown(path, stored, where, asked)):
            where.put(asked.popleft(), _JOURNALED, self._keep(journal, verdict))
            progress(where.n_known, len(where), "graded")
        counts: Counter[str] = Counter()
        with RowWriter(store.work(self.stage) / VERDICTS) as writer:
            for row in where.rows(range(len(where))):
                writer.append(row)
                counts[row["outcome"]] += 1
        facts = {"outcomes": dict(counts), "grading": dict(self._grader.grading.facts)}
        return Made((VERDICTS,), facts, holes=counts[GRADER_ERROR])

    def close(self) -> None:
        """Closes the journal; what is in it stays for the next run."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _unknown(
        self, path: Path, stored: tuple[KnownVerdicts, KnownVerdicts], where: Whereabouts, asked: deque[int]
    ) -> Iterator[tuple[Sample, str]]:
        """The samples that nothing has a verdict on, with their digests; of the others, where it lies.

        Where a budget cuts nothing, the verdict on the whole sample is the budget's: a judge is not paid twice for the
        same answer, and cannot say two things of it.
        """
        earlier, whole = stored
        for number, sample in enumerate(map(sample_of, iterate(path))):
            digest = digest_of(sample)
            lies = (
                (_WHOLE, None if self._needs_verdict(sample) else whole.places.get(digest)),
                (_JOURNALED, self._known.get(digest)),
                (_EARLIER, earlier.places.get(digest)),
            )
            known = next(((source, place) for source, place in lies if place is not None), None)
            if known is None:
                asked.append(number)
                yield sample, digest
            else:
                where.put(number, *known)

    def _needs_verdict(self, sample: Sample) -> bool:
        """False where the verdict of the whole sample is the budget's too, because the budget cuts nothing."""
        return self.stage.budget is None or is_cut(sample, self.stage.budget)

    def _opened(self) -> Journal:
        """The journal, read again where another process has written to it."""
        if self._journal is None or not self._journal.is_current:
            with suppress(OSError):  # a disk that refused a verdict refuses it again when the file is closed
                self.close()
            self._journal, self._known = None, Places()
            path = self._bench.store.scratch(self.stage) / _JOURNAL
            self._journal = Journal(path, self.stage.key, found=self._note).open()
        return self._journal

    def _note(self, place: int, row: Row) -> None:
        if row["outcome"] != GRADER_ERROR:
            self._known.add(row["sample_digest"], place)

    def _keep(self, journal: Journal, verdict: SampleVerdict) -> int:
        row = verdict_row(verdict)
        place = journal.append(row)
        self._note(place, row)
        return place


class _Grader:
    """What a grade stage grades with."""

    def __init__(self, stage: Grade, bench: Bench) -> None:
        self.evaluation, self.until, self.budget = stage.asked, stage.until, stage.budget
        self.grader, self.grading = bench.grading(stage.grader, self.evaluation.ref)
        self.renderer = bench.renderer(stage.sample.student, stage.renderer, stage.sample.built)

    def verdicts(self, samples: Iterable[tuple[Sample, str]]) -> Iterator[SampleVerdict]:
        """The verdicts on samples that come with their digests, in order; of bounded many, something is held."""
        given = iter(samples)
        for first in given:
            yield from self._verdicts(chain([first], islice(given, _TOGETHER - 1)))

    def _verdicts(self, samples: Iterable[tuple[Sample, str]]) -> Iterator[SampleVerdict]:
        waiting: deque[tuple[SampleVerdict, Problem | None]] = deque()
        completions = self._completions(samples, waiting)
        for verdict in decide_all(completions, self.grader, self.grading, self.until):
            found, problem = waiting.popleft()
            while problem is None:
                yield found
                found, problem = waiting.popleft()
            yield replace(found, verdict=verdict, canonical=self._canonical(verdict, problem))
        yield from (found for found, _ in waiting)

    def _completions(
        self, samples: Iterable[tuple[Sample, str]], waiting: deque[tuple[SampleVerdict, Problem | None]]
    ) -> Iterator[tuple[Completion, Problem]]:
        """What there is to grade. Every sample waits with the verdict of one whose generation failed."""
        for whole, digest in samples:
            sample = whole if self.budget is None else cut(whole, self.budget, self.renderer)
            completion = self._completion(sample)
            failed = SampleVerdict(
                sample_id=sample.sample_id,
                problem_id=sample.problem.problem_id,
                repeat=sample.repeat,
                verdict=Verdict(GENERATION_ERROR, detail=sample.error or ""),
                canonical=None,
                reasoning_state=None if completion is None else completion.reasoning_state,
                n_tokens=sample.n_tokens,
                sample_digest=digest,
            )
            waiting.append((failed, None if completion is None else sample.problem))
            if completion is not None:
                yield completion, sample.problem

    def _canonical(self, verdict: Verdict, problem: Problem) -> str | None:
        """The complete answer in the form that answers are compared in."""
        if verdict.outcome not in COMPLETED or verdict.extracted is None:
            return None
        return self.grader.canonical(verdict.extracted, problem)

    def _completion(self, sample: Sample) -> Completion | None:
        """A sample, parsed; None where its generation failed."""
        if sample.error is not None:
            return None
        if self.evaluation.output_type != "generate_until":  # log-likelihoods, which hold no reasoning
            return Completion(sample.text, (), "stop", sample.prefill, None, sample.text, "absent")
        assert sample.finish_reason is not None  # noqa: S101 - else its generation has failed
        return self.renderer.parse(tuple(sample.token_ids.tolist()), sample.text, sample.finish_reason, sample.prefill)
