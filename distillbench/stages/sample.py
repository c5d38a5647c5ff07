"""sample: what is asked of a checkpoint, what has come, and what is left when it is whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from distillbench.bench import Bench
from distillbench.errors import DamagedError, StageError
from distillbench.plan.sampling import sampling_params
from distillbench.plan.stage import UNKEYED, Pace, Stage, alike
from distillbench.protocols import Progress, Renderer
from distillbench.records import Batch, Checkpoint, Choice, Evaluation, Generation, Problem, Prompt, Request
from distillbench.stages.build import Build
from distillbench.stages.continuations import scoring_request
from distillbench.stages.train import Train
from distillbench.store.journal import Journal
from distillbench.store.rows import SAMPLES, Row, problem_row, read_rows, why_unwritable, write_rows
from distillbench.store.store import Made

#: What an engine gives of a sample; the rest of its row is what it was asked.
_GIVEN = ("sample_id", "token_ids", "text", "finish_reason", "error", "n_tokens", "n_prompt_tokens", "effective")

#: The requests of an evaluation, each with the part of its sample's row that is known before it is answered.
Asked = list[tuple[Request, Row]]


class Sample(Stage):
    """Samples a checkpoint, or the untouched student, on an evaluation.

    It runs with all others of its student in one engine session (see `run.grid`).

    Attributes:
        student: Who is asked.
        renderer: Makes the prompts.
        engine: Generates.
        step: The checkpoint's; 0 for the untouched student.
        asked: What is asked, with nothing in its sampling that changes nothing.
        built: Makes the student.
        train: Leaves the checkpoint; None for the untouched student.
    """

    kind = "sample"
    is_long = True

    student: Choice
    renderer: Choice
    engine: Choice
    step: int
    asked: Evaluation = field(metadata=UNKEYED)
    built: Build | None = None
    train: Train | None = None

    @property
    def evaluation(self) -> Evaluation:
        """What is asked."""
        return self.asked

    def key_parts(self) -> dict[str, Any]:
        """Of an evaluation, what decides what is sampled."""
        return super().key_parts() | {"evaluation": sampling_params(self.asked)}

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


class Requests:
    """The requests of evaluations, made once for all checkpoints that are asked the same."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._asked: dict[tuple[str, ...], Asked] = {}

    def of(self, stage: Sample) -> Asked:
        """What a sample stage asks.

        Raises:
            TaskError: The task's documents cannot be had.
        """
        evaluation = stage.asked
        who = (stage.student.identity, stage.renderer.identity)
        key = (*who, sampling_params(evaluation), evaluation.task, evaluation.metadata)
        if key not in self._asked:
            with self.bench.loading:
                renderer = self.renderer(stage)
                as_text = evaluation.output_type != "generate_until" and renderer.is_plain
                problems = self.bench.tasks.evaluation_problems(evaluation, as_text)
            self._asked[key] = [
                (request, row)
                for problem in problems
                for request, row in _with_rows(problem, requests_of(problem, evaluation, renderer), renderer)
            ]
        return self._asked[key]

    def renderer(self, stage: Sample) -> Renderer:
        """The renderer of a sample stage, with its student's tokenizer."""
        return self.bench.renderer(stage.student, stage.renderer, stage.built)


def _with_rows(problem: Problem, requests: list[Request], renderer: Renderer) -> Asked:
    """The requests of one problem, whose rows share what is said of the problem and of its prompt."""
    prompt = requests[0].prompt
    shared = problem_row(problem) | {"prompt": renderer.show(prompt), "prefill": prompt.prefill}
    return [
        (request, shared | {"repeat": int(request.sample_id.rpartition("#")[2]), "seed": request.seed})
        for request in requests
    ]


def requests_of(problem: Problem, evaluation: Evaluation, renderer: Renderer) -> list[Request]:
    """The requests of one problem, each under a seed that no other sample, checkpoint or benchmark changes.

    Raises:
        StageError: The problem's continuations cannot be scored with this renderer.
    """
    if evaluation.output_type != "generate_until":
        return [scoring_request(problem, evaluation, renderer)]
    prompt = renderer.prompt(problem.messages, evaluation.prefill)
    return [
        Request(
            sample_id=f"{problem.problem_id}#{repeat}",
            prompt=prompt,
            sampling=evaluation.sampling,
            stop_token_ids=renderer.stop_token_ids(),
            seed=_seed(evaluation, problem, repeat),
            messages=problem.messages,
        )
        for repeat in range(evaluation.repeats)
    ]


