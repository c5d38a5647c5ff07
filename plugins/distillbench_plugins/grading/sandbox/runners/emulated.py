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
    """Receives `{preamble, code, inputs, seconds}`; says whether the program loads, then what each test came to.

    `seconds` is the processor time of loading, and of each test. After a test that raised, nothing more is run.
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
            said = _told(OUTPUT, _output(program, given))
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


def _output(program: Callable[[], Any], given: str) -> str:
    """What a program writes, given a text.

    `sys.stdin` is a text in memory, without `buffer`. A `stdin` imported from `sys` is the process's own, empty but
    for three methods.
    """
    lines, own = iter(given.split("\n")), (sys.stdin, sys.stdout)
    vars(own[0]).update(readline=lambda *_: next(lines), readlines=lambda *_: given.split("\n"), read=lambda *_: given)
    sink = io.StringIO()
    vars(sink).update(close=lambda _: 1)
    sys.stdin, sys.stdout = io.StringIO(given), sink
    try:
        program()
    except SystemExit:
        pass  # the harness judges what was written until then
    finally:
        sys.stdin, sys.stdout = own
    return sink.getvalue()
