"""Runs model code as a program of its own: standard input and output are files that the trusted side holds."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from types import ModuleType

from ..channel import Channel
from ..values import unpack
from .clock import end_when_out_of_time

#: Exit code of a program that raised.
RAISED = 1


def run_program(channel: Channel, files: list[int]) -> None:
    """Receives `{code, seconds}`, and runs the code as `__main__`; the job's two files are standard input and output.

    What an uncaught exception was is said on the channel, for people: nothing is decided by it.
    """
    job = unpack(channel.receive())
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(max(files) + 1 - len(files), max(files) + 1)
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        stream = open(number, mode, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.argv = ["solution.py"]
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    end_when_out_of_time(lambda: None)(job["seconds"])
    atexit._clear()  # what the server registered is no business of the program
    leave, flush, code = os._exit, sys.stdout.flush, 0
    try:
        exec(compile(job["code"], "solution.py", "exec"), module.__dict__)  # noqa: S102 - this process exists for it
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        channel.send(type(error).__name__.encode())
        code = RAISED
    _finish()
    try:
        flush()
        if sys.stdout.flush is not flush:
            sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        code = code or RAISED
    leave(code & 0xFF)


def _finish() -> None:
    """What an interpreter does before it ends: waits for threads that are no daemons, and calls what was registered."""
    own = threading.current_thread()
    for thread in threading.enumerate():
        if thread is not own and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
