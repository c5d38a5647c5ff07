"""sample: what is asked of a checkpoint, what has come, and what is left when it is whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillbench import records
from distillbench.bench import Bench
from distillbench.errors import DamagedError, StageError
from distillbench.events import About
from distillbench.plan.sampling import sampling_params
from distillbench.plan.stage import UNKEYED, Pace, Stage, alike
from distillbench.protocols import Progress, Renderer
from distillbench.records import Batch, Checkpoint, Choice, Evaluation, Generation, Problem, Prompt, Questions, Request
from distillbench.stages.build import Build
from distillbench.stages.continuations import scoring_request
from distillbench.stages.questions import asked_problems
from distillbench.stages.train import Train
from distillbench.store.columns import Row
from distillbench.store.journal import Journal
from distillbench.store.mapped import StoredRows
from distillbench.store.places import Whereabouts
from distillbench.store.rows import SAMPLES, RowWriter, iterate, problem_of, problem_row, why_unwritable
from distillbench.store.samples import GIVEN, from_journal, given_row, journal_row, sample_of, sample_row
from distillbench.store.store import Made

if TYPE_CHECKING:
    from distillbench.stages.traces import Traces

#: Where a sample lies: in the journal, or in an earlier result of the stage.
_JOURNALED, _EARLIER = range(2)


class Sample(Stage):
    """Samples a checkpoint, or the untouched student, on an evaluation or on a teacher's problems.

    It runs with all others of its student in one engine session (see `run.grid`).

    Attributes:
        student: Who is asked.
        renderer: Makes the prompts.
        engine: Generates.
        step: The checkpoint's; 0 for the untouched student.
        asked: What is asked, with nothing in its sampling that changes nothing.
        built: Makes the student.
        train: Leaves the checkpoint; None for the untouched student.
        problems: The traces whose problems are asked; None where `asked` says which they are.
    """

    kind = "sample"
    is_long = True

    student: Choice
    renderer: Choice
    engine: Choice
    step: int
    asked: Evaluation | Questions = field(metadata=UNKEYED)
    built: Build | None = None
    train: Train | None = None
    problems: Traces | None = None

    @property
    def evaluation(self) -> Evaluation | None:
        """What is asked; None where it is a teacher's."""
        return None if isinstance(self.asked, Questions) else self.asked

    @property
    def about(self) -> About:
        """What its samples are counted under: the evaluation, or the teacher that asks."""
        evaluation = self.evaluation
        name = self.label if evaluation is None else evaluation.name
        return About(
            self.key,
            self.kind,
            self.label,
            benchmark=name,
            evaluation=name if evaluation else "",
            step=self.step,
            repeats=self.asked.repeats,
        )

    def key_parts(self) -> dict[str, Any]:
        """Of what is asked, what decides what is sampled."""
        return super().key_parts() | {"asked": sampling_params(self.asked)}

    def completions(self) -> tuple[int | None, int]:
        """As many as the evaluation asks for."""
        return self.asked.n_samples, self.asked.sampling.max_tokens

    def pace(self) -> Pace:
        """Samples, times the tokens that one may have."""
        n_samples, most = self.completions()
        who = alike(self.kind, self.student, self.engine)
        return Pace(None if n_samples is None else n_samples * most, f"{who} {self.asked.is_partial}")

    def did(self, facts: Mapping[str, Any], seconds: float) -> tuple[float, float]:
        """What was generated; a session's other samples took the rest of the time."""
        return facts["generated"] * self.asked.sampling.max_tokens, facts["seconds"]

    def run(self, bench: Bench, progress: Progress) -> Made:
        """Never called: the grid runs all samples of a student together."""
        raise NotImplementedError("samples are made in an engine session")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, with what its sample says beside what comes.

    Attributes:
        request: What the engine is asked.
        problem: What it was made of.
        repeat: Which of the problem's completions it asks for.
        shown: The prompt as text.
    """

    request: Request
    problem: Problem
    repeat: int
    shown: str


class Requests:
    """The requests of evaluations, made once for all checkpoints that are asked the same."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._asked: dict[tuple[str, ...], list[Asked]] = {}

    def of(self, stage: Sample) -> list[Asked]:
        """What a sample stage asks.

        Raises:
            StageError: There are fewer problems than are wanted.
            TaskError: The task's documents cannot be had.
        """
        who = (stage.student.identity, stage.renderer.identity)
        key = (*who, sampling_params(stage.asked), *_whose(stage))
        if key not in self._asked:
            with self.bench.loading:
                renderer = self.renderer(stage)
                problems = self._problems(stage, renderer)
            self._asked[key] = [
                one
                for problem in map(_as_stored, problems)
                for one in _asked(problem, requests_of(problem, stage.asked, renderer), renderer)
            ]
        return self._asked[key]

    def _problems(self, stage: Sample, renderer: Renderer) -> list[Problem]:
        asked = stage.asked
        if isinstance(asked, Questions):
            return asked_problems(asked, stage.problems, self.bench)
        as_text = asked.output_type != "generate_until" and renderer.is_plain
        return self.bench.tasks.evaluation_problems(asked, as_text)

    def renderer(self, stage: Sample) -> Renderer:
        """The renderer of a sample stage, with its student's tokenizer."""
        return self.bench.renderer(stage.student, stage.renderer, stage.built)


