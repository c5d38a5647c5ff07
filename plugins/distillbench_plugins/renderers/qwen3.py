"""The `qwen3` renderer: ChatML turns, reasoning in a `<think>` block that the student writes itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from distillbench.errors import StageError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Renderer
from distillbench.records import Completion, FinishReason, Message, Prefill, Prompt, ReasoningState, Rendered, Trace

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

OPEN, CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Qwen3Options:
    """Options of the `qwen3` renderer.

    Attributes:
        system: A system prompt for every conversation that has none; None leaves it out.
        reasoning: `native` trains on the teacher's reasoning as a thinking block; `strip` on its answer alone.
    """

    system: str | None = None
    reasoning: Literal["native", "strip"] = "native"


class Qwen3Renderer(Renderer):
    r"""ChatML as Qwen3 has it, with a thinking block written by the student (no empty block is ever added).

    A training row is `<|im_start|>user\n...<|im_end|>\n<|im_start|>assistant\n`, without loss, and then
    `<think>\n{reasoning}\n</think>\n\n{answer}<|im_end|>`, with loss. A trace that its teacher's budget cut off
    ends where it was cut: no closing tag is made up and no end-of-turn token is trained.

    Source: the chat template of Qwen/Qwen3-0.6B.
    """

    name = "qwen3"
    Options = Qwen3Options
    _vocabulary: Mapping[str, int]

    def bind(self, tokenizer: PreTrainedTokenizerBase) -> Self:
        """A copy that uses this tokenizer; its vocabulary is read once, because reading it is slow."""
        bound = super().bind(tokenizer)
        bound._vocabulary = dict(tokenizer.get_vocab())
        return bound

    def stop_token_ids(self) -> tuple[int, ...]:
        """`<|im_end|>`, and `<|endoftext|>` where the vocabulary has it."""
        return tuple(self._id(token) for token in ("<|im_end|>", "<|endoftext|>") if token in self._vocabulary)

    def render(self, trace: Trace) -> Rendered:
        """A training row: `input_ids` int32[T] and `loss_mask` bool[T]."""
        import numpy as np

        prompt = self.prompt(trace.problem.messages).input_ids
        response = np.array(self._response(trace), dtype=np.int32)
        return Rendered(
            input_ids=np.concatenate([prompt, response]),
            loss_mask=np.repeat([False, True], [len(prompt), len(response)]),
        )

    def prompt(self, messages: Sequence[Message], prefill: Prefill = "none") -> Prompt:
        """The prompt's tokens; a last message of the assistant (lm-eval's `gen_prefix`) is left open and continued."""
        turns, begun = (messages[:-1], messages[-1].content) if messages[-1].role == "assistant" else (messages, "")
        if self.options.system is not None and turns[0].role != "system":
            turns = (Message("system", self.options.system), *turns)
        ids = [token for message in turns for token in self._turn(message)]
        ids += [self._id("<|im_start|>"), *self._text("assistant\n")]
        written = f"{OPEN}\n" if prefill == "think" else ""
        if written:
            ids += [self._id(OPEN), *self._text("\n")]
        return Prompt(_int32([*ids, *self._text(begun)]), written + begun)

    def parse(self, token_ids: Sequence[int], text: str, finish_reason: FinishReason, prefill: str) -> Completion:
        """Splits a completion; what was prefilled belongs to the assistant's turn as much as what was written."""
        reasoning, answer, state = split_reasoning(prefill + text)
        return Completion(text, tuple(token_ids), finish_reason, prefill, reasoning, answer, state)

    def _response(self, trace: Trace) -> list[int]:
        ids: list[int] = []
        is_cut = trace.finish_reason == "length"
        if trace.reasoning is not None and self.options.reasoning == "native":
            ids += [self._id(OPEN), *self._text("\n")]
            if is_cut and not trace.answer:
                return ids + self._text(trace.reasoning)
            ids += [*self._text(trace.reasoning + "\n"), self._id(CLOSE), *self._text("\n\n")]
        ids += self._text(trace.answer)
        return ids if is_cut else [*ids, self._id("<|im_end|>")]

    def _turn(self, message: Message) -> list[int]:
        body = self._text(f"{message.role}\n{message.content}")
        return [self._id("<|im_start|>"), *body, self._id("<|im_end|>"), *self._text("\n")]

    def _id(self, token: str) -> int:
        found = self._vocabulary.get(token)
        if found is None:
            raise StageError(f"renderer {self.name!r}: the student's tokenizer has no token {token!r}")
        return found

    def _text(self, text: str) -> list[int]:
        """Tokens of text that is not ours: the text of a control token in it does not become that token."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return ids


def split_reasoning(turn: str) -> tuple[str | None, str, ReasoningState]:
    """Splits an assistant's turn into reasoning and answer.

    Doubled opening tags count once; an empty pair followed by text and an orphan closing tag is reasoning that the
    template closed too early; several pairs are one reasoning.

    Args:
        turn: Everything in the turn, prefill included, end-of-turn token excluded.

    Returns:
        Reasoning (None when there is none), answer, and `absent`, `open` or `closed`.
    """
    rest = turn.lstrip()
    if not rest.startswith(OPEN):
        return _split_late(rest)
    parts: list[str] = []
    while rest.startswith(OPEN):
        while rest.startswith(OPEN):
            rest = rest.removeprefix(OPEN).lstrip()
        inside, tag, after = rest.partition(CLOSE)
        parts.append(inside.strip())
        if not tag:
            return _joined(parts), "", "open"
        rest = after.lstrip()
        if not parts[-1] and CLOSE in rest and OPEN not in rest.partition(CLOSE)[0]:
            inside, _, after = rest.partition(CLOSE)
            parts.append(inside.strip())
            rest = after.lstrip()
    return _joined(parts), rest.strip(), "closed"


def _split_late(turn: str) -> tuple[str | None, str, ReasoningState]:
    """Splits a turn that does not begin with reasoning: an orphan closing tag, reasoning after some text, or none."""
    before, tag, after = turn.partition(CLOSE)
    if tag and OPEN not in before and not _is_quoted(before):
        return before.strip(), after.strip(), "closed"
    before, tag, after = turn.partition(OPEN)
    if tag and not _is_quoted(before):
        reasoning, answer, state = split_reasoning(OPEN + after)
        return reasoning, _joined([before.strip(), answer]) if state == "closed" else answer, state
    return None, turn.strip(), "absent"


def _is_quoted(before: str) -> bool:
    """Whether a tag that follows this text stands in code."""
    return before.endswith("`") or before.count("```") % 2 == 1


def _joined(parts: list[str]) -> str:
    return "\n".join(part for part in parts if part)


def _int32(ids: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    import numpy as np

    return np.array(ids, dtype=np.int32)


@hookimpl
def distillbench_renderers() -> Iterable[type[Renderer]]:
    """The Qwen3 renderer."""
    return [Qwen3Renderer]
