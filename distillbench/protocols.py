"""What a plugin implements: one base class for each kind of component. Nothing heavy is imported here.

A component is a class with a `name`, a `version` (bumped when its meaning changes: it is part of the key of every
stage that uses the component), an `Options` dataclass, and a docstring whose first line is its summary. It is built
as `cls(options)`. Its module imports nothing heavy; its methods do.
"""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from distillbench.errors import GraderError, StageError
from distillbench.records import (
    Batch,
    Checkpoint,
    Completion,
    FinishReason,
    Generation,
    Judgement,
    Message,
    ModelSource,
    Prefill,
    Problem,
    Prompt,
    Rendered,
    Resources,
    RowCounts,
    Trace,
    TrainingRow,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Progress = Callable[[int, int | None, str], None]

#: For an option whose value may hold a secret, such as an address: `field(metadata=UNSHOWN)`.
UNSHOWN: dict[str, Any] = {"shown": False}


def no_progress(done: int, total: int | None, note: str) -> None:
    """A progress callback that shows nothing."""


class TaskSource(Protocol):
    """Gives components the problems of an lm-eval task without importing lm_eval themselves."""

    def problems(self, task: str, split: str, limit: int | None = None) -> list[Problem]:
        """The problems of one split (`train` or `test`) of a task, in the task's own order."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a component's method is given to work with.

    Attributes:
        work: A folder of the stage's own; it survives a kill, so that the next run goes on from what lies there.
        seed: The stage's seed.
        progress: Call as `progress(done, total, note)`.
        tasks: The problems of lm-eval tasks.
        resources: What the launcher granted.
        components: The components that this one needs, built, by the option that names each.
    """

    work: Path
    seed: int = 0
    progress: Progress = no_progress
    tasks: TaskSource | None = None
    resources: Resources = field(default_factory=Resources)
    components: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NoOptions:
    """For a component without options."""


class Component(ABC):
    """Base of every component.

    Attributes:
        name: What a matrix calls it.
        version: Bumped when results with the same options would differ.
        packages: Distributions whose version decides the result (math-verify for a math grader).
        Options: A frozen dataclass. A field with `metadata={"key": False}` only affects speed or memory; the value of
            one with `metadata=UNSHOWN` may be a secret, and is repeated in no message.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    packages: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type] = NoOptions

    def __init__(self, options: Any) -> None:
        self.options = options

    def inputs(self) -> Sequence[Path]:
        """Files and folders whose content is part of the key."""
        return ()

    @classmethod
    def lacks(cls) -> list[str]:
        """The methods that a component of this class still has to be given."""
        return sorted(cls.__abstractmethods__)


class Teacher(Component):
    """Where traces come from."""

    def task(self) -> str | None:
        """The task whose grader can verify its traces; None where there is none."""
        return None

    @abstractmethod
    def traces(self, context: Context, start: int) -> Iterator[Trace]:
        """Yields traces in a fixed order; each is stored as it comes.

        Args:
            context: What to work with.
            start: How many traces an interrupted run has stored already: they are not made, and not paid for, again.
        """

    def preview(self, context: Context, limit: int) -> Sequence[Trace]:
        """The first traces, where they cost nothing and come in seconds: what `check` renders before anything has run.

        A teacher that reads rows (it has `inputs`) gives the first ones, unless it says otherwise. One that has to be
        paid or that needs a GPU gives none; its rows are checked once they are there.

        Args:
            context: What to work with; its folder is thrown away afterwards.
            limit: How many traces are enough.
        """
        return list(islice(self.traces(context, 0), limit)) if self.inputs() else ()


class Student(Component):
    """The model that is trained, or evaluated untouched."""

    #: True when `build` makes the model in a stage of its own.
    builds: ClassVar[bool] = False
    #: False for a model that is only reached through a server: `load_tokenizer` raises StageError then.
    has_tokenizer: ClassVar[bool] = True

    def renderer(self) -> str | None:
        """The renderer a matrix gets when it names none; None to make every matrix name one."""
        return None

    @classmethod
    def lacks(cls) -> list[str]:
        """The methods that a student of this class still has to be given."""
        return super().lacks() + (["build"] if cls.builds and cls.build is Student.build else [])

    def build(self, folder: Path, context: Context) -> None:
        """Writes the model and its tokenizer into `folder`; to be written where `builds`."""

    def preview_tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer as it will be, where it can be had in seconds before `build` has run; None where it cannot."""
        return None if self.builds else self.load_tokenizer(None)

    @abstractmethod
    def load_tokenizer(self, built: Path | None) -> PreTrainedTokenizerBase:
        """The student's own tokenizer."""

    @abstractmethod
    def load_model(self, built: Path | None, device: str, weights: Path | None = None) -> Any:
        """The student's model on a device, in the dtype it is trained and evaluated in.

        Args:
            built: The folder its own stage made; None where there is none.
            device: `cpu`, `cuda` or the like.
            weights: A full checkpoint to load instead of the untouched weights.
        """

    def source(self, built: Path | None) -> ModelSource:
        """Where its files are, for engines that load models themselves, and to read adapters by.

        Where the student was built here, that is the folder, in the number format that its config.json names. Any
        other student says it by writing this method.

        Raises:
            StageError: It has none.
        """
        if built is None or not (built / "config.json").is_file():
            raise StageError(
                f"student {self.name!r} does not say where its files are, so that no checkpoint of it can be compared "
                f"with it\n    hint: its class is to be given `source`, which returns a ModelSource"
            )
        config = json.loads((built / "config.json").read_bytes())
        return ModelSource(str(built), config.get("dtype") or config.get("torch_dtype") or "float32")

    def served_name(self, built: Path | None) -> str:
        """What a server that has the model calls it; `vllm serve` calls it as its files are called."""
        return self.source(built).name

    def merge(self, built: Path | None, checkpoint: Checkpoint, folder: Path) -> None:
        """Writes a full model and its tokenizer into `folder`: a checkpoint's weights, an adapter merged into the base.

        Raises:
            StageError: It cannot be done.
        """
        raise StageError(f"student {self.name!r} cannot write a full model: it has no `merge`")

    def lora_targets(self) -> str | list[str]:
        """Peft's `target_modules`."""
        return "all-linear"

    def resources(self) -> Resources:
        """What training or sampling it needs."""
        return Resources()


class Renderer(Component):
    """Messages and traces to tokens and loss mask, and completions back to reasoning and answer.

    The same object serves training and evaluation. `bind` gives it the student's tokenizer.

    Attributes:
        parser_version: Bumped when `parse` changes: finished samples are graded again, nothing is trained again.
    """

    parser_version: ClassVar[int] = 1
    #: The chat templates it is written for: the first 16 hex digits of each one's sha256, white space at its ends left
    #: out. `distillbench eval` finds a model's renderer by them.
    templates: ClassVar[frozenset[str]] = frozenset()
    #: False when a server makes the tokens: it works without `bind`, its prompts hold no ids, and it makes no rows.
    needs_tokenizer: ClassVar[bool] = True
    #: True without a chat format: given continuations are then scored after lm-eval's own text, white space included.
    is_plain: ClassVar[bool] = False

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._tokenizer: PreTrainedTokenizerBase | None = None

    def bind(self, tokenizer: PreTrainedTokenizerBase) -> Self:
        """A copy that uses this tokenizer."""
        bound = copy.copy(self)
        bound._tokenizer = tokenizer
        return bound

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer it is bound to."""
        if self._tokenizer is None:
            raise ValueError(f"renderer {self.name!r} is used before bind(tokenizer)")
        return self._tokenizer

    def reasoning_tags(self) -> tuple[str, str] | None:
        """What opens and what closes reasoning in its rows; None where nothing does."""
        return ("<think>", "</think>")

    def reasoning_told(self) -> str:
        """How reasoning is told from the answer, in words; `check` shows it."""
        tags = self.reasoning_tags()
        return "reasoning is not told apart" if tags is None else f"reasoning between {tags[0]!r} and {tags[1]!r}"

    @abstractmethod
    def stop_token_ids(self) -> tuple[int, ...]:
        """The tokens that end the assistant's turn."""

    @abstractmethod
    def render(self, trace: Trace) -> Rendered:
        """A training row; loss on the response and its end-of-turn token, on nothing else.

        Its masked part is the prompt that `prompt(messages)` gives for the same messages, id for id.

        Raises:
            RowError: This trace cannot be a row.
        """

    def render_all(self, traces: Sequence[Trace]) -> list[Rendered]:
        """The training rows of many traces, in their order; to be overridden where a batch is faster."""
        return [self.render(trace) for trace in traces]

    def tokenising(self) -> str:
        """By what texts became tokens, for people; it is stored beside rows. Empty where there is nothing to tell."""
        return ""

    @abstractmethod
    def prompt(self, messages: Sequence[Message], prefill: Prefill = "auto") -> Prompt:
        """The tokens a student is asked to continue.

        Args:
            messages: The conversation. A last message of the assistant (lm-eval's `gen_prefix`) is left open.
            prefill: What stands in the assistant's turn: `auto` what stands there in training rows, `none` nothing,
                `think` an open reasoning tag (once, also where the template opens it by itself).
        """

    def show(self, prompt: Prompt) -> str:
        """A prompt as text, for people."""
        return str(self.tokenizer.decode(prompt.input_ids))

    @abstractmethod
    def parse(self, token_ids: Sequence[int], text: str, finish_reason: FinishReason, prefill: str) -> Completion:
        """Splits a completion into reasoning and answer."""


class Filter(Component):
    """Keeps or rejects traces, with a reason.

    Attributes:
        reads: The measures that it wants in `trace.measures`: `verdict` (`outcome` and `detail`, as the grader of the
            teacher's task says), `length` (`n_tokens` and `n_loss_tokens` of the row that the student will see; both
            None where it cannot be rendered, and `error` says why).
    """

    reads: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def lacks(cls) -> list[str]:
        """The methods that a filter of this class still has to be given."""
        is_empty = cls.reason is Filter.reason and cls.decide is Filter.decide
        return super().lacks() + (["reason"] if is_empty else [])

    def decide(self, traces: Iterable[Trace], context: Context) -> Iterator[str | None]:
        """For each trace, None to keep it or the reason to reject it, in order.

        Reports count by what stands before the colon of a reason. A filter that looks at the whole set overrides this;
        one that looks at single rows overrides `reason`.
        """
        for trace in traces:
            yield self.reason(trace, context)

    def reason(self, trace: Trace, context: Context) -> str | None:
        """None to keep this trace, or the reason to reject it; to be written unless `decide` is."""
        return None


#: What a row does that is longer than the most tokens of a row: it is left out, its end is cut off, the stage fails.
Overlong = Literal["drop", "truncate", "error"]


class TrainingRows(Sequence[TrainingRow]):
    """The rows of a training. They may be more than memory holds: take what you need, when you need it."""

    def problem_ids(self) -> Sequence[str]:
        """The problem of each row."""
        return [row.problem_id for row in self]

    def without_loss(self) -> Sequence[str]:
        """Where the rows come from that carry no loss."""
        return [row.source for row in self if not row.loss_mask.any()]


class ListedRows(list[TrainingRow], TrainingRows):
    """A few training rows in memory."""


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """Everything a trainer needs.

    Attributes:
        student: The student, and in `built` the folder its own stage made (None where there is none).
        renderer: Bound to the student's tokenizer.
        rows: The training rows, in order; none for a trainer that needs no traces.
        output: Where `step-N` folders and `metrics.jsonl` go.
    """

    student: Student
    built: Path | None
    renderer: Renderer
    rows: TrainingRows
    output: Path


class Trainer(Component):
    """Fits a student to traces and leaves checkpoints.

    Attributes:
        needs_traces: False for one whose cells have no teacher and no filters: its job has no rows, and its
            `checkpoint_steps` knows the steps without them.
        masks_pad_token: True when its loss leaves out every token that has the pad token's id.
    """

    needs_traces: ClassVar[bool] = True
    masks_pad_token: ClassVar[bool] = False

    def max_length(self) -> int | None:
        """The most tokens of a row; `overlong` says what a longer one does. None where there is no such limit."""
        return None

    def overlong(self) -> Overlong:
        """What a row does that is longer than `max_length`."""
        return "error"

    @abstractmethod
    def checkpoint_steps(self, counts: RowCounts | None) -> tuple[int, ...] | None:
        """The steps at which checkpoints are written.

        Args:
            counts: How much there is to train on; None while that is not known.

        Returns:
            None where it depends on that.
        """

    @abstractmethod
    def train(self, job: TrainingJob, context: Context) -> Sequence[Checkpoint]:
        """Trains; after a kill, goes on from what lies in `context.work`."""


class Grading(Protocol):
    """A grader that is ready: its sandbox, its workers or its connection serve the answers of many stages.

    Attributes:
        facts: What a report names beside the numbers, such as the isolation that model code ran in.
    """

    @property
    def facts(self) -> Mapping[str, Any]:
        """See above."""

    def judge_all(self, answers: Iterable[tuple[Problem, str]]) -> Iterator[Judgement]:
        """One judgement for each (problem, extracted answer), in their order.

        An answer on which the grader itself failed gets a judgement with `error`. What is raised ends the stage.
        """


class OneByOne:
    """The grading of a grader that needs nothing but its `judge`."""

    facts: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, grader: Grader) -> None:
        self._judge = grader.judge

    def judge_all(self, answers: Iterable[tuple[Problem, str]]) -> Iterator[Judgement]:
        """Judges one answer after the other."""
        for problem, extracted in answers:
            try:
                yield self._judge(problem, extracted)
            except Exception as error:  # a grader may fail in any way, and each is an error that is told, not a verdict
                yield Judgement(None, error=f"{type(error).__name__}: {error}")


