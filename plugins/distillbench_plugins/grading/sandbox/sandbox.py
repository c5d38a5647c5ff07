"""The trusted side of the sandbox: starts children, talks to them, and learns how they ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Any, Self

from distillbench.errors import GraderError
from distillbench_plugins.grading.sandbox.channel import Channel
from distillbench_plugins.grading.sandbox.confinement import CONFINED, Limits
from distillbench_plugins.grading.sandbox.isolation import Running, SandboxError, start_server, stop_server
from distillbench_plugins.grading.sandbox.runners.clock import OUT_OF_TIME

#: How long the server may take to say how a child ended that it was told to kill.
_KILL_SECONDS = 30.0
#: How long a process may take to be confined.
_START_SECONDS = 60.0
#: Processor time that may be used beyond a limit, before the child's own timer is heard and after: results are held for
#: 0.02 s (runners/functions.py), a tick of the kernel is 0.01 s, and an interpreter takes its time to end.
_LATE_SECONDS = 0.1
#: What it takes to free a byte when a process ends; measured 0.11 s for a GiB.
_FREEING_SECONDS = 0.25 / 2**30
#: `struct ucred` of who wrote a message; what makes a clock one of a whole process.
_CREDENTIALS = struct.Struct("3i")
_OF_PROCESS = 2
_TIME_SIGNALS = frozenset({signal.SIGXCPU, signal.SIGPROF, signal.SIGVTALRM})


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended.

    Attributes:
        exit_code: Its own; negative for the signal that ended it.
        cpu_seconds: Processor time it used since it was confined.
        wall_seconds: Time from its start to its end.
        memory_bytes: The most memory it held.
        is_out_of_time: Whether it used up its processor time: by its own word, or as it is counted outside of it.
    """

    exit_code: int
    cpu_seconds: float
    wall_seconds: float
    memory_bytes: int
    is_out_of_time: bool = False


class LostError(GraderError):
    """A job was not run to its end through no fault of its own: its server is gone, or has no process left for it."""


