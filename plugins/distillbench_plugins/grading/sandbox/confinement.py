"""What a child takes from itself before it runs model code: limits, capabilities, files. Each layer is one-way.

Runs inside the sandbox's server, which imports nothing of distillbench but this folder.
"""

from __future__ import annotations

import ctypes
import math
import os
import resource
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_DEATH_SIGNAL, _SIGKILL = 1, 9
#: `struct __user_cap_header_struct` of version 3, and for it two sets of 32 capabilities: effective, permitted,
#: inheritable.
_CAPABILITY_VERSION, _CAPABILITY_SETS = 0x20080522, struct.Struct("=6I")
#: To read and to look for files in spite of their modes: an interpreter may lie in another user's folder.
_MAY_READ = 1 << 2
#: So much later than its limit the kernel ends a process, which by then had time to say that it is out of time.
_CPU_GRACE_SECONDS = 1.0

#: What a child says of itself once it is confined, before it runs anything: the processor time that it has used.
CONFINED = struct.Struct("!d")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one child may use.

    Attributes:
        cpu_seconds: Processor time of all its threads; `Ending.is_out_of_time` says who used more. The kernel ends it a
            little later, whatever it does to its timers.
        memory_bytes: Address space.
        file_bytes: Size of any one file it writes, its standard output included.
        open_files: Open files.
        message_bytes: The longest message that is taken from it.
    """

    cpu_seconds: float = 60.0
    memory_bytes: int = 4 << 30
    file_bytes: int = 64 << 20
    open_files: int = 64
    message_bytes: int = 64 << 20


def set_limits(limits: Limits) -> None:
    """Sets resource limits that cannot be raised again."""
    for name, wanted in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_STACK, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_CORE, 0),
        # no lower limit that only sends a signal: it can be ignored
        (resource.RLIMIT_CPU, math.ceil(limits.cpu_seconds + _CPU_GRACE_SECONDS)),
    ):
        hard = resource.getrlimit(name)[1]
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(name, (limit, limit))


def drop_capabilities() -> None:
    """Leaves root nothing that another user has not, except to read what Landlock allows it to read.

    Raises:
        OSError: The kernel refuses.
    """
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    held = ctypes.create_string_buffer(_CAPABILITY_SETS.size)
    if _LIBC.capget(header, held) == 0:
        kept = _CAPABILITY_SETS.unpack(held.raw)[1] & _MAY_READ
        if _LIBC.capset(header, _CAPABILITY_SETS.pack(kept, kept, 0, 0, 0, 0)) == 0:
            return
    raise OSError(ctypes.get_errno(), "capabilities cannot be dropped")


def end_with_server() -> None:
    """The kernel ends this process when the server is gone."""
    _LIBC.prctl(_DEATH_SIGNAL, _SIGKILL, 0, 0, 0)


class Files:
    """The files that a child in one slot may read and write (Landlock). Made once, for all children of the slot.

    Args:
        readable: Folders and files; those that are not there are left out.
        writable: The slot's own folder; None to let it write nowhere.

    Raises:
        OSError: The kernel has no Landlock.
    """

    def __init__(self, readable: Sequence[str], writable: str | None) -> None:
        from landlockpy import AccessFS, Ruleset, Scope

        self._rules = Ruleset(scoped=Scope.SIGNAL | Scope.ABSTRACT_UNIX_SOCKET)
        for path in filter(os.path.exists, readable):
            folder = AccessFS.READ_DIR if Path(path).is_dir() else AccessFS.NONE
            self._rules.allow_path(path, AccessFS.READ_FILE | folder)
        self._rules.allow_path("/dev/null", AccessFS.READ_FILE | AccessFS.WRITE_FILE)
        if writable is not None:
            self._rules.allow_path(writable, self._rules.handled_fs)

    def restrict(self) -> None:
        """Leaves this process these files for good.

        Raises:
            OSError: The kernel does not take it.
        """
        self._rules.restrict()