class Grader(Component):
    """How the completions of a task are graded: by `judge`, or where that needs something held ready, by `open`."""

    #: True when it grades through lm-eval's own task object, given by `with_task`.
    needs_task: ClassVar[bool] = False

    def with_task(self, task: Any) -> Self:
        """A copy that grades through this lm-eval `Task`."""
        bound = copy.copy(self)
        bound._task = task  # type: ignore[attr-defined]
        return bound

    @abstractmethod
    def extract(self, answer: str, problem: Problem) -> str | None:
        """The complete answer that the answer part holds; None when there is none."""

    def canonical(self, extracted: str, problem: Problem) -> str | None:
        """One text for all answers that mean the same, so that a majority can be found; asked for each complete answer.

        It looks at the answer as it would at any other, right or wrong: forms that it cannot tell to be equal stay
        apart.

        Returns:
            None where this grader cannot compare answers: then there is no `maj@k`.
        """
        return None

    def unusable_golds(self, problems: Iterable[Problem]) -> Iterator[str | None]:
        """For each problem, in order: why no answer can be judged by its gold answer; None where one can.

        Asked by `distillbench check`, before samples are paid. Such a problem's answers are `grader_error`, never
        wrong: `judge` or the grading says the same. To be written where not every gold answer will do.
        """
        return (None for _ in problems)

    @classmethod
    def lacks(cls) -> list[str]:
        """The methods that a grader of this class still has to be given."""
        is_empty = cls.judge is Grader.judge and cls.open is Grader.open
        return super().lacks() + (["judge"] if is_empty else [])

    def refuse_unusable(self) -> None:
        """Refuses options under which nothing could be graded; asked by `distillbench check`, before samples are paid.

        Raises:
            GraderError: What is missing, and what to write.
        """

    def resources(self) -> Resources:
        """What grading needs."""
        return Resources()

    def open(self, context: Context) -> AbstractContextManager[Grading]:
        """Makes ready what grading needs; to be written where that is more than `judge`.

        Args:
            context: Its `work` folder is shared by all stages that use this grader, and stays.
        """
        return nullcontext(OneByOne(self))

    def judge(self, problem: Problem, extracted: str) -> Judgement:
        """Right, wrong, or a score; to be written unless `open` is.

        Raises:
            GraderError: When the grader itself failed. Anything else it raises counts as the same.
        """
        with TemporaryDirectory() as folder, self.open(Context(work=Path(folder))) as grading:
            judgement = next(iter(grading.judge_all([(problem, extracted)])))
        if judgement.error is not None:
            raise GraderError(judgement.error)
        return judgement


