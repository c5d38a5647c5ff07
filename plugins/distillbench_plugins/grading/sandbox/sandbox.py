"""The trusted side of the sandbox: starts children, talks to them, and learns how they ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Self

from distillbench_plugins.grading.sandbox.channel import Channel
from distillbench_plugins.grading.sandbox.confinement import Limits
from distillbench_plugins.grading.sandbox.isolation import Running, SandboxError, start_server, stop_server
from distillbench_plugins.grading.sandbox.runners.clock import OUT_OF_TIME

#: The longest message that is accepted from a child.
_MOST_BYTES = 256 << 20
#: How long the server may take to say how a child ended that it was told to kill.
_KILL_SECONDS = 30.0
_TIME_SIGNALS = frozenset({signal.SIGXCPU, signal.SIGPROF, signal.SIGVTALRM})


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended.

    Attributes:
        exit_code: Its own; negative for the signal that ended it.
        cpu_seconds: Processor time it used.
        wall_seconds: Time from its start to its end.
        memory_bytes: The most memory it held.
    """

    exit_code: int
    cpu_seconds: float
    wall_seconds: float
    memory_bytes: int

    @property
    def is_out_of_time(self) -> bool:
        """Whether it used up its processor time."""
        return self.exit_code == OUT_OF_TIME or -self.exit_code in _TIME_SIGNALS


class Child:
    """A process that runs one job.

    Attributes:
        channel: The runner's other end.
    """

    def __init__(self, channel: Channel, status: socket.socket) -> None:
        self.channel = channel
        self._status = status
        self._killed = False

    def wait(self, seconds: float) -> Ending | None:
        """How it ended; None when it is still running after so many seconds.

        Raises:
            SandboxError: The server is gone, or could not confine the child.
        """
        self._status.settimeout(seconds)
        try:
            said = self._status.recv(1 << 12)
        except TimeoutError:
            return None
        if not said:
            raise SandboxError("the sandbox's server has ended")
        found = json.loads(said)
        exit_code = os.waitstatus_to_exitcode(found.pop("wait_status"))
        if not found.pop("confined") and not self._killed:
            raise SandboxError("a process could not be confined, so nothing was run in it")
        return Ending(exit_code, **found)

    def kill(self) -> Ending:
        """Ends it now, if it has not ended by itself.

        Raises:
            SandboxError: The server is gone.
        """
        self._killed = True
        with suppress(OSError):  # it has ended already; how, has been sent
            self._status.shutdown(socket.SHUT_WR)
        ending = self.wait(_KILL_SECONDS)
        if ending is None:
            raise SandboxError("the sandbox's server does not answer")
        return ending

    def close(self) -> None:
        """Lets go of it; a child that still runs is killed."""
        self.channel.close()
        self._status.close()


class Sandbox:
    """A warm server in isolation. Threads may start children at the same time.

    Args:
        preload: Modules that model code is likely to import: they are imported once.

    Raises:
        SandboxError: On entering: nothing isolates model code here.
    """

    def __init__(self, preload: Sequence[str] = ()) -> None:
        self._preload = tuple(preload)
        self._lock = threading.Lock()
        self._running: Running | None = None

    def __enter__(self) -> Self:
        self._running = start_server(self._preload)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop_server(self._up)
        self._running = None

    @property
    def layers(self) -> tuple[str, ...]:
        """What isolates model code, strongest first."""
        return self._up.layers

    @property
    def _up(self) -> Running:
        if self._running is None:
            raise SandboxError("the sandbox is used before it was entered")
        return self._running

    @contextmanager
    def start(self, runner: str, limits: Limits, files: Sequence[int] = ()) -> Iterator[Child]:
        """Starts a child; when the block ends, so does it.

        Args:
            runner: What it does; a key of `runners.RUNNERS`.
            limits: What it may use.
            files: Descriptors that the runner wants.

        Raises:
            SandboxError: The server is gone.
        """
        job = json.dumps({"runner": runner, "limits": asdict(limits)}).encode()
        with ExitStack() as stack:
            channel, their_channel = socket.socketpair()
            status, their_status = socket.socketpair()
            with their_channel, their_status:
                descriptors = [their_channel.fileno(), their_status.fileno(), *files]
                try:
                    with self._lock:
                        socket.send_fds(self._up.control, [job], descriptors)
                except OSError as error:
                    raise SandboxError(f"the sandbox's server has ended: {error}") from error
            child = Child(Channel(channel, _MOST_BYTES), status)
            stack.callback(child.close)
            yield child
