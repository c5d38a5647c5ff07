"""The `llama3` renderer: Llama 3.1, 3.2 and 3.3 Instruct."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from distillbench.hookspecs import hookimpl
from distillbench.protocols import Renderer
from distillbench_plugins.renderers.base import Reasoning
from distillbench_plugins.renderers.chat import ChatOptions, ChatRenderer


@dataclass(frozen=True)
class Llama3Options(ChatOptions):
    """Options of the `llama3` renderer.

    Attributes:
        reasoning: `text` trains on the teacher's reasoning between `<think>` tags of plain text, `strip` on the answer
            alone. There is no `native`: the vocabulary has no think tokens.
        date: The date that the template writes into every system prompt.
    """

    reasoning: Reasoning = "text"
    date: str = "26 Jul 2024"

    def __post_init__(self) -> None:
        """Checks the options."""
        if self.reasoning == "native":
            raise ValueError("reasoning: native needs think tokens, which Llama 3 has not; set text or strip")


class Llama3Renderer(ChatRenderer[Llama3Options]):
    """Llama 3.1, 3.2 and 3.3 Instruct, with a pinned date.

    The 3.2 template writes today's date unless it is given one, so that rows and prompts would change overnight; the
    date is an option here, and its default is what the 3.1 template writes.

    Source: the chat templates of meta-llama/Llama-3.1-8B-Instruct and meta-llama/Llama-3.2-3B-Instruct.
    """

    name = "llama3"
    templates = frozenset({"93c0e9aa3629bbd7", "d82792f95932f1c9"})
    tokens = ("<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>")
    other_stops = ("<|end_of_text|>", "<|eom_id|>")

    def template_options(self) -> Mapping[str, Any]:
        """The pinned date."""
        return {"date_string": self.options.date}


@hookimpl
def distillbench_renderers() -> Iterable[type[Renderer]]:
    """Llama 3."""
    return [Llama3Renderer]
