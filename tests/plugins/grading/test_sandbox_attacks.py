"""Attacks on the sandbox: each is contained, none makes a wrong answer right, and nothing is left of them."""
# ruff: noqa: E501 - attacks are written as they are run

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from plugin_helpers import ROOT
from sandbox_harness import LIMITS, TOKEN, call, isolated, processes_below, run_program, snapshot

from distillbench_plugins.grading.sandbox.sandbox import Sandbox

#: What every attack may use. `f` of an attack gives `contained` or what it reached.
PRELUDE = """
import ctypes, gc, os, signal, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def tried(action, *arguments):
    try:
        found = action(*arguments)
    except (OSError, MemoryError, RuntimeError, ValueError, ImportError, OverflowError) as error:
        return "contained"
    return f"REACHED {found!r:.300}"
def called(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    return "contained" if result == -1 else f"REACHED system call {number}: {result}"
def everyone(each):
    found = [one for one in each if one != "contained"]
    return found or "contained"
"""

#: Refused at once, so that the code can go on: name, expression.
REFUSED = {
    "fork": "tried(os.fork)",
    "fork bomb": "everyone(tried(os.fork) for _ in range(100))",
    "double fork": "tried(lambda: os.fork() or os.setsid() or os.fork())",
    "vfork": "called(58)",
    "clone without thread": "called(56, 17, 0, 0, 0, 0)",
    "clone3": "called(435, 0, 0)",
    "exec": "tried(os.execv, '/bin/sh', ['sh', '-c', 'true'])",
    "subprocess": "tried(__import__('subprocess').run, ['/bin/true'])",
    "system": "'contained' if os.system('true') != 0 else 'REACHED'",
    "spawn": "tried(os.posix_spawn, '/bin/true', ['true'], {{}})",
    "internet": "tried(socket.create_connection, ('1.1.1.1', 53), 1)",
    "localhost": "tried(socket.create_connection, ('127.0.0.1', 22), 1)",
    "listen": "tried(lambda: socket.socket().bind(('127.0.0.1', 0)))",
    "unix socket": "tried(socket.socket, socket.AF_UNIX)",
    "netlink": "tried(socket.socket, 16, 3, 0)",
    "packet socket": "tried(socket.socket, 17, 3, 0)",
    "dns": "tried(socket.getaddrinfo, 'example.org', 80)",
    "connect a pair": "tried(socket.socketpair()[0].connect, '/run/docker.sock')",
    "ssh keys": "tried(os.listdir, {ssh!r})",
    "home": "tried(os.listdir, {home!r})",
    "passwd": "tried(open, '/etc/passwd')",
    "shadow": "tried(open, '/etc/shadow')",
    "own environ": "tried(lambda: open('/proc/self/environ').read())",
    "environ of 1": "tried(lambda: open('/proc/1/environ').read())",
    "environ of the server": "tried(lambda: open(f'/proc/{{os.getppid()}}/environ').read())",
    "environ of the parent": "tried(lambda: open('/proc/{parent}/environ').read())",
    "memory of the server": "tried(lambda: open(f'/proc/{{os.getppid()}}/mem', 'r+b'))",
    "project": "tried(os.listdir, {root!r})",
    "tests": "tried(lambda: open({this!r}).read())",
    "data root": "tried(os.listdir, {data!r})",
    "working folder": "tried(lambda: open({cwd!r} + '/pyproject.toml').read())",
    "write to /tmp": "tried(open, '/tmp/attack', 'w')",
    "write to home": "tried(open, {home!r} + '/attack', 'w')",
    "write to /dev/shm": "tried(open, '/dev/shm/attack', 'w')",
    "write to /var/tmp": "tried(open, '/var/tmp/attack', 'w')",
    "write to the interpreter": "tried(open, os.path.dirname(os.__file__) + '/attack.py', 'w')",
    "write to the sandbox": "tried(open, '/box/sandbox/attack.py', 'w')",
    "write to another slot": "tried(open, '/scratch/attack', 'w')",
    "memfd": "called(319, 0, 0)",
    "shared memory": "called(29, 0, 4096, 0o1600)",
    "message queue": "called(68, 0, 0o1600)",
    "kill the server": "tried(os.kill, os.getppid(), 9)",
    "kill the parent": "tried(os.kill, {parent}, 9)",
    "kill 1": "tried(os.kill, 1, 9)",
    "kill all": "tried(os.kill, -1, 9)",
    "kill the group": "tried(os.killpg, 0, 9)",
    "kill by thread": "called(200, os.getppid(), 9)",
    "tgkill": "called(234, os.getppid(), os.getppid(), 9)",
    "queue a signal": "called(129, os.getppid(), 9, 0)",
    "pidfd": "tried(os.pidfd_open, os.getppid())",
    "ptrace": "called(101, 16, os.getppid(), 0, 0)",
    "read another memory": "called(310, os.getppid(), 0, 0, 0, 0, 0)",
    "write another memory": "called(311, os.getppid(), 0, 0, 0, 0, 0)",
    "kcmp": "called(312, os.getpid(), os.getppid(), 0, 0, 0)",
    "perf": "called(298, 0, 0, -1, -1, 0)",
    "bpf": "called(321, 0, 0, 0)",
    "userfaultfd": "called(323, 0)",
    "keyctl": "called(250, 0, -3, 0)",
    "add_key": "called(248, 0, 0, 0, 0, -3)",
    "io_uring": "called(425, 1, 0)",
    "personality": "called(135, 0x0040000)",
    "unshare": "called(272, 0x10000000)",
    "setns": "called(308, 0, 0)",
    "mount": "called(165, 0, 0, 0, 0, 0)",
    "chroot": "tried(os.chroot, '.')",
    "pivot_root": "called(155, 0, 0)",
    "new mount interface": "called(430, 0, 0)",
    "file handles": "called(304, -100, 0, 0)",
    "mknod": "called(133, 0, 0o060600, 0x0801)",
    "priority of the server": "called(141, 0, os.getppid(), 19)",
    "affinity of the server": "tried(os.sched_setaffinity, os.getppid(), {{0}})",
    "owner of a file": "tried(__import__('fcntl').fcntl, 0, 8, os.getppid())",
    "owner of a file, exactly": "called(72, 0, 15, 0)",
    "owner of a socket": "called(16, 3, 0x8901, 0)",
    "signal of a file": "tried(__import__('fcntl').fcntl, 0, 10, 9)",
    "setuid": "'contained' if os.getuid() == 0 and {fallback} else tried(os.setuid, 0) if os.getuid() else 'contained'",
    "more processor time": "tried(__import__('resource').setrlimit, 0, (10 ** 6, 10 ** 6))",
    "more memory": "tried(__import__('resource').setrlimit, 9, (1 << 40, 1 << 40))",
    "limits of the server": "tried(__import__('resource').prlimit, os.getppid(), 9, (1 << 20, 1 << 20))",
    "undo seccomp": "'contained' if libc.prctl(22, 0, 0, 0, 0) == -1 and libc.prctl(21, 0, 0, 0, 0) == 2 else 'REACHED'",
    "undo no_new_privs": "'contained' if libc.prctl(38, 0, 0, 0, 0) == -1 else 'REACHED'",
    "chdir out": "tried(lambda: os.chdir('/') or os.chdir('../..') or open('etc/passwd'))",
    "dot dot": "tried(open, '../../../etc/passwd')",
    "token": "'contained' if {token!r} not in str(dict(os.environ)) + str(os.environb) else 'REACHED'",
    "token in memory": "'contained' if ctypes.CDLL(None)['getenv'](b'HUB_TOKEN') == 0 else 'REACHED'",
    "the server's modules": "[name for name in sys.modules if name.split('.')[0] in ('sandbox', 'distillbench')] or 'contained'",
    "import the server": "tried(__import__, 'sandbox.server')",
    "import the project": "tried(__import__, 'distillbench_plugins.grading.code')",
    "the server's main": "sorted(set(vars(sys.modules['__main__'])) - {{'__name__', '__doc__', '__package__', '__loader__', '__spec__'}}) or 'contained'",
    "open descriptors": "everyone(tried(os.fstat, number) for number in range(4, 64))",
}

