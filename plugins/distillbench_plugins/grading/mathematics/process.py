"""One worker process, seen from the parent: asks it, waits for it, kills it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Literal, cast

import psutil

from distillbench.errors import GraderError, StageError

_MODULE = "distillbench_plugins.grading.mathematics.worker"
#: What an interpreter needs to find its packages; nothing else of the environment (tokens, say) goes there.
_INHERITED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT")
#: More seconds by the clock for a process that has to start first.
_START = 30.0
_REPLY_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Limits:
    """What one answer may take.

    Attributes:
        cpu_seconds: Processor time, which does not depend on other load.
        wall_seconds: Time by the clock, for a process that waits for something.
        memory: Bytes in memory.
    """

    cpu_seconds: float = 5.0
    wall_seconds: float = 30.0
    memory: int = 1 << 30


#: What one answer may take where nothing else is said.
DEFAULT_LIMITS = Limits()


@dataclass(slots=True)
class Question:
    """An answer to compare, or to look at alone.

    Attributes:
        golds: The forms of the gold answer.
        answers: The values that the answer gives; one of them has to equal one of the gold answers.
        beside: Numbers that the answer says to be the same.
        about: What is asked: `equality`; `exactly`, by math-verify's own rules; or, once that ran into a limit, `costs`
            and `gold costs`: whether the answer, and the gold answer, can be computed alone.
        found: What came of it, or why nobody knows; None as long as that is open.
        error: The limit that it ran into.
    """

    golds: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    about: Literal["equality", "exactly", "costs", "gold costs"] = "equality"
    found: bool | GraderError | None = None
    error: GraderError | None = None

    @property
    def line(self) -> bytes:
        """As the worker reads it."""
        asked = {"golds": self.golds, "answers": self.answers, "beside": self.beside, "about": self.about}
        return json.dumps(asked).encode() + b"\n"


class LimitError(GraderError):
    """What was asked took more processor time or memory than it may."""


class Worker:
    """A process that compares one answer after the other; started when it is first asked, and again after a kill."""

    def __init__(self, limits: Limits) -> None:
        self.question: Question | None = None
        self._limits = limits
        self._running: _Running | None = None
        self._deadline = 0.0

    @property
    def replies(self) -> int:
        """The file number that the reply to its question comes from."""
        return self._busy.replies.fileno()

    def ask(self, question: Question) -> None:
        """Gives it a question; it must have none."""
        allowed = self._limits.wall_seconds
        if self._running is None or self._running.process.poll() is not None:
            self.stop()
            self._running = _start(self._limits)
            allowed += _START
        self.question = question
        self._deadline = time.monotonic() + allowed
        with suppress(BrokenPipeError):  # it is dead: `look` tells why
            self._running.questions.write(question.line)
            self._running.questions.flush()

    def look(self, is_ready: bool) -> None:
        """Takes its reply, or ends it when it has none and is past a limit.

        Args:
            is_ready: Whether there is something to read.

        Raises:
            StageError: It ended by itself, which no answer makes it do.
        """
        if is_ready:
            reply = os.read(self.replies, _REPLY_BYTES)
            self._settle(_found(json.loads(reply)) if reply else self._death())
        elif time.monotonic() > self._deadline:
            self._kill(GraderError(f"math-verify took more than {self._limits.wall_seconds:g} s by the clock"))
        elif self._memory() > self._limits.memory:
            self._kill(LimitError(f"math-verify took more than {self._limits.memory >> 20} MiB of memory"))

    def stop(self) -> None:
        """Ends the process, if there is one."""
        if self._running is not None:
            self._running.process.kill()
            self._running.process.communicate()
        self._running = self.question = None

    @property
    def _busy(self) -> _Running:
        if self._running is None:
            raise ValueError("a worker is looked at before it was asked")
        return self._running

    def _memory(self) -> int:
        with suppress(psutil.NoSuchProcess):
            return int(psutil.Process(self._busy.process.pid).memory_info().rss)
        return 0

    def _settle(self, found: bool | GraderError) -> None:
        if self.question is not None:
            self.question.found, self.question = found, None

    def _kill(self, why: GraderError) -> None:
        self._settle(why)
        self.stop()

    def _death(self) -> GraderError:
        """Why it is dead."""
        code = self._busy.process.wait()
        if code == -signal.SIGPROF:
            return LimitError(f"math-verify ran out of its {self._limits.cpu_seconds:g} s of processor time")
        if code < 0:
            return GraderError(f"math-verify's process was ended by {signal.Signals(-code).name}")
        raise StageError(
            f"math-verify's process ended with exit code {code}\n"
            f"    wanted: a process that answers until it is told to end\n"
            f"    hint:   its error stands above; is math-verify installed as this package asks for it?"
        )


def _found(reply: dict[str, object]) -> bool | GraderError:
    return GraderError(str(reply["error"])) if "error" in reply else bool(reply["right"])


@dataclass(frozen=True, slots=True)
class _Running:
    """A started process and its two pipes."""

    process: subprocess.Popen[bytes]
    questions: IO[bytes]
    replies: IO[bytes]


def _start(limits: Limits) -> _Running:
    """A fresh interpreter, which holds nothing of this one; hashes are fixed, so that sympy's order of terms is."""
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", _MODULE, str(limits.cpu_seconds)],
        env=environment | {"PYTHONHASHSEED": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    return _Running(process, cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout))
