"""What a matrix asks for: components with their options, evaluations, cells."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from distillbench.errors import Place
from distillbench.records.samples import Sampling
from distillbench.records.traces import Prefill

Subset = Literal["first", "shuffled"]
#: Marks what a user may say of an evaluation, under the same name; and what of it decides what is sampled.
_OPTION = {"option": True}
_ASKED = {"option": True, "asked": True}


@dataclass(frozen=True, slots=True)
class Resources:
    """What a stage asks of the machine it runs on."""

    cpus: int = 1
    gpus: int = 0
    memory_gb: float = 1.0

    @classmethod
    def most(cls, wanted: Iterable[Resources]) -> Resources:
        """Enough for each of them, one at a time."""
        every = [*wanted, cls()]
        return cls(max(one.cpus for one in every), max(one.gpus for one in every), max(one.memory_gb for one in every))


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
    prefill: Prefill = field(metadata=_ASKED)
    repeats: int = field(metadata=_ASKED)
    limit: int | None = field(metadata=_ASKED)
    subset: Subset = field(metadata=_OPTION)
    until: tuple[str, ...] = field(metadata=_OPTION)
    sample_identity: str
    grade_identity: str
    n_docs: int | None
    grader: Choice
    origins: Mapping[str, Place] = field(default_factory=dict, compare=False)
    metadata: str = field(default="{}", metadata=_OPTION)
    output_type: str = "generate_until"
    findings: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    budgets: tuple[int, ...] = field(default=(), metadata=_OPTION)
    steps: Steps = field(default="all", metadata=_OPTION)
    problems: tuple[int, ...] | None = field(default=None, metadata=_ASKED)
    num_fewshot: int | None = field(default=None, metadata=_ASKED)
    system: str = field(default="", metadata=_ASKED)
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
        """Everything that it says of how it asks, by the names that a matrix has for it, as plain values."""
        said = {name: getattr(self, name) for name in self.options()}
        steps = asdict(self.steps) if isinstance(self.steps, Every) else self.steps
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}
        return asdict(self.sampling) | plain | {"steps": steps, "metadata": json.loads(self.metadata)}

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """What a user may say of it beside its sampling."""
        return tuple(one.name for one in fields(cls) if "option" in one.metadata)

    @property
    def asked(self) -> dict[str, Any]:
        """What decides what is sampled, beside the task and the sampling; what asks for nothing is left out."""
        found = {one.name: (getattr(self, one.name), one.default) for one in fields(self) if "asked" in one.metadata}
        return {name: value for name, (value, neutral) in found.items() if value != neutral}


@dataclass(frozen=True, slots=True)
class Questions:
    """What a teacher has a model answer: problems that are no evaluation's.

    Attributes:
        sampling: How answers are drawn.
        task: The task whose problems are asked; None where they are a teacher's or stand in a file.
        split: Its split.
        path: The file; None where they are a task's or a teacher's.
        identity: Identity of everything in the task, or of everything in the file, that reaches the prompt.
        limit: Number of problems; None for all.
    """

    sampling: Sampling
    task: str | None = None
    split: str = "train"
    path: Path | None = None
    identity: str | None = None
    limit: int | None = None
    prefill: ClassVar[Prefill] = "auto"
    repeats: ClassVar[int] = 1
    output_type: ClassVar[str] = "generate_until"
    is_partial: ClassVar[bool] = False

    @property
    def n_samples(self) -> int | None:
        """How many answers it asks for; None where that is not known before it is asked."""
        return self.limit


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
