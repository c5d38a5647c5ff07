"""Files and folders of a store: their digests, their size, and how they reach the disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from distillbench.errors import DamagedError
from distillbench.fingerprint import digest_path
from distillbench.sealed import unreadable
from distillbench.writing import naming


def digests(folder: Path, leaving_out: Sequence[str] = ()) -> dict[str, str]:
    """The digests of all files below a folder, by name; those of large files that links lead to are remembered.

    Args:
        folder: Where to look.
        leaving_out: Files and folders in it that do not count.
    """
    named = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): digest_path(path, remember=path.is_symlink())
        for name, path in named.items()
        if name.parts[0] not in leaving_out
    }


def why_damaged(path: Path, wanted: str) -> str | None:
    """What is wrong with a file that had this digest, in words that follow its name; None where nothing is.

    Raises:
        StoreError: It may not be read.
    """
    if not wanted:
        return "is no file that the result was written with"
    try:
        digest = digest_path(path, remember=path.is_symlink())
    except FileNotFoundError:
        return "is not there any more"
    except OSError as error:
        found = unreadable(path, error)
        if isinstance(found, DamagedError):
            return found.why
        raise found from error
    return None if digest == wanted else "is not what was written: its digest is another"


def tree_bytes(path: Path) -> int:
    """The size of a file, or of all below a folder, in bytes; a link counts as itself, not as what it leads to."""
    return sum(_n_bytes(file) for file in (path, *path.rglob("*")))


def _n_bytes(path: Path) -> int:
    try:
        return path.lstat().st_size if path.is_file() else 0
    except OSError:  # a run has just moved it
        return 0


def has_links(folder: Path) -> bool:
    """Whether anything below a folder is a link."""
    return any(path.is_symlink() for path in folder.rglob("*"))


def sync_tree(folder: Path, leaving_out: str) -> None:
    """Hands everything in a folder to the disk, but for what lies in one folder of it."""
    scratch = folder / leaving_out
    for path in (folder, *folder.rglob("*")):
        if path != scratch and not path.is_relative_to(scratch) and not path.is_symlink():
            sync(path)


def sync(path: Path) -> None:
    """Hands a file or a folder's list of files to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
