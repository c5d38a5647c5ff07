"""What graders of code share: how code is found in an answer, how many run at once, and when a time-out counts."""

from __future__ import annotations

import os
import re
import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from distillbench.errors import GraderError
from distillbench.protocols import Context, Grader, Grading, OptionsT_co
from distillbench.records import Judgement, Problem, Resources
from distillbench_plugins.grading.fences import Block, blocks
from distillbench_plugins.grading.sandbox.isolation import SandboxError
from distillbench_plugins.grading.sandbox.sandbox import Ending, LostError, Sandbox

#: What a program that reads standard input does, and what it printed hardly says.
_DOES_SOMETHING = re.compile(
    r"\b(?:print|input|open|exec)[ \t]*\(|\bstd(?:in|out)\b|^[ \t]*(?:import|from|def|class)[ \t]", re.MULTILINE
)
#: A console's session, whose prompts are no Python.
_CONSOLE = re.compile(r"\s*>>>")
#: What follows the name of a function in other languages: parameters and no colon, or an equals sign.
_NO_PYTHON = r"[ \t]*\([^()\n]*\)[ \t\r]*(?:$|=)"
#: A process that took this much longer than its processor time did not have a core to itself.
_DISTURBED = 1.25
#: Answers that are judged ahead of the one that is waited for, for each process that runs: enough to keep the others
#: busy while one takes many seconds.
_AHEAD = 256
#: An error over hostile values may repeat them.
_LONGEST_ERROR = 400


def code_blocks(text: str) -> list[str]:
    """The code of a text's complete fenced blocks. A block whose fence is not closed is none."""
    return [block.code() for block in blocks(text)]


def find_code(answer: str, entry_point: str = "", *, as_written: bool = False) -> str | None:
    """The code of an answer: its last complete block that can be what was asked for.

    With an entry point that is a block that defines it; without one, a block that is tagged as Python, or that is not
    tagged and reads, prints, imports or defines something (what a program printed does not). Blocks with another tag
    come after these, and any block last.

    Args:
        answer: The answer part of a completion.
        entry_point: The name of the function or class that is asked for; empty where any program will do.
        as_written: Whether to leave the indentation of a block as it is, with that of its fence.

    Returns:
        The code; None where there is no complete block with anything in it.
    """
    texts = [(block, block.raw() if as_written else block.code()) for block in blocks(answer)]
    ranked = [(*_rank(block, code, entry_point), n, code) for n, (block, code) in enumerate(texts) if code.strip()]
    return max(ranked)[-1] if ranked else None


