"""What an evaluation asks: prompts made once, and the checks that need no training row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from distillbench.errors import StageError
from distillbench.findings import Finding
from distillbench.preflight.lost import lost_message, told_lost
from distillbench.preflight.marks import Bos
from distillbench.preflight.material import Asked, Tallies
from distillbench.protocols import Renderer
from distillbench.records import Message, Prefill, Prompt

#: Prompts kept: the rows of a problem mostly stand near one another.
_KEPT = 4096


class PromptMaker:
    """Makes a renderer's prompts, each once."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        self._made = lru_cache(_KEPT)(self._make)

    def prompt(self, messages: Sequence[Message], prefill: Prefill) -> Prompt | StageError:
        """The prompt, or why there is none."""
        return self._made(tuple(messages), prefill)

    def lost(self, messages: Sequence[Message], prefill: Prefill) -> Message | None:
        """The first message whose text does not stand in the prompt; None where all do, and where there is none."""
        prompt = self.prompt(messages, prefill)
        if isinstance(prompt, StageError) or not self.renderer.needs_tokenizer:
            return None
        return lost_message(self.renderer, messages, prompt)

    def _make(self, messages: tuple[Message, ...], prefill: Prefill) -> Prompt | StageError:
        try:
            return self.renderer.prompt(messages, prefill)
        except StageError as error:
            return error


def check_prompts(renderer: Renderer, maker: PromptMaker, asked: Sequence[Asked]) -> list[Finding]:
    """Prompts that cannot be rendered, leave text out or have a BOS too many or too few, and options at odds."""
    bos = Bos.of(renderer.tokenizer) if renderer.needs_tokenizer else None
    found = [finding for one in asked for finding in _check_evaluation(one, maker, bos)]
    return found + told_of(asked)


def told_of(asked: Sequence[Asked]) -> list[Finding]:
    """What was found of the evaluations themselves: how their options were resolved, and their problems."""
    return [
        Finding(name, text, evaluation=one.evaluation.name)
        for one in asked
        for name, text in (*one.evaluation.findings, *one.findings)
    ]


def _check_evaluation(asked: Asked, maker: PromptMaker, bos: Bos | None) -> list[Finding]:
    tallies, name = Tallies(), asked.evaluation.name
    for problem in asked.problems:
        source = f"problem {problem.problem_id}"
        prompt = maker.prompt(problem.messages, asked.evaluation.prefill)
        if isinstance(prompt, StageError):
            tallies.add("bad_row", "cannot be rendered", source, evaluation=name, detail=str(prompt))
            continue
        if bos is not None:
            bos.check(prompt.input_ids, len(prompt.input_ids), tallies, source, name)
        if lost := maker.lost(problem.messages, asked.evaluation.prefill):
            tallies.add("lost_text", "leave a message out", source, evaluation=name, detail=told_lost(lost))
    return tallies.findings(lambda _: len(asked.problems), f"prompts of {name}")
