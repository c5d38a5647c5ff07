"""What an evaluation asks: prompts made once, and the checks that need no training row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from distillbench.errors import StageError
from distillbench.findings import Finding
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

    def _make(self, messages: tuple[Message, ...], prefill: Prefill) -> Prompt | StageError:
        try:
            return self.renderer.prompt(messages, prefill)
        except StageError as error:
            return error


def check_prompts(renderer: Renderer, maker: PromptMaker, asked: Sequence[Asked]) -> list[Finding]:
    """Prompts that cannot be rendered, those with a BOS too many or too few, and options that contradict each other."""
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
        elif bos is not None:
            bos.check(prompt.input_ids, len(prompt.input_ids), tallies, source, name)
    return tallies.findings(lambda _: len(asked.problems), f"prompts of {name}")
