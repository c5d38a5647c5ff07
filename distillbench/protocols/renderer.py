"""Messages to tokens, and tokens back to reasoning and answer."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Self

from distillbench.protocols.component import Component, OptionsT_co
from distillbench.records import Completion, FinishReason, Message, Prefill, Prompt, Rendered, Trace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Renderer(Component[OptionsT_co]):
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

    def __init__(self, options: OptionsT_co) -> None:
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
