"""Every rule about system calls: what is not allowed is refused, whatever the bits are that the kernel does not read."""
# ruff: noqa: E501 - attacks are written as they are run

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_harness import LIMITS, SECONDS, call, isolated

from distillbench_plugins.grading.sandbox.sandbox import Sandbox
from distillbench_plugins.grading.sandbox.system_calls import ALLOWED, ALLOWED_WHERE, WITHOUT, known_calls
from distillbench_plugins.grading.sandbox.values import pack

NUMBERS = dict(known_calls())
#: Makes calls by number; tells of each its error, or 0.
CALLER = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def made(number, arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(one % 2 ** 64) for one in arguments))
    return ctypes.get_errno() if result == -1 else 0
def f(calls): return [made(number, arguments) for number, arguments in calls]
"""
#: Bits that the kernel does not read of an argument of 32 bits.
HIGH = 0xABCD_0000_0000
#: Calls by name and arguments that are refused.
REFUSED: list[tuple[str, list[int]]] = [
    *[("prctl", [option, 0, 0, 0, 0]) for option in (1, 4, 8, 22, 24, 29, 31, 33, 35, 36, 38, 40, 47, 53, 62, 0x59616D61)],
    *[("fcntl", [2, command, 0]) for command in (8, 9, 10, 11, 15, 16, 1024, 1026, 1031, 1033, 1036)],
    *[("ioctl", [2, request, 0]) for request in (0x5412, 0x541C, 0x8901, 0x8902, 0x40086602, 0x40049409, 0x5423, 0x540E)],
    *[("madvise", [0, 0, advice]) for advice in (6, 9, 10, 12, 18, 19, 20, 21, 25, 100, 101, 104)],
    *[("socketpair", [family, kind, 0, 0]) for family, kind in ((1, 2), (1, 3), (1, 2 | 0x80000), (2, 1), (16, 1), (38, 5))],
    *[("clone", [flags, 0, 0, 0, 0]) for flags in (0, 17, 0x10000, 0x10F11, 0x20010F00, 0x40010F00, 0x02010F00, 0x00020F00, 0x10010F00, 0x80010F00, 0x00011F00, 0x00800F00 | 0x10000)],
    *[("prlimit64", [pid, 7, 0, 0]) for pid in (1, os.getpid())],
    *[("tgkill", [pid, pid, 0]) for pid in (0, 1, os.getpid())],
    *[(name, [clock, 0, 0, 0]) for name in ("clock_gettime", "clock_getres", "clock_nanosleep") for clock in (-6, ~1 << 3 | 2, -1)],
    *[("openat", [-100, 0, flags, 0]) for flags in (os.O_PATH, os.O_TRUNC, os.O_TRUNC | 3, os.O_PATH | os.O_RDWR, os.O_TRUNC | os.O_PATH | os.O_WRONLY)],
    *[("open", [0, flags, 0]) for flags in (os.O_PATH, os.O_TRUNC, os.O_TRUNC | 3)],
    *[("fallocate", [0, mode, 0, 1 << 30]) for mode in (1, 2, 3, 8, 16, 32, 64)],
    *[("renameat2", [-100, 0, -100, 0, flags]) for flags in (4, 5, 8)],
    *[("linkat", [-100, 0, -100, 0, flags]) for flags in (0x1000, 0x1400)],
    *[("close_range", [900, 901, flags]) for flags in (2, 6, 8)],
    *[("pipe2", [0, flags]) for flags in (0o200, 0o200 | os.O_CLOEXEC)],
    *[("mmap", [0, 4096, 3, flags, -1, 0]) for flags in (0x40022, 0x40022 | 21 << 26)],
    *[("getsockopt", [3, level, name, 0, 0]) for level, name in ((1, 77), (1, 17), (1, 31), (1, 26), (6, 3), (0, 3))],
    ("sendto", [3, 0, 0, 0, 4096, 110]),
    *[("sendto", [3, 0, 0, flags, 0, 0]) for flags in (1, 0x4000000, 0x20000000)],
    *[("recvfrom", [3, 0, 0, flags, 0, 0]) for flags in (1, 0x2000)],
    *[(name, [3, 0, flags]) for name in ("sendmsg", "recvmsg") for flags in (1, 0x2000)],
]  # fmt: skip
#: Which argument of those the kernel reads as 32 bits, so that others of its bits must change nothing.
SELECTORS = {
    **{"prctl": 0, "fcntl": 1, "ioctl": 1, "madvise": 2, "socketpair": 1, "clone": 0, "prlimit64": 0, "tgkill": 0},
    **{"clock_gettime": 0, "clock_getres": 0, "clock_nanosleep": 0, "openat": 2, "open": 1, "fallocate": 1},
    **{"renameat2": 4, "linkat": 4, "close_range": 2, "pipe2": 1, "mmap": 3, "getsockopt": 2, "recvfrom": 3},
    **{"sendmsg": 2, "recvmsg": 2, "sendto": 3},
}
#: Calls that are allowed; most fail, but not by the filter.
TAKEN: list[tuple[str, list[int]]] = [
    *[("prctl", [option, 0, 0, 0, 0]) for option in (3, 21, 39)],
    *[("fcntl", [2, command, 0]) for command in (1, 3)],
    *[("ioctl", [2, request, 0]) for request in (0x5401, 0x5413)],
    *[("madvise", [0, 0, advice]) for advice in (0, 1, 2, 3, 4, 8, 14)],
    *[("socketpair", [1, kind, 0, 0]) for kind in (1, 5, 1 | 0x80000)],
    *[("clock_gettime", [clock, 0]) for clock in (0, 1, 2, 3)],
    *[("openat", [-100, 0, flags, 0]) for flags in (0, os.O_TRUNC | os.O_WRONLY, os.O_TRUNC | os.O_RDWR | os.O_CREAT)],
    ("prlimit64", [0, 7, 0, 0]),
    ("fallocate", [900, 0, 0, 1]),
    ("renameat2", [-100, 0, -100, 0, 1]),
    ("close_range", [900, 901, 4]),
    ("pipe2", [0, os.O_CLOEXEC]),
    ("getsockopt", [900, 1, 3, 0, 0]),
    ("sendto", [900, 0, 0, 0x4000, 0, 0]),
    ("recvfrom", [900, 0, 0, 2, 0, 0]),
]


@pytest.fixture(scope="module", params=["bubblewrap", "seccomp and landlock"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with isolated(request.param == "bubblewrap") as sandbox:
        yield sandbox


def errors(sandbox: Sandbox, calls: list[tuple[int, list[int]]]) -> list[str]:
    """What each call came to, as the names of errors."""
    found = call(sandbox, CALLER, [(number, [one % 2**64 for one in given]) for number, given in calls], limits=LIMITS)
    assert len(found.values) == 1, found
    return [errno.errorcode.get(one, "allowed") for one in found.values[0]]


def test_what_is_not_allowed_is_refused(sandbox: Sandbox) -> None:
    """All that this machine's libseccomp knows, and what it does not know yet."""
    refused = [name for name in NUMBERS if name not in {*ALLOWED, *ALLOWED_WHERE}]
    wanted = {name: "ENOSYS" if name in WITHOUT else "EPERM" for name in refused}
    assert dict(zip(refused, errors(sandbox, [(NUMBERS[name], [0] * 6) for name in refused]), strict=True)) == wanted
    assert len(refused) > 150
    above = range(max(NUMBERS.values()) + 1, max(NUMBERS.values()) + 50)
    assert set(errors(sandbox, [(number, [0] * 6) for number in above])) == {"ENOSYS"}


