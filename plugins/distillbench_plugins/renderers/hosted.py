"""The `hosted` renderer: for models behind a chat API, which makes the prompt's tokens itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distillbench.errors import RowError, StageError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Renderer
from distillbench.records import Completion, FinishReason, Message, Prefill, Prompt, Rendered, Trace
from distillbench_plugins.renderers.base import begun_turn, check_tags_option
from distillbench_plugins.renderers.reasoning import PARSER_VERSION, TAGS, split_reasoning

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class HostedRendererOptions:
    """Options of the `hosted` renderer.

    Attributes:
        reasoning_tags: What opens and what closes the model's reasoning, where that is none of the known formats, which
            are found in any case.
    """

    reasoning_tags: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        """Checks the options."""
        check_tags_option(self.reasoning_tags)


class HostedRenderer(Renderer[HostedRendererOptions]):
    """For models behind a chat API: the server makes the prompt's tokens, and reasoning is found in what it sends.

    Reasoning that a server sends apart from the answer comes here in one text with it, from which it is taken unchanged
    (see the `api` engine).
    """

    name = "hosted"
    parser_version = PARSER_VERSION
    needs_tokenizer = False

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """There is none.

        Raises:
            StageError: Always.
        """
        raise StageError(
            f"renderer {self.name!r} has no tokenizer: the server makes the tokens, so that there are no training rows "
            f"and no tokens to look at\n"
            f"    hint: a hosted model is evaluated untouched; to train, name a student with weights, such as `hf`"
        )

    def show(self, prompt: Prompt) -> str:
        """Nothing: how the server writes the messages is not known."""
        return ""

    def reasoning_tags(self) -> tuple[str, str]:
        """The tags of the options; other known formats are found as well."""
        return self.options.reasoning_tags or TAGS

    def reasoning_told(self) -> str:
        """The tags, and that others are known."""
        return f"{super().reasoning_told()}, in any other known format, or sent apart"

    def stop_token_ids(self) -> tuple[int, ...]:
        """None: the server knows what ends a turn."""
        return ()

    def render(self, trace: Trace) -> Rendered:
        """There are no training rows.

        Raises:
            RowError: Always.
        """
        raise RowError(
            f"{trace.source}: renderer {self.name!r} makes no training rows, because it has no tokenizer\n"
            f"    hint: name the renderer of the student's family"
        )

    def prompt(self, messages: Sequence[Message], prefill: Prefill = "auto") -> Prompt:
        """A prompt without tokens: the engine sends the messages.

        Raises:
            StageError: Something would have to stand in the assistant's turn, which chat APIs do not continue.
        """
        import numpy as np

        begun = begun_turn(messages)[1]
        if prefill == "think" or begun:
            wanted = "`prefill: think`" if prefill == "think" else f"the task's `gen_prefix` ({begun[:40]!r})"
            raise StageError(
                f"renderer {self.name!r}: {wanted} begins the assistant's turn, and a chat API answers with a turn of "
                f"its own instead of continuing one\n"
                f"    hint: leave it out, or evaluate a student with a tokenizer by `engine: {{api: {{mode: tokens}}}}`"
            )
        return Prompt(np.array([], dtype=np.int32), "")

    def parse(self, token_ids: Sequence[int], text: str, finish_reason: FinishReason, prefill: str) -> Completion:
        """Splits a completion where its reasoning ends."""
        reasoning, answer, state = split_reasoning(prefill + text, finish_reason, self.reasoning_tags())
        return Completion(text, tuple(token_ids), finish_reason, prefill, reasoning, answer, state)


@hookimpl
def distillbench_renderers() -> Iterable[type[Renderer]]:
    """The renderer of models behind an API."""
    return [HostedRenderer]
