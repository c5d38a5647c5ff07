"""How a model is asked, what it says, and what a grader says of that.

Shapes: `T` is a number of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from distillbench.records.traces import FinishReason, Message, Problem, Prompt, ReasoningState

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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

    #: What decides nothing at temperature 0.
    random: ClassVar[frozenset[str]] = frozenset({"temperature", "top_p", "top_k", "min_p", "seed"})

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
class AdapterShape:
    """An adapter that will come, as far as an engine must know it to make room beforehand.

    Attributes:
        rank: The largest rank of any of its modules.
        modules: The last names of the modules that it changes, such as `q_proj`; None for every linear layer but the
            output layer.
    """

    rank: int
    modules: tuple[str, ...] | None = None


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
