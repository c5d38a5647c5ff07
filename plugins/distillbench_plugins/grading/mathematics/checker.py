"""Compares many answers, in order: at once where that is possible, else in processes that can be killed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing.connection import wait
from types import TracebackType
from typing import Self

from distillbench.errors import GraderError
from distillbench_plugins.grading.mathematics.exact import is_plain
from distillbench_plugins.grading.mathematics.normal import normalised
from distillbench_plugins.grading.mathematics.pairing import Asked, asked
from distillbench_plugins.grading.mathematics.process import DEFAULT_LIMITS, LimitError, Limits, Question, Worker

#: How many answers are read ahead of one that takes long.
_AHEAD = 256
#: How often a worker's limits are looked at, in seconds.
_LOOK_EVERY = 0.05


class MathChecker:
    """Says whether answers equal gold answers; holds the processes that math-verify runs in until it is closed.

    Args:
        limits: What one answer may take.
        n_workers: How many processes.
        exactly: Whether the verdicts are math-verify's own, its known errors included.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS, n_workers: int = 1, exactly: bool = False) -> None:
        self._exactly = exactly
        self._workers = [Worker(limits) for _ in range(max(1, n_workers))]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all processes."""
        for worker in self._workers:
            worker.stop()

    def is_equal(self, gold: str, answer: str) -> bool:
        """Whether an answer (the content of a box) equals the gold answer.

        Raises:
            GraderError: math-verify raised, or ran into a limit, or cannot read the gold answer.
        """
        found = next(self.compare_all([(gold, answer)]))
        if isinstance(found, GraderError):
            raise found
        return found

    def unreadable(self, golds: Iterable[str | GraderError]) -> Iterator[str | None]:
        """For each gold answer, in order: why no answer can be compared with it; None where one can.

        math-verify is asked whether it equals itself. A plain number needs no asking; what is known to be unusable is
        given as the error that says so.
        """
        for found in self._settle_all(map(_own_question, golds)):
            yield str(found) if isinstance(found, GraderError) else None

    def compare_all(self, pairs: Iterable[tuple[str | GraderError, str]]) -> Iterator[bool | GraderError]:
        """For each (gold answer, answer), in order: whether they are equal, or why nobody knows.

        A gold answer that is known to be unusable is given as the error that says so.
        """
        question = _exact_question if self._exactly else _question
        return self._settle_all(question(gold, answer) for gold, answer in pairs)

    def _settle_all(self, questions: Iterable[Question]) -> Iterator[bool | GraderError]:
        waiting: deque[Question] = deque()
        try:
            for question in questions:
                waiting.append(question)
                if question.found is None:
                    self._hand_out(question)
                while len(waiting) > _AHEAD and waiting[0].found is None:
                    self._look()
                yield from _settled(waiting)
            while waiting:
                self._look()
                yield from _settled(waiting)
        finally:
            for worker in self._workers:
                if worker.question is not None:  # nobody waits for it any more
                    worker.stop()

    def _hand_out(self, question: Question) -> None:
        while (idle := next((worker for worker in self._workers if worker.question is None), None)) is None:
            self._look()
        idle.ask(question)

    def _look(self) -> None:
        """Waits for a moment, or until a worker has something to say."""
        busy = [worker for worker in self._workers if worker.question is not None]
        ready = wait([worker.replies for worker in busy], _LOOK_EVERY) if busy else []
        for worker in busy:
            question = worker.question
            worker.look(worker.replies in ready)
            if question is not None and question.found is not None and goes_on(question):
                worker.ask(question)


def goes_on(question: Question) -> bool:
    """Whether something else has to be asked: at a limit, whether the answer is to blame.

    An answer that cannot be computed alone, beside a gold answer that can, is wrong: it costs its sample and no other.
    """
    if isinstance(question.found, LimitError) and question.about == "equality":
        question.about, question.error, question.found = "costs", question.found, None
    elif question.about == "costs" and isinstance(question.found, GraderError):
        question.about, question.found = "gold costs", None
    elif question.about in ("costs", "gold costs"):
        question.found = False if question.about == "gold costs" and question.found is True else question.error
    return question.found is None


def _own_question(gold: str | GraderError) -> Question:
    """Whether a gold answer equals itself."""
    if isinstance(gold, GraderError):
        return Question(found=gold)
    gold = normalised(gold.strip())
    return Question(found=True) if is_plain(gold) else Question((gold,), (gold,))


def _question(gold: str | GraderError, answer: str) -> Question:
    if isinstance(gold, GraderError):
        return Question(found=gold)
    found = asked(gold, answer)
    return Question(found.golds, found.answers, found.beside) if isinstance(found, Asked) else Question(found=found)


def _exact_question(gold: str | GraderError, answer: str) -> Question:
    if isinstance(gold, GraderError):
        return Question(found=gold)
    return Question((gold,), (answer,), about="exactly")


def _settled(waiting: deque[Question]) -> Iterator[bool | GraderError]:
    """Takes from the front what is settled."""
    while waiting and (found := waiting[0].found) is not None:
        waiting.popleft()
        yield found
