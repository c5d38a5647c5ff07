"""Calls a function of model code on inputs, and tells what it returned. The trusted side compares."""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections.abc import Callable
from typing import Any

from ..channel import Channel
from ..values import pack, unpack
from .clock import end_when_out_of_time, leave_when_heard

#: What is told of a test: a value follows, or the digest of one that is long, or the name of what was raised.
VALUE, DIGEST, RAISED = b"v", b"h", b"e"
#: What is told of loading the code.
LOADED, NOT_LOADED = b"+", b"-"
NONCE_BYTES = 16
#: Before what is told of a test: its length.
LENGTH = struct.Struct("!I")
SECONDS = struct.Struct("!d")
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

    Receives `{code, entry_point, load_seconds}`; says whether that could be loaded. Then receives the nonce and
    `{output, timed, longest, sections}`, where a section is `{inputs: [[argument, ...], ...], seconds: [...]}` with the
    processor time that each test may take; of a value of more than `longest` bytes only its digest is told. Says, in
    messages that begin with the nonce, nothing when a section is loaded, and then of each test its length and what it
    is; where `timed`, with the time it took before it.
    """
    job = unpack(channel.receive())
    results = _Results(channel)
    limit, leave = end_when_out_of_time(results.flush), os._exit
    limit(job["load_seconds"])
    try:
        function = _load(job)
    except BaseException as error:
        channel.send(NOT_LOADED + type(error).__name__.encode())
        leave(0)
    channel.send(LOADED)
    message = channel.receive()
    results.nonce, tests = message[:NONCE_BYTES], unpack(message[NONCE_BYTES:])
    call = _timed_call if tests["timed"] else _call
    convert, longest = OUTPUTS[tests["output"]], tests["longest"]
    for number, section in enumerate(tests["sections"]):
        try:
            limit(job["load_seconds"])
            function = _load(job) if number else function
        except BaseException as error:
            results.add(_raised(error))
            break
        results.begin()
        for inputs, seconds in zip(section["inputs"], section["seconds"], strict=True):
            limit(seconds)
            results.add(call(function, inputs, convert, longest))
    results.flush()
    leave_when_heard(channel, leave)


def _load(job: dict[str, Any]) -> Callable[..., Any]:
    """Runs the code, and finds the function in it: `name`, or `Class.method` of an instance."""
    namespace: dict[str, Any] = {}
    exec(compile(job["code"], "solution.py", "exec"), namespace)  # noqa: S102 - this process exists for it
    owner, _, name = job["entry_point"].rpartition(".")
    found: Callable[..., Any] = getattr(namespace[owner](), name) if owner else namespace[name]
    return found


def digest_of(value: bytes) -> bytes:
    """What is told of a long value."""
    return DIGEST + hashlib.blake2b(value, digest_size=32).digest()


def _call(function: Callable[..., Any], inputs: list[Any], convert: Callable[[Any], Any], longest: int) -> bytes:
    try:
        value = pack(convert(function(*inputs)))
        return VALUE + value if len(value) <= longest else digest_of(value)
    except BaseException as error:
        return _raised(error)


def _timed_call(function: Callable[..., Any], inputs: list[Any], convert: Callable[[Any], Any], longest: int) -> bytes:
    begun = time.process_time()
    said = _call(function, inputs, convert, longest)
    return SECONDS.pack(time.process_time() - begun) + said


def _raised(error: BaseException) -> bytes:
    return RAISED + type(error).__name__.encode()


class _Results:
    """Sends what is told of tests: many at once, but none late."""

    def __init__(self, channel: Channel) -> None:
        self._send = channel.send
        self._now = time.monotonic
        self._held: list[bytes] = []
        self._size, self._flushed = 0, self._now()
        self.nonce = b""

    def begin(self) -> None:
        """Says that the next section is loaded: what that took is not its first test's."""
        self.flush()
        self._send(self.nonce)

    def add(self, said: bytes) -> None:
        """Takes what is told of one test."""
        self._held += (LENGTH.pack(len(said)), said)
        self._size += len(said)
        if self._size > _HOLD_BYTES or self._now() - self._flushed > _HOLD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Sends what was taken."""
        if self._held:
            held, self._held, self._size = self._held, [], 0
            self._send(self.nonce + b"".join(held))
            self._flushed = self._now()