def test_a_selector_that_is_not_allowed_is_refused_whatever_bits_stand_above_it(sandbox: Sandbox) -> None:
    calls = [(name, given) for name, given in REFUSED if name in NUMBERS]
    for name, given in list(calls):
        place = SELECTORS[name]
        if name != "sendto" or given[4] == 0:
            calls.append((name, [one | HIGH if number == place else one for number, one in enumerate(given)]))
            calls.append((name, [one ^ (1 << 32) if number == place else one for number, one in enumerate(given)]))
    found = errors(sandbox, [(NUMBERS[name], given) for name, given in calls])
    assert [(one, came) for one, came in zip(calls, found, strict=True) if came != "EPERM"] == []
    assert {name for name, _ in REFUSED} == set(ALLOWED_WHERE)


def test_what_is_allowed_is_not_refused(sandbox: Sandbox) -> None:
    calls = [(name, given) for name, given in TAKEN if name in NUMBERS]
    calls += [
        (name, [one | HIGH if number == SELECTORS[name] else one for number, one in enumerate(given)])
        for name, given in calls
        if name != "mmap"
    ]
    found = errors(sandbox, [(NUMBERS[name], given) for name, given in calls])
    assert [one for one, came in zip(calls, found, strict=True) if came in ("EPERM", "ENOSYS")] == []


