"""What every built-in renderer shares: rows made of segments, many at a time, and the parser."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeVar

from distillbench.errors import RowError, StageError
from distillbench.protocols import Renderer
from distillbench.reasoning_formats import format_of
from distillbench.records import Completion, FinishReason, Message, Prefill, Prompt, Rendered, Trace
from distillbench.traces import why_unusable
from distillbench_plugins.renderers.reasoning import PARSER_VERSION, TAGS, split_reasoning
from distillbench_plugins.renderers.tokenise import Segment, Tokeniser

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

Reasoning = Literal["native", "text", "strip"]

#: Rows whose texts are tokenised together: enough for every core of the slower way, little enough for memory.
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Start:
    """What stands before a response.

    Attributes:
        segments: Of the prompt, all of it.
        prefill: The text in the assistant's turn.
        is_open: Whether reasoning is open there.
    """

    segments: list[Segment]
    prefill: str
    is_open: bool


class HasReasoning(Protocol):
    """Options that say what becomes of reasoning."""

    @property
    def reasoning(self) -> Reasoning:
        """Whether it is trained in the student's own block, as text, or not at all."""


RowOptionsT_co = TypeVar("RowOptionsT_co", bound=HasReasoning, covariant=True)


class SegmentRenderer(Renderer[RowOptionsT_co]):
    r"""A renderer whose rows are lists of segments: ids of control tokens, and texts each tokenised on its own.

    The prompt and the response are never tokenised together, in training as in evaluation: `<think>\n` and `\nOkay`
    stay apart, where one text of them would have one token for both line breaks, which a prefilled model cannot write.
    """

    parser_version = PARSER_VERSION
    _tokeniser: Tokeniser

    def bind(self, tokenizer: PreTrainedTokenizerBase) -> Self:
        """A copy that uses this tokenizer.

        Raises:
            StageError: The tokenizer lacks something that this renderer needs.
        """
        bound = super().bind(tokenizer)
        bound._tokeniser = Tokeniser(tokenizer, f"renderer {self.name!r}")
        return bound

    def tokenising(self) -> str:
        """Which library makes the tokens, and why it is the slower one where it is."""
        return self._tokeniser.how()

    def reasoning_tags(self) -> tuple[str, str]:
        """What opens and what closes reasoning."""
        return TAGS

    @abstractmethod
    def end_token_id(self) -> int:
        """The token that ends a response."""

    @abstractmethod
    def starts(self, conversations: Sequence[Sequence[Message]], prefill: Prefill) -> list[Start]:
        """What stands before the response to each conversation."""

    def prompt(self, messages: Sequence[Message], prefill: Prefill = "auto") -> Prompt:
        """The tokens a student is asked to continue; a last message of the assistant is left open."""
        _ = self.tokenizer  # refuses use before `bind`
        [start] = self.starts([messages], prefill)
        [ids] = self._tokeniser.encode_rows([start.segments])
        return Prompt(ids, start.prefill)

    def render(self, trace: Trace) -> Rendered:
        """A training row: `input_ids` int32[T] and `loss_mask` bool[T].

        Raises:
            RowError: The trace is unusable, or the chat template refuses its messages.
        """
        return self.render_all([trace])[0]

    def render_all(self, traces: Sequence[Trace]) -> list[Rendered]:
        """The rows of many traces, tokenised in batches; as `render` gives them one by one."""
        _ = self.tokenizer  # refuses use before `bind`
        chunks = [traces[begin : begin + _CHUNK] for begin in range(0, len(traces), _CHUNK)]
        return [row for chunk in chunks for row in self._rows(chunk)]

    def parse(self, token_ids: Sequence[int], text: str, finish_reason: FinishReason, prefill: str) -> Completion:
        """Splits a completion; what was prefilled belongs to the assistant's turn as much as what was written."""
        tags, meant = self.reasoning_tags(), self._meant(token_ids, text, prefill)
        reasoning, answer, state = split_reasoning(prefill + text, finish_reason, tags, meant)
        return Completion(text, tuple(token_ids), finish_reason, prefill, reasoning, answer, state)

    def _meant(self, token_ids: Sequence[int], text: str, prefill: str) -> list[bool] | None:
        """For each text of the closing tag in the turn, whether it is the token; None where there is no such token."""
        closing = self.reasoning_tags()[1]
        number = None if self._tokenizer is None else self._tokeniser.control_ids.get(closing)
        if number is None or number not in token_ids:
            return None
        given, tokens = [True] * prefill.count(closing), list(token_ids)
        if text.count(closing) == tokens.count(number):
            return given + [True] * tokens.count(number)
        found: list[bool] = []
        while number in tokens:
            place = tokens.index(number)
            found += [False] * self._spelled(tokens[:place], closing) + [True]
            tokens = tokens[place + 1 :]
        found += [False] * self._spelled(tokens, closing)
        return given + found if len(found) == text.count(closing) else None

    def _spelled(self, tokens: list[int], closing: str) -> int:
        """How often tokens spell a tag."""
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text.count(closing)

    def _rows(self, traces: Sequence[Trace]) -> list[Rendered]:
        for trace in traces:
            if reason := why_unusable(trace):
                raise RowError(f"{trace.source}: {reason}")
        starts = self._starts_of(traces)
        responses = [self._response(trace, start) for trace, start in zip(traces, starts, strict=True)]
        ids = self._tokeniser.encode_rows([*(start.segments for start in starts), *responses])
        return [_row(*both) for both in zip(ids[: len(traces)], ids[len(traces) :], strict=True)]

    def _starts_of(self, traces: Sequence[Trace]) -> list[Start]:
        try:
            return self.starts([trace.problem.messages for trace in traces], "auto")
        except StageError as error:
            if len(traces) == 1:
                raise RowError(f"{traces[0].source}: {error}") from error
        return [start for trace in traces for start in self._starts_of([trace])]  # raises for the one at fault

    def _response(self, trace: Trace, start: Start) -> list[Segment]:
        """What carries loss: reasoning as the options say, answer, end-of-turn token.

        A trace that its teacher's budget cut off ends where it was cut: no closing tag is made up and no end-of-turn
        token is trained. Blank reasoning is none, and no block is made up for it; only where the prompt has opened
        one is it closed at once.
        """
        mode = self.options.reasoning
        is_cut = trace.finish_reason == "length"
        end: list[Segment] = [] if is_cut else [self.end_token_id()]
        reasoning = trace.reasoning if trace.reasoning and trace.reasoning.strip() else ""
        answer = trace.answer
        if mode == "strip" or not (reasoning or start.is_open):
            return [answer, *end]
        opening, closing = self.reasoning_tags()
        after, before, beyond = format_of((opening, closing)).breaks
        is_left_open = is_cut and not answer.strip()
        if mode == "text":  # the tag and its line break stand alone, as they do where they are prefilled
            block = f"{reasoning}{before}{closing}{beyond}{answer}"
            return [f"{opening}{after}", reasoning if is_left_open else block, *end]
        begin = [] if start.is_open else self._tokeniser.split(f"{opening}{after}")
        if is_left_open:
            return [*begin, reasoning]
        return [*begin, f"{reasoning}{before}", *self._tokeniser.split(f"{closing}{beyond}"), answer, *end]


def check_tags_option(tags: tuple[str, str] | None) -> None:
    """Checks the option `reasoning_tags`.

    Raises:
        ValueError: The tags cannot be told apart.
    """
    opening, closing = (tag.strip() for tag in tags or TAGS)
    if not opening or not closing or opening in closing or closing in opening:
        raise ValueError(f"reasoning_tags {list(tags or TAGS)}: two texts are wanted, neither of them within the other")


def begun_turn(messages: Sequence[Message]) -> tuple[Sequence[Message], str]:
    """What is asked, and the beginning of the assistant's turn: a last message of the assistant, or nothing."""
    if messages and messages[-1].role == "assistant":
        return messages[:-1], messages[-1].content
    return messages, ""


def _row(prompt: NDArray[np.int32], response: NDArray[np.int32]) -> Rendered:
    import numpy as np

    mask = np.ones(len(prompt) + len(response), dtype=np.bool_)
    mask[: len(prompt)] = False
    return Rendered(np.concatenate([prompt, response]), mask)
