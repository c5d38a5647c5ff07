"""The trusted side of the sandbox's runners, as small as it can be: what the tests of attacks run code with."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from distillbench_plugins.grading.sandbox.channel import ChannelError
from distillbench_plugins.grading.sandbox.confinement import Limits
from distillbench_plugins.grading.sandbox.runners.functions import LENGTH, LOADED, NONCE_BYTES, VALUE
from distillbench_plugins.grading.sandbox.sandbox import Ending, Sandbox
from distillbench_plugins.grading.sandbox.values import pack, unpack

#: A token in the user's environment, as a cloud's or a hub's key would be.
TOKEN = "s3cr3t-token-of-the-user"
SECONDS = 1.0
LIMITS = Limits(cpu_seconds=2, memory_bytes=1 << 30)
WALL_SECONDS = 4.0


@dataclass(frozen=True)
class Returned:
    """What calls of a function came to: the values that were told under the nonce, and how the process ended."""

    values: list[Any]
    ending: Ending
    loaded: bool = True

    def passes(self, *expected: Any) -> bool:
        """Whether the trusted side would call it right."""
        return [pack(one) for one in self.values] == [pack(one) for one in expected]


@contextmanager
def isolated(bubblewrap: bool, preload: Sequence[str] = ()) -> Iterator[Sandbox]:
    """A sandbox with or without bubblewrap, started by a process that holds a secret."""
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as empty:
            patch.setenv("HUB_TOKEN", TOKEN)
            if not bubblewrap:
                patch.setenv("PATH", empty)
            sandbox = stack.enter_context(Sandbox(preload))
        if bubblewrap and "bubblewrap" not in sandbox.layers:
            pytest.skip("NOT TESTED in bubblewrap: bwrap is not there, or may not make user namespaces")
        yield sandbox


def call(sandbox: Sandbox, code: str, *inputs: Any, limits: Limits = LIMITS, seconds: float = SECONDS) -> Returned:
    """Calls `f` of some code once for each input."""
    wall_seconds = max(WALL_SECONDS, 2 * seconds)
    with sandbox.start("functions", limits) as child:
        child.channel.send(pack({"code": code, "entry_point": "f", "load_seconds": SECONDS}))
        values: list[Any] = []
        loaded = False
        try:
            loaded = child.channel.receive(wall_seconds) == LOADED
            if loaded:
                nonce = secrets.token_bytes(NONCE_BYTES)
                section = {"inputs": [[one] for one in inputs], "seconds": [seconds] * len(inputs)}
                child.channel.send(
                    nonce + pack({"output": "value", "timed": False, "longest": 1 << 28, "sections": [section]})
                )
                while len(values) < len(inputs):
                    message = child.channel.receive(wall_seconds)
                    if not message.startswith(nonce):
                        break
                    values += _split(message[NONCE_BYTES:])
        except (ChannelError, ValueError):
            pass
        return Returned(values, child.kill(), loaded)


def _split(said: bytes) -> Iterator[Any]:
    while said:
        (length,) = LENGTH.unpack_from(said)
        one, said = said[LENGTH.size : LENGTH.size + length], said[LENGTH.size + length :]
        yield unpack(one[1:]) if one[:1] == VALUE else f"raised {one[1:].decode()}"


def run_program(sandbox: Sandbox, code: str, given: str, folder: Path) -> tuple[str, Ending | None]:
    """Runs a program on a standard input; what it wrote, and how it ended (None where it had to be killed)."""
    source = folder / "input"
    source.write_text(given)
    with (
        source.open("rb") as stdin,
        (folder / "output").open("w+b") as stdout,
        sandbox.start("program", LIMITS, [stdin.fileno(), stdout.fileno()]) as child,
    ):
        child.channel.send(pack({"code": code, "seconds": SECONDS}))
        ending = child.wait(WALL_SECONDS)
        stdout.seek(0)
        return stdout.read(1 << 20).decode(errors="replace"), ending


def processes_below(pid: int) -> list[Any]:
    """All processes that descend from one, as soon as they are none or a second has gone by."""
    import psutil

    until = time.monotonic() + 1.0
    while (found := psutil.Process(pid).children(recursive=True)) and time.monotonic() < until:
        time.sleep(0.02)
    return found


def snapshot(*folders: Path) -> dict[str, float]:
    """The files in some folders, and when each was written."""
    return {
        entry.path: entry.stat(follow_symlinks=False).st_mtime
        for folder in folders
        if folder.is_dir()
        for entry in os.scandir(folder)
    }