def test_all_names_are_names_of_system_calls() -> None:
    """A misspelled one would allow nothing. Machines lack some of the old ones."""
    if os.uname().machine != "x86_64":
        pytest.skip("NOT TESTED: only x86-64 has all of them")
    newer_than_libseccomp = {
        "futex_wake",
        "futex_wait",
        "futex_requeue",
        "map_shadow_stack",
        "futex_waitv",
        "epoll_pwait2",
    }
    assert {*ALLOWED, *ALLOWED_WHERE, *WITHOUT} - set(NUMBERS) <= newer_than_libseccomp
    assert not set(ALLOWED) & set(ALLOWED_WHERE)


#: What changes a file or device of someone else, by its path or a descriptor that may be read: name, code.
CHANGES = {
    "chmod": "os.chmod(path, 0o777)",
    "chmod by a folder": "os.chmod(os.path.basename(path), 0o777, dir_fd=os.open(os.path.dirname(path), os.O_RDONLY))",
    "fchmod": "os.fchmod(os.open(path, os.O_RDONLY), 0o777)",
    "chown": "os.chown(path, os.getuid(), os.getgid())",
    "lchown": "os.lchown(path, os.getuid(), os.getgid())",
    "fchown": "os.fchown(os.open(path, os.O_RDONLY), os.getuid(), os.getgid())",
    "utime": "os.utime(path, (1, 1))",
    "utime of a descriptor": "os.utime(os.open(path, os.O_RDONLY), (1, 1))",
    "set an attribute": "os.setxattr(path, 'user.attack', b'1')",
    "set an attribute of a descriptor": "os.setxattr(os.open(path, os.O_RDONLY), 'user.attack', b'1')",
    "remove an attribute": "os.removexattr(path, 'user.kept')",
    "read attributes": "os.listxattr(path) or 1",
    "truncate": "os.truncate(path, 0) if path[:5] != '/dev/' else 1 / 0",
    "open and empty": "os.open(path, os.O_RDONLY | os.O_TRUNC) if path[:5] != '/dev/' else 1 / 0",
    "lock": "__import__('fcntl').flock(os.open(path, os.O_RDONLY), 2)",
    "rename": "os.rename(path, path + '.attack') if path[:5] != '/dev/' else 1 / 0",
    "remove": "os.unlink(path) if path[:5] != '/dev/' else 1 / 0",
    "link": "os.link(path, 'attack')",
}
CHANGE = """
import os
def f(paths):
    found = []
    for path in paths:
        try: ACTION
        except (OSError, ZeroDivisionError): continue
        found.append(path)
    return found
"""


@pytest.mark.parametrize("change", CHANGES)
def test_no_file_or_device_of_others_is_changed(sandbox: Sandbox, change: str, tmp_path: Path) -> None:
    """Files of the same user, those of the interpreter, which may be read, and devices."""
    mine = tmp_path / "mine"
    mine.write_text("kept")
    paths = [
        str(mine),
        errno.__file__ if hasattr(errno, "__file__") else os.__file__,
        os.__file__,
        "/dev/null",
        "/dev/zero",
    ]
    before = [Path(path).stat() for path in paths]
    assert call(sandbox, CHANGE.replace("ACTION", CHANGES[change]), paths).values == [[]]
    after = [Path(path).stat() for path in paths]
    kept = ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_ino", "st_nlink")
    for old, new in zip(before, after, strict=True):
        assert [getattr(old, name) for name in kept[:4]] == [getattr(new, name) for name in kept[:4]]
    assert [getattr(before[0], name) for name in kept] == [getattr(after[0], name) for name in kept]


