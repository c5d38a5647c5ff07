"""The records that flow through distillbench. Standard library only, so that a plugin imports them in milliseconds.

Shapes: `T` is a number of tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from distillbench.errors import Place

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length"]
ReasoningState = Literal["absent", "open", "closed"]
Prefill = Literal["auto", "none", "think"]
Subset = Literal["first", "shuffled"]


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its gold answer.

    Attributes:
        problem_id: Unique within its task; statistics pair and cluster by it.
        domain: The task it comes from.
        messages: The prompt, as chat messages.
        gold: The gold answer as the grader reads it.
        metadata: `doc` holds the task's own document.
    """

    problem_id: str
    domain: str
    messages: tuple[Message, ...]
    gold: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trace:
    """A problem with one teacher response.

    Attributes:
        problem: What was asked.
        reasoning: The teacher's reasoning; None where it gave none.
        answer: What follows the reasoning.
        finish_reason: `length` when the teacher's budget cut it off.
        n_tokens: The teacher's own token count; None where unknown.
        teacher: The teacher's name.
        source: Where this row comes from (file and row, or recipe).
        trace_id: Tells it from all others of its set; the stage that collects traces fills it where it is empty.
        measures: What was found out about it, by the name of the measure: what a filter `reads`.
    """

    problem: Problem
    reasoning: str | None
    answer: str
    finish_reason: FinishReason
    n_tokens: int | None
    teacher: str
    source: str
    trace_id: str = ""
    measures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A training row: `input_ids` int32[T] and `loss_mask` bool[T], true where the token carries loss."""

    input_ids: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A row that is trained on.

    Attributes:
        input_ids: Token ids, int32[T].
        loss_mask: bool[T], true where the token carries loss.
        trace_id: Of the trace that it was made of.
        problem_id: Of that trace's problem.
        source: Where that trace comes from.
    """

    input_ids: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]
    trace_id: str
    problem_id: str
    source: str


