"""Finds the strongest isolation that this machine offers, and starts the sandbox's server in it.

Two things must hold before model code runs: it cannot reach the network, and it cannot read or write the user's files.
bubblewrap gives both to the whole server; seccomp and Landlock give them to each child, alone or inside bubblewrap.
"""

from __future__ import annotations

import json
import os
import shutil
import site
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distillbench.errors import DistillbenchError
from distillbench_plugins.grading.sandbox.confinement import Files

#: Set by `--unsafe-code-execution`.
UNSAFE_VARIABLE = "DISTILLBENCH_UNSAFE_CODE_EXECUTION"
#: Where the server's own modules and its children's folders are, inside bubblewrap.
_BOX, _SCRATCH = "/box", "/scratch"
#: All that is written there, but in the folders that are file systems of their own (scratch.py).
_SCRATCH_BYTES = 256 << 20
_START_SECONDS, _STOP_SECONDS = 60.0, 5.0
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/alternatives")
_CODE = "import sys; sys.path.insert(0, sys.argv[1]); from sandbox.server import main; sys.path.pop(0); main({})"


class SandboxError(DistillbenchError):
    """Model code cannot be run here."""


@dataclass(frozen=True)
class Running:
    """A server that is up.

    Attributes:
        process: bubblewrap's process, or the server's own.
        control: Where jobs go.
        layers: What isolates a child, strongest first.
    """

    process: subprocess.Popen[bytes]
    control: socket.socket
    layers: tuple[str, ...]


def start_server(preload: Sequence[str]) -> Running:
    """Starts a server under the strongest isolation there is.

    Args:
        preload: Modules that children have imported from the start.

    Raises:
        SandboxError: There is no isolation, and the user has not said to go on without.
    """
    running = None
    if (bubblewrap := shutil.which("bwrap")) is not None:
        for has_proc in (True, False) if _has_landlock() else (False,):
            around = _bubblewrap(bubblewrap, has_proc)
            running = running or _start(around, _BOX, _SCRATCH, preload, ("bubblewrap",))
    if running is None:
        running = _start([], str(Path(__file__).parents[1]), None, preload, ())
    if running is None:
        raise SandboxError(f"the sandbox's server does not start: {sys.executable} cannot import its modules")
    if "bubblewrap" not in running.layers and not {"seccomp", "landlock"} <= set(running.layers):
        if os.environ.get(UNSAFE_VARIABLE) != "1":
            stop_server(running)
            raise SandboxError(_nothing_isolates(running.layers))
        return Running(running.process, running.control, ("NO ISOLATION", *running.layers))
    return running


def stop_server(running: Running) -> None:
    """Ends a server and everything in it."""
    running.control.close()  # it ends by itself then, and its processor time is known
    try:
        running.process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        running.process.kill()
        running.process.wait()


def _start(
    around: list[str], box: str, scratch: str | None, preload: Sequence[str], layers: tuple[str, ...]
) -> Running | None:
    """Starts a server behind a command; None where that does not work on this machine."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        arguments = (theirs.fileno(), scratch, _readable(f"{box}/sandbox"), list(preload))
        code = _CODE.format(", ".join(map(repr, arguments)))
        process = subprocess.Popen(
            [*around, sys.executable, "-I", "-c", code, box],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None,
            env=_ENVIRONMENT,
            cwd="/",
        )
    ours.settimeout(_START_SECONDS)
    try:
        hello = ours.recv(1 << 12)
    except TimeoutError:
        hello = b""
    if not hello:
        process.kill()
        process.wait()
        ours.close()
        return None
    ours.settimeout(None)
    return Running(process, ours, (*layers, *json.loads(hello)["layers"]))


#: All that is left of the user's environment.
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": _SCRATCH,
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
}


def _python_folders() -> list[str]:
    """Where this interpreter and its packages lie."""
    paths = sysconfig.get_paths()
    folders = {sys.base_prefix, sys.prefix, paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"]}
    folders |= {str(Path(sys.executable).parent), str(Path(sys.executable).resolve().parent), *site.getsitepackages()}
    folders |= {path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")}  # also by a .pth
    found = sorted(folder for folder in folders if Path(folder).is_dir())
    return [one for one in found if not any(one != other and Path(one).is_relative_to(other) for other in found)]


def _readable(box: str) -> list[str]:
    return [*_SYSTEM, *_DEVICES, *_python_folders(), box]


def _has_landlock() -> bool:
    """Whether children can be kept from files: then they may see /proc, of which nothing but their own files opens."""
    try:
        Files((), None)
    except (OSError, ImportError, RuntimeError):
        return False
    return True


def _bubblewrap(program: str, has_proc: bool) -> list[str]:
    """Bubblewrap with new namespaces of every kind, and of the file system only what Python needs.

    With /proc there are the names under which programs open their standard streams; a container may forbid it.

    In its namespaces the server may mount what its children write to; these drop that (confinement.py).
    """
    command = [program, "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL"]
    command += ["--cap-add", "CAP_SYS_ADMIN"]
    command += ["--die-with-parent", "--new-session", "--hostname", "sandbox"]
    for path in _SYSTEM:
        if Path(path).is_symlink():
            command += ["--symlink", str(Path(path).readlink()), path]
        elif Path(path).exists():
            command += ["--ro-bind", path, path]
    for path in _DEVICES:
        command += ["--dev-bind", path, path]
    for folder in _python_folders():
        command += ["--ro-bind", folder, folder]
    if has_proc:
        command += ["--proc", "/proc", "--symlink", "/proc/self/fd", "/dev/fd"]
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            command += ["--symlink", f"/proc/self/fd/{number}", f"/dev/{name}"]
    command += ["--ro-bind", str(Path(__file__).parent), f"{_BOX}/sandbox"]
    return [*command, "--size", str(_SCRATCH_BYTES), "--tmpfs", _SCRATCH, "--chdir", "/", "--"]


def _nothing_isolates(layers: Sequence[str]) -> str:
    return (
        "model code is hostile, and nothing on this machine isolates it\n"
        "    wanted: bubblewrap (the program bwrap, allowed to make user namespaces), or seccomp and Landlock\n"
        f"    got:    {', '.join(layers)}\n"
        "    hint:   install bubblewrap (on Debian: apt install bubblewrap), or libseccomp on Linux 5.13 or newer;\n"
        "            on a machine to throw away, `distillbench run --unsafe-code-execution` runs it all the same"
    )