def test_no_datagram_is_sent_to_an_address(sandbox: Sandbox, tmp_path: Path) -> None:
    """A pair of datagram sockets would reach every socket with a path: a log, a service manager."""
    place = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(place))
        log.settimeout(0.2)
        code = (
            "import socket\ndef f(path):\n found = []\n for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_SEQPACKET):\n"
            "  for how in ('sendto', 'sendmsg'):\n"
            "   try:\n"
            "    a, b = socket.socketpair(socket.AF_UNIX, kind)\n"
            "    a.sendto(b'attack', path) if how == 'sendto' else a.sendmsg([b'attack'], [], 0, path)\n"
            "   except OSError: continue\n"
            "   found.append((kind, how))\n return [one for one in found if one[0] != socket.SOCK_SEQPACKET]"
        )
        assert call(sandbox, code, str(place)).values == [[]]
        with pytest.raises(TimeoutError):
            log.recv(16)


def test_no_memory_is_taken_beyond_the_end_of_an_output(sandbox: Sandbox) -> None:
    """Pages beyond a file's end are counted by no limit: fallocate with KEEP_SIZE."""
    code = "import ctypes\nlibc = ctypes.CDLL(None)\nfor number in (0, 1):\n libc.fallocate(number, 1, ctypes.c_long(0), ctypes.c_long(1 << 29))"
    sink = os.memfd_create("output")
    with sandbox.start("program", LIMITS, [os.open("/dev/null", os.O_RDONLY), sink]) as child:
        child.channel.send(pack({"code": code, "seconds": SECONDS}))
        ending = child.wait(10.0)
    assert ending is not None and ending.exit_code == 0
    assert os.fstat(sink).st_blocks == 0
    os.close(sink)


def test_root_keeps_nothing_but_to_read() -> None:
    """Capabilities are dropped in each child, also where no bubblewrap takes them from root."""
    code = (
        "from distillbench_plugins.grading.sandbox.confinement import drop_capabilities\n"
        "drop_capabilities()\n"
        "for line in open('/proc/self/status'):\n"
        "    if line.startswith(('CapInh', 'CapPrm', 'CapEff', 'CapAmb')): print(int(line.split()[1], 16))\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    may_read = 1 << 2
    assert {int(one) for one in said.split()} <= {0, may_read}


def test_honest_code_has_what_it_needs(sandbox: Sandbox) -> None:
    honest = (
        "import asyncio, os, random, resource, select, selectors, socket, sqlite3, subprocess, tempfile, threading, time, uuid\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def f(x):\n"
        " a, b = socket.socketpair(); a.sendall(b'1'); found = [b.recv(1), time.process_time() >= 0, time.thread_time() >= 0]\n"
        " r, w = os.pipe(); os.write(w, b'2'); found += [select.select([r], [], [], 1)[0] == [r], os.read(r, 1)]\n"
        " found += [sum(ThreadPoolExecutor(4).map(abs, range(5))), asyncio.run(asyncio.sleep(0, 3))]\n"
        " db = sqlite3.connect(':memory:'); db.execute('create table t (n)'); db.execute('insert into t values (4)')\n"
        " found += [db.execute('select n from t').fetchone()[0], len(uuid.uuid4().hex), random.SystemRandom().random() < 1]\n"
        " found += [os.cpu_count() > 0, os.isatty(0), os.path.exists('/nowhere'), resource.getrlimit(7)[0]]\n"
        " resource.setrlimit(resource.RLIMIT_STACK, resource.getrlimit(resource.RLIMIT_STACK))\n"
        " try:\n"
        "  with tempfile.TemporaryFile(dir='.') as stream: stream.write(b'5'); stream.truncate(0)\n"
        "  with open('t', 'w+') as stream: stream.write('6')\n"
        "  open('t', 'w').close(); os.rename('t', 'u'); os.mkdir('v'); os.symlink('u', 'v/w'); os.unlink('u')\n"
        "  sqlite3.connect('db').execute('create table t (n)')\n"
        " except PermissionError: found.append('nowhere to write')\n"
        " except (OSError, sqlite3.OperationalError) as error:\n"
        "  found.append('nowhere to write' if 'unable to open' in str(error) or error.errno == 2 else repr(error))\n"
        " return found"
    )
    found = call(sandbox, honest, 1, limits=LIMITS, seconds=5.0)
    assert len(found.values) == 1 and isinstance(found.values[0], list), found
    expected = [b"1", True, True, True, b"2", 10, 3, 4, 32, True, True, False, False, LIMITS.open_files]
    assert found.values[0] == expected + ([] if "bubblewrap" in sandbox.layers else ["nowhere to write"])
