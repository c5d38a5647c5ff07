"""Where training's prompt ends and the response begins: evaluation must ask with the same tokens, id for id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distillbench.preflight.material import RenderedRow, begins_with, same_ids
from distillbench.preflight.show import Side, aligned, compared, first_difference, quoted
from distillbench.records import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def wrong_prompt(row: RenderedRow, prompt: Prompt, auto: Prompt | None, opening: str | None) -> str | None:
    """What is wrong with what evaluation sends for the messages of a row.

    Nothing is, when the row begins with the prompt and the prompt with everything that training gives without loss.
    A prompt may go on into what training wrote itself (a prefilled tag). Loss that begins inside the prompt that
    training has by its own account (`auto`) is wrong too: the student would be taught to write its own questions.

    Args:
        row: With loss.
        prompt: What evaluation sends.
        auto: What the renderer says that training gives; None where it cannot be made.
        opening: The tag that opens reasoning; None where there is none.

    Returns:
        `prompt_mismatch`, `prefilled_tag`, or None.
    """
    goes_on = begins_with(prompt.input_ids, row.masked)
    if begins_with(row.input_ids, prompt.input_ids) and goes_on:
        return "prompt_mismatch" if auto is not None and row.start < len(auto.input_ids) else None
    is_tag = bool(opening) and str(opening) in prompt.prefill
    return "prefilled_tag" if is_tag and goes_on and same_ids(auto, row.masked) else "prompt_mismatch"


def what_is_wrong(name: str, prefill: str) -> str:
    """The sentence of a finding, without how many rows it is about."""
    if name == "prefilled_tag":
        return f"never wrote the reasoning tag that evaluation puts before the response (`prefill: {prefill}`)"
    return f"have another prompt than evaluation sends for the same messages (`prefill: {prefill}`)"


def told_boundary(name: str, row: RenderedRow, prompt: Prompt) -> str:
    """What the difference means for the student."""
    if name == "prefilled_tag":
        return (
            f"Evaluation writes {quoted(prompt.prefill)} for the student and lets it go on from there. In training "
            "these tokens never came, so the student begins in a place that it does not know; mostly it opens its "
            "reasoning once more and loops."
        )
    place = first_difference(row.input_ids, prompt.input_ids)
    if place < min(row.start, len(prompt.input_ids)):
        return "The student is asked in tokens that it did not see in training."
    if len(prompt.input_ids) < row.start:
        return "Evaluation stops short: training gave the student more than this before its response began."
    if place < len(prompt.input_ids):
        return "Evaluation puts tokens before the response that training did not have there."
    return f"Loss begins at token {row.start}, inside the prompt: the student is taught to write its own questions."


def shown_boundary(row: RenderedRow, prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> str:
    """Both sequences around the first difference; where there is none, around the place where loss begins."""
    training = Side("training", row.input_ids, row.start, "loss begins")
    evaluation = Side("evaluation", prompt.input_ids, len(prompt.input_ids), "the model continues here")
    place = first_difference(row.input_ids, prompt.input_ids)
    if place == len(prompt.input_ids) and row.start <= place:
        return aligned(tokenizer, [training, evaluation], row.start)
    return compared(tokenizer, training, evaluation, place)
