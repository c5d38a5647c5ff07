"""What a child takes from itself before it runs model code: limits, files, system calls. Each layer is one-way.

Runs inside the sandbox's server, which imports nothing of distillbench but this folder.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

#: Stands for a process's own id in the compiled filter until it is known.
_OWN_PID = 0x6F776E21
_CLONE_THREAD = 0x00010000
_INSTRUCTION_BYTES = 8
_LIBC = ctypes.CDLL(None, use_errno=True)
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER_MODE, _DEATH_SIGNAL, _SIGKILL = 38, 22, 2, 1, 9

#: Refused with EPERM: new processes and programs, other processes, the network, namespaces, mounts, kernel interfaces.
_REFUSED = (
    *("fork", "vfork", "execve", "execveat", "kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"),
    *("pidfd_open", "pidfd_getfd", "pidfd_send_signal", "ptrace", "process_vm_readv", "process_vm_writev", "kcmp"),
    *("process_madvise", "process_mrelease", "migrate_pages", "move_pages", "perf_event_open", "bpf", "userfaultfd"),
    *("socket", "connect", "bind", "listen", "accept", "accept4"),
    *("unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsconfig"),
    *("fsmount", "fspick", "mount_setattr", "name_to_handle_at", "open_by_handle_at", "mknod", "mknodat"),
    *("keyctl", "add_key", "request_key", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("memfd_create", "memfd_secret", "shmget", "shmat", "shmctl", "semget", "semctl", "msgget", "msgctl", "mq_open"),
    *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff"),
    *("iopl", "ioperm", "acct", "quotactl", "syslog", "sethostname", "setdomainname", "settimeofday", "clock_settime"),
    *("clock_adjtime", "adjtimex", "nfsservctl", "vhangup", "personality", "lookup_dcookie", "fanotify_init"),
)

#: Refused for a process other than the caller's own: which argument names it.
_OF_ANOTHER = {
    **dict.fromkeys(("prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"), 0),
    **dict.fromkeys(("setpriority", "ioprio_set"), 1),
    "setpgid": 0,
}
#: F_SETOWN, F_SETSIG, F_SETOWN_EX, and the same as FIOSETOWN, SIOCSPGRP: they have the kernel send a signal to anyone.
_OWNER_COMMANDS, _OWNER_REQUESTS = (8, 10, 15), (0x8901, 0x8902)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one child may use.

    Attributes:
        cpu_seconds: Processor time of all its threads; the kernel ends it after that.
        memory_bytes: Address space.
        file_bytes: Size of any one file it writes, its standard output included.
        open_files: Open files.
    """

    cpu_seconds: int = 60
    memory_bytes: int = 4 << 30
    file_bytes: int = 64 << 20
    open_files: int = 64


def set_limits(limits: Limits) -> None:
    """Sets resource limits that cannot be raised again."""
    for name, wanted in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_STACK, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(name)[1]
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(name, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 1))


class _Program(ctypes.Structure):
    """The kernel's `struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


class SystemCalls:
    """A seccomp filter, compiled once and loaded by every child.

    Raises:
        OSError: libseccomp is not there.
    """

    def __init__(self) -> None:
        import pyseccomp

        rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
        rules.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)  # a tree instead of a list
        refused = pyseccomp.ERRNO(errno.EPERM)
        for name in _REFUSED:
            if _is_known(pyseccomp, name):
                rules.add_rule(refused, name)
        rules.add_rule(refused, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _CLONE_THREAD, 0))
        # The C library then uses clone, whose flags a filter can see.
        rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
        for name, argument in _OF_ANOTHER.items():  # 0 is the process itself
            if _is_known(pyseccomp, name):
                rules.add_rule(refused, name, pyseccomp.Arg(argument, pyseccomp.NE, 0))
        for command in _OWNER_COMMANDS:
            rules.add_rule(refused, "fcntl", pyseccomp.Arg(1, pyseccomp.EQ, command))
        for command in _OWNER_REQUESTS:
            rules.add_rule(refused, "ioctl", pyseccomp.Arg(1, pyseccomp.EQ, command))
        rules.add_rule(refused, "tgkill", pyseccomp.Arg(0, pyseccomp.NE, _OWN_PID))
        with os.fdopen(os.memfd_create("rules"), "w+b") as stream:  # the server has nowhere to write a file
            rules.export_bpf(stream)
            stream.seek(0)
            self._program = stream.read()

    def load(self) -> None:
        """Loads the filter into this process for good.

        Raises:
            OSError: The kernel does not take it.
        """
        instructions = self._program.replace(struct.pack("=I", _OWN_PID), struct.pack("=I", os.getpid()))
        program = _Program(len(instructions) // _INSTRUCTION_BYTES, instructions)
        for option, *arguments in ((_NO_NEW_PRIVS, 1), (_SET_SECCOMP, _FILTER_MODE, ctypes.byref(program))):
            if _LIBC.prctl(option, *arguments, *(0,) * (4 - len(arguments))) != 0:
                raise OSError(ctypes.get_errno(), f"prctl {option} failed")


def _is_known(pyseccomp: ModuleType, name: str) -> bool:
    """Whether this machine has a system call of this name, and its libseccomp knows it."""
    try:
        return int(pyseccomp.resolve_syscall(pyseccomp.system_arch(), name)) >= 0
    except (OSError, ValueError):
        return False


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
