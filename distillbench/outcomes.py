"""The contract every number rests on: each sample gets exactly one outcome, so that outcomes add up to n."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from distillbench.errors import GraderError
from distillbench.records import Completion, Judgement, Problem, Verdict

if TYPE_CHECKING:
    from distillbench.protocols import Benchmark

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

_LOOP_REPEATS = 4
_LOOP_LEAST_TOKENS = 24
_LOOP_LONGEST_PERIOD = 256


def decide(completion: Completion, problem: Problem, benchmark: Benchmark, until: tuple[str, ...] = ()) -> Verdict:
    """Gives a completion its outcome.

    Args:
        completion: Parsed by the renderer.
        problem: What was asked, with its gold answer.
        benchmark: Finds the complete answer and judges it.
        until: The task's stop strings; they apply to the answer part, never inside reasoning.

    Returns:
        The verdict. A grader that fails gives `grader_error`, never `wrong`.
    """
    if completion.reasoning_state == "open":
        return _without_answer(completion, "in_reasoning")
    answer, stopped = cut_at(completion.answer, until)
    ran_on = stopped or completion.finish_reason == "length"
    try:
        extracted = benchmark.extract(answer, problem)
        if extracted is None:
            return _without_answer(completion, "in_answer", stopped=stopped)
        judgement = benchmark.judge(problem, extracted)
        outcome = _judged(judgement)
    except Exception as error:  # a grader may fail in any way, and each is this outcome: shown, bounded, never scored
        return Verdict(GRADER_ERROR, detail=f"{type(error).__name__}: {error}")
    return Verdict(outcome, judgement.detail, extracted, judgement.scores, ran_on=ran_on)


def cut_at(answer: str, until: tuple[str, ...]) -> tuple[str, bool]:
    """Cuts an answer at the first of the stop strings.

    Returns:
        The text before it, and whether one was there.
    """
    places = [place for stop in until if stop and (place := answer.find(stop)) >= 0]
    return (answer[: min(places)], True) if places else (answer, False)


def _judged(judgement: Judgement) -> str:
    if judgement.correct is not None:
        return CORRECT if judgement.correct else WRONG
    score = judgement.scores.get("score")
    if score is None or not math.isfinite(score):
        raise GraderError(f"wanted right, wrong, or a finite `score`; got {dict(judgement.scores)}")
    return GRADED


def _without_answer(completion: Completion, place: str, stopped: bool = False) -> Verdict:
    if completion.finish_reason == "length" and not stopped:
        return Verdict(LOOP if is_loop(completion.token_ids) else TRUNCATED, detail=place)
    return Verdict(UNCLOSED if place == "in_reasoning" else NO_ANSWER)


def is_loop(token_ids: tuple[int, ...]) -> bool:
    """Whether the tail repeats itself: one period, at least 4 times over, at least 24 tokens in all.

    Args:
        token_ids: The completion's T token ids.
    """
    for period in range(1, min(_LOOP_LONGEST_PERIOD, len(token_ids) // _LOOP_REPEATS) + 1):
        span = max(period * _LOOP_REPEATS, _LOOP_LEAST_TOKENS)
        if span > len(token_ids):
            continue
        tail = token_ids[-span:]
        if tail[period:] == tail[:-period]:
            return True
    return False
