"""Problems, what a teacher says to them, and what a student is trained on and asked.

Shapes: `T` is a number of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length"]
ReasoningState = Literal["absent", "open", "closed"]
Prefill = Literal["auto", "none", "think"]


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
