"""Keeps stage results by key: written to a work folder, renamed into place once, never read half-written.

<root>/stages/<kind>/<key>/manifest.json   and the stage's outputs
<root>/work/<key>/                         what a running or killed stage has so far (and its scratch/)
<root>/locks/<key>.lock                    held by the process that runs the stage
<root>/superseded/                         results that a changed input replaced
<root>/reports/<matrix>/                   reports
<root>/preflight/                          what the preflight has found
<root>/cache/<component>/                  what a component makes once for many stages; safe to delete
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from distillbench.errors import StoreError
from distillbench.fingerprint import digest_files
from distillbench.plan.stages import KINDS, Finished, Stage

STORE_FORMAT = 1
MANIFEST = "manifest.json"
SCRATCH = "scratch"
#: In a scratch folder: the digests of the inputs that its content was made from.
INPUTS = ".inputs.json"
_MANIFEST_KEYS = ("digest", "inputs", "holes", "freed", "seconds", "facts")


@dataclass(frozen=True, slots=True)
class Outcome:
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
        self.root = root.resolve()
        try:
            self._check_format()
        except OSError as error:
            raise StoreError(f"the store {self.root} cannot be read: {error}") from error

    def prepare(self) -> None:
        """Makes the store's folder.

        Raises:
            StoreError: It cannot be written.
        """
        self._made("stages")

    def folder(self, stage: Stage) -> Path:
        """Where a stage's finished result lies."""
        return self.root / "stages" / stage.kind / stage.key

    def folder_of(self, kind: str, key: str) -> Path:
        """Where the finished result of a stage of this kind and key lies."""
        return self.root / "stages" / kind / key

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

    def reports(self, matrix: str) -> Path:
        """Where a matrix's report goes."""
        return self._made("reports", matrix)

    def cache(self, name: str) -> Path:
        """What a component makes once for many stages; safe to delete."""
        return self._made("cache", name)

    def lock(self, key: str) -> FileLock:
        """The lock that the process which runs a stage holds; the kernel frees it when that process dies."""
        return FileLock(self._made("locks") / f"{key}.lock", thread_local=False)

    def lookup(self, stage: Stage) -> Finished | None:
        """What is known of a finished stage; None when there is no result."""
        manifest = self.manifest(stage.kind, stage.key)
        if manifest is None:
            return None
        return Finished(
            digest=manifest["digest"],
            inputs=manifest["inputs"],
            holes=manifest["holes"],
            freed=manifest["freed"],
            seconds=manifest["seconds"],
            facts=manifest["facts"],
        )

    def manifest(self, kind: str, key: str) -> dict[str, Any] | None:
        """The manifest of the finished stage of this kind and key; None when there is no result.

        Raises:
            StoreError: It is there but is not a manifest.
        """
        path = self.folder_of(kind, key) / MANIFEST
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
            return {name: found[name] for name in _MANIFEST_KEYS} | dict(found)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StoreError(
                f"{path} cannot be read: {type(error).__name__}: {error}\n"
                f"    move its folder away to run the stage again"
            ) from error

    def digest(self, kind: str, key: str) -> str | None:
        """The digest of the finished stage of this kind and key; None when there is no result."""
        manifest = self.manifest(kind, key)
        return None if manifest is None else str(manifest["digest"])

    def facts(self, kind: str, key: str) -> Mapping[str, Any] | None:
        """The facts of the finished stage of this kind and key; None when there is no result."""
        manifest = self.manifest(kind, key)
        return None if manifest is None else dict(manifest["facts"])

    def history(self, kind: str, most: int = 50) -> list[float]:
        """How long the latest stages of a kind ran, in seconds."""
        manifests = sorted((self.root / "stages" / kind).glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime)
        found = [self.manifest(kind, path.parent.name) for path in manifests[-most:]]
        return [float(manifest["seconds"]) for manifest in found if manifest is not None]

    def is_locked(self, key: str) -> bool:
        """Whether a process is running the stage of this key right now."""
        if not (self.root / "locks" / f"{key}.lock").exists():
            return False
        try:
            with self.lock(key).acquire(timeout=0):
                return False
        except Timeout:
            return True

    def begin(self, stage: Stage) -> None:
        """Notes the inputs that a stage reads; what an interrupted run made from other inputs is thrown away."""
        inputs = self._inputs(stage)
        noted = self.scratch(stage) / INPUTS
        if noted.exists() and json.loads(noted.read_bytes()) != inputs:
            shutil.rmtree(self.work(stage))
        write_json(self.scratch(stage) / INPUTS, inputs)

    def finish(self, stage: Stage, outcome: Outcome, seconds: float, about: Mapping[str, Any]) -> Finished:
        """Makes a work folder the stage's result, replacing an older one (which is kept under `superseded`).

        Args:
            stage: The stage.
            outcome: What its step gave back.
            seconds: How long it ran.
            about: Versions, host and the like; for people, not for keys.
        """
        work = self.work(stage)
        begun_with = work / SCRATCH / INPUTS
        inputs = json.loads(begun_with.read_bytes()) if begun_with.exists() else self._inputs(stage)
        manifest = {
            "format": STORE_FORMAT,
            "key": stage.key,
            "kind": stage.kind,
            "label": stage.label,
            "params": stage.params,
            "roles": {role: _role_text(value) for role, value in stage.roles.items()},
            "needs": stage.needs,
            "inputs": inputs,
            "outputs": list(outcome.outputs),
            "digest": digest_files(((name, work / name) for name in outcome.outputs), remember=_has_links(work)),
            "facts": outcome.facts,
            "holes": outcome.holes,
            "freed": False,
            "seconds": round(seconds, 3),
            "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "about": about,
        }
        _sync_tree(work)
        write_json(work / MANIFEST, manifest)
        self._install(stage, work)
        found = self.lookup(stage)
        assert found is not None  # noqa: S101 - just installed
        return found

    def recover(self, stage: Stage) -> None:
        """Installs a work folder that was complete when its process was killed."""
        work = self.root / "work" / stage.key
        if (work / MANIFEST).exists():
            self._install(stage, work)

    def overview(self) -> dict[str, Any]:
        """What the store holds: finished stages by kind, unfinished ones, reports and sizes in bytes."""
        finished = {}
        for kind in KINDS:
            folders = [path for path in (self.root / "stages" / kind).glob("*") if path.is_dir()]
            if folders:
                finished[kind] = {"stages": len(folders), "bytes": sum(tree_bytes(path) for path in folders)}
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
            "superseded_bytes": tree_bytes(self.root / "superseded"),
            "reports": [str(path) for path in sorted((self.root / "reports").glob("*/report.md"))],
        }

    def free(self, stage: Stage, names: Iterable[str]) -> int:
        """Deletes large files of a finished stage and notes it in its manifest; returns the bytes freed."""
        manifest = self.manifest(stage.kind, stage.key)
        found = [self.folder(stage) / name for name in names]
        present = [path for path in found if path.exists() and not _has_links(path)]  # links lead to a user's files
        if manifest is None or not present:
            return 0
        manifest["freed"] = True  # first: a kill in between leaves files that are deleted later, not half a checkpoint
        write_json(self.folder(stage) / MANIFEST, manifest)
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
        _sync(final.parent)

    def _inputs(self, stage: Stage) -> dict[str, str | None]:
        return {key: self.digest(kind, key) for kind, key in stage.needs.items()}

    def _made(self, *parts: str) -> Path:
        """A folder of the store, made when it is not there, with the store's format beside it."""
        folder = self.root.joinpath(*parts)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (self.root / "store.json").exists():
                write_json(self.root / "store.json", {"format": STORE_FORMAT})
        except OSError as error:
            raise StoreError(f"the store {self.root} cannot be written: {error}") from error
        return folder

    def _check_format(self) -> None:
        path = self.root / "store.json"
        if not path.exists():
            if self.root.is_dir() and any(self.root.iterdir()):
                raise StoreError(
                    f"{self.root} is no store of distillbench: it holds other files, and no store.json\n"
                    f"    wanted: a folder of its own, which is made where it is not there, because `distillbench gc` "
                    f"deletes in it\n    hint:   --store DIR, or DISTILLBENCH_STORE"
                )
            return
        try:
            found = json.loads(path.read_bytes())["format"]
        except (ValueError, TypeError, KeyError):
            found = "a file that is damaged"
        if found != STORE_FORMAT:
            raise StoreError(
                f"{path}: wanted store format {STORE_FORMAT}, got {found}\n    use another folder: --store DIR"
            )


def _role_text(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_role_text(entry) for entry in value]
    return json.loads(value.identity)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never a half."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=1, sort_keys=True, default=str)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def tree_bytes(path: Path) -> int:
    """The size of everything below a folder, in bytes; a link counts as itself, not as what it leads to."""
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())


def _has_links(folder: Path) -> bool:
    return any(path.is_symlink() for path in folder.rglob("*"))


def _sync_tree(folder: Path) -> None:
    """Hands everything in a work folder but its scratch to the disk."""
    scratch = folder / SCRATCH
    for path in (folder, *folder.rglob("*")):
        if path != scratch and not path.is_relative_to(scratch) and not path.is_symlink():
            _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