#: Code that ends its process or must be ended: name, code of the module.
ENDED = {
    "x32 getpid": "def f(x): return 2 if called(0x40000000 + 39) else 7",
    "x32 fork": "def f(x): return 2 if called(0x40000000 + 57) else 7",
    "exit": "def f(x): os._exit(0)",
    "exit at once": "os._exit(0)\ndef f(x): return 2",
    "sys.exit": "def f(x): sys.exit(0)",
    "abort": "def f(x): os.abort()",
    "null pointer": "def f(x): return ctypes.string_at(0)",
    "stack overflow": "def f(x):\n sys.setrecursionlimit(10 ** 9)\n return f(x)",
    "stack overflow in C": "def f(x):\n for _ in range(10 ** 6): x = [x]\n return repr(x)",
    "endless": "def f(x):\n while True: pass",
    "endless in C": "def f(x): return 9 ** 9 ** 9",
    "ignores signals": (
        "def f(x):\n"
        " for number in range(1, 65):\n"
        "  try: signal.signal(number, signal.SIG_IGN)\n"
        "  except (OSError, ValueError): pass\n"
        " while True: pass"
    ),
    "blocks signals and stops timers": (
        "def f(x):\n"
        " signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
        " for timer in range(3): signal.setitimer(timer, 0)\n"
        " while True: pass"
    ),
    "swallows all": "def f(x):\n while True:\n  try:\n   while True: pass\n  except BaseException: pass",
    "memory": "def f(x): return bytearray(1 << 40)",
    "memory bit by bit": "def f(x):\n kept = []\n while True: kept.append(bytearray(1 << 20))",
    "holds itself": "def f(x):\n x = []; x.append(x); return x",
    "deep": "def f(x):\n for _ in range(100000): x = [x]\n return x",
    "huge return": "def f(x): return 'x' * (300 << 20)",
    "endless iterator": "def f(x): return iter(int, 1)",
    "closes all": "def f(x):\n os.closerange(0, 1000); return 2",
    "garbage on all": (
        "def f(x):\n"
        " for number in range(64):\n"
        "  try: os.write(number, b'\\xff' * 4096)\n"
        "  except OSError: pass\n"
        " return 2"
    ),
    "forged frames": (
        "def forge():\n"
        " for number in range(64):\n"
        "  said = b'\\x00' * 16 + b'\\x00\\x00\\x00\\x02v\\x02'\n"
        "  try: os.write(number, struct.pack('!I', len(said)) + said)\n"
        "  except OSError: pass\n"
        "forge()\n"
        "def f(x):\n forge(); os._exit(0)"
    ),
    "loaded, then forged": (
        "for number in range(64):\n"
        " try: os.write(number, struct.pack('!I', 1) + b'+' + struct.pack('!I', 22) + bytes(16) + b'\\0\\0\\0\\2v\\2')\n"
        " except OSError: pass\n"
        "os._exit(0)\ndef f(x): return 2"
    ),
    "dup over the channel": "def f(x):\n os.dup2(os.open('/dev/zero', os.O_RDONLY), 3); return 2",
    "thread takes over": "def g():\n os._exit(0)\ndef f(x):\n threading.Thread(target=g).start(); time.sleep(9)",
    "raises from a destructor": "class C:\n def __del__(self): os._exit(0)\ndef f(x):\n C(); return 2",
    "audit hook": "def hook(event, arguments): os._exit(0)\ndef f(x):\n sys.addaudithook(hook); open('x'); return 2",
}