class Child:
    """A process that runs one job.

    Attributes:
        channel: The runner's other end.
    """

    def __init__(self, channel: Channel, status: socket.socket, limits: Limits, *, has_clock: bool) -> None:
        self.channel = channel
        self._has_clock = has_clock
        self._status = status
        self._limits = limits
        self._killed = False
        self._ending: Ending | None = None
        self._clock = 0  # of its processor time; known once it is confined
        self._cpu_at_first, self._used, self._overran = 0.0, 0.0, False

    def receive(self, seconds: float) -> bytes:
        """Its next message; what processor time it uses meanwhile is counted (`kept_to`).

        Args:
            seconds: How long it may say nothing.

        Raises:
            ChannelError: It is gone, said nothing for so long, or announced a message that is too long.
            LostError: The server is gone, or could not confine the child.
        """
        before = self._cpu_seconds()
        try:
            return self.channel.receive(seconds)
        finally:
            self._used += self._cpu_seconds() - before

    def kept_to(self, seconds: float) -> bool:
        """Whether its messages since this was last asked took it no more processor time than so much.

        Its own timers decide first, but it can take them off. What it uses while nobody waits for it is not counted, so
        that a busy trusted side is nobody's fault.
        """
        used, self._used = self._used, 0.0
        self._overran |= used > seconds + _LATE_SECONDS
        return not self._overran

    def wait(self, seconds: float) -> Ending | None:
        """How it ended; None when it is still running after so many seconds.

        Raises:
            LostError: The server is gone, or could not confine the child.
        """
        until = time.monotonic() + seconds
        while self._ending is None:
            if not self._hear(max(0.0, until - time.monotonic())):
                return None
        return replace(self._ending, is_out_of_time=self._ending.is_out_of_time or self._overran)

    def kill(self) -> Ending:
        """Ends it now, if it has not ended by itself.

        Raises:
            LostError: The server is gone.
        """
        self._killed = True
        with suppress(OSError):  # it has ended already; how, has been sent
            self._status.shutdown(socket.SHUT_WR)
        ending = self.wait(_KILL_SECONDS)
        if ending is None:
            raise LostError("the sandbox's server does not answer")
        return ending

    def _cpu_seconds(self) -> float:
        """What it has used since it was confined; 0 where a machine does not tell it of a running process."""
        if not self._has_clock:
            return 0.0
        until = time.monotonic() + _START_SECONDS
        while not self._clock and self._ending is None:
            if not self._hear(max(0.0, until - time.monotonic())):
                raise LostError("a process does not start")
        try:
            return time.clock_gettime(self._clock) - self._cpu_at_first
        except OSError:  # it has ended
            ending = self.wait(_KILL_SECONDS)
        if ending is None:
            raise LostError("the sandbox's server does not answer")
        return ending.cpu_seconds

    def _hear(self, seconds: float) -> bool:
        """Takes what is said on the status socket: by the child that it is confined, by the server how it ended.

        Returns:
            Whether anything was said for so many seconds.
        """
        self._status.settimeout(seconds)
        try:
            said, extra, _, _ = self._status.recvmsg(1 << 12, socket.CMSG_SPACE(_CREDENTIALS.size))
        except (TimeoutError, BlockingIOError):
            return False
        if not said:
            raise LostError("the sandbox's server has ended, or cannot start a process")
        if len(said) == CONFINED.size:
            (self._cpu_at_first,) = CONFINED.unpack(said)
            pid = _CREDENTIALS.unpack(extra[0][2])[0]  # as it is seen from here
            self._clock = _clock_of(pid)
        else:
            self._ending = self._read_ending(json.loads(said))
        return True

    def _read_ending(self, said: dict[str, Any]) -> Ending:
        if not self._clock and not self._killed:
            raise LostError("a process could not be confined, so nothing was run in it")
        exit_code = os.waitstatus_to_exitcode(said["wait_status"])
        used = said["cpu_seconds"] - self._cpu_at_first
        most = self._limits.cpu_seconds + _LATE_SECONDS + _FREEING_SECONDS * said["memory_bytes"]
        is_out = exit_code == OUT_OF_TIME or used > most
        return Ending(
            exit_code, used, said["wall_seconds"], said["memory_bytes"], is_out or -exit_code in _TIME_SIGNALS
        )

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
        self._has_clocks = False

    def __enter__(self) -> Self:
        self._running = start_server(self._preload)
        self._has_clocks = _has_clock(self._running.process.pid)
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
            SandboxError: The server is gone, and cannot be started again.
        """
        job = json.dumps({"runner": runner, "limits": asdict(limits)}).encode()
        with ExitStack() as stack:
            channel, their_channel = socket.socketpair()
            status, their_status = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            status.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            with their_channel, their_status:
                descriptors = [their_channel.fileno(), their_status.fileno(), *files]
                self._send(job, descriptors)
            child = Child(Channel(channel, limits.message_bytes), status, limits, has_clock=self._has_clocks)
            stack.callback(child.close)
            yield child

    def _send(self, job: bytes, descriptors: Sequence[int]) -> None:
        """Sends a job to the server; where that is gone, starts another: memory may have been taken from it."""
        with self._lock:
            try:
                socket.send_fds(self._up.control, [job], descriptors)
            except OSError:
                stop_server(self._up)
                self._running = start_server(self._preload)
                socket.send_fds(self._up.control, [job], descriptors)


def _clock_of(pid: int) -> int:
    """The clock of a process's processor time; see `clock_getcpuclockid(3)`."""
    return ~pid << 3 | _OF_PROCESS


def _has_clock(pid: int) -> bool:
    """Whether this machine tells the processor time of another process: Linux does, some that are like it do not."""
    try:
        return time.clock_gettime(_clock_of(pid)) >= 0
    except OSError:
        return False
