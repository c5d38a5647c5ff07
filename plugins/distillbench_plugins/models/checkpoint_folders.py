"""Finds checkpoints that any program left in a folder, and the step that each is of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

ADAPTER_CONFIG, CONFIG, STATE = "adapter_config.json", "config.json", "trainer_state.json"
#: What an engine or an export may want of a checkpoint; optimizer states and the like stay behind.
_SUFFIXES = frozenset({".safetensors", ".json", ".jinja"})
_OTHER_FORMATS = (".bin", ".pt", ".pth", ".distcp")
_DEEPEST = 4  # folders below the user's: `global_step_20/actor/huggingface/merged`
_MOST_FOLDERS = 10_000
_MOST_DIGITS = 18  # a step is a 64-bit number in every table
#: A word for a step and the number that follows it; then what would make it another number: `3k`, `1e3`, `1_000`.
_TOLD = re.compile(
    r"(?<![a-z])(?:global[-_]?steps?|steps?|checkpoints?|ckpts?|iter(?:ation)?s?)[-_=. ]*([0-9]+)"
    r"([a-z]|[.,][0-9]|_[0-9]{3}(?![0-9]))?",
    re.IGNORECASE,
)
_HINT = "rename it (step-100), or give it a trainer of its own with its folder as `path`"


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint of the user's."""

    folder: Path
    kind: Literal["adapter", "full"]
    step: int

    def files(self) -> list[Path]:
        """The files of it that count: weights, configuration, tokenizer."""
        wanted = (path for path in self.folder.iterdir() if path.suffix in _SUFFIXES and path.name != STATE)
        return sorted(path for path in wanted if path.is_file())

    def weights(self) -> list[Path]:
        """The files that decide what the checkpoint answers."""
        config = ADAPTER_CONFIG if self.kind == "adapter" else CONFIG
        return [path for path in self.files() if path.suffix == ".safetensors" or path.name == config]


def find(path: Path) -> list[Found]:
    """The checkpoints of a folder, by step: those in folders below it, or else the folder itself.

    Raises:
        ValueError: There is none, one cannot be read, or it is not clear which step one is of.
    """
    if not path.is_dir():
        raise ValueError(f"path: wanted a folder, got the file {path}")
    try:
        below = list(_below(path))
        leaves = _without_links([folder for folder in below if _kind(folder) is not None])
        if leaves:
            _refuse_unread(path, below, leaves)
            return _distinct(sorted((_found(path, folder) for folder in leaves), key=lambda one: one.step))
        own = _kind(path)
        if own is None:
            raise ValueError(f"path: {path} holds no checkpoint, and no folder in it does{_what_is_there(path, below)}")
        return [Found(path, own, _step(path, [path]) or 0)]
    except OSError as error:
        raise ValueError(f"path: {error.filename or path} cannot be read: {error.strerror or error}") from error


def choose(found: Sequence[Found], steps: Sequence[int] | None, path: Path) -> list[Found]:
    """The checkpoints of some steps.

    Raises:
        ValueError: There is none of such a step.
    """
    known = [one.step for one in found]
    if missing := sorted(set(steps or ()) - set(known)):
        raise ValueError(f"steps: {path} has checkpoints at steps {known}, none at {missing}")
    return [one for one in found if steps is None or one.step in steps]


def _below(path: Path) -> Iterator[Path]:
    """Every folder below one, as deep as checkpoints lie; what lies in a checkpoint is part of it.

    Raises:
        ValueError: There are more than anybody's run has.
    """
    level, count = [path], 0
    for _ in range(_DEEPEST):
        inside = [sorted(folder.iterdir()) for folder in level if folder == path or _kind(folder) is None]
        level = [each for entries in inside for each in entries if not each.name.startswith(".") and each.is_dir()]
        count += len(level)
        if count > _MOST_FOLDERS:
            raise ValueError(
                f"path: {path} holds more than {_MOST_FOLDERS:,} folders; name the one with the checkpoints"
            )
        yield from level


def _kind(folder: Path) -> Literal["adapter", "full"] | None:
    if not any(folder.glob("*.safetensors")):
        return None
    if (folder / ADAPTER_CONFIG).is_file():
        return "adapter"
    return "full" if (folder / CONFIG).is_file() else None


