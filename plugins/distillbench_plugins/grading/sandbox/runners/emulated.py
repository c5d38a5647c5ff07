"""Runs a program as LiveCodeBench's harness does: as a function within this process, with standard input emulated.

Correct programs fail in it when they read in a way that the emulation does not know. What a program writes is all that
is told, so that a program which speaks on the channel itself only gives another output.
"""

from __future__ import annotations

import ast
import builtins
import io
import os
import sys
from collections.abc import Callable
from typing import Any

from ..channel import Channel
from ..values import unpack
from .clock import end_when_out_of_time, leave_when_heard

#: What is told of the program: that it is loaded, or the name of what was raised.
LOADED, NOT_LOADED = b"+", b"-"
#: What is told of a test: its output, or the name of what was raised. It is followed by the text as UTF-8.
OUTPUT, RAISED = b"o", b"e"
_NAME = "wrapped_function"


def run_emulated(channel: Channel, files: list[int]) -> None:
    """Receives `{preamble, code, inputs, seconds, harness}`; says whether it loads, then what each test came to.

    `harness` is a key of `STANDARD_INPUTS`, `seconds` the processor time of loading, and of each test. After a test
    that raised, nothing more is run.
    """
    job = unpack(channel.receive())
    limit, leave, seconds = end_when_out_of_time(lambda: None), os._exit, job["seconds"]
    limit(seconds)
    try:
        program = _load(job["preamble"], job["code"])
    except BaseException as error:
        channel.send(_told(NOT_LOADED, type(error).__name__))
        leave(0)
    channel.send(LOADED)
    for given in job["inputs"]:
        limit(seconds)
        try:
            said = _told(OUTPUT, _output(program, given, STANDARD_INPUTS[job["harness"]]))
        except BaseException as error:
            said = _told(RAISED, type(error).__name__)
        channel.send(said)
        if said[:1] == RAISED:
            break
    leave_when_heard(channel, leave)


def _told(kind: bytes, text: str) -> bytes:
    return kind + text.encode(errors="surrogatepass")


def _load(preamble: str, code: str) -> Callable[[], Any]:
    """Makes a function of a program: its imports stay outside, a last `if __name__ == "__main__"` becomes its body."""
    builtins.quit = None  # type: ignore[assignment]  # as the harness does
    sys.modules["resource"] = None  # type: ignore[assignment]
    statements = ast.parse(code).body
    if statements and isinstance(last := statements[-1], ast.If) and _is_main(last.test):
        statements[-1:] = last.body
    imports = [one for one in statements if isinstance(one, ast.Import | ast.ImportFrom)]
    body = [one for one in statements if not isinstance(one, ast.Import | ast.ImportFrom)]
    nothing = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    function = ast.FunctionDef(name=_NAME, args=nothing, body=body, decorator_list=[])
    # the preamble is part of the module: `from __future__` after it is an error there, and so here
    module = ast.Module(body=[*ast.parse(preamble).body, *imports, function], type_ignores=[])
    namespace: dict[str, Any] = {"__name__": "tmp_sol"}
    exec(compile(ast.fix_missing_locations(module), "solution.py", "exec"), namespace)  # noqa: S102 - this process exists for it
    found: Callable[[], Any] = namespace[_NAME]
    return found


def _is_main(test: ast.expr) -> bool:
    return ast.unparse(test).strip() == "__name__ == '__main__'"


class _Buffer:
    """The bytes below `_StandardInput`: all of them at each reading, and the first line as each line."""

    def __init__(self, given: str) -> None:
        self.inputs = given.encode()

    def read(self, *args: Any) -> bytes:
        return self.inputs

    def readline(self, *args: Any) -> bytes:
        return self.inputs.split(b"\n")[0] + b"\n"


class _StandardInput:
    """Standard input in the harness since May 2025; it cannot be iterated over.

    Source: LiveCodeBench, `lcb_runner/evaluation/testing_util.py` (`MockStdinWithBuffer`), 28fef95.
    """

    def __init__(self, given: str) -> None:
        self.inputs = given
        self._stringio = io.StringIO(given)
        self.buffer = _Buffer(given)

    def read(self, *args: Any) -> str:
        return self.inputs

    def readline(self, *args: Any) -> str:
        return self._stringio.readline(*args)

    def readlines(self, *args: Any) -> list[str]:
        return self.inputs.split("\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stringio, name)


#: What `sys.stdin` is, by the harness' version.
STANDARD_INPUTS: dict[str, Callable[[str], Any]] = {"2025-05": _StandardInput, "2024": io.StringIO}


def _output(program: Callable[[], Any], given: str, standard_input: Callable[[str], Any]) -> str:
    """What a program writes, given a text.

    `sys.stdin` is an object in memory. A `stdin` imported from `sys` is the process's own, empty but for three methods.
    """
    lines, own = iter(given.split("\n")), (sys.stdin, sys.stdout)
    vars(own[0]).update(readline=lambda *_: next(lines), readlines=lambda *_: given.split("\n"), read=lambda *_: given)
    sink = io.StringIO()
    vars(sink).update(close=lambda _: 1)
    sys.stdin, sys.stdout = standard_input(given), sink
    try:
        program()
    except SystemExit:
        pass  # the harness judges what was written until then
    finally:
        sys.stdin, sys.stdout = own
    return sink.getvalue()
