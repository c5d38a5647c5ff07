"""Keeps stage results by key: written to a work folder, renamed into place once, never read half-written.

<root>/stages/<kind>/<key>/manifest.json   and the stage's outputs
<root>/work/<key>/                         what a running or killed stage has so far (and its scratch/)
<root>/locks/<key>.lock                    held by the process that runs the stage
<root>/superseded/                         results that a changed input replaced
<root>/damaged/                            results that were not any more what was written, moved aside by a run
<root>/failures/                           why stages failed that have not succeeded since
<root>/reports/<matrix>/                   reports; of a part of the matrix in a folder there
<root>/runs/                               what happened in runs: one file for each, one line of JSON for an event
<root>/preflight/                          what the preflight has found
<root>/cache/<component>/                  what a component makes once for many stages; safe to delete
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from distillbench.errors import DamagedError, StoreError, WriteError
from distillbench.fingerprint import digest_named, digest_path
from distillbench.plan.plan import Finished
from distillbench.plan.stage import Stage
from distillbench.sealed import read_sealed, write_json, write_sealed
from distillbench.store.disk import digests, has_links, sync, sync_tree, tree_bytes, why_damaged
from distillbench.store.failures import forget_failure
from distillbench.store.format import FORMAT_FILE, STORE_FORMAT, refuse_other_folder
from distillbench.store.report_folders import REPORT, report_folders

MANIFEST = "manifest.json"
SCRATCH = "scratch"
#: How a manifest writes when its stage was finished, in UTC.
FINISHED_AT = "%Y-%m-%dT%H:%M:%SZ"
#: In a scratch folder: the digests of the inputs that its content was made from.
INPUTS = ".inputs.json"


@dataclass(frozen=True, slots=True)
class Made:
    """What a step gives back when its outputs are in the work folder.

    Attributes:
        outputs: File names, relative to the work folder, whose contents make the digest.
        facts: Plain values for later stages and reports.
        holes: Samples whose generation failed, or whose grader did.
    """

    outputs: tuple[str, ...]
    facts: Mapping[str, Any]
    holes: int = 0


class Store:
    """A folder of finished stages.

    Args:
        root: Made when something is first written.

    Raises:
        StoreError: The folder belongs to another format, or cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self._seen: set[tuple[str, str, str, str]] = set()
        try:
            self.root = root.resolve()
            refuse_other_folder(self.root)
        except (OSError, RuntimeError) as error:  # a RuntimeError: links in a circle
            raise StoreError(f"the store {root.absolute()} cannot be read: {error}") from error

    def prepare(self) -> None:
        """Makes the store's folder.

        Raises:
            StoreError: It cannot be written.
        """
        self._made("stages")

    def folder(self, stage: Stage) -> Path:
        """Where a stage's finished result lies."""
        return self.root / "stages" / stage.kind / stage.key

    def work(self, stage: Stage) -> Path:
        """Where a stage writes until it is finished."""
        return self._made("work", stage.key)

    def scratch(self, stage: Stage) -> Path:
        """What a stage needs to go on after a kill, and nobody needs once it is finished."""
        folder = self.work(stage) / SCRATCH
        folder.mkdir(exist_ok=True)
        return folder

    def session(self, name: str) -> Path:
        """What an engine keeps for its next session with the same student; safe to delete."""
        return self._made("cache", "sessions", name)

    def preflight(self) -> Path:
        """What the preflight has found, by content; safe to delete."""
        return self._made("preflight")

    def reports(self, matrix: str, subset: str = "") -> Path:
        """Where a matrix's report goes, or in it that of a part of the matrix."""
        return self._made("reports", matrix, subset)

    def failures(self) -> Path:
        """Why stages failed that have not succeeded since."""
        return self._made("failures")

    def runs(self) -> Path:
        """Where runs write what happens."""
        return self._made("runs")

    def cache(self, name: str) -> Path:
        """What a component makes once for many stages; safe to delete."""
        return self._made("cache", name)

    def lock(self, key: str) -> FileLock:
        """The lock that the process which runs a stage holds; the kernel frees it when that process dies."""
        return FileLock(self._made("locks") / f"{key}.lock", thread_local=False)

    def lookup(self, stage: Stage) -> Finished | None:
        """What is known of a finished stage; None when there is no result, or one whose manifest is damaged."""
        manifest = self.usable(stage)
        return None if manifest is None else Finished(**{one.name: manifest[one.name] for one in fields(Finished)})

    def manifest(self, stage: Stage) -> dict[str, Any] | None:
        """The manifest of a finished stage; None when there is no result.

        Raises:
            DamagedError: It is not what was written, or is that of another stage.
            StoreError: It may not be read.
        """
        return self._manifest(stage.kind, stage.key)

    def _manifest(self, kind: str, key: str) -> dict[str, Any] | None:
        path = self.root / "stages" / kind / key / MANIFEST
        try:
            found = read_sealed(path, MANIFEST)
        except FileNotFoundError:
            if path.parent.exists() and not path.exists():  # a result appears whole, with its manifest
                raise DamagedError(path, "is not there, and the rest of the result is") from None
            return None
        if (found["kind"], found["key"]) != (kind, key):
            raise DamagedError(path, f"is the manifest of another stage, {found['kind']} {found['label']}")
        return found

    def usable(self, stage: Stage) -> dict[str, Any] | None:
        """The manifest of a finished stage; None as for `lookup`."""
        try:
            return self.manifest(stage)
        except DamagedError:
            return None

    def damage(self, stage: Stage) -> str | None:
        """What is wrong with the manifest of a finished stage, in words; None where nothing is."""
        return self._damage(stage.kind, stage.key)

    def _damage(self, kind: str, key: str) -> str | None:
        try:
            self._manifest(kind, key)
        except DamagedError as error:
            return str(error)
        return None

    def digest(self, stage: Stage) -> str | None:
        """The digest of a finished stage; None as for `lookup`."""
        manifest = self.usable(stage)
        return None if manifest is None else str(manifest["digest"])

    def facts(self, stage: Stage) -> Mapping[str, Any] | None:
        """The facts of a finished stage; None as for `lookup`."""
        manifest = self.usable(stage)
        return None if manifest is None else dict(manifest["facts"])

    def file(self, stage: Stage, name: str) -> Path:
        """A file of a finished result, compared with its digest when this process first asks for it.

        Raises:
            DamagedError: It is not there, or not what was written.
            StoreError: It may not be read.
        """
        return self._compared(stage, [name]) / name

    def whole(self, stage: Stage) -> Path:
        """The folder of a finished result; as for `file`, every file in it."""
        return self._compared(stage, None)

    def has(self, stage: Stage, name: str) -> bool:
        """Whether a finished result was written with a file of this name."""
        manifest = self.usable(stage)
        return manifest is not None and name in manifest["files"]

    def latest(self, kind: str, most: int) -> list[dict[str, Any]]:
        """The manifests of the stages of a kind that finished last, as far as they can be used."""
        manifests = sorted((self.root / "stages" / kind).glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime)
        keys = [path.parent.name for path in manifests[-most:]]
        found = [self._manifest(kind, key) for key in keys if self._damage(kind, key) is None]
        return [manifest for manifest in found if manifest is not None]

    def results(self) -> Iterator[tuple[str, Path]]:
        """The kind and the folder of every finished result."""
        for path in sorted((self.root / "stages").glob("*/*")):
            if path.is_dir():
                yield path.parent.name, path

    def is_locked(self, key: str) -> bool:
        """Whether a process is running the stage of this key right now."""
        try:
            descriptor = os.open(self.root / "locks" / f"{key}.lock", os.O_RDONLY)  # a store may be read-only
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def begin(self, stage: Stage) -> None:
        """Notes the inputs that a stage reads; what an interrupted run made from other inputs is thrown away."""
        inputs = self._inputs(stage)
        try:
            if read_sealed(self.scratch(stage) / INPUTS, stage.key) != inputs:
                shutil.rmtree(self.work(stage))
        except FileNotFoundError:
            pass
        except DamagedError:  # what its rows were made from is not known
            self._move_aside(self.work(stage), stage)
        write_sealed(self.scratch(stage) / INPUTS, inputs, stage.key)

    def finish(self, stage: Stage, made: Made, seconds: float, about: Mapping[str, Any]) -> Finished:
        """Makes a work folder the stage's result, replacing an older one (which is kept under `superseded`).

        Args:
            stage: The stage.
            made: What its step gave back.
            seconds: How long it ran.
            about: Versions, host and the like; for people, not for keys.
        """
        work = self.work(stage)
        begun_with = work / SCRATCH / INPUTS
        inputs = read_sealed(begun_with, stage.key) if begun_with.exists() else self._inputs(stage)
        files = digests(work, leaving_out=(SCRATCH, MANIFEST))
        manifest = {
            "format": STORE_FORMAT,
            "key": stage.key,
            "kind": stage.kind,
            "label": stage.label,
            "parts": stage.described(),
            "roles": {role: [one.key for one in stages] for role, stages in stage.inputs().items()},
            "pace": stage.pace().alike,
            "did": stage.did(made.facts, seconds),
            "inputs": inputs,
            "outputs": list(made.outputs),
            "files": files,
            "digest": digest_named((name, files.get(name) or digest_path(work / name)) for name in made.outputs),
            "facts": made.facts,
            "holes": made.holes,
            "freed": False,
            "seconds": round(seconds, 3),
            "finished_at": time.strftime(FINISHED_AT, time.gmtime()),
            "about": about,
        }
        sync_tree(work, leaving_out=SCRATCH)
        write_sealed(work / MANIFEST, manifest, MANIFEST)
        self._install(stage, work)
        found = self.lookup(stage)
        assert found is not None  # noqa: S101 - just installed
        return found

    def recover(self, stage: Stage) -> None:
        """Installs a work folder that was complete when its process was killed."""
        work = self.root / "work" / stage.key
        try:
            found = read_sealed(work / MANIFEST, MANIFEST)
        except FileNotFoundError:
            return
        except DamagedError:
            self._move_aside(work, stage)
            return
        if (found["kind"], found["key"]) == (stage.kind, stage.key):
            self._install(stage, work)
        else:
            self._move_aside(work, stage)

    def set_aside(self, stage: Stage) -> Path | None:
        """Moves a damaged result out of the way, so that the stage runs again; None while a process is at the stage."""
        try:
            with self.lock(stage.key).acquire(timeout=0):
                return self._move_aside(self.folder(stage), stage)
        except Timeout:
            return None

    def overview(self) -> dict[str, Any]:
        """What the store holds: finished stages by kind, unfinished ones, reports and sizes in bytes."""
        finished: dict[str, dict[str, int]] = {}
        for kind, path in self.results():
            found = finished.setdefault(kind, {"stages": 0, "bytes": 0})
            found["stages"] += 1
            found["bytes"] += tree_bytes(path)
        unfinished = [
            {
                "key": path.name,
                "state": "running" if self.is_locked(path.name) else "stopped",
                "bytes": tree_bytes(path),
            }
            for path in sorted((self.root / "work").glob("*"))
        ]
        return {
            "root": str(self.root),
            "finished": finished,
            "unfinished": unfinished,
            "damaged": [why for kind, path in self.results() if (why := self._damage(kind, path.name)) is not None],
            "superseded_bytes": tree_bytes(self.root / "superseded"),
            "reports": [str(folder / REPORT) for folder in report_folders(self.root) if (folder / REPORT).exists()],
        }

    def free(self, stage: Stage, names: Iterable[str]) -> int:
        """Deletes large files of a finished stage and notes it in its manifest; returns the bytes freed."""
        manifest, names = self.usable(stage), tuple(names)
        found = [self.folder(stage) / name for name in names]
        present = [path for path in found if path.exists() and not has_links(path)]  # links lead to a user's files
        if manifest is None or not present:
            return 0
        manifest["freed"] = True  # first: a kill in between leaves files that are deleted later, not half a checkpoint
        manifest["files"] = {
            file: digest for file, digest in manifest["files"].items() if Path(file).parts[0] not in names
        }
        write_sealed(self.folder(stage) / MANIFEST, manifest, MANIFEST)
        freed = 0
        for path in present:
            freed += tree_bytes(path)
            shutil.rmtree(path)
        return freed

    def _install(self, stage: Stage, work: Path) -> None:
        shutil.rmtree(work / SCRATCH, ignore_errors=True)  # only now: until the manifest is there a kill needs it
        final = self.folder(stage)
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():
            aside = self.root / "superseded" / stage.kind / f"{stage.key}-{time.time_ns()}"
            aside.parent.mkdir(parents=True, exist_ok=True)
            final.rename(aside)
        work.rename(final)
        sync(final.parent)
        forget_failure(self, stage)

    def _compared(self, stage: Stage, names: Iterable[str] | None) -> Path:
        """The folder of a result, after some of its files (or all) have been compared with their digests."""
        folder, manifest = self.folder(stage), self.manifest(stage)
        if manifest is None:
            raise DamagedError(folder, "is not there", f"{stage.kind} {stage.key}")
        whose = f"{stage.kind} {manifest['label']}"
        for name in manifest["files"] if names is None else names:
            seen = (stage.kind, stage.key, name, manifest["files"].get(name, ""))
            if seen in self._seen:
                continue
            if (why := why_damaged(folder / name, seen[3])) is not None:
                if self.manifest(stage) != manifest:  # another process has just replaced the result
                    return self._compared(stage, names)
                raise DamagedError(folder / name, why, whose)
            self._seen.add(seen)
        return folder

    def _move_aside(self, folder: Path, stage: Stage) -> Path:
        aside = self.root / "damaged" / stage.kind / f"{stage.key}-{time.time_ns()}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(aside)
        return aside

    def _inputs(self, stage: Stage) -> dict[str, str | None]:
        return {need.key: self.digest(need) for need in stage.needs}

    def _made(self, *parts: str) -> Path:
        """A folder of the store, made when it is not there, with the store's format beside it."""
        folder = self.root.joinpath(*parts)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (self.root / FORMAT_FILE).exists():
                write_json(self.root / FORMAT_FILE, {"format": STORE_FORMAT})
        except OSError as error:
            raise WriteError(f"the store {self.root} cannot be written: {error}") from error
        return folder
