"""A small real tokenizer, a small right renderer that faulty ones are made of, and short makers of records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from distillbench.errors import RowError
from distillbench.findings import Finding
from distillbench.preflight import Asked, Trained, check
from distillbench.protocols import Grader, Renderer, Trainer
from distillbench.records import (
    Choice,
    Completion,
    Evaluation,
    Judgement,
    Message,
    Prefill,
    Problem,
    Prompt,
    Rendered,
    Sampling,
    Trace,
)

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
)


@cache
def bpe() -> str:
    """A byte-level vocabulary as JSON, trained once."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    lines = ["user", "assistant", "system", "Monday is six", "think", "Tom has 6 coins.\n\nHow many? \\boxed{5}"] * 5
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False))
    return made.to_str()


def tokenizer(adds_bos: bool = False, **more: Any) -> Any:
    """A fast tokenizer with ChatML's and the reasoning tokens, as Qwen3 has them; `<s>` only where it is asked for."""
    from tokenizers import AddedToken, Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer.from_str(bpe())
    made.add_special_tokens(SPECIAL)
    made.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ("<think>", "</think>")])
    if adds_bos:
        made.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", made.token_to_id("<s>"))])
    fields = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": TEMPLATE} | more
    return PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False, **fields)


@dataclass(frozen=True)
class ChatOptions:
    """Options of the test renderer.

    Attributes:
        system: A system prompt where there is none.
        default: What the template itself says where there is none.
        reasoning: As in the built-in renderers.
        given: What stands in the assistant's turn without loss.
        bos: Text in front of everything.
    """

    system: str | None = None
    default: str | None = None
    reasoning: str = "native"
    given: str = ""
    bos: str = ""


class Chat(Renderer[ChatOptions]):
    """ChatML, right in every respect."""

    name = "chat"

    def text(self, text: str) -> list[int]:
        ids: list[int] = []
        for character_run in text.replace("think>", "think\0>").split("\0"):
            ids += self.tokenizer.encode(character_run, add_special_tokens=False, split_special_tokens=True)
        return ids

    def marked(self, text: str) -> list[int]:
        """Tokens of our own text, control tokens included."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def stop_token_ids(self) -> tuple[int, ...]:
        return tuple(self.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]))

    def prompt(self, messages: Sequence[Message], prefill: Prefill = "auto") -> Prompt:
        filled = self.options.system or self.options.default
        if filled and (not messages or messages[0].role != "system"):
            messages = (Message("system", filled), *messages)
        given = {"auto": self.options.given, "none": "", "think": "<think>\n"}[prefill]
        ids = self.marked(self.options.bos)
        for message in messages:
            ids += [*self.marked(f"<|im_start|>{message.role}\n"), *self.text(message.content)]
            ids += self.marked("<|im_end|>\n")
        ids += self.marked("<|im_start|>assistant\n") + self.marked(given)
        return Prompt(np.array(ids, dtype=np.int32), given)

    def response(self, trace: Trace) -> list[int]:
        tag = self.text if self.options.reasoning == "text" else self.marked
        ids: list[int] = []
        if trace.reasoning is not None and self.options.reasoning != "strip":
            ids = tag("<think>\n") if "<think>" not in self.options.given else []
            ids += self.text(trace.reasoning)
            if trace.finish_reason == "length" and not trace.answer:
                return ids
            ids += [*tag("\n</think>\n\n")]
        ids += self.text(trace.answer)
        return ids if trace.finish_reason == "length" else [*ids, *self.marked("<|im_end|>")]

    def render(self, trace: Trace) -> Rendered:
        prompt, response = self.prompt(trace.problem.messages).input_ids, self.response(trace)
        return Rendered(
            np.concatenate([prompt, np.array(response, dtype=np.int32)]),
            np.repeat([False, True], [len(prompt), len(response)]),
        )

    def parse(self, token_ids: Any, text: str, finish_reason: Any, prefill: str) -> Completion:
        raise NotImplementedError("a preflight parses nothing")


class Boxed(Grader):
    """Looks for a box."""

    name = "boxed"

    def extract(self, answer: str, problem: Problem) -> str | None:
        return answer if "\\boxed{" in answer else None

    def judge(self, problem: Problem, extracted: str) -> Judgement:
        raise NotImplementedError("a preflight grades nothing")


class Fits(Trainer):
    """A trainer of which a preflight asks its limits."""

    name = "fits"

    def __init__(self, limit: int | None = None, masks_pad: bool = False) -> None:
        super().__init__(None)
        self.limit = limit
        self.masks_pad_token = masks_pad  # type: ignore[misc]

    def max_length(self) -> int | None:
        return self.limit

    def checkpoint_steps(self, counts: Any) -> tuple[int, ...] | None:
        raise NotImplementedError("a preflight trains nothing")

    def train(self, job: Any, context: Any) -> Any:
        raise NotImplementedError("a preflight trains nothing")


def bound(kind: type[Renderer] = Chat, tokens: Any = None, **options: Any) -> Any:
    return kind(ChatOptions(**options)).bind(tokens or tokenizer())


def problem(question: str = "Tom has 6 coins?", system: str | None = None, number: int = 0) -> Problem:
    said = (Message("system", system),) if system is not None else ()
    return Problem(f"coins/{number}", "coins", (*said, Message("user", question)), "5")


def trace(
    reasoning: str | None = "Mon 6",
    answer: str = "\\boxed{5}",
    finish_reason: str = "stop",
    number: int = 0,
    asked: Problem | None = None,
) -> Trace:
    asked = asked or problem(f"Tom has {number} coins?")
    return Trace(asked, reasoning, answer, finish_reason, None, "made", f"row {number}")  # type: ignore[arg-type]


def traces(n: int, **more: Any) -> list[Trace]:
    return [trace(number=number, **more) for number in range(n)]


def evaluation(name: str = "coins", prefill: Prefill = "auto", max_tokens: int = 512) -> Evaluation:
    return Evaluation(
        name=name,
        task="coins",
        task_path=Path("coins.yaml"),
        sampling=Sampling(max_tokens=max_tokens),
        prefill=prefill,
        repeats=1,
        limit=None,
        subset="first",
        until=(),
        sample_identity="s",
        grade_identity="g",
        n_docs=None,
        grader=Choice("benchmark", "boxed", "boxed", None, "{}"),
    )


def asks(
    *evaluations: Evaluation, problems: Sequence[Problem] | None = None, grader: Grader | None = None
) -> list[Asked]:
    chosen = evaluations or (evaluation(),)
    shown = [problem("How many?")] if problems is None else problems
    return [Asked(one, grader or Boxed(None), shown) for one in chosen]


def trained(made: Sequence[Trace], **more: Any) -> Trained:
    return replace(Trained(made, True, Fits(), 0.0), **more)


def names(found: Sequence[Finding]) -> list[str]:
    return [one.name for one in found]


def find(renderer: Renderer, made: Sequence[Trace], asked: Sequence[Asked] | None = None, **more: Any) -> list[Finding]:
    """What `check` finds in training rows."""
    return check(renderer, asks() if asked is None else asked, trained(made, **more))


def only(found: Sequence[Finding], name: str) -> Finding:
    """The one finding of this name, when there is no other."""
    assert names(found) == [name], found
    return found[0]


class FailsOn(Chat):
    """Cannot render a row whose answer says so; a chunk with one fails as a whole."""

    def render(self, trace: Trace) -> Rendered:
        if "bad" in trace.answer:
            raise RowError(f"{trace.source}: it says bad")
        return super().render(trace)
