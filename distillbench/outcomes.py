"""The contract every number rests on: each sample gets exactly one outcome, so that outcomes add up to n."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from distillbench.errors import GraderError
from distillbench.protocols import Grader, Grading, OneByOne
from distillbench.records import Completion, Judgement, Problem, Verdict

CORRECT = "correct"
WRONG = "wrong"
GRADED = "graded"
NO_ANSWER = "no_answer"
UNCLOSED = "unclosed"
TRUNCATED = "truncated"
LOOP = "loop"
GENERATION_ERROR = "generation_error"
GRADER_ERROR = "grader_error"

#: In the order in which reports show them.
OUTCOMES = (CORRECT, WRONG, GRADED, NO_ANSWER, UNCLOSED, TRUNCATED, LOOP, GENERATION_ERROR, GRADER_ERROR)
#: Says nothing about the model; left out of `scored`.
ERRORS = frozenset({GENERATION_ERROR, GRADER_ERROR})
#: Hold a complete answer.
COMPLETED = frozenset({CORRECT, WRONG, GRADED})

#: Characters of what a grader gave in a message.
_LONGEST_TOLD = 400
_LOOP_REPEATS = 4
_LOOP_LEAST_TOKENS = 24
_LOOP_LONGEST_PERIOD = 256
_CHARACTERS_PER_TOKEN = 4


def decide(completion: Completion, problem: Problem, grader: Grader, until: tuple[str, ...] = ()) -> Verdict:
    """Gives one completion its outcome; see `decide_all`."""
    return next(decide_all([(completion, problem)], grader, OneByOne(grader), until))


def decide_all(
    samples: Iterable[tuple[Completion, Problem]], grader: Grader, grading: Grading, until: tuple[str, ...] = ()
) -> Iterator[Verdict]:
    """Gives every completion its outcome, in their order.

    Args:
        samples: Completions, parsed by the renderer, each with what was asked and its gold answer. Read as far ahead as
            the grading does.
        grader: Finds the complete answers.
        grading: Judges them.
        until: The task's stop strings; they apply to the answer part, never inside reasoning.

    Yields:
        The verdicts. A grader that fails gives `grader_error`, never `wrong`.
    """
    read: deque[Verdict | _Answer] = deque()

    def answers() -> Iterator[tuple[Problem, str]]:
        for completion, problem in samples:
            found = _read(completion, problem, grader, until)
            read.append(found)
            if isinstance(found, _Answer):
                yield problem, found.extracted

    for judgement in grading.judge_all(answers()):
        while isinstance(found := read.popleft(), Verdict):
            yield found
        yield _judged(found, judgement)
    for found in read:
        yield found if isinstance(found, Verdict) else _failed(GraderError("the grader gave no judgement"))


@dataclass(frozen=True, slots=True)
class _Answer:
    """A complete answer that waits for its judgement."""

    extracted: str
    ran_on: bool


def _read(completion: Completion, problem: Problem, grader: Grader, until: tuple[str, ...]) -> Verdict | _Answer:
    """The complete answer that a completion holds, or what it is without one."""
    if completion.reasoning_state == "open":
        return _without_answer(completion, "in_reasoning")
    answer, stopped = cut_at(completion.answer, until)
    try:
        extracted = grader.extract(answer, problem)
    except Exception as error:  # a grader may fail in any way, and each is this outcome: shown, bounded, never scored
        return _failed(error)
    if extracted is None:
        return _without_answer(completion, "in_answer", stopped=stopped)
    return _Answer(extracted, ran_on=stopped or completion.finish_reason == "length")


def cut_at(answer: str, until: tuple[str, ...]) -> tuple[str, bool]:
    """Cuts an answer at the first of the stop strings.

    Returns:
        The text before it, and whether one was there.
    """
    places = [place for stop in until if stop and (place := answer.find(stop)) >= 0]
    return (answer[: min(places)], True) if places else (answer, False)


def _judged(answer: _Answer, judgement: Judgement) -> Verdict:
    try:
        if judgement.error is not None:
            return Verdict(GRADER_ERROR, judgement.error, answer.extracted)
        outcome, scores = _outcome_of(judgement), _numbers(judgement.scores)
    except Exception as error:  # what a plugin gives back may be anything
        return _failed(error)
    return Verdict(outcome, judgement.detail, answer.extracted, scores, answer.ran_on)


def _outcome_of(judgement: Judgement) -> str:
    if judgement.correct is not None:
        return CORRECT if judgement.correct else WRONG
    score = judgement.scores.get("score")
    if score is None or not math.isfinite(score):
        raise GraderError(f"wanted right, wrong, or a finite `score`; got {dict(judgement.scores)}")
    return GRADED


def _numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    """Scores as they are stored.

    Raises:
        GraderError: One is no finite number, of which no mean can be taken.
    """
    odd = {name: value for name, value in scores.items() if not (isinstance(value, Real) and math.isfinite(value))}
    if odd:
        raise GraderError(f"wanted finite numbers as scores; got {odd!r}"[:_LONGEST_TOLD])
    return {str(name): float(value) for name, value in scores.items()}


def _failed(error: Exception) -> Verdict:
    return Verdict(GRADER_ERROR, detail=f"{type(error).__name__}: {error}")


def _without_answer(completion: Completion, place: str, stopped: bool = False) -> Verdict:
    if completion.finish_reason == "length" and not stopped:
        loops = is_loop(completion.token_ids) if completion.token_ids else is_text_loop(completion.text)
        return Verdict(LOOP if loops else TRUNCATED, detail=place)
    return Verdict(UNCLOSED if place == "in_reasoning" else NO_ANSWER)


def is_loop(token_ids: tuple[int, ...]) -> bool:
    """Whether the tail repeats itself: one period, at least 4 times over, at least 24 tokens in all.

    Args:
        token_ids: The completion's T token ids.
    """
    return _repeats(token_ids, _LOOP_LEAST_TOKENS, _LOOP_LONGEST_PERIOD)


def is_text_loop(text: str) -> bool:
    """As `is_loop`, where a server tells no tokens, with a token taken for 4 characters.

    Servers strip white space, and a budget ends anywhere: neither changes that the tail is periodic.
    """
    return _repeats(
        text.rstrip(), _LOOP_LEAST_TOKENS * _CHARACTERS_PER_TOKEN, _LOOP_LONGEST_PERIOD * _CHARACTERS_PER_TOKEN
    )


def _repeats(series: str | tuple[int, ...], least: int, longest: int) -> bool:
    for period in range(1, min(longest, len(series) // _LOOP_REPEATS) + 1):
        span = max(period * _LOOP_REPEATS, least)
        if span > len(series):
            continue
        tail = series[-span:]
        if tail[period:] == tail[:-period]:
            return True
    return False
