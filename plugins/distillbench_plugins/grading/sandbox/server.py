"""The warm server: it has imported what model code needs, and forks one confined child for each job.

It runs inside the isolation that `isolation` chose, knows no expected output, and never runs model code itself. A job
is one message on the control socket, with file descriptors: the job's channel, its status socket, and the files that
its runner wants. The child says on the status socket that it is confined, and the server how it ended; when the other
side shuts that down, the child is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from . import confinement, runners
from .channel import Channel
from .scratch import Scratch, SharedScratch, new_scratch
from .system_calls import SystemCalls

_Layer = TypeVar("_Layer")
_PACKAGE = (__package__ or "").split(".")[0]
_HIDDEN: list[ModuleType] = []

#: Messages on the control socket are shorter than this.
MOST_CONTROL_BYTES = 1 << 12
MOST_FILES = 8
#: Exit code of a child whose runner raised.
_RUNNER_FAILED = 114
#: The longest message that a child accepts.
_MOST_BYTES = 1 << 30
#: Descriptors of a child: standard input, output and error, the channel, then the job's files.
_CHANNEL = 3
#: Above every descriptor of a child.
_HIGH = 64


@dataclass(frozen=True, slots=True)
class _Slot:
    """What one child at a time uses: a folder to write in, and the rules that allow it that folder and no other's."""

    scratch: Scratch | SharedScratch | None
    files: confinement.Files | None


@dataclass(frozen=True, slots=True)
class _Child:
    """A running child.

    Attributes:
        pid: Its number.
        pidfd: Its descriptor.
        status: Where its end is told.
        slot: What it uses.
        begun: When it was started.
    """

    pid: int
    pidfd: int
    status: socket.socket
    slot: _Slot
    begun: float


