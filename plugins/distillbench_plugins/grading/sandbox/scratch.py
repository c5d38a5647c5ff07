"""Folders to write in: each a small file system of its own, thrown away once a child has written to it.

Runs inside the sandbox's server, which bubblewrap lets mount in the namespace that it made. Where the machine forbids
that all the same (some rules of AppArmor do), they are folders of one file system, and are emptied.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_NO_SETUID, _NO_DEVICES, _NO_PROGRAMS, _DETACH = 2, 4, 8, 2
#: What one child may write: bytes, and files and folders.
_OPTIONS = b"size=256m,nr_inodes=4096,mode=700"


class Scratch:
    """One folder.

    Args:
        folder: Where it is to be; its parent is there.

    Raises:
        OSError: This machine does not let it be mounted.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        Path(folder).mkdir()
        self._mount()

    def renew(self) -> bool:
        """Throws away what was written, at a cost that does not grow with its number; whether there was anything.

        Raises:
            OSError: It cannot be mounted again.
        """
        if self._free() == self._free_at_first:
            return False
        _check(_LIBC.umount2(self.folder.encode(), _DETACH))
        self._mount()
        return True

    def _mount(self) -> None:
        flags = _NO_SETUID | _NO_DEVICES | _NO_PROGRAMS
        _check(_LIBC.mount(b"scratch", self.folder.encode(), b"tmpfs", flags, _OPTIONS))
        self._free_at_first = self._free()

    def _free(self) -> tuple[int, int]:
        found = os.statvfs(self.folder)
        return found.f_bfree, found.f_ffree


class SharedScratch:
    """One folder of those that share a file system.

    Args:
        folder: Where it is to be; its parent is there.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        Path(folder).mkdir()

    def renew(self) -> bool:
        """Removes what was written. The folder stays, and so do the rules that allow it."""
        _empty(self.folder)
        return False


def new_scratch(folder: str) -> Scratch | SharedScratch:
    """A folder to write in, as good as this machine allows."""
    try:
        return Scratch(folder)
    except OSError:
        Path(folder).rmdir()
        return SharedScratch(folder)


def _empty(folder: str) -> None:
    """Removes what a child left, whatever it did to it: folders may be locked, and deeper than any recursion goes."""
    os.chmod(folder, 0o700)  # noqa: PTH101
    n_moved = 0
    while entries := list(os.scandir(folder)):
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)  # noqa: PTH108
                continue
            os.chmod(entry.path, 0o700)  # noqa: PTH101
            for inner in list(os.scandir(entry.path)):
                if inner.is_dir(follow_symlinks=False):
                    os.chmod(inner.path, 0o700)  # noqa: PTH101
                n_moved += 1
                os.rename(inner.path, _free_name(folder, n_moved))  # noqa: PTH104
            os.rmdir(entry.path)  # noqa: PTH106


def _free_name(folder: str, number: int) -> str:
    """A name in a folder that nothing has."""
    name = f"{folder}/{number}"
    while os.path.lexists(name):
        name += "_"
    return name


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "the scratch cannot be mounted")