@dataclass(frozen=True, slots=True)
class RowCounts:
    """How much there is to train on.

    Attributes:
        rows: Rows, without those that are dropped.
        tokens: Their tokens, without those that are cut off.
        loss_tokens: Those of these that carry loss.
    """

    rows: int
    tokens: int
    loss_tokens: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a student is asked to continue.

    Attributes:
        input_ids: The prompt's token ids, int32[T], prefill included.
        prefill: The text already standing in the assistant's turn; empty when there is none.
    """

    input_ids: NDArray[np.int32]
    prefill: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a completion is drawn. Temperature 0 is greedy.

    Attributes:
        temperature: 0 is greedy; otherwise the logits are divided by it.
        top_p: Nucleus mass; 1 keeps everything.
        top_k: Number of candidates; 0 keeps everything.
        min_p: Least probability relative to the best candidate's; 0 keeps everything.
        max_tokens: Token budget of one completion, end-of-turn token included.
        stop: Strings that end a completion wherever they come, inside reasoning too; they are its last text.
        seed: Goes into the seed of every sample.
        repetition_penalty: Divides the positive logits of tokens that the prompt or the completion holds already, and
            multiplies the negative ones; 1 changes nothing.
        presence_penalty: Is taken off the logits of tokens that the completion holds already; 0 changes nothing.

    Source: of `repetition_penalty`, Keskar et al. (2019), "CTRL", section 4.1.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    seed: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0

    @property
    def penalties(self) -> dict[str, float]:
        """The penalties that change something, greedy decoding too."""
        asked = {"repetition_penalty": self.repetition_penalty, "presence_penalty": self.presence_penalty}
        return {name: value for name, value in asked.items() if value != getattr(_NEUTRAL, name)}


#: What changes nothing.
_NEUTRAL = Sampling()


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The files of a student, for engines that load models themselves.

    Attributes:
        name: A folder or a Hub id.
        dtype: The number format it is evaluated in, as torch names it.
        revision: A commit, tag or branch on the Hub.
    """

    name: str
    dtype: str
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights of a student after `step` optimizer steps."""

    path: Path
    kind: Literal["adapter", "full"]
    step: int
    samples_seen: int


@dataclass(frozen=True, slots=True)
class Request:
    """One completion asked of an engine, or the log-likelihoods of given continuations.

    Attributes:
        sample_id: Unique within its stage: `problem_id#repeat`.
        prompt: What to continue.
        sampling: How.
        stop_token_ids: Tokens that end the turn; the one that did is the completion's last token.
        seed: Of this sample alone, so that no other sample changes it.
        messages: What the prompt was made of, for servers that make their own.
        continuations: Token ids of each continuation whose log-likelihood is asked for; empty where a completion is.
    """

    sample_id: str
    prompt: Prompt
    sampling: Sampling
    stop_token_ids: tuple[int, ...]
    seed: int
    messages: tuple[Message, ...] = ()
    continuations: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """The requests of one stage.

    Attributes:
        key: The stage's.
        checkpoint: The weights to use; None for the untouched student.
        requests: All requests of the stage.
        skip: Sample ids that are stored already. An engine whose results depend on which requests it computes together
            keeps the groups it would have made without `skip`.
    """

    key: str
    checkpoint: Checkpoint | None
    requests: Sequence[Request]
    skip: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Generation:
    """What an engine gives back for one request: a completion, or an error after its retries.

    Attributes:
        sample_id: The request's.
        token_ids: The new tokens, end-of-turn token included; empty where a server does not tell them.
        text: Their text, special tokens kept except the end-of-turn token. For log-likelihoods: JSON, a list of
            [log-likelihood in nats, whether it is the greedy continuation] in the order of the continuations.
        finish_reason: `stop` when the model ended its turn or wrote a stop string, `length` when the budget did.
        error: Why there is no completion; None when there is one.
        n_tokens: The number of new tokens; None where only `token_ids` tells.
        n_prompt_tokens: The number of tokens that were continued; None where it is not known.
        effective: The sampling parameters as the engine took them.
    """

    sample_id: str
    token_ids: tuple[int, ...] = ()
    text: str = ""
    finish_reason: FinishReason | None = None
    error: str | None = None
    n_tokens: int | None = None
    n_prompt_tokens: int | None = None
    effective: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One completion of a problem as it was asked for and as it came, or why there is none.

    Attributes:
        sample_id: Unique within its stage: `problem_id#repeat`.
        problem: What was asked, with its gold answer.
        repeat: Which of the problem's completions it is, from 0.
        prompt: What was continued, as text.
        prefill: The part of it that already stood in the assistant's turn; empty when there is none.
        seed: Of this sample alone.
        token_ids: The new tokens, int32[T], end-of-turn token included; empty where a server does not tell them.
        text: As in `Generation`.
        finish_reason: As in `Generation`.
        error: Why there is no completion; None when there is one.
        n_tokens: The number of new tokens; None where it is not known.
        n_prompt_tokens: The number of tokens that were continued; None where it is not known.
        effective: The sampling parameters as the engine took them.
    """

    sample_id: str
    problem: Problem
    repeat: int
    prompt: str
    prefill: str
    seed: int
    token_ids: NDArray[np.int32]
    text: str
    finish_reason: FinishReason | None
    error: str | None
    n_tokens: int | None
    n_prompt_tokens: int | None
    effective: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Completion:
    """A generation split by the renderer's parser into reasoning and answer."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    prefill: str
    reasoning: str | None
    answer: str
    reasoning_state: ReasoningState


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a grader says of one complete answer.

    Attributes:
        correct: Right or not; None for a grader that scores instead.
        detail: Why not, in one of the words of the outcome table.
        scores: Every metric by name; `score` decides where `correct` is None.
        error: Why the grader itself failed; None when it did not. Then nothing else counts.
    """

    correct: bool | None
    detail: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The one outcome of one sample (see `outcomes`)."""

    outcome: str
    detail: str = ""
    extracted: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    ran_on: bool = False


@dataclass(frozen=True, slots=True)
class SampleVerdict:
    """The verdict on a sample as a grade stage keeps it.

    Attributes:
        sample_id: The sample's.
        problem_id: Its problem's.
        repeat: Which of the problem's completions it is.
        verdict: Its outcome, and what goes with it.
        canonical: The complete answer in the form that answers are compared in; None where there is none.
        reasoning_state: Of the completion; None where there is none.
        n_tokens: Of the completion as it was graded, cut or whole; None where it is not known.
        sample_digest: Of everything in the sample: a verdict holds for this one and no other.
    """

    sample_id: str
    problem_id: str
    repeat: int
    verdict: Verdict
    canonical: str | None
    reasoning_state: ReasoningState | None
    n_tokens: int | None
    sample_digest: str


@dataclass(frozen=True, slots=True)
class Resources:
    """What a stage asks of the machine it runs on."""

    cpus: int = 1
    gpus: int = 0
    memory_gb: float = 1.0


@dataclass(frozen=True, slots=True)
class Choice:
    """One component as a cell uses it, with every option resolved.

    Attributes:
        kind: `teacher`, `student`, `renderer`, `filter`, `trainer`, `benchmark` or `engine`.
        label: The user's name for it in the matrix.
        component: The registered component's name.
        options: An instance of the component's `Options`.
        identity: Canonical JSON of what its stages' keys hold about it.
        origins: For each option, where its value came from.
        place: Where the user wrote it.
        components: The components that it needs, by the option that names each; its identity holds theirs.
    """

    kind: str
    label: str
    component: str
    options: Any = field(compare=False)
    identity: str
    origins: Mapping[str, Place] = field(default_factory=dict, compare=False)
    place: Place = field(default=Place(), compare=False)
    components: Mapping[str, Choice] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class TaskRef:
    """A task as an evaluation uses it.

    Attributes:
        name: The lm-eval task's name.
        metadata: What the evaluation changes in the task's `metadata`, as canonical JSON.
        num_fewshot: Examples before each problem; None for the task's own number.
        system: What the system turn begins with; a description of the task's own follows it.
    """

    name: str
    metadata: str = "{}"
    num_fewshot: int | None = None
    system: str = ""


@dataclass(frozen=True, slots=True)
class Every:
    """The steps that a number divides.

    Raises:
        ValueError: The number is below 1.
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    every: int

    def __post_init__(self) -> None:
        """Refuses what divides nothing."""
        if self.every < 1:
            raise ValueError(f"every: wanted a whole number >= 1, got {self.every}")


