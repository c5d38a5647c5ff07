"""Folders to write in: each a small file system of its own, thrown away once a child has written to it.

Runs inside the sandbox's server, which bubblewrap lets mount in the namespace that it made.
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


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "the scratch cannot be mounted")