#: Code whose answer is wrong, and that wants it to count: name, code.
CHEATS = {
    "always equal": (
        "class Equal:\n __eq__ = lambda a, b: True\n __ne__ = lambda a, b: False\n __hash__ = lambda a: 1\n"
        "def f(x): return Equal()"
    ),
    "always equal integer": "class Equal(int):\n __eq__ = lambda a, b: True\n __hash__ = int.__hash__\ndef f(x): return Equal(7)",
    "always equal inside": "class Equal:\n __eq__ = lambda a, b: True\ndef f(x): return [Equal()]",
    "claims another class": "class Equal:\n __class__ = int\n __eq__ = lambda a, b: True\n__name__ = 'int'\ndef f(x): return Equal()",
    "patched builtins": (
        "import builtins\nfor name in ('print', 'repr', 'isinstance', 'type', 'len', 'all', 'any'):\n"
        " setattr(builtins, name, lambda *a, **k: True)\ndef f(x): return 7"
    ),
    "patched modules": (
        "class Fake:\n def __getattr__(self, name): return lambda *a, **k: True\n"
        "for name in ('msgpack', 'json', 'pytest', 'struct', 'operator'): sys.modules[name] = Fake()\ndef f(x): return 7"
    ),
    "patched msgpack": "import msgpack\nmsgpack.packb = lambda *a, **k: b''\ndef f(x): return 7",
    "printed result": "def f(x):\n print('test_f PASSED'); print(2); print('1 passed'); return 7",
    "at exit": "import atexit\natexit.register(lambda: print('1 passed'))\ndef f(x): return 7",
    "tracing": "sys.settrace(lambda *a: None); sys.setprofile(lambda *a: None)\ndef f(x): return 7",
    "frames": (
        "def f(x):\n"
        " frame = sys._getframe()\n"
        " while frame is not None:\n"
        "  for held in list(frame.f_locals.values()) + list(frame.f_code.co_consts):\n"
        "   if isinstance(held, dict) and 'expected' in held: return held['expected']\n"
        "  for name in ('result', 'expected', 'outcome', 'passed'):\n"
        "   if name in frame.f_locals: frame.f_locals[name] = 2\n"
        "  frame = frame.f_back\n"
        " return 7"
    ),
    "search of memory": (
        "def f(x):\n"
        " for held in gc.get_objects():\n"
        "  if isinstance(held, dict) and isinstance(held.get('expected'), int): return held['expected']\n"
        " return 7"
    ),
}


