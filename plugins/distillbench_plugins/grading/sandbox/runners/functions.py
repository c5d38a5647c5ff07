"""Calls a function of model code on inputs, and tells what it returned. The trusted side compares."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from ..channel import Channel
from ..values import pack, unpack
from .clock import end_when_out_of_time

#: First byte of what is told of a test, after the nonce: a value follows, or the name of what was raised.
VALUE, RAISED = b"v", b"e"
#: First byte of what is told of loading the code.
LOADED, NOT_LOADED = b"+", b"-"
#: Results are sent together, but not kept longer than this.
_HOLD_SECONDS = 0.02
_HOLD_BYTES = 1 << 16

#: What becomes of a returned value before it is told.
OUTPUTS: dict[str, Callable[[Any], Any]] = {
    "value": lambda value: value,
    "set": set,
    "not_none": lambda value: value if isinstance(value, bool) else value is not None,
}


def run_functions(channel: Channel, files: list[int]) -> None:
    """Loads the code, then runs the sections of tests, each on the code loaded anew.

    Receives `{code, entry_point, load_seconds}`; says whether that could be loaded. Then receives `{nonce, output, sections}`, where a
    section is `{inputs: [[argument, ...], ...], seconds: [...]}` with the processor time that each test may take; says one
    message for each test.
    """
    job = unpack(channel.receive())
    limit = end_when_out_of_time(channel.flush)
    leave = os._exit
    limit(job["load_seconds"])
    try:
        function = _load(job)
    except BaseException as error:
        channel.send(NOT_LOADED + type(error).__name__.encode())
        leave(0)
    channel.send(LOADED)
    tests = unpack(channel.receive())
    tell, nonce, convert = _teller(channel), tests["nonce"], OUTPUTS[tests["output"]]
    for number, section in enumerate(tests["sections"]):
        try:
            limit(job["load_seconds"])
            function = _load(job) if number else function
        except BaseException as error:
            tell(nonce + RAISED + type(error).__name__.encode())
            break
        for inputs, seconds in zip(section["inputs"], section["seconds"], strict=True):
            limit(seconds)
            try:
                said = VALUE + pack(convert(function(*inputs)))
            except BaseException as error:
                said = RAISED + type(error).__name__.encode()
            tell(nonce + said)
    channel.flush()
    leave(0)


def _load(job: dict[str, Any]) -> Callable[..., Any]:
    """Runs the code, and finds the function in it: `name`, or `Class.method` of an instance."""
    namespace: dict[str, Any] = {}
    exec(compile(job["code"], "solution.py", "exec"), namespace)  # noqa: S102 - this process exists for it
    owner, _, name = job["entry_point"].rpartition(".")
    found: Callable[..., Any] = getattr(namespace[owner](), name) if owner else namespace[name]
    return found


def _teller(channel: Channel) -> Callable[[bytes], None]:
    """A function that tells results: many small ones at once, but none late."""
    now = time.monotonic
    last, size = now(), 0

    def tell(message: bytes) -> None:
        nonlocal last, size
        channel.hold(message)
        size += len(message)
        if size > _HOLD_BYTES or now() - last > _HOLD_SECONDS:
            channel.flush()
            last, size = now(), 0

    return tell
