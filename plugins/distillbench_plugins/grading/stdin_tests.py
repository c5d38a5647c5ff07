"""Runs a program on one test of standard input in the sandbox, and compares outside of it what it wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from decimal import Decimal

from distillbench_plugins.grading.code import was_disturbed
from distillbench_plugins.grading.sandbox.channel import ChannelError
from distillbench_plugins.grading.sandbox.confinement import Limits
from distillbench_plugins.grading.sandbox.sandbox import Ending, Sandbox
from distillbench_plugins.grading.sandbox.values import pack

#: Wall time behind the processor time: this many times as much, and so many seconds more.
WALL_FACTOR, WALL_SECONDS = 4.0, 10.0
#: A number as text that is longer is compared as text alone.
_LONGEST_NUMBER = 1 << 16
_RAISED = {
    "SyntaxError": "syntax_error",
    "IndentationError": "syntax_error",
    "TabError": "syntax_error",
    "MemoryError": "memory_limit",
}


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """One run of a program.

    Attributes:
        output: What it wrote to standard output, also where it did not end well.
        ending: How it ended.
        raised: The name of the exception that ended it; empty where there was none.
        is_out_of_time: It used up its processor time, or far more wall time than that.
    """

    output: str
    ending: Ending
    raised: str
    is_out_of_time: bool

    @property
    def fault(self) -> str:
        """What was wrong with its end, in the words of verdicts; empty also for an exit code of its own."""
        if self.is_out_of_time:
            return "time_limit"
        if self.raised:
            return detail_of(self.raised)
        return "runtime_error" if self.ending.exit_code < 0 else ""

    @property
    def is_suspect(self) -> bool:
        """Whether another load may have made it run out of time."""
        return self.is_out_of_time and was_disturbed(self.ending)


def detail_of(raised: str) -> str:
    """The word of verdicts for an exception's name."""
    return _RAISED.get(raised, "runtime_error")


def run_on(sandbox: Sandbox, code: str, given: str, seconds: float, limits: Limits) -> ProgramRun:
    """Runs a program with a text as its standard input.

    Args:
        sandbox: Where.
        code: The program.
        given: Its standard input.
        seconds: Processor time.
        limits: Its other limits; `file_bytes` bounds its output.

    Raises:
        SandboxError: The sandbox failed.
    """
    with _file("input", given.encode(errors="surrogatepass")) as source, _file("output", b"") as sink:
        with sandbox.start("program", replace(limits, cpu_seconds=seconds), [source, sink]) as child:
            with suppress(ChannelError):  # it may end before it has read its job; how it ended tells why
                child.channel.send(pack({"code": code, "seconds": seconds}))
            ending = child.wait(WALL_FACTOR * seconds + WALL_SECONDS)
            is_late = ending is None
            ending = child.kill() if ending is None else ending
            try:
                raised = child.channel.receive(0.0).decode(errors="replace")
            except ChannelError:
                raised = ""
        size = min(os.fstat(sink).st_size, limits.file_bytes)
        output = os.pread(sink, size, 0).decode(errors="replace")
    return ProgramRun(output, ending, raised, is_late or ending.is_out_of_time)


@contextmanager
def _file(name: str, content: bytes) -> Iterator[int]:
    """A file in memory, open at its start."""
    descriptor = os.memfd_create(name)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            stream.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def same_lines(output: str, expected: str) -> bool:
    """LiveCodeBench's comparison: as many lines, each equal as text or number by number, without tolerance.

    The lines of both are stripped, and so is the whole. Numbers are decimals: 1.0 is 1.00, and 0.1 + 0.2 is not 0.3.

    Source: LiveCodeBench, `lcb_runner/evaluation/testing_util.py` (`grade_stdio`).
    """
    output, expected = output.strip(), expected.strip()
    if output.count("\n") != expected.count("\n"):
        return False
    pairs = zip(output.split("\n"), expected.split("\n"), strict=True)
    return all(_same_line(ours.strip(), wanted.strip()) for ours, wanted in pairs)


def _same_line(ours: str, wanted: str) -> bool:
    if ours == wanted:
        return True
    wanted_words = wanted.split()
    our_words = ours.split(maxsplit=len(wanted_words))  # output is hostile: no more words than can matter
    if len(our_words) != len(wanted_words):
        return False
    numbers = [(_number(one), _number(other)) for one, other in zip(our_words, wanted_words, strict=True)]
    return all(one is not None and one == other for one, other in numbers)


def _number(word: str) -> Decimal | None:
    """A word as a number; None for what is none, is too long, or does not compare."""
    if len(word) > _LONGEST_NUMBER:
        return None
    try:
        number = Decimal(word)
    except ArithmeticError:
        return None
    return None if number.is_snan() else number


def same_words(output: str, expected: str) -> bool:
    """The comparison where a problem has no checker: equal words in the same order; yes and no in any case.

    Source: open-r1's Codeforces grader: white space squeezed, no numeric tolerance.
    """
    wanted = expected.split()
    ours = output.split(maxsplit=len(wanted))
    return len(ours) == len(wanted) and all(map(_same_word, ours, wanted))


def _same_word(ours: str, wanted: str) -> bool:
    return ours == wanted or (wanted.lower() in {"yes", "no"} and ours.lower() == wanted.lower())
