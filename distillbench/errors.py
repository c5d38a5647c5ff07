"""What a user sees when something is wrong: where, what was wanted, what came, what to do.

Every error a user can cause is a `DistillbenchError`. The command line prints its text and never a traceback.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

#: Texts that are secrets whatever their name: what a header of authorization holds, and keys as providers make them.
SECRET_TEXT = re.compile(
    r"(?i:\bbearer\s+(?=\S*\d)\S{6,}|\bbasic\s+(?=\S*[\d=])[A-Za-z0-9+/]{8,}={0,2})"
    r"|(?<![A-Za-z0-9])(?:sk|pk|rk|gsk|xai|pplx|r8|nvapi|glpat|csk|tgp)[-_](?=[\w-]*\d)[\w-]{16,}"
    r"|\b(?:hf|ghp|gho|ghs|github_pat)_[A-Za-z0-9_]{16,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}|\bAIza[\w-]{30,}"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"
)
#: What else a wrong value may hold that is not to be repeated: a user in an address, and what follows such a name.
_LIKELY_SECRET = re.compile(
    r"(?<=://)[^/\s@'\"]+(?=@)"
    r"|(?i:(?<![a-z])(?:api[-_]?key|authorization|password|secret|token)\b['\"]?\s*[=:]\s*)(?P<value>[^\s,}]{6,})"
)


def masked(text: str) -> str:
    """A text without what looks like a secret, for messages that repeat what a user wrote."""
    return SECRET_TEXT.sub("[hidden]", _LIKELY_SECRET.sub("[hidden]", text))


#: The keys that lead to a value in a YAML file.
Keys = tuple[str | int, ...]


def dotted(keys: Keys) -> str:
    """Keys as one reads them: `matrix.include[2].teacher`."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return text.removeprefix(".")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands that a user wrote; its text is what a user is told: `matrix.yaml:12: trainers.lora.lr`.

    Attributes:
        file: The file, or the option of the command line, as messages name it; empty where it stands in none.
        line: The line, from 1; 0 where the file alone is known.
        keys: The keys that lead to it.
        words: What no file and no keys say: `default`, `evaluation 'gsm'`.
    """

    file: str = ""
    line: int = 0
    keys: Keys = ()
    words: str = ""

    def __str__(self) -> str:
        file = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (file, dotted(self.keys), self.words) if part)

    def below(self, *keys: str | int) -> Place:
        """The place of what stands below it."""
        return replace(self, keys=(*self.keys, *keys))


#: Where values come from that nobody wrote.
DEFAULT = Place(words="default")


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong in a file or in an option.

    Attributes:
        place: Where.
        wanted: What would have been right.
        got: What came instead.
        hint: What to do about it; may be empty.
    """

    place: Place
    wanted: str
    got: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.place}\n    wanted: {self.wanted}\n    got:    {masked(self.got)}"
        return f"{text}\n    hint:   {masked(self.hint)}" if self.hint else text


class DistillbenchError(Exception):
    """Base of every error shown without a traceback."""

    exit_code = 2


class MistakesError(DistillbenchError):
    """Carries every mistake that was found, so that a user mends them in one go.

    Args:
        mistakes: They are told each once, by their lines; those without a line come last.
    """

    title = "mistakes"

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(sorted(dict.fromkeys(mistakes), key=_line))
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


def _line(mistake: Mistake) -> float:
    return mistake.place.line or math.inf


class MatrixError(MistakesError):
    """The matrix file cannot be turned into cells."""


class TaskError(DistillbenchError):
    """A benchmark's task YAML cannot be read or loaded."""


class PluginError(DistillbenchError):
    """A plugin cannot be imported, registered, or clashes with another."""


class StoreError(DistillbenchError):
    """The store cannot be read or written."""


class DamagedError(StoreError):
    """A file of the store is not there any more, or is not what was written.

    Args:
        path: The file.
        why: What is wrong with it, in words that follow its name.
        whose: Whose result it is part of.
    """

    def __init__(self, path: Path, why: str, whose: str = "") -> None:
        self.path = path
        self.why = why
        super().__init__(f"{whose}: {path} {why}" if whose else f"{path} {why}")


class WriteError(StoreError):
    """A disk, its quota or its permissions refused what was to be written."""

    exit_code = 1


class StageError(DistillbenchError):
    """A stage cannot give its result; what depends on it is blocked, the rest goes on."""

    exit_code = 1


class RowError(StageError):
    """A trace cannot become a training row. Its text names the trace's source."""


class GraderError(DistillbenchError):
    """The grader itself failed (not the graded text): the sample becomes `grader_error`, never `wrong`."""


def nearest(name: object, known: Iterable[object]) -> str:
    """A hint naming the nearest known name, or all of them when none is near.

    Args:
        name: What the user wrote; in a task's YAML it may be anything.
        known: The valid names.

    Returns:
        `did you mean 'x'?`, or `one of: a, b, c`; empty when nothing is known.
    """
    names = sorted({str(one) for one in known})
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    if not names:
        return ""
    shown = ", ".join(names[:12])
    return f"one of: {shown}" + (f", and {len(names) - 12} more" if len(names) > 12 else "")