@pytest.fixture(scope="module", params=["bubblewrap", "seccomp and landlock"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox of each kind, with which this module leaves nothing behind."""
    folders = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path.home(), Path.cwd())
    with isolated(request.param == "bubblewrap") as sandbox:
        before = snapshot(*folders)
        yield sandbox
        assert call(sandbox, "def f(x): return x + 1", 1).passes(2)  # it still works
        written = {name for name, when in snapshot(*folders).items() if before.get(name) != when}
        assert not {name for name in written if "attack" in name}
        server = [one for one in psutil.Process().children() if one.pid == sandbox._up.process.pid]
        left = [one for one in server for one in one.children(recursive=True)]
        assert all("sandbox.server" in " ".join(one.cmdline()) for one in left)
    assert server
    assert not server[0].is_running()
    assert not [one for one in processes_below(os.getpid()) if "sandbox.server" in " ".join(one.cmdline())]


def filled(expression: str, sandbox: Sandbox) -> str:
    """An expression with the places of this machine in it."""
    return expression.format(
        ssh=str(Path.home() / ".ssh"),
        home=str(Path.home()),
        root=str(ROOT / "distillbench"),
        this=str(Path(__file__).resolve()),
        data=str(ROOT.parent / "shared"),
        cwd=str(ROOT),
        parent=os.getpid(),
        token=TOKEN,
        fallback="bubblewrap" not in sandbox.layers,
    )


@pytest.mark.parametrize("attack", REFUSED)
def test_it_is_refused(sandbox: Sandbox, attack: str) -> None:
    found = call(sandbox, f"{PRELUDE}\ndef f(x): return {filled(REFUSED[attack], sandbox)}", 1)
    assert found.values == ["contained"], found


@pytest.mark.parametrize("attack", ENDED)
def test_it_gives_no_pass_and_is_ended(sandbox: Sandbox, attack: str) -> None:
    found = call(sandbox, f"{PRELUDE}\n{ENDED[attack]}", 1, 1)
    assert not found.passes(2, 2)
    assert found.ending.cpu_seconds < 5
    assert call(sandbox, "def f(x): return x + 1", 1).passes(2)


@pytest.mark.parametrize("attack", CHEATS)
def test_it_is_a_wrong_answer(sandbox: Sandbox, attack: str) -> None:
    found = call(sandbox, f"{PRELUDE}\n{CHEATS[attack]}", 1)
    assert found.loaded
    assert not found.passes(2), found
    assert not found.passes(7) or attack not in ("always equal", "always equal inside", "claims another class")


@pytest.mark.parametrize("attack", ["exit", "always equal", "printed result", "forged frames", "closes all", "at exit"])
def test_it_is_no_right_program(sandbox: Sandbox, attack: str, tmp_path: Path) -> None:
    code = f"{PRELUDE}\n{(CHEATS | ENDED)[attack]}\nprint(f(input()), end='')"
    output, ending = run_program(sandbox, code, "1\n", tmp_path)
    assert ending is not None
    assert output.split() != ["2"] or ending.exit_code != 0


def test_a_program_that_fills_its_output_is_ended(sandbox: Sandbox, tmp_path: Path) -> None:
    _, ending = run_program(sandbox, "while True: print('x' * 100000)", "", tmp_path)
    assert ending is not None
    assert ending.exit_code != 0
    assert (tmp_path / "output").stat().st_size <= 64 << 20


def test_scratch_is_bounded_and_emptied(sandbox: Sandbox) -> None:
    fill = (
        f"{PRELUDE}\ndef f(x):\n total = 0\n"
        " try:\n"
        "  for number in range(200):\n"
        "   with open(f'attack{number}', 'wb') as stream: total += stream.write(bytes(8 << 20))\n"
        " except OSError: pass\n"
        " return total"
    )
    patient = replace(LIMITS, cpu_seconds=60)  # a quarter of a gigabyte takes seconds on a slow machine
    assert call(sandbox, fill, 1, limits=patient, seconds=30.0).values[0] <= 256 << 20
    look = f"{PRELUDE}\ndef f(x):\n try: return os.listdir('.')\n except OSError: return []"
    assert all(call(sandbox, look, 1).values == [[]] for _ in range(4))


def test_links_out_of_scratch_lead_nowhere_and_are_not_followed_when_it_is_emptied(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.write_text("kept")
    link = (
        f"{PRELUDE}\ndef f(x):\n"
        f" for name, target in (('a', {str(tmp_path)!r}), ('b', '/'), ('c', '/usr')):\n"
        "  try: os.symlink(target, name); os.makedirs('d/e'); os.symlink('/', 'd/e/g')\n"
        "  except OSError: pass\n"
        " return [tried(os.listdir, name) for name in ('a', 'b')]"
    )
    assert call(sandbox, link, 1).values == [["contained", "contained"]]
    assert kept.read_text() == "kept"
    assert call(sandbox, "def f(x): return x + 1", 1).passes(2)


def test_folders_that_cannot_be_entered_are_removed_too(sandbox: Sandbox) -> None:
    make = f"{PRELUDE}\ndef f(x):\n os.makedirs('a/b/c'); open('a/b/file', 'w').close(); os.chmod('a/b', 0); os.chmod('a', 0)"
    call(sandbox, make, 1)
    look = f"{PRELUDE}\ndef f(x):\n try: return os.listdir('.')\n except OSError: return []"
    assert call(sandbox, look, 1).values == [[]]


def test_threads_are_bounded_and_end_with_their_process(sandbox: Sandbox) -> None:
    bomb = (
        f"{PRELUDE}\ndef f(x):\n started = 0\n"
        " try:\n"
        "  for _ in range(2000):\n"
        "   threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); started += 1\n"
        " except (RuntimeError, MemoryError): pass\n"
        " return started"
    )
    found = call(sandbox, bomb, 1)
    assert found.ending.wall_seconds < 20
    assert call(sandbox, "def f(x): return x + 1", 1).passes(2)


def test_honest_code_may_use_threads_files_and_event_loops(sandbox: Sandbox) -> None:
    honest = (
        "import asyncio, threading, tempfile\n"
        "def f(x):\n"
        " found = []\n"
        " thread = threading.Thread(target=found.append, args=(1,)); thread.start(); thread.join()\n"
        " return found + [asyncio.run(asyncio.sleep(0.001, x))]"
    )
    assert call(sandbox, honest, 1).passes([1, 1])


@pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64", reason="NOT TESTED: i386 calls are x86's"
)
def test_system_calls_by_the_old_interrupt_are_refused(sandbox: Sandbox) -> None:
    """`int 0x80` reaches the table of i386, whose numbers a filter for x86-64 would take for others."""
    code = (
        f"{PRELUDE}\nimport mmap\ndef f(x):\n"
        " try: page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)\n"
        " except OSError: return 'contained'\n"
        # mov eax, 2 (fork); int 0x80; ret
        " page.write(b'\\xb8\\x02\\x00\\x00\\x00\\xcd\\x80\\xc3')\n"
        " call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))\n"
        " return 'REACHED' if call() >= 0 else 'contained'"
    )
    found = call(sandbox, code, 1)
    assert found.values in ([], ["contained"]), found


def test_nothing_is_left_in_memory_of_one_job_for_the_next(sandbox: Sandbox) -> None:
    leave = "import builtins, sys\nbuiltins.left = 1\nsys.modules['left'] = sys\ndef f(x): return 7"
    assert call(sandbox, leave, 1).passes(7)
    assert call(
        sandbox, "import builtins, sys\ndef f(x): return hasattr(builtins, 'left') or 'left' in sys.modules", 1
    ).passes(False)


def test_folders_deeper_than_any_recursion_are_removed_and_a_locked_slot_is_opened(sandbox: Sandbox) -> None:
    dig = (
        f"{PRELUDE}\ndef f(x):\n"
        " try:\n"
        "  os.chmod('.', 0o700)\n"
        "  for _ in range(3000): os.mkdir('d'); os.chdir('d')\n"
        " except OSError: pass\n"
    )
    call(sandbox, dig, 1)
    call(sandbox, f"{PRELUDE}\ndef f(x): return tried(os.chmod, '.', 0)", 1)
    look = f"{PRELUDE}\ndef f(x):\n try: return os.listdir('.')\n except OSError: return []"
    assert call(sandbox, look, 1).values == [[]]
    assert call(sandbox, "def f(x): return x + 1", 1).passes(2)
