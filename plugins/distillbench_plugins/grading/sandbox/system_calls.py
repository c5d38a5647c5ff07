"""The system calls that model code may make: what is not named here is refused. Runs inside the sandbox's server."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator, Mapping

#: One look at an argument: its number, the bits that are looked at, and what these must be. The kernel reads most
#: arguments as 32 bits and ignores the others, so no more than these are looked at.
_Look = tuple[int, int, int]
#: A call is allowed where all looks of one of these hold.
_Where = tuple[tuple[_Look, ...], ...]

#: Stands for a process's own id in the compiled filter until it is known.
_OWN_PID = 0x6F776E21
_INT, _POINTER = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF
#: The kernel's `struct sock_filter`, and the bit that x32's numbers have.
_INSTRUCTION, _X32 = struct.Struct("=HBBI"), 0x4000_0000
_LIBC = ctypes.CDLL(None, use_errno=True)
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER_MODE = 38, 22, 2
#: Numbers of system calls are smaller, on every machine that there is.
_MOST_NUMBERS = 1024

#: Allowed whatever they are given: they act on this process, on descriptors that it has, and on paths as far as
#: Landlock and bubblewrap let them. Nothing here changes a file that was opened to be read, or that lies outside.
ALLOWED = (
    *("read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2", "lseek"),
    *("close", "dup", "dup2", "dup3", "pipe", "sendfile", "copy_file_range", "fsync", "fdatasync", "ftruncate"),
    *("fadvise64", "poll", "ppoll", "select", "pselect6", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait"),
    *("epoll_pwait", "epoll_pwait2", "eventfd", "eventfd2", "shutdown", "getsockname", "getpeername"),
    *("stat", "fstat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink", "readlinkat"),
    *("getdents", "getdents64", "getcwd", "chdir", "fchdir", "statfs", "fstatfs", "umask", "mkdir", "mkdirat"),
    *("rmdir", "unlink", "unlinkat", "rename", "renameat", "link", "symlink", "symlinkat"),
    *("munmap", "mprotect", "mremap", "msync", "brk"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigtimedwait", "rt_sigsuspend"),
    *("sigaltstack", "pause", "alarm", "getitimer", "setitimer", "restart_syscall", "exit", "exit_group"),
    *("nanosleep", "gettimeofday", "time", "times", "getrusage", "getrlimit", "setrlimit", "uname", "sysinfo"),
    *("futex", "futex_waitv", "rseq", "set_robust_list", "getrandom", "getcpu", "wait4", "waitid"),
    *("getpid", "getppid", "gettid", "getuid", "geteuid", "getgid", "getegid", "getgroups", "getresuid", "getresgid"),
    *("sched_yield", "sched_getaffinity", "sched_getparam", "sched_getscheduler", "sched_get_priority_max"),
    "sched_get_priority_min",
)

#: Refused as by a kernel that has them not: the C library and Python then do without.
WITHOUT = ("clone3", "openat2", "membarrier", "map_shadow_stack", "futex_wake", "futex_wait", "futex_requeue")


def _one_of(argument: int, *values: int) -> _Where:
    return tuple(((argument, _INT, value),) for value in values)


def _no_more_than(argument: int, bits: int) -> _Where:
    return (((argument, _INT & ~bits, 0),),)


def _opens(argument: int) -> _Where:
    """Opening: no descriptor of a mere path, and nothing is emptied that is not opened to be written.

    Landlock before Linux 6.2 lets a file be emptied by who may read it.
    """
    bits = os.O_PATH | os.O_TRUNC
    return (
        ((argument, bits, 0),),
        *(((argument, bits | os.O_ACCMODE, os.O_TRUNC | mode),) for mode in (os.O_WRONLY, os.O_RDWR)),
    )


def _messages(flags: int) -> tuple[_Look, ...]:
    """Flags of a message: NOSIGNAL, CMSG_CLOEXEC, DONTWAIT, WAITALL, TRUNC, PEEK, MORE."""
    return _no_more_than(flags, 0x4000_0000 | 0x4000 | 0x40 | 0x100 | 0x20 | 0x2 | 0x8000)[0]


#: VM, FS, FILES, SIGHAND and THREAD: what makes a thread; SYSVSEM, SETTLS, PARENT_SETTID, CHILD_CLEARTID, DETACHED
#: and CHILD_SETTID may be there. A process, a namespace, a descriptor, a signal at its end may not.
_THREAD, _OF_A_THREAD = 0x0001_0F00, 0x0004_0000 | 0x0008_0000 | 0x0010_0000 | 0x0020_0000 | 0x0040_0000 | 0x0100_0000
#: AF_UNIX; the kind of a socket without its flags; STREAM and SEQPACKET. A datagram could be sent to any address.
_UNIX, _KIND, _STREAM, _SEQPACKET = 1, 0xF, 1, 5
_LEVEL_SOCKET = 1
#: A clock that is not of this process, or is a device: its number is negative.
_NEGATIVE = 0x8000_0000
_HUGE_PAGES = 0x4_0000

#: Allowed where an argument says so: which process, which operation, which flags.
ALLOWED_WHERE: Mapping[str, _Where] = {
    "clone": (((0, _INT & ~_OF_A_THREAD, _THREAD),),),
    "tgkill": _one_of(0, _OWN_PID),
    "prlimit64": _one_of(0, 0),
    # GET_DUMPABLE, SET_NAME, GET_NAME, GET_SECCOMP, CAPBSET_READ, GET_NO_NEW_PRIVS
    "prctl": _one_of(0, 3, 15, 16, 21, 23, 39),
    **dict.fromkeys(("clock_gettime", "clock_getres", "clock_nanosleep"), (((0, _NEGATIVE, 0),),)),
    "open": _opens(1),
    "openat": _opens(2),
    # no file that hides another (WHITEOUT), no link to a descriptor (EMPTY_PATH), no pages beyond a file's end
    "renameat2": _no_more_than(4, 0x1 | 0x2),
    "linkat": _no_more_than(4, 0x400),
    "fallocate": _one_of(1, 0),
    "close_range": _no_more_than(2, 0x4),
    "pipe2": _no_more_than(1, os.O_CLOEXEC | os.O_NONBLOCK | os.O_DIRECT),
    # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK, F_SETLKW, F_GETPIPE_SZ, F_DUPFD_CLOEXEC: none that
    # sends signals (SETOWN, SETSIG, SETLEASE, NOTIFY) or takes memory (SETPIPE_SZ)
    "fcntl": _one_of(1, 0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032),
    # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
    "ioctl": _one_of(1, 0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451),
    "mmap": (((3, _HUGE_PAGES, 0),),),
    # NORMAL, RANDOM, SEQUENTIAL, WILLNEED, DONTNEED, FREE, HUGEPAGE, NOHUGEPAGE, DONTDUMP, DODUMP, and both GUARDs of
    # a stack
    "madvise": _one_of(2, 0, 1, 2, 3, 4, 8, 14, 15, 16, 17, 102, 103),
    "socketpair": tuple(((0, _INT, _UNIX), (1, _KIND, kind)) for kind in (_STREAM, _SEQPACKET)),
    # TYPE, ERROR, SNDBUF, RCVBUF, ACCEPTCONN, PROTOCOL, DOMAIN
    "getsockopt": tuple(((1, _INT, _LEVEL_SOCKET), (2, _INT, name)) for name in (3, 4, 7, 8, 30, 38, 39)),
    "sendto": ((_messages(3)[0], (4, _POINTER, 0)),),
    "recvfrom": (_messages(3),),
    "sendmsg": (_messages(2),),
    "recvmsg": (_messages(2),),
}


def known_calls() -> Iterator[tuple[str, int]]:
    """The names and numbers of all system calls that this machine's libseccomp knows.

    Raises:
        ImportError: pyseccomp or libseccomp is not there.
    """
    import pyseccomp

    machine = pyseccomp.system_arch()
    for number in range(_MOST_NUMBERS):
        try:
            name = pyseccomp.resolve_syscall(machine, number)
        except ValueError:
            continue
        yield name.decode(), number


class _Program(ctypes.Structure):
    """The kernel's `struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


