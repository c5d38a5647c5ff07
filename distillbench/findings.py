"""What a preflight can find, by name: what it means, and whether it stops a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["refused", "warning"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of finding.

    Attributes:
        severity: `refused` stops a run unless the matrix accepts it by name; a `warning` is only shown.
        summary: What is wrong, in a line.
        advice: What to do about it.
    """

    severity: Severity
    summary: str
    advice: str


#: In the order in which `check` shows them.
KINDS: Mapping[str, Kind] = {
    "bad_row": Kind(
        "refused",
        "a training row or a prompt cannot be rendered",
        "mend or filter the named rows, or choose a renderer that fits the tokenizer",
    ),
    "lost_text": Kind(
        "refused",
        "a prompt leaves out the text of a message: the question, an instruction or an example",
        "give the tokenizer a chat template that writes every message, or set `system_in_user: true`",
    ),
    "prompt_mismatch": Kind(
        "refused",
        "evaluation asks with other tokens than training did for the same messages, or loss begins inside the prompt",
        "use one renderer for both, and `prefill: auto`",
    ),
    "prefilled_tag": Kind(
        "refused",
        "evaluation prefills a reasoning tag that training never wrote",
        "set `prefill: auto` in the evaluation, or `reasoning: native` in the renderer",
    ),
    "doubled_tag": Kind(
        "refused",
        "a training row opens its reasoning twice",
        "remove the tags from the teacher's text: the renderer writes them",
    ),
    "orphan_tag": Kind(
        "refused",
        "a training row closes reasoning that was never opened, or leaves it open",
        "remove the tags from the teacher's text: the renderer writes them",
    ),
    "empty_reasoning": Kind(
        "refused",
        "a training row teaches an empty reasoning block",
        "set `reasoning: strip` (and `thinking: false` where the renderer has it) for a teacher without reasoning",
    ),
    "double_bos": Kind(
        "refused",
        "a row or a prompt holds a second beginning-of-text token",
        "leave the token to the template, or to the tokenizer, not to both",
    ),
    "missing_bos": Kind(
        "refused",
        "a row or a prompt lacks the beginning-of-text token that the tokenizer puts in front",
        "use the renderer of the student's family",
    ),
    "end_without_loss": Kind(
        "refused",
        "the end-of-turn token carries no loss, so that the student never learns to stop",
        "use a renderer whose rows end with one of its own stop tokens, with loss",
    ),
    "end_is_pad": Kind(
        "refused",
        "the end-of-turn token is the pad token, and the trainer leaves that out of the loss",
        "give the tokenizer another pad token, or use a trainer that goes by the loss mask",
    ),
    "no_loss": Kind(
        "refused",
        "a training row carries no loss at all",
        "filter such rows; with `reasoning: strip` a trace that was cut while reasoning has nothing left",
    ),
    "cut_answers": Kind(
        "refused",
        "`max_length` would cut the answer off more training rows than `max_cut` allows",
        "raise max_length, put the filter max_tokens before training, or set `max_cut:` to the share you accept",
    ),
    "one_sided_system": Kind(
        "refused",
        "a system prompt stands on one side only: in training or in evaluation",
        "give the renderer a `system:` prompt, or take it out of the other side",
    ),
    "key_twice": Kind(
        "refused",
        "a task's YAML has a key twice; YAML takes the last one and says nothing",
        "remove the one that is not meant",
    ),
    "unusable_gold": Kind(
        "refused",
        "a benchmark's problem has a gold answer by which no answer can be judged: none, or none of the choices",
        "mend the task or its data; accepted, such problems are grader_errors, never wrong",
    ),
    "own_example": Kind(
        "refused",
        "a benchmark's problem stands among its own few-shot examples, with its answer",
        "draw the examples from another split: `fewshot_split` in the task's YAML",
    ),
    "short_budget": Kind(
        "warning",
        "the evaluation's token budget is below the 90th percentile of the training responses",
        "raise `max_tokens`, or expect many truncated samples",
    ),
    "answer_format": Kind(
        "warning",
        "no kept trace shows the answer format that the benchmark's grader looks for",
        "expect `no_answer`: the student is not taught the format",
    ),
    "greedy_with_temperature": Kind(
        "warning",
        "a task's YAML says `do_sample: false` and a temperature, on which engines disagree; it is sampled greedily",
        "set `temperature` in the evaluation: 0 to mean greedy, or the task's own to sample",
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a preflight found.

    Attributes:
        name: One of `KINDS`.
        text: What was found, with numbers and the source of the first row concerned; further lines explain it.
        shown: Both token sequences around the place; empty where there are none to compare.
        evaluation: The evaluation concerned; empty when it is about training rows alone.
    """

    name: str
    text: str
    shown: str = ""
    evaluation: str = ""

    @property
    def headline(self) -> str:
        """What was found, on one line."""
        return self.text.partition("\n")[0]

    @property
    def kind(self) -> Kind:
        """What sort of finding it is."""
        return KINDS[self.name]
