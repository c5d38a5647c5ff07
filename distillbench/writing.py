"""What a disk refuses, with the file that it was: full, over a quota, read-only, not permitted."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: What a disk, its quota, its permissions or a limit of the shell refuse is no fault of the program, wherever it is.
_REFUSALS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
        *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP),  # paths that cannot be written
        *(errno.EMFILE, errno.ENFILE),
    }
)
#: Libraries that write by themselves raise errors of their own, in which only the words are left.
_WORDS = {number: os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)}

#: What `tempfile` says where every folder for temporary files refuses them.
_NOWHERE = "No usable temporary directory found"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names the file in an error that does not: writing to an open file, and closing it, tell no name."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def refused_by_disk(error: BaseException, place: Path | None = None) -> str | None:
    """What a disk refused, as `PATH: why`; None for an error of another sort.

    Args:
        error: Any error; what it was raised from counts too.
        place: What to name where the error names nothing.
    """
    found: BaseException | None = error
    while found is not None:
        if _NOWHERE in str(found):
            return f"{getattr(found, 'strerror', None) or found}: they are full, or may not be written"
        number = _number(found)
        if number is not None:
            where = getattr(found, "filename", None) or place or "a file"
            return f"{where}: {os.strerror(number)}"
        found = found.__cause__
    return None


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _REFUSALS else None
    return next((number for number, words in _WORDS.items() if words in str(error)), None)