def _without_links(folders: Sequence[Path]) -> list[Path]:
    """The folders, each once: a link such as `latest` to another of them is that one again."""
    real = {folder.resolve(): folder for folder in reversed(folders) if not folder.is_symlink()}
    return [folder for folder in folders if real.setdefault(folder.resolve(), folder) == folder]


def _found(path: Path, folder: Path) -> Found:
    """A checkpoint below the user's folder.

    Raises:
        ValueError: It does not tell its step.
    """
    kind = _kind(folder)
    step = _step(folder, [folder, *(each for each in folder.parents if each != path and each.is_relative_to(path))])
    if step is None:  # the user may have named the folder of one step: `path: run/checkpoint-50`, with `adapter` in it
        step = _step(folder, [path])
    if kind is None or step is None:
        raise ValueError(
            f"path: {folder} says no step: no number follows `step`, `checkpoint` or `iter` in its name, and there is "
            f"no {STATE} in it; {_HINT}"
        )
    return Found(folder, kind, step)


def _step(checkpoint: Path, folders: Sequence[Path]) -> int | None:
    """The step that a checkpoint's folders tell; None where they do not.

    Args:
        checkpoint: The checkpoint.
        folders: It, and the folders it lies in, the nearest first. The nearest state says more than all names.

    Raises:
        ValueError: They tell several, or one that cannot be read.
    """
    for folder in folders:
        if (folder / STATE).is_file():
            return _step_in(folder / STATE)
    told = {match for folder in folders for match in _TOLD.findall(folder.name)}
    if odd := [number + rest for number, rest in told if rest or len(number) > _MOST_DIGITS]:
        raise ValueError(f"path: {checkpoint} says no step that can be read: {min(odd)!r}; {_HINT}")
    steps = sorted({int(number) for number, _ in told})
    if len(steps) > 1:
        raise ValueError(f"path: {checkpoint} says several steps: {', '.join(map(str, steps))}; {_HINT}")
    return steps[0] if steps else None


def _step_in(state: Path) -> int:
    try:
        step = json.loads(state.read_bytes())["global_step"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"path: {state} names no `global_step` ({error}); remove it, or mend it") from error
    if type(step) is not int or not 0 <= step < 10**_MOST_DIGITS:
        raise ValueError(f"path: {state} names no `global_step` (it says {step!r:.40}); remove it, or mend it")
    return step


def _refuse_unread(path: Path, below: Sequence[Path], leaves: Sequence[Path]) -> None:
    """Refuses to leave a checkpoint out without a word.

    Raises:
        ValueError: A folder looks like a checkpoint and is none.
    """
    for folder in below:
        if any(leaf.is_relative_to(folder) for leaf in leaves) or folder.is_symlink():
            continue
        has_config = any((folder / name).is_file() for name in (ADAPTER_CONFIG, CONFIG))
        tells = any(_TOLD.search(part) for part in folder.relative_to(path).parts)
        if (has_config and (tells or _other_weights(folder))) or (tells and folder.parent == path):
            inside = [each for each in below if each.is_relative_to(folder)]
            raise ValueError(
                f"path: {folder} holds weights that are not read, or none{_what_is_there(folder, inside)}; mend it, or "
                f"move it away, so that no checkpoint is left out without a word"
            )


def _distinct(found: list[Found]) -> list[Found]:
    for one, other in pairwise(found):
        if one.step == other.step:
            raise ValueError(f"path: {one.folder} and {other.folder} are both of step {one.step}; {_HINT}")
    return found


def _other_weights(folder: Path) -> Path | None:
    return next((file for file in sorted(folder.iterdir()) if file.suffix in _OTHER_FORMATS), None)


def _what_is_there(path: Path, below: Sequence[Path]) -> str:
    """What to say of a folder without checkpoints."""
    wanted = f"; a checkpoint is {ADAPTER_CONFIG} or {CONFIG}, with *.safetensors beside it"
    other = next(filter(None, map(_other_weights, (path, *below))), None)
    if other is None:
        return wanted
    return f"{wanted}; {other.relative_to(path)} is another format: save it as safetensors, shards merged"