def _seed(evaluation: Evaluation, problem: Problem, repeat: int) -> int:
    text = f"{evaluation.sampling.seed}\0{evaluation.task}\0{problem.problem_id}\0{repeat}"
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

    Attributes:
        stage: The stage.
        checkpoint: What it samples; None for the untouched student.
        facts: What is to be known of its result.
        n_tokens: New tokens so far, in this process.
        seconds: The session's time for its samples so far, in this process: each sample's from the one before it.
        fresh: The ids of samples that have come and that `hand_over` has not given.
    """

    def __init__(self, stage: Sample, checkpoint: Checkpoint | None, requests: Requests) -> None:
        self.stage = stage
        self.checkpoint = checkpoint
        self.facts: dict[str, Any] = {}
        self.n_tokens = 0
        self.seconds = 0.0
        self.n_taken = 0
        self.fresh: list[str] = []
        self._requests = requests
        self._journal: Journal | None = None
        self._asked: dict[str, tuple[Request, Row]] = {}
        self._rows: dict[str, Row] = {}

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
        return len(self._rows)

    def prompts(self, n: int) -> list[Prompt]:
        """The shortest prompts that it asks."""
        asked = (request.prompt for request, _ in self._requests.of(self.stage))
        distinct = {prompt.input_ids.tobytes(): prompt for prompt in asked}
        return sorted(distinct.values(), key=lambda prompt: len(prompt.input_ids))[:n]

    def open(self) -> Batch:
        """What is asked of the engine; samples of an earlier run are skipped, failed ones among them are not."""
        bench = self._requests.bench
        self._asked = {request.sample_id: (request, row) for request, row in self._requests.of(self.stage)}
        self._journal = Journal(bench.store.scratch(self.stage) / "samples.jsonl", self.stage.key).open()
        found = {row["sample_id"]: row for row in (*_earlier_samples(self.stage, bench), *self._journal)}
        self._rows = {sample_id: row for sample_id, row in found.items() if row["error"] is None}
        requests = [request for request, _ in self._asked.values()]
        return Batch(self.stage.key, self.checkpoint, requests, frozenset(self._rows))

    def take(self, generation: Generation, seconds: float = 0.0) -> None:
        """Journals what came for one request, `seconds` after what came before it in the session."""
        assert self._journal is not None  # noqa: S101 - what comes was asked for by `open`
        row = _given(generation)
        if (why := why_unwritable(SAMPLES, row)) is not None:
            row = _given(Generation(generation.sample_id, error=f"the engine gave what cannot be stored: {why}"))
        self._journal.append(row)
        self._rows[generation.sample_id] = row
        self.n_tokens += row["n_tokens"] or 0
        self.n_taken += 1
        self.seconds += seconds
        self.fresh.append(generation.sample_id)

    def hand_over(self) -> list[Row]:
        """The samples that have come since the last call."""
        fresh, self.fresh = self.fresh, []
        return [self._row(sample_id) for sample_id in fresh]

    def finish(self) -> Made:
        """Writes the samples, in the order of what was asked.

        Raises:
            StageError: The engine left some out.
        """
        if not self.is_open:
            raise StageError("the engine ended without asking for its requests")
        missing = [sample_id for sample_id in self._asked if sample_id not in self._rows]
        if missing:
            raise StageError(f"the engine gave nothing for {len(missing)} samples, {missing[0]!r} among them")
        rows = [self._row(sample_id) for sample_id in self._asked]
        write_rows(self._requests.bench.store.work(self.stage) / SAMPLES, rows)
        self.close()
        holes = sum(row["error"] is not None for row in rows)
        took = {"tokens": self.n_tokens, "generated": self.n_taken, "seconds": round(self.seconds, 3)}
        return Made((SAMPLES,), {"samples": len(rows), **took, **self.facts}, holes)

    def close(self) -> None:
        """Closes the journal; what is in it stays for the next run."""
        if self._journal is not None:
            self._journal.close()
        self._journal, self._asked, self._rows = None, {}, {}

    def _row(self, sample_id: str) -> Row:
        _, row = self._asked[sample_id]
        return row | self._rows[sample_id]


def _given(generation: Generation) -> Row:
    """What an engine gave, as columns; the number of tokens is null where neither it nor the tokens are known."""
    known = generation.n_tokens if generation.n_tokens is not None else len(generation.token_ids) or None
    return {
        "sample_id": generation.sample_id,
        "token_ids": list(generation.token_ids),
        "text": generation.text,
        "finish_reason": generation.finish_reason,
        "error": generation.error,
        "n_tokens": known,
        "n_prompt_tokens": generation.n_prompt_tokens,
        "effective": json.dumps(generation.effective, sort_keys=True),
    }


def _earlier_samples(stage: Sample, bench: Bench) -> list[Row]:
    """The samples of an earlier result with holes; none when its inputs have changed since, or it is damaged."""
    earlier = bench.store.lookup(stage)
    if earlier is None or any(earlier.inputs[need.key] != bench.store.digest(need) for need in stage.needs):
        return []
    try:
        return read_rows(bench.store.file(stage, SAMPLES), _GIVEN)
    except DamagedError:
        return []
