"""The reasoning structure that a row teaches: opened once, not empty, closed once."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from distillbench.preflight.material import RenderedRow, Tallies, begins_with
from distillbench.preflight.show import decoded, excerpt
from distillbench.records import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WHAT = {
    "doubled_tag": "open their reasoning a second time before they close it",
    "orphan_tag": "close reasoning that is not open, or never close it",
    "empty_reasoning": "teach an empty reasoning block",
}


def check_tags(
    row: RenderedRow, prompt: Prompt | None, tags: tuple[str, str], tokenizer: PreTrainedTokenizerBase, tallies: Tallies
) -> None:
    """Looks at what stands in the assistant's turn of a row.

    Args:
        row: With loss.
        prompt: What training has without loss; None where it cannot be made.
        tags: What opens and what closes reasoning.
        tokenizer: The student's.
        tallies: Where to count what is found.
    """
    turn, masked = _turn(row, prompt, tokenizer)
    for name, place in wrong_tags(turn, masked, tags, row.is_complete).items():
        tallies.add(name, _WHAT[name], row.trace.source, partial(_shown, turn, place))


def wrong_tags(turn: str, masked: int, tags: tuple[str, str], is_complete: bool) -> dict[str, int]:
    """What is wrong with the tags of an assistant's turn.

    Only a tag that carries loss can be wrong. A tag that stands in code or between backticks outside reasoning, or
    directly between two backticks anywhere, is text.

    Args:
        turn: The turn, end-of-turn token excluded.
        masked: How many of its characters carry no loss.
        tags: What opens and what closes reasoning.
        is_complete: False where the teacher was cut off, so that reasoning may stay open.

    Returns:
        By the finding's name, the place of the first tag concerned.
    """
    found: dict[str, int] = {}
    opened: re.Match[str] | None = None
    answer = 0  # where the text began that is no reasoning
    for tag in re.finditer("|".join(map(re.escape, tags)), turn):
        if _is_text(turn, tag, None if opened else answer):
            continue
        wrong = _wrong(turn, tag, opened, is_opening=tag.group() == tags[0])
        if wrong and tag.end() > masked:
            found.setdefault(wrong, tag.start())
        opened, answer = (tag, answer) if tag.group() == tags[0] else (None, tag.end())
    if opened is not None and is_complete:
        found.setdefault("orphan_tag", opened.start())
    return found


def _wrong(turn: str, tag: re.Match[str], opened: re.Match[str] | None, is_opening: bool) -> str | None:
    if is_opening:
        return None if opened is None else "doubled_tag"
    if opened is None:
        return "orphan_tag"
    return None if turn[opened.end() : tag.start()].strip() else "empty_reasoning"


def _is_text(turn: str, tag: re.Match[str], answer: int | None) -> bool:
    """Whether a tag is quoted; `answer` is where the text began that it stands in, None inside reasoning."""
    start, stop = tag.span()
    if turn[:start].endswith("`") and turn[stop : stop + 1] == "`":
        return True
    if answer is None:
        return False
    before = turn[answer:start]
    if before.count("```") % 2:
        return True
    line = before.rpartition("\n")[2].replace("```", "")
    return line.count("`") % 2 == 1 and "`" in turn[stop:].partition("\n")[0]


def _turn(row: RenderedRow, prompt: Prompt | None, tokenizer: PreTrainedTokenizerBase) -> tuple[str, int]:
    """The text of the assistant's turn, and how many of its characters carry no loss."""
    stop = len(row.input_ids) - (1 if row.is_complete else 0)  # without the end-of-turn token
    response = decoded(tokenizer, row.input_ids[row.start : stop].tolist())
    if prompt is None or not begins_with(row.input_ids, prompt.input_ids):
        return response, 0
    written = len(prompt.input_ids)
    rest = response if written == row.start else decoded(tokenizer, row.input_ids[written:stop].tolist())
    turn = prompt.prefill + rest
    return turn, max(0, len(turn) - len(response))


def _shown(turn: str, place: int) -> str:
    return f"the assistant's turn: {excerpt(turn, place)}"