def _whose(stage: Sample) -> tuple[str, ...]:
    """Tells what is asked alike apart: by the task, by whose problems they are, or by the file."""
    asked = stage.asked
    if isinstance(asked, Questions):
        return (stage.problems.key if stage.problems else "", asked.task or "", str(asked.path))
    return (asked.task, asked.metadata)


def _as_stored(problem: Problem) -> Problem:
    """A problem as it is read again from a file, so that its samples are the same there."""
    return problem_of(problem_row(problem))


def _asked(problem: Problem, requests: list[Request], renderer: Renderer) -> Iterator[Asked]:
    """The requests of one problem, which share what is said of the problem and of its prompt."""
    shown = renderer.show(requests[0].prompt)
    for request in requests:
        yield Asked(request, problem, int(request.sample_id.rpartition("#")[2]), shown)


def requests_of(problem: Problem, asked: Evaluation | Questions, renderer: Renderer) -> list[Request]:
    """The requests of one problem, each under a seed that no other sample, checkpoint or benchmark changes.

    Raises:
        StageError: The problem's continuations cannot be scored with this renderer.
    """
    if isinstance(asked, Evaluation) and asked.output_type != "generate_until":
        return [scoring_request(problem, asked, renderer)]
    prompt = renderer.prompt(problem.messages, asked.prefill)
    return [
        Request(
            sample_id=f"{problem.problem_id}#{repeat}",
            prompt=prompt,
            sampling=asked.sampling,
            stop_token_ids=renderer.stop_token_ids(),
            seed=_seed(asked, problem, repeat),
            messages=problem.messages,
        )
        for repeat in range(asked.repeats)
    ]


def _seed(asked: Evaluation | Questions, problem: Problem, repeat: int) -> int:
    text = f"{asked.sampling.seed}\0{asked.task or ''}\0{problem.problem_id}\0{repeat}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def checkpoint_of(stage: Sample, bench: Bench) -> Checkpoint | None:
    """The checkpoint that a sample stage samples; None for the untouched student.

    Raises:
        StageError: It is not there.
    """
    if stage.train is None:
        return None
    folder = bench.store.folder(stage.train)
    facts = bench.store.facts(stage.train) or {"checkpoints": []}
    for found in facts["checkpoints"]:
        if found["step"] == stage.step:
            return Checkpoint(folder / found["path"], found["kind"], found["step"], found["samples_seen"])
    steps = [found["step"] for found in facts["checkpoints"]]
    raise StageError(f"the trainer promised a checkpoint at step {stage.step} and left {steps}")