class Server:
    """Serves one control socket until its other end is closed.

    Args:
        control: Where jobs come from.
        scratch: A folder in which each slot has one of its own to write in; None to let none write. Without bubblewrap
            it is None.
        readable: What a child may read.
    """

    def __init__(self, control: socket.socket, scratch: str | None, readable: list[str]) -> None:
        self.control = control
        self.scratch = scratch
        self.readable = readable
        self.selector = selectors.DefaultSelector()
        self.own_modules = ["__main__", *(name for name in sys.modules if name.split(".")[0] == _PACKAGE)]
        self.main = ModuleType("__main__")
        self.system_calls = _if_there(SystemCalls)
        self.running: set[int] = set()
        self.free_slots: list[_Slot] = []
        self.n_slots = 0
        self.free_slots.append(self._new_slot())

    @property
    def layers(self) -> list[str]:
        """What confines a child here."""
        there = {"seccomp": self.system_calls, "landlock": self.free_slots[0].files}
        return [*(name for name, layer in there.items() if layer is not None), "rlimits"]

    def serve(self) -> None:
        """Serves until the other end of the control socket is closed."""
        self.control.sendall(json.dumps({"layers": self.layers}).encode())
        self.selector.register(self.control, selectors.EVENT_READ, None)
        gc.collect()
        gc.freeze()  # the collector of a child would write to, and so copy, every page that it shares with the server
        while True:
            for key, _ in self.selector.select():
                if key.data is None and not self._start():
                    return
                if isinstance(key.data, _Child):
                    self._attend(key.fd, key.data)

    def _new_slot(self) -> _Slot:
        folder = None if self.scratch is None else f"{self.scratch}/{self.n_slots}"
        self.n_slots += 1
        return self._slot(None if folder is None else new_scratch(folder))

    def _slot(self, scratch: Scratch | SharedScratch | None) -> _Slot:
        folder = None if scratch is None else scratch.folder
        return _Slot(scratch, _if_there(lambda: confinement.Files(self.readable, folder)))

    def _start(self) -> bool:
        """Starts the job that came; False when no more will come."""
        message, descriptors, _, _ = socket.recv_fds(self.control, MOST_CONTROL_BYTES, MOST_FILES)
        if not message:
            return False
        channel, status, *files = descriptors
        job = json.loads(message)
        slot = self.free_slots.pop() if self.free_slots else self._new_slot()
        begun = time.monotonic()
        try:
            pid = os.fork()
        except OSError:  # no memory, or no number left: the other side sees its sockets closed
            _close(descriptors)
            self.free_slots.append(slot)
            return True
        if pid == 0:
            self._become_child(job, [channel, *files, status], slot)
        _close([channel, *files])
        child = _Child(pid, os.pidfd_open(pid), socket.socket(fileno=status), slot, begun)
        self.running.add(pid)
        self.selector.register(child.pidfd, selectors.EVENT_READ, child)
        self.selector.register(child.status, selectors.EVENT_READ, child)
        return True

    def _attend(self, descriptor: int, child: _Child) -> None:
        """Kills a child that the other side has given up, and reaps it; or reaps one that has ended."""
        if child.pid not in self.running:
            return  # both of its descriptors were ready at once
        if descriptor != child.pidfd:
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        _, wait_status, usage = os.wait4(child.pid, 0)
        self.running.remove(child.pid)
        self.selector.unregister(child.pidfd)
        self.selector.unregister(child.status)
        os.close(child.pidfd)
        said = {
            "wait_status": wait_status,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "wall_seconds": time.monotonic() - child.begun,
            "memory_bytes": usage.ru_maxrss * 1024,
        }
        with child.status, contextlib.suppress(OSError):  # when nobody is waiting for it any more
            child.status.sendall(json.dumps(said).encode())
        self._free(child.slot)

    def _free(self, slot: _Slot) -> None:
        """Makes a slot ready for the next child. Rules are of one file system: another one needs others."""
        with contextlib.suppress(OSError):  # such a slot is not used again
            is_new = slot.scratch is not None and slot.scratch.renew()
            self.free_slots.append(self._slot(slot.scratch) if is_new else slot)

    def _become_child(self, job: dict[str, Any], descriptors: list[int], slot: _Slot) -> None:
        """Confines this new process, runs the job's runner in it, and ends it. Does not return."""
        try:
            if self.scratch is None:  # otherwise bubblewrap's process namespace ends with the server
                confinement.end_with_server()
            if slot.files is not None:
                slot.files.restrict()
            *files, status = _keep_only(descriptors)
            if slot.scratch is not None:
                os.chdir(slot.scratch.folder)
            confinement.set_limits(confinement.Limits(**job["limits"]))
            confinement.drop_capabilities()
            if self.system_calls is not None:
                self.system_calls.load()
            os.write(status, confinement.CONFINED.pack(time.process_time()))
            os.close(status)
        except BaseException:  # whatever went wrong, nothing may run in a process that is not confined
            os._exit(1)
        try:
            gc.enable()
            channel = Channel(socket.socket(fileno=_CHANNEL), _MOST_BYTES)
            runner = runners.RUNNERS[job["runner"]]
            _hide(self.own_modules, self.main)
            runner(channel, files)
        finally:
            os._exit(_RUNNER_FAILED)  # a runner ends the process itself


def _if_there(make: Callable[[], _Layer]) -> _Layer | None:
    """A layer of confinement; None where this machine lacks it, which the other side is told."""
    try:
        return make()
    except (OSError, ImportError, RuntimeError):
        return None


def _keep_only(descriptors: list[int]) -> list[int]:
    """Leaves a new process its standard streams (nothing), its channel and its files; returns the files."""
    null = os.open("/dev/null", os.O_RDWR)
    kept = [os.dup2(null, number) for number in range(_CHANNEL)]
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, _HIGH) for descriptor in descriptors]
    kept += [os.dup2(descriptor, _CHANNEL + number) for number, descriptor in enumerate(high)]
    os.closerange(len(kept), os.sysconf("SC_OPEN_MAX"))
    return kept[_CHANNEL + 1 :]


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _hide(modules: list[str], main: ModuleType) -> None:
    """Takes what belongs to the server out of model code's sight.

    Nothing is destroyed (`_HIDDEN` holds on to it): every object that is freed costs a copy of the memory page that it
    shares with the server.
    """
    _HIDDEN.extend(sys.modules.pop(name) for name in modules)
    sys.modules["__main__"] = main


def main(control: int, scratch: str | None, readable: list[str], preload: list[str]) -> None:
    """The entry point inside the isolation."""
    gc.disable()
    for name in preload:
        importlib.import_module(name)
    if scratch is not None:
        Path(scratch).mkdir(exist_ok=True)
    Server(socket.socket(fileno=control), scratch, readable).serve()
