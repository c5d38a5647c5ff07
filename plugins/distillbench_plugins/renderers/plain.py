"""The `plain` renderer: a prompt and its continuation, without any chat format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from distillbench.errors import StageError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Renderer
from distillbench.records import Message, Prefill
from distillbench_plugins.renderers.base import Reasoning, SegmentRenderer, Start, begun_turn
from distillbench_plugins.renderers.tokenise import Beginning, Segment

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class PlainOptions:
    r"""Options of the `plain` renderer.

    Attributes:
        separator: What stands between the prompt and its continuation.
        reasoning: `text` trains on the teacher's reasoning between tags of plain text, `strip` on the answer alone.
            There is no `native`: a thinking block belongs to a chat format.
    """

    separator: str = "\n"
    reasoning: Reasoning = "text"

    def __post_init__(self) -> None:
        """Checks the options."""
        if self.reasoning == "native":
            raise ValueError("reasoning: native belongs to a chat format, which plain has not; set text or strip")


class PlainRenderer(SegmentRenderer[PlainOptions]):
    r"""A prompt and its continuation: what a base model without a chat template is trained on.

    The prompt is the text of all messages, an empty line between them, and the separator; the response is
    `<think>\n{reasoning}\n</think>\n\n{answer}` and the end-of-sequence token. The beginning-of-sequence token stands
    in front where the tokenizer itself puts one there.
    """

    name = "plain"
    is_plain = True
    _bos: tuple[int, ...]

    def bind(self, tokenizer: PreTrainedTokenizerBase) -> Self:
        """A copy that uses this tokenizer.

        Raises:
            StageError: The tokenizer has no end-of-sequence token.
        """
        bound = super().bind(tokenizer)
        if tokenizer.eos_token_id is None:
            raise StageError(
                f"renderer {self.name!r}: the student's tokenizer has no end-of-sequence token, so that nothing would "
                f"end a response\n"
                f"    hint: set the tokenizer's `eos_token`"
            )
        first = list(tokenizer("a")["input_ids"])[:1]
        bound._bos = tuple(first) if first == [tokenizer.bos_token_id] else ()
        return bound

    def end_token_id(self) -> int:
        """The end-of-sequence token."""
        eos: int = self.tokenizer.eos_token_id
        return eos

    def stop_token_ids(self) -> tuple[int, ...]:
        """The end-of-sequence token."""
        return (self.end_token_id(),)

    def starts(self, conversations: Sequence[Sequence[Message]], prefill: Prefill) -> list[Start]:
        """What stands before the response to each conversation."""
        return [self._start(messages, prefill) for messages in conversations]

    def _start(self, messages: Sequence[Message], prefill: Prefill) -> Start:
        asked, begun = begun_turn(messages)
        text = "\n\n".join(message.content for message in asked) + self.options.separator
        turn = f"{self.reasoning_tags()[0]}\n" if prefill == "think" else ""
        segments: list[Segment] = [*self._bos, Beginning(text), *self._tokeniser.split(turn)]
        return Start([*segments, begun] if begun else segments, turn + begun, is_open=bool(turn))


@hookimpl
def distillbench_renderers() -> Iterable[type[Renderer]]:
    """No chat format."""
    return [PlainRenderer]
