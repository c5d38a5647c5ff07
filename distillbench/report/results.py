"""What a report is made of: every graded sample of every checkpoint, and where it comes from.

The numbers of samples are arrays, `CheckpointResult.scores`. Their texts are read when somebody asks for them, one
sample after the other, by `CheckpointResult.samples()`: a report of any size fits into memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from distillbench.errors import DistillbenchError
from distillbench.records import FinishReason, Membership, ReasoningState

if TYPE_CHECKING:
    from distillbench.report.scores import Scores


class ResultsError(DistillbenchError):
    """Graded samples contradict one another, so that no number made from them would be right."""


@dataclass(frozen=True, slots=True)
class GradedSample:
    """One completion with its outcome.

    Attributes:
        problem_id: Unique within its task; statistics pair and cluster by it.
        repeat: Which of the K completions of its problem, from 0.
        outcome: One of `outcomes.OUTCOMES`.
        detail: Why, in one of the words of the outcome table.
        extracted: The answer that was graded; None where there is no complete answer.
        scores: Every metric by name; `score` decides where the outcome is `graded`.
        reasoning_state: None where there is no completion.
        n_tokens: Tokens of the completion; None where there is no completion.
        ran_on: The model went on after its answer was complete.
        finish_reason: None where there is no completion.
        text: The raw completion.
        prompt: What was continued, prefill included.
        gold: The gold answer as the grader reads it.
        doc: The task's own document.
        canonical: The answer in the form that answers are compared in; None where the grader cannot compare them.
        sample_id: By which the store knows it.
    """

    problem_id: str
    repeat: int
    outcome: str
    detail: str = ""
    extracted: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    reasoning_state: ReasoningState | None = None
    n_tokens: int | None = None
    ran_on: bool = False
    finish_reason: FinishReason | None = None
    text: str = ""
    prompt: str = ""
    gold: str = ""
    doc: Mapping[str, Any] = field(default_factory=dict)
    canonical: str | None = None
    sample_id: str = ""


@dataclass(frozen=True, slots=True)
class CheckpointResult:
    """One checkpoint on one evaluation.

    Attributes:
        cell: The cell's name.
        step: Optimizer steps behind the checkpoint; 0 for a baseline.
        evaluation: The user's name of the evaluation.
        task: The lm-eval task's name.
        is_baseline: True for the untouched student.
        baseline: The name of the cell to compare with; None where there is none.
        teacher: Label in the matrix; None for a baseline.
        student: Label in the matrix.
        renderer: Label in the matrix.
        trainer: Label in the matrix; None for a baseline.
        filters: Labels in the matrix, in order.
        seed: The cell's seed.
        subset: Which problems a limit kept, in words; empty when all were asked.
        scores: The numbers of every sample, as arrays.
        read: Gives every sample, exactly once and in the order of `scores`; asked anew each time.
        samples_in: The folder, seen from the store's, whose `samples.parquet` has the texts by `sample_id`.
        settings: How the completions were drawn (`temperature`, `max_tokens`, ...). `n_docs`, `num_fewshot` and
            `task_version` are used in lm-eval's files where they are given.
        grader: The grader's name.
        grading: What the grader says of itself: the judge model, the deciding metric, the isolation.
        accepted: Names of the preflight findings on it that the matrix accepts.
        budget: Tokens at which the completions were cut before they were graded; None where they are as generated.
        device: What the completions were generated on, in the engine's words; None where it does not say.
        groups: The groups of evaluations that it is a member of.
        graded_at: When its last sample was graded, in UNIX seconds: the time in the names of lm-eval's files.
    """

    cell: str
    step: int
    evaluation: str
    task: str
    scores: Scores = field(kw_only=True)
    read: Callable[[], Iterable[GradedSample]] = field(kw_only=True)
    samples_in: str = ""
    is_baseline: bool = False
    baseline: str | None = None
    teacher: str | None = None
    student: str | None = None
    renderer: str | None = None
    trainer: str | None = None
    filters: tuple[str, ...] = ()
    seed: int = 0
    subset: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    grader: str = ""
    grading: Mapping[str, Any] = field(default_factory=dict)
    accepted: tuple[str, ...] = ()
    budget: int | None = None
    device: str | None = None
    groups: tuple[Membership, ...] = ()
    graded_at: int = 0

    @classmethod
    def of(cls, samples: Iterable[GradedSample], **about: Any) -> Self:
        """A result of samples that are held; `about` is every other attribute."""
        from distillbench.report.scores import Scores

        held = tuple(samples)
        return cls(scores=Scores.of(held), read=lambda: held, **about)

    def samples(self) -> Iterator[GradedSample]:
        """Every sample with its texts, one after the other; none is held, and each call reads them again."""
        return iter(self.read())


@dataclass(frozen=True, slots=True)
class NllPoint:
    """The losses at one step, in nats per token; None where they were not measured.

    Attributes:
        step: Optimizer steps.
        train_loss: Of the trainer's last report.
        held_out_nll: Mean over the held-out traces' tokens that carry loss.
        held_out_tokens: How many tokens that mean is over.
    """

    step: int
    train_loss: float | None = None
    held_out_nll: float | None = None
    held_out_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class CellResult:
    """What a cell left beside its samples.

    Attributes:
        name: The cell's name.
        is_baseline: True for the untouched student.
        axes: The axis values that made it.
        nll: The loss curve.
        traces: How many were `kept`, and how many were rejected per `filter: reason`; None for a baseline.
        problems: Failed or blocked stages, in words.
        missing: Holes, in words: results and samples that the matrix asks for and that are not there.
        preflight: What its preflight warned of or was told to accept, in words.
    """

    name: str
    is_baseline: bool = False
    axes: Mapping[str, Any] = field(default_factory=dict)
    nll: tuple[NllPoint, ...] = ()
    traces: Mapping[str, int] | None = None
    problems: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    preflight: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Results:
    """Everything a report shows.

    Attributes:
        matrix: The matrix's name or path.
        cells: In the matrix's order.
        checkpoints: Every (cell, step, evaluation), exactly once.
        recomputed: The same completions cut at smaller budgets and graded again; every (cell, step, evaluation, budget)
            exactly once. Apart, so that nothing counts them as results of their own.
        provenance: What was run: versions, git commit, command; values may be mappings. `git_hash`, `lm_eval_version`
            and `transformers_version` are used in lm-eval's files where they are given.
        left_out: What plugins could not add to the report, in words.
        remarks: What else the store and the report's folder hold, in words.
    """

    matrix: str
    cells: tuple[CellResult, ...] = ()
    checkpoints: tuple[CheckpointResult, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    recomputed: tuple[CheckpointResult, ...] = ()
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A plugin's section of the report; its markdown is put in as it is."""

    title: str
    markdown: str
