"""The `r1-distill` renderer: DeepSeek-R1-Distill models, on the Qwen and on the Llama vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from distillbench.hookspecs import hookimpl
from distillbench.protocols import Renderer
from distillbench_plugins.renderers.chat import ChatOptions, ChatRenderer


@dataclass(frozen=True)
class R1DistillOptions(ChatOptions):
    """Options of the `r1-distill` renderer."""


class R1DistillRenderer(ChatRenderer[R1DistillOptions]):
    r"""DeepSeek-R1-Distill: the prompt opens the thinking block.

    The prompt ends with `<think>\n`, without loss; the response is `{reasoning}\n</think>\n\n{answer}` and the end
    token. We differ from the official template on purpose. It drops the reasoning of every turn, the last one too, so
    that it cannot make a training row at all. And with `reasoning: text` or `strip` our prompt ends before `<think>\n`:
    a row whose open block is never used or closed would teach answers inside reasoning.

    Source: the chat templates of deepseek-ai/DeepSeek-R1-Distill-Qwen-32B and DeepSeek-R1-Distill-Llama-8B.
    """

    name = "r1-distill"
    templates = frozenset({"56a1447ad31926fd"})
    tokens = ("<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")  # noqa: RUF001


@hookimpl
def distillbench_renderers() -> Iterable[type[Renderer]]:
    """DeepSeek-R1-Distill."""
    return [R1DistillRenderer]