def _rank(block: Block, code: str, entry_point: str) -> tuple[bool, bool, bool]:
    """How likely a block is what was asked for."""
    does_something = (block.is_python or _DOES_SOMETHING.search(code) is not None) and not _CONSOLE.match(code)
    if not entry_point:
        return block.may_be_python and does_something, does_something, block.may_be_python
    name = re.escape(entry_point)
    defines = rf"^[ \t]*(?:async[ \t]+def|def|class)[ \t]+{name}\b(?!{_NO_PYTHON})|^{name}[ \t]*(?::[^=\n]*)?=(?!=)"
    return re.search(defines, code, re.MULTILINE) is not None, block.may_be_python, does_something


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a solution's tests.

    Attributes:
        judgement: What it came to.
        suspect: A time-out that another load may have caused.
    """

    judgement: Judgement
    suspect: bool = False


def was_disturbed(ending: Ending) -> bool:
    """Whether a process that ran out of time did not have a core to itself, or waited for something else."""
    return ending.wall_seconds > _DISTURBED * ending.cpu_seconds + 0.05


class CodeBenchmark(Grader[OptionsT_co]):
    """A grader that runs the code of an answer in a sandbox.

    Attributes:
        preload: Modules that solutions are likely to import.
        id_column: The column of a task's documents that tells them apart.
    """

    needs_task = True
    preload: ClassVar[tuple[str, ...]] = ()
    id_column: ClassVar[str] = "id"
    _task: Any = None

    def resources(self) -> Resources:
        """All cores: solutions run side by side, each in a process of its own."""
        return Resources(cpus=len(os.sched_getaffinity(0)), memory_gb=4.0)

    def extract(self, answer: str, problem: Problem) -> str | None:
        """The code of the answer; see `find_code`."""
        return find_code(answer, self.entry_point(problem))

    def entry_point(self, problem: Problem) -> str:
        """The name of what the code has to define; empty for a program."""
        return str(problem.metadata["doc"].get("entry_point") or "")

    def open(self, context: Context) -> AbstractContextManager[Grading]:
        """Starts the sandbox."""
        return self._opened(context)

    @contextmanager
    def _opened(self, context: Context) -> Iterator[Grading]:
        with Sandbox(self.preload) as sandbox:
            runner = self.runner(sandbox, context)
            facts = {"isolation": list(sandbox.layers), **self.facts()}
            yield CodeGrading(runner, max(1, context.resources.cpus), facts)

    def facts(self) -> Mapping[str, Any]:
        """What a report names beside the isolation."""
        return {}

    @abstractmethod
    def runner(self, sandbox: Sandbox, context: Context) -> Callable[[Problem, str], Attempt]:
        """A function that runs one solution; called from several threads at once.

        Args:
            sandbox: Where model code runs.
            context: Its `work` folder keeps what is computed once.
        """

    def row(self, problem: Problem) -> Mapping[str, Any]:
        """A problem's whole document, with the columns that only the grader reads.

        They are looked up in the task, because they are not stored with samples; without a task (in the stock lm_eval
        command) the problem has them itself.

        Raises:
            GraderError: The task has no such document.
        """
        if self._task is None:
            return dict(problem.metadata["doc"])
        wanted = problem.metadata["doc"].get(self.id_column)
        if wanted not in self._rows:
            raise GraderError(f"the task has no document whose {self.id_column!r} is {wanted!r}")
        found: Mapping[str, Any] = self._task.test_docs()[self._rows[wanted]]
        return found

    @cached_property
    def _rows(self) -> Mapping[str, int]:
        return {name: number for number, name in enumerate(self._task.test_docs()[self.id_column])}


class CodeGrading:
    """Runs the solutions of many answers side by side.

    Args:
        attempt: Runs one.
        slots: How many at once.
        facts: See `Grading`.
    """

    def __init__(self, attempt: Callable[[Problem, str], Attempt], slots: int, facts: Mapping[str, Any]) -> None:
        self._attempt = attempt
        self._slots = slots
        self._quiet = Quiet()
        self.facts = facts

    def judge_all(self, answers: Iterable[tuple[Problem, str]]) -> Iterator[Judgement]:
        """One judgement for each answer, in their order."""
        ahead: deque[Future[Judgement]] = deque()
        pool = ThreadPoolExecutor(self._slots, "solution")
        try:
            for problem, code in answers:
                ahead.append(pool.submit(self._judge, problem, code))
                if len(ahead) > _AHEAD * self._slots:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _judge(self, problem: Problem, code: str) -> Judgement:
        """Runs a solution; where what ran beside it may have made it fail, once more with nothing beside it."""
        try:
            attempt = self._beside_others(problem, code)
            if attempt is None or attempt.suspect:
                with self._quiet.alone():
                    attempt = self._attempt(problem, code)
        except GraderError as error:
            return Judgement(None, error=str(error))
        except SandboxError:  # nothing can be run here any more: no sample's fault
            raise
        except Exception as error:  # hostile code may have made our side fail in any way: that ends no other's grading
            words = f"{type(error).__name__}: {error}"[:_LONGEST_ERROR]
            return Judgement(None, error=words.encode(errors="replace").decode())
        return attempt.judgement

    def _beside_others(self, problem: Problem, code: str) -> Attempt | None:
        """One run; None where the sandbox went down, which another solution may have done."""
        with self._quiet.shared(), suppress(LostError):
            return self._attempt(problem, code)
        return None


class Quiet:
    """Lets many run side by side, or one alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._alone = threading.Lock()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Runs beside others; waits while one wants to be alone."""
        with self._alone, self._changed:
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until nothing else runs, and lets nothing begin."""
        with self._alone, self._changed:
            self._changed.wait_for(lambda: self._running == 0)
            yield