class SystemCalls:
    """A seccomp filter, compiled once and loaded by every child.

    What is not allowed fails with EPERM; one of `WITHOUT`, and one that is newer than this machine's libseccomp, with
    ENOSYS. A call by another machine's table (x32, i386) ends the process.

    Raises:
        OSError: libseccomp is not there.
    """

    def __init__(self) -> None:
        import pyseccomp

        rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
        rules.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)  # a tree instead of a list
        numbers = dict(known_calls())
        for name in numbers:
            if name in ALLOWED:
                rules.add_rule(pyseccomp.ALLOW, name)
            elif name in WITHOUT:
                rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), name)
            for looks in ALLOWED_WHERE.get(name, ()):
                arguments = [pyseccomp.Arg(number, pyseccomp.MASKED_EQ, bits, value) for number, bits, value in looks]
                rules.add_rule(pyseccomp.ALLOW, name, *arguments)
        with os.fdopen(os.memfd_create("rules"), "w+b") as stream:  # the server has nowhere to write a file
            rules.export_bpf(stream)
            stream.seek(0)
            self._program = _not_there_above(max(numbers.values())) + stream.read()

    def load(self) -> None:
        """Loads the filter into this process for good.

        Raises:
            OSError: The kernel does not take it.
        """
        instructions = self._program.replace(struct.pack("=I", _OWN_PID), struct.pack("=I", os.getpid()))
        program = _Program(len(instructions) // _INSTRUCTION.size, instructions)
        for option, *arguments in ((_NO_NEW_PRIVS, 1), (_SET_SECCOMP, _FILTER_MODE, ctypes.byref(program))):
            if _LIBC.prctl(option, *arguments, *(0,) * (4 - len(arguments))) != 0:
                raise OSError(ctypes.get_errno(), f"prctl {option} failed")


def _not_there_above(number: int) -> bytes:
    """Instructions that come first: ENOSYS for every call of a higher number, but those of x32."""
    instructions = (
        (0x20, 0, 0, 0),  # load the number
        (0x25, 0, 2, number),  # not higher: past the next two
        (0x35, 1, 0, _X32),  # as high as x32's: past the next
        (0x06, 0, 0, 0x0005_0000 | errno.ENOSYS),  # SECCOMP_RET_ERRNO
    )
    return b"".join(_INSTRUCTION.pack(*one) for one in instructions)
