"""Runs a problem's checker: a program that says whether an output is right, where several are."""

from __future__ import annotations

from dataclasses import dataclass

from distillbench.errors import GraderError
from distillbench_plugins.grading.sandbox.confinement import Limits
from distillbench_plugins.grading.sandbox.isolation import SandboxError
from distillbench_plugins.grading.sandbox.sandbox import Sandbox
from distillbench_plugins.grading.stdin_tests import run_on

#: Reads the sizes of three texts and the texts, writes them as files, byte for byte, and becomes the checker.
_START = """\
import sys
sizes = [int(size) for size in sys.stdin.buffer.readline().split()]
sys.argv = ["checker.py", "input.txt", "correct_output.txt", "solution_output.txt"]
for name, size in zip(sys.argv[1:], sizes):
    with open(name, "wb") as file:
        file.write(sys.stdin.buffer.read(size))
del sizes, name, size, file
exec(compile({source!r}, "checker.py", "exec"))
"""
_SECONDS = 15.0
_LIMITS = Limits(cpu_seconds=16, memory_bytes=4 << 30, file_bytes=256 << 20)
_RIGHT = "1"
#: The layer that gives a checker a folder to write in.
_NEEDED = "bubblewrap"


@dataclass(frozen=True, slots=True)
class Checker:
    """A checker as open-r1 calls it: `checker.py input.txt correct_output.txt solution_output.txt` prints 1 if right.

    It reads what a model's program wrote, so it runs in the sandbox, and has no part in the process that wrote it.

    Attributes:
        sandbox: Where it runs.
        source: Its code.
    """

    sandbox: Sandbox
    source: str

    def accepts(self, given: str, correct: str, output: str) -> bool:
        """Whether an output is right. One on which the checker fails is not, when it accepts the correct output.

        Raises:
            GraderError: It fails on the correct output too.
            SandboxError: The sandbox failed, or gives no folder to write in.
        """
        found = self._verdict(given, correct, output)
        if found is None and self._verdict(given, correct, correct) is None:
            raise GraderError("the problem's checker fails on the problem's own output")
        return bool(found)

    def _verdict(self, given: str, correct: str, output: str) -> bool | None:
        """What it says; None when it does not end by itself with exit code 0."""
        if _NEEDED not in self.sandbox.layers:
            raise SandboxError(
                f"checkers need a folder to write in\n    wanted: {_NEEDED}\n"
                f"    got:    {', '.join(self.sandbox.layers)}\n    hint:   install bubblewrap"
            )
        texts = (given, correct, output)
        sizes = " ".join(str(len(text.encode(errors="surrogatepass"))) for text in texts)
        job = f"{sizes}\n{''.join(texts)}"
        run = run_on(self.sandbox, _START.format(source=self.source), job, _SECONDS, _LIMITS)
        if run.fault or run.ending.exit_code != 0:
            return None
        return run.output.strip() == _RIGHT