class SampleRun:
    """One sample stage under way. Every sample that comes is journaled before anything else is done with it.

    Of samples that have come only the places are held: their texts lie in the journal.

    Attributes:
        stage: The stage.
        checkpoint: What it samples; None for the untouched student.
        facts: What is to be known of its result.
        n_tokens: New tokens so far, in this process.
        seconds: The session's time for its samples so far, in this process: each sample's from the one before it.
        fresh: The numbers of samples that have come and that `hand_over` has not given.
    """

    def __init__(self, stage: Sample, checkpoint: Checkpoint | None, requests: Requests) -> None:
        self.stage = stage
        self.checkpoint = checkpoint
        self.facts: dict[str, Any] = {}
        self.n_tokens = 0
        self.seconds = 0.0
        self.n_taken = 0
        self.fresh: list[int] = []
        self._requests = requests
        self._journal: Journal | None = None
        self._asked: Sequence[Asked] = ()
        self._numbers: dict[str, int] = {}
        self._where = Whereabouts(0, ())

    @property
    def scores_continuations(self) -> bool:
        """Whether it asks for log-likelihoods of given continuations, and not for completions."""
        return self.stage.asked.output_type != "generate_until"

    @property
    def is_open(self) -> bool:
        """Whether its requests have been handed out."""
        return self._journal is not None

    @property
    def size(self) -> int:
        """The number of samples asked for."""
        return len(self._asked)

    @property
    def n_done(self) -> int:
        """The number of samples that have come, failed ones too."""
        return self._where.n_known

    def prompts(self, n: int) -> list[Prompt]:
        """The shortest prompts that it asks."""
        asked = (one.request.prompt for one in self._requests.of(self.stage))
        distinct = {prompt.input_ids.tobytes(): prompt for prompt in asked}
        return sorted(distinct.values(), key=lambda prompt: len(prompt.input_ids))[:n]

    def open(self) -> Batch:
        """What is asked of the engine; samples of an earlier run are skipped, failed ones among them are not."""
        bench = self._requests.bench
        self._asked = self._requests.of(self.stage)
        self._numbers = {one.request.sample_id: number for number, one in enumerate(self._asked)}
        earlier = _earlier_samples(self.stage, bench)
        sources = [self._journaled] if earlier is None else [self._journaled, StoredRows(earlier, GIVEN).rows_at]
        self._where = Whereabouts(len(self._asked), sources)
        if earlier is not None:
            for place, row in enumerate(iterate(earlier, ("sample_id", "error"))):
                self._note(_EARLIER, place, row)
        path = bench.store.scratch(self.stage) / "samples.jsonl"
        self._journal = Journal(path, self.stage.key, found=partial(self._note, _JOURNALED)).open()
        done = frozenset(one.request.sample_id for number, one in enumerate(self._asked) if number in self._where)
        return Batch(self.stage.key, self.checkpoint, [one.request for one in self._asked], done)

    def take(self, generation: Generation, seconds: float = 0.0) -> None:
        """Journals what came for one request, `seconds` after what came before it in the session.

        Raises:
            StageError: It was not asked for.
        """
        assert self._journal is not None  # noqa: S101 - what comes was asked for by `open`
        number = self._numbers.get(generation.sample_id)
        if number is None:
            raise StageError(f"the engine gave sample {generation.sample_id!r}, which it was not asked for")
        row = self._storable(generation)
        self._where.put(number, _JOURNALED, self._journal.append(journal_row(row)))
        self.n_tokens += row["n_tokens"] or 0
        self.n_taken += 1
        self.seconds += seconds
        self.fresh.append(number)

    def hand_over(self) -> list[int]:
        """The numbers of the samples that have come since the last call."""
        fresh, self.fresh = self.fresh, []
        return fresh

    def samples(self, numbers: Sequence[int]) -> list[records.Sample]:
        """Samples that have come, from any thread; none once the stage has ended, and its journal is gone with it."""
        asked, where = self._asked, self._where
        try:
            rows = list(where.rows(numbers)) if len(where) else []
        except FileNotFoundError:
            return []
        return [_sample(asked[number], row) for number, row in zip(numbers, rows, strict=False)]

    def finish(self) -> Made:
        """Writes the samples, in the order of what was asked.

        Raises:
            StageError: The engine left some out.
        """
        if not self.is_open:
            raise StageError("the engine ended without asking for its requests")
        missing = [one.request.sample_id for number, one in enumerate(self._asked) if number not in self._where]
        if missing:
            raise StageError(f"the engine gave nothing for {len(missing)} samples, {missing[0]!r} among them")
        holes = 0
        with RowWriter(self._requests.bench.store.work(self.stage) / SAMPLES) as writer:
            for one, row in zip(self._asked, self._where.rows(range(self.size)), strict=True):
                writer.append(sample_row(_sample(one, row)))
                holes += row["error"] is not None
        self.close()
        took = {"tokens": self.n_tokens, "generated": self.n_taken, "seconds": round(self.seconds, 3)}
        return Made((SAMPLES,), {"samples": writer.n_rows, **took, **self.facts}, holes)

    def close(self) -> None:
        """Closes the journal; what is in it stays for the next run."""
        if self._journal is not None:
            self._journal.close()
        self._journal, self._asked, self._numbers, self._where = None, (), {}, Whereabouts(0, ())

    def _note(self, source: int, place: int, row: Row) -> None:
        """Says where a sample of an earlier run lies, unless it failed."""
        number = self._numbers.get(row["sample_id"])
        if number is None:
            return
        if row["error"] is None:
            self._where.put(number, source, place)
        else:
            self._where.forget(number)

    def _journaled(self, places: Iterable[int]) -> Iterator[Row]:
        journal = self._journal
        return iter(()) if journal is None else map(from_journal, journal.rows_at(places))

    def _storable(self, generation: Generation) -> Row:
        """What came, as columns; of what cannot be stored, why."""
        try:
            row = given_row(generation)
            why = why_unwritable(SAMPLES, row)
        except (TypeError, ValueError, OverflowError) as error:
            why = f"{type(error).__name__}: {error}"
        if why is None:
            return row
        return given_row(Generation(generation.sample_id, error=f"the engine gave what cannot be stored: {why}"))


def _sample(asked: Asked, given: Row) -> records.Sample:
    prompt = {"prompt": asked.shown, "prefill": asked.request.prompt.prefill}
    return sample_of(given | prompt | {"repeat": asked.repeat, "seed": asked.request.seed}, asked.problem)


def _earlier_samples(stage: Sample, bench: Bench) -> Path | None:
    """The samples of an earlier result with holes; None when its inputs have changed since, or it is damaged."""
    earlier = bench.store.lookup(stage)
    if earlier is None or any(earlier.inputs[need.key] != bench.store.digest(need) for need in stage.needs):
        return None
    try:
        return bench.store.file(stage, SAMPLES)
    except DamagedError:
        return None