class EngineSession(Protocol):
    """A base model held in memory, with which every checkpoint of it is sampled.

    Attributes:
        facts: What a report names beside the numbers: the engine's version, the device, the number format.
    """

    @property
    def facts(self) -> Mapping[str, Any]:
        """See above."""

    def prepare(self, checkpoint: Checkpoint) -> Mapping[str, Any]:
        """Loads a checkpoint as far as needed to be sure that all of it will be applied.

        Returns:
            What a report names: the rank and the number of modules of an adapter; `merged`, with the reason, where the
            engine cannot apply an adapter faithfully and merges it into the weights.

        Raises:
            StageError: It would not be applied, or not all of it: what was expected, and what is there.
        """

    def first_token_logprobs(
        self, prompts: Sequence[Prompt], checkpoint: Checkpoint | None
    ) -> Sequence[Mapping[int, float]]:
        """Log-probabilities of the likeliest first tokens (20 or more) after each prompt, in nats by token id.

        Two calls with the same arguments compute the same way. Never called while `generate` is going on.
        """

    def generate(self, batches: Iterable[Batch]) -> Iterator[tuple[str, Generation]]:
        """Yields (key of the stage, generation) for each request not skipped, as they finish.

        Args:
            batches: Read in the caller's thread, as far ahead as the engine has room for, so that requests of many
                stages and checkpoints may be under way together while memory stays flat. Every checkpoint among them
                has been prepared.

        What fails after its retries is yielded with its `error`. What is raised ends the session.
        """

    def loglikelihood(self, batch: Batch) -> Iterator[Generation]:
        """Yields one generation for each request not skipped, with the log-likelihoods of its continuations.

        Never called while `generate` is going on.
        """


