"""What of a store no report needs any more, and how it is freed.

A report's folder names the stages that it is made of, in `stages.json`, and so does that of a part of a matrix in it;
a run writes it before it starts. Whatever is not known to be needless stays: a report without that file keeps every
stage, and while a process is running a stage, only what that process cannot want is freed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from distillbench.errors import DamagedError, StoreError
from distillbench.sealed import read_sealed
from distillbench.store.disk import tree_bytes
from distillbench.store.report_folders import STAGES, report_folders
from distillbench.store.store import Store

_DAY = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Needless:
    """A folder that can go.

    Attributes:
        what: What it is, in a word or two.
        path: Where it lies.
        n_bytes: How large it is; what links lead to does not count, and is not freed.
        why: Why nobody needs it.
        key: Of the stage it belongs to; empty where it belongs to none.
    """

    what: str
    path: Path
    n_bytes: int
    why: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What can go, and why other things stay.

    Attributes:
        needless: What can go.
        kept: Why some things stay that might go, in words.
    """

    needless: tuple[Needless, ...]
    kept: tuple[str, ...]


def find_needless(store: Store) -> Found:
    """Looks through a store.

    Raises:
        StoreError: A report's list of stages is damaged, or may not be read.
    """
    needed, silent = _needed(store)
    running = _running(store)
    found, kept = [*_superseded(store), *_half_written(store)], []
    if silent:
        names = ", ".join(silent)
        kept.append(f"every stage: {names} does not say what it needs; `distillbench report MATRIX` writes it anew")
    elif not needed and any((store.root / "stages").glob("*/*")):
        kept.append("every stage: no report says what it needs; `distillbench report MATRIX` writes one")
    elif running:
        kept.append(f"stages and caches: {len(running)} stages are running")
        found += _left_over(store, needed, running)
    else:
        found += _left_over(store, needed, running)
        found += _unnamed(store, needed)
    if not running:
        found += _caches(store)
    return Found(tuple(found), tuple(kept))


def free(store: Store, wanted: Iterable[Needless]) -> Iterator[Needless]:
    """Deletes folders that are still needless, and yields each one that is gone.

    What has been claimed or named by a report since it was found stays.
    """
    still = {one.path for one in find_needless(store).needless}
    for one in wanted:
        if one.path not in still:
            continue
        if not one.key:
            one.path.unlink() if one.path.is_file() else shutil.rmtree(one.path)
            yield one
            continue
        try:
            with store.lock(one.key).acquire(timeout=0):
                _remove(store, one.path)
        except Timeout:
            continue
        yield one


def _remove(store: Store, path: Path) -> None:
    """Takes a folder out of its place at once, so that a kill leaves no half of a result there."""
    aside = store.root / "superseded" / "freed" / f"{path.name}-{time.time_ns()}"
    aside.parent.mkdir(parents=True, exist_ok=True)
    path.rename(aside)
    shutil.rmtree(aside)


def kept_for_reports(store: Store, kind: str) -> frozenset[str]:
    """The keys of stages whose large checkpoints of a kind a report's matrix keeps.

    Raises:
        StoreError: A report's list of stages is damaged, or may not be read.
    """
    named = [_read(path) for folder in report_folders(store.root) if (path := folder / STAGES).exists()]
    return frozenset(key for keys, kept in named if kind in kept for key in keys)


def _read(path: Path) -> tuple[frozenset[str], tuple[str, ...]]:
    """The keys that a report names, and the kinds of large checkpoints that its matrix keeps."""
    try:
        found = read_sealed(path, STAGES)
        return frozenset(found["stages"]), tuple(found.get("keep", ()))
    except (FileNotFoundError, DamagedError, KeyError) as error:
        raise StoreError(
            f"{path} cannot be read: {error}\n    hint: `distillbench report MATRIX` writes it anew"
        ) from error


def _needed(store: Store) -> tuple[frozenset[str], list[str]]:
    """The keys that reports and runs name, and the reports that name none."""
    keys: set[str] = set()
    silent = []
    for folder in report_folders(store.root):
        path = folder / STAGES
        if not path.exists():
            silent.append(f"report {folder.relative_to(store.root / 'reports')}")
            continue
        keys |= _read(path)[0]
    return frozenset(keys), silent


def _running(store: Store) -> frozenset[str]:
    keys = {path.stem for path in (store.root / "locks").glob("*.lock")}
    return frozenset(key for key in keys if store.is_locked(key))


def _superseded(store: Store) -> Iterator[Needless]:
    for path in sorted((store.root / "damaged").glob("*/*")):
        yield Needless("damaged result", path, tree_bytes(path), "is not what was written; a run has moved it aside")
    for path in sorted((store.root / "superseded").glob("*/*")):
        yield Needless("superseded result", path, tree_bytes(path), "a changed input has replaced it")


def _half_written(store: Store) -> Iterator[Needless]:
    """What a kill left of files that a report was writing; nothing reads it."""
    for path in sorted((store.root / "reports").rglob(".*.tmp")):
        if time.time() - _last_touched(path) > _DAY:
            yield Needless(
                "half-written report", path, tree_bytes(path), "left by a process that was killed over a day ago"
            )


def _left_over(store: Store, needed: frozenset[str], running: frozenset[str]) -> Iterator[Needless]:
    """What killed runs left: kept for a day, and for as long as a report's plan would go on from it."""
    why = "left by a run that was killed over a day ago, and in no report's plan"
    for path in sorted((store.root / "work").glob("*")):
        key = path.name
        if key not in needed and key not in running and time.time() - _last_touched(path) > _DAY:
            yield Needless("unfinished stage", path, tree_bytes(path), why, key)


def _last_touched(folder: Path) -> float:
    return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))


def _unnamed(store: Store, needed: frozenset[str]) -> Iterator[Needless]:
    for kind, path in store.results():
        if path.name not in needed:
            yield Needless(f"{kind} stage", path, tree_bytes(path), "in no report's plan", path.name)


def _caches(store: Store) -> Iterator[Needless]:
    for path in sorted((store.root / "cache").glob("*")):
        if path.is_dir() and (n_bytes := tree_bytes(path)):
            yield Needless("cache", path, n_bytes, "is made again when it is wanted")