#: Which checkpoints an evaluation is asked of. The untouched student is asked always.
Steps = Literal["all", "none", "last"] | Every | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Membership:
    """That an evaluation is one of several whose results are added up, as lm-eval adds up a group.

    Attributes:
        group: The name that the sum has in reports.
        weight_by_size: Whether its members count by their numbers of problems, and not alike.
        size: How many members it has.
    """

    group: str
    weight_by_size: bool
    size: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A benchmark with everything that decides what is sampled and how it is graded.

    Attributes:
        name: The user's name in the matrix.
        task: The lm-eval task's name.
        task_path: Its YAML file.
        sampling: How completions are drawn.
        prefill: What stands in the assistant's turn before the model writes (see `Renderer.prompt`).
        repeats: Completions per problem.
        limit: Number of problems; None for all.
        subset: Which problems a limit keeps.
        until: Strings that end the answer part.
        sample_identity: Identity of everything in the task that reaches the prompt.
        grade_identity: Identity of everything in the task that reaches the verdict.
        n_docs: How many problems the task says it has; None where it does not.
        grader: The component that grades.
        metadata: What it changes in the task's `metadata`, as canonical JSON.
        output_type: lm-eval's word: `generate_until`, or `multiple_choice` or `loglikelihood`, where given
            continuations are scored.
        findings: What a preflight is to tell of how its options were resolved: names of findings, with words.
        budgets: Smaller token budgets at which the same completions are cut and graded again.
        steps: Which checkpoints it is asked of.
        problems: The places of the problems that it asks, ascending; None for every problem of the task.
        num_fewshot: Examples before each problem; None for the task's own number.
        system: What the system turn begins with.
        groups: The groups that it is a member of, the one that the user named first.
        origins: For each option, where its value came from.
        place: Where the user wrote it.
    """

    name: str
    task: str
    task_path: Path
    sampling: Sampling
    prefill: Prefill
    repeats: int
    limit: int | None
    subset: Subset
    until: tuple[str, ...]
    sample_identity: str
    grade_identity: str
    n_docs: int | None
    grader: Choice
    origins: Mapping[str, Place] = field(default_factory=dict, compare=False)
    metadata: str = "{}"
    output_type: str = "generate_until"
    findings: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    budgets: tuple[int, ...] = ()
    steps: Steps = "all"
    problems: tuple[int, ...] | None = None
    num_fewshot: int | None = None
    system: str = ""
    groups: tuple[Membership, ...] = ()
    place: Place = field(default=Place(), compare=False)

    @property
    def ref(self) -> TaskRef:
        """The task, with what the evaluation changes in it."""
        return TaskRef(self.task, self.metadata, self.num_fewshot, self.system)

    @property
    def is_partial(self) -> bool:
        """Whether it asks only some problems of the task."""
        return self.limit is not None or self.problems is not None

    @property
    def n_samples(self) -> int | None:
        """How many completions it asks for; None where the task does not say how many problems it has."""
        named = None if self.problems is None else len(self.problems)
        sizes = [size for size in (self.limit, self.n_docs, named) if size is not None]
        return min(sizes) * self.repeats if sizes else None

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that it says of how it asks, by the names that a matrix has for it."""
        return asdict(self.sampling) | {
            "budgets": list(self.budgets),
            "steps": asdict(self.steps) if isinstance(self.steps, Every) else self.steps,
            "num_fewshot": self.num_fewshot,
            "system": self.system,
            "prefill": self.prefill,
            "repeats": self.repeats,
            "limit": self.limit,
            "subset": self.subset,
            "problems": self.problems,
            "until": list(self.until),
            "metadata": json.loads(self.metadata),
        }


@dataclass(frozen=True, slots=True)
class PreflightRules:
    """What a matrix says of preflight findings.

    Attributes:
        accept: Names of findings that do not stop a run.
        max_cut: Share of training rows whose answer `max_length` may cut.
    """

    accept: tuple[str, ...] = ()
    max_cut: float = 0.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One student and one recipe, or the untouched student (`teacher` and `trainer` are None).

    Attributes:
        name: Unique in its matrix; what `--only` and `show` take.
        axes: The axis values that made it.
        rules: What its preflight may let pass.
    """

    name: str
    student: Choice
    renderer: Choice
    engine: Choice
    evaluations: tuple[Evaluation, ...]
    teacher: Choice | None = None
    filters: tuple[Choice, ...] = ()
    trainer: Choice | None = None
    seed: int = 0
    axes: Mapping[str, Any] = field(default_factory=dict)
    rules: PreflightRules = field(default_factory=PreflightRules)

    @property
    def is_baseline(self) -> bool:
        """True for the untouched student."""
        return self.trainer is None

    @property
    def setup(self) -> tuple[str, str, str, tuple[Evaluation, ...]]:
        """What a cell shares with the baseline it is compared with: everything but its recipe."""
        return (self.student.identity, self.renderer.identity, self.engine.identity, self.evaluations)