class Engine(Component):
    """Generates completions."""

    #: True where a server computes: the untouched student is then the server's affair, and is not looked at beforehand.
    is_remote: ClassVar[bool] = False
    #: Which is taken where a matrix names none: of those that can serve the student, the one of the highest rank. One
    #: of rank 0 is never taken by itself.
    rank: ClassVar[int] = 0

    def why_not(self, student: Student) -> str:
        """Why it cannot serve a student on this machine; empty where it can. Imports nothing heavy to find out."""
        return ""

    def why(self, student: Student) -> str:
        """What speaks for it, in words; empty where nothing does but that others cannot serve."""
        return ""

    def resources(self, student: Student) -> Resources:
        """What sampling a student needs."""
        return student.resources()

    @abstractmethod
    def open(
        self, student: Student, built: Path | None, checkpoints: Sequence[Checkpoint], context: Context
    ) -> AbstractContextManager[EngineSession]:
        """Loads the student once, for all its checkpoints.

        Args:
            student: The student.
            built: The folder its own stage made; None where there is none.
            checkpoints: Every checkpoint that will be asked for, so that limits can be set; a spoiled one among them
                is no reason to fail: `prepare` refuses it by name.
            context: What to work with; `work` is the session's own and stays for its next run.
        """


class Handle(Protocol):
    """A job under way."""

    @property
    def exit_code(self) -> int | None:
        """The exit code once it has ended; negative for a signal, None while it runs."""

    def receive(self) -> list[Mapping[str, Any]]:
        """The messages that came since the last call, without waiting."""

    def fileno(self) -> int:
        """A descriptor to wait on for messages."""

    def alive(self) -> bool:
        """Whether the job is still running."""

    def terminate(self, patience: float = 5.0) -> None:
        """Ends the job and everything it started; returns when it is gone."""


class Launcher(Component):
    """Where stages run."""

    @abstractmethod
    def capacity(self) -> Resources:
        """What there is to hand out."""

    @abstractmethod
    def start(self, job: Any, resources: Resources) -> Handle:
        """Starts a `distillbench.run.worker.Job` in a process of its own."""


COMPONENT_KINDS: Mapping[str, type[Component]] = {
    "teacher": Teacher,
    "student": Student,
    "renderer": Renderer,
    "filter": Filter,
    "trainer": Trainer,
    "benchmark": Grader,
    "engine": Engine,
    "launcher": Launcher,
}
