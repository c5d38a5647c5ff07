"""Renderers of the Qwen family: `qwen3`, `qwen3-base`, `qwen3-instruct-2507` and `qwen3.5`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from distillbench.errors import StageError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Renderer
from distillbench_plugins.renderers.chat import QUESTION, ChatOptions, ChatOptionsT_co, ChatRenderer


@dataclass(frozen=True)
class QwenOptions(ChatOptions):
    """Options of the `qwen3-base` and `qwen3-instruct-2507` renderers."""


@dataclass(frozen=True)
class Qwen3Options(ChatOptions):
    """Options of the `qwen3` and `qwen3.5` renderers.

    Attributes:
        thinking: False for the template's thinking-off mode: an empty thinking block in the prompt, in training as in
            evaluation, and so `reasoning: strip`.
    """

    thinking: bool = True

    def __post_init__(self) -> None:
        """Checks options against each other."""
        if not self.thinking and self.reasoning != "strip":
            raise ValueError(f"thinking: false leaves no place for `reasoning: {self.reasoning}`; set reasoning: strip")


class QwenRenderer(ChatRenderer[ChatOptionsT_co]):
    """ChatML, as all Qwen models have it."""

    tokens = ("<|im_end|>", "<|im_start|>")
    other_stops = ("<|endoftext|>",)


class Qwen3Renderer(QwenRenderer[Qwen3Options]):
    r"""Qwen3 hybrid models: ChatML, and a thinking block that the student writes itself.

    A training row is the official prompt, without loss, and then, with loss,
    `<think>\n{reasoning}\n</think>\n\n{answer}<|im_end|>`. In the response we differ from the official template on
    purpose: it drops the reasoning of a turn that another follows, strips line breaks around it, and writes an empty
    block into a last turn that has none, so that a student would learn to open its reasoning and to think nothing. A
    trace without reasoning has no block here.

    Source: the chat template of Qwen/Qwen3-0.6B.
    """

    name = "qwen3"
    version = 2
    #: Qwen3-0.6B's as first published and as TRL has it, and that of the student `tiny-qwen3`.
    templates = frozenset({"87a2728cb8dc9fe4", "a55ee1b1660128b7", "2bd6de7110984e88"})

    def template_options(self) -> Mapping[str, Any]:
        """The template's own switch."""
        return {"enable_thinking": self.options.thinking}

    def _check(self) -> None:
        super()._check()
        if not self.options.thinking and not self.starts([QUESTION], "auto")[0].prefill:
            raise StageError(
                f"renderer {self.name!r}: `thinking: false` changes nothing, because the chat template has no "
                f"thinking-off mode\n"
                f"    hint: leave `thinking` out, and set `reasoning: strip` to train on answers alone"
            )


class Qwen3BaseRenderer(QwenRenderer[QwenOptions]):
    """Qwen3 base models: the template and the tokens of `qwen3`, and no habit of thinking to switch off.

    Rows are those of `qwen3`. A base model that was never taught to end its turn may end the text instead, so that
    `<|endoftext|>` stops it too.

    Source: the chat template of Qwen/Qwen3-0.6B, which the base models share.
    """

    name = "qwen3-base"


class Qwen3InstructRenderer(QwenRenderer[QwenOptions]):
    """Qwen3-Instruct-2507: ChatML without a thinking mode.

    Its template knows no thinking block, and never writes one. `reasoning: native` teaches one all the same, with the
    think tokens that its vocabulary has; `strip` keeps to what the model does.

    Source: the chat template of Qwen/Qwen3-30B-A3B-Instruct-2507.
    """

    name = "qwen3-instruct-2507"
    templates = frozenset({"64f85b198065d0fb"})


class Qwen35Renderer(Qwen3Renderer):
    r"""Qwen3.5: ChatML whose prompt opens the thinking block.

    The prompt ends with `<think>\n`, without loss; the response is `{reasoning}\n</think>\n\n{answer}<|im_end|>`. We
    differ from the official template as `qwen3` does, and in one thing more: with `reasoning: text` or `strip` the
    prompt ends before `<think>\n`, because a row whose open block is never used or closed would teach answers inside
    reasoning.

    Source: the chat template of Qwen/Qwen3.5-4B.
    """

    name = "qwen3.5"
    version = 1
    templates = frozenset({"a4aee8afcf2e0711"})


@hookimpl
def distillbench_renderers() -> Iterable[type[Renderer]]:
    """Four generations of Qwen."""
    return [Qwen3Renderer, Qwen3BaseRenderer, Qwen3InstructRenderer, Qwen35Renderer]
