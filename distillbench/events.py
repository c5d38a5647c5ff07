"""What happens in a run, as one stream: the display, the log in the store, `status` and plugins all read it.

Events hold plain values only, so that a line of JSON is an event and a plugin needs nothing else to read one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

#: How a stage ended. `done` ran now, `reused` was there already, `blocked` needs one that failed.
DONE, REUSED, HOLES, FAILED, BLOCKED = "done", "reused", "holes", "failed", "blocked"
#: The endings after which a stage's result is there.
GOOD = frozenset({DONE, REUSED, HOLES})


@dataclass(frozen=True, slots=True)
class About:
    """Which stage an event is about.

    Attributes:
        key: Names its result in the store.
        kind: Its kind.
        label: What a person reads.
        benchmark: What its samples are counted under: an evaluation, or the teacher that asks; empty for a stage that
            samples nothing.
        evaluation: The evaluation that it samples or grades; empty for none.
        step: The checkpoint's that it samples, 0 for the untouched student; None for a stage that samples nothing.
        repeats: Samples that it makes of one problem.
    """

    key: str
    kind: str
    label: str
    benchmark: str = ""
    evaluation: str = ""
    step: int | None = None
    repeats: int = 1

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.kind} {self.label}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened.

    Attributes:
        at: When, in seconds since 1970.
    """

    kinds: ClassVar[dict[str, type[Event]]] = {}

    at: float = field(default_factory=time.time)

    @classmethod
    def kind(cls) -> str:
        """What it is called in a line of the log: `started`."""
        return cls.__name__.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned(Event):
    """A plan is about to run; again whenever a stage has told what else there is to do.

    Attributes:
        matrix: The matrix's name.
        cells: For each cell the keys of its stages that no earlier plan of this run had.
        stages: Those of them all that have to run.
        done: The number of the plan's stages whose results are there.
        n_stages: The number of its stages.
        n_cells: The number of its cells.
        grows: Whether there will be more once a stage has told.
    """

    matrix: str
    cells: Mapping[str, tuple[str, ...]]
    stages: tuple[About, ...]
    done: int
    n_stages: int
    n_cells: int
    grows: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEvent(Event):
    """Something happened to a stage.

    Attributes:
        stage: Which.
    """

    stage: About


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(StageEvent):
    """A stage runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting(StageEvent):
    """Another process runs the stage; this one waits for its result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed(StageEvent):
    """A stage got on.

    Attributes:
        done: How much of it is done.
        total: Of how much; None where that is not known.
        note: A word of its own, such as the training loss.
    """

    done: int
    total: int | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled(StageEvent):
    """A stage that samples got on.

    Attributes:
        done: Samples that have come.
        total: Samples that were asked for.
        tokens: Generated for it in this run.
    """

    done: int
    total: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded(StageEvent):
    """Samples of a stage have been graded.

    Attributes:
        outcomes: How many have each outcome so far.
        is_whole: Whether these are all of its samples.
    """

    outcomes: Mapping[str, int]
    is_whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(StageEvent):
    """A stage ended.

    Attributes:
        ending: `done`, `reused`, `holes`, `failed` or `blocked`.
        why: The reason of the last two; how many samples failed.
        seconds: How long it ran; 0 for one that did not run now.
    """

    ending: str
    why: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened(Event):
    """An engine has loaded a student, and samples from it until it is closed.

    Attributes:
        session: Names the session.
        student: The student's name in the matrix.
        engine: The engine's.
        seconds: How long that took.
    """

    session: str
    student: str
    engine: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed(Event):
    """An engine was closed, and what it used is free.

    Attributes:
        session: Names the session.
    """

    session: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Told(Event):
    """Whoever looks should read it: something was damaged and has been moved aside, or a plugin failed.

    Attributes:
        text: What is to be said.
    """

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Event):
    """The run ended by itself.

    Attributes:
        endings: How many stages ended how.
    """

    endings: Mapping[str, int]


Event.kinds.update(
    (one.kind(), one)
    for one in (Planned, Started, Waiting, Progressed, Sampled, Graded, Ended, Opened, Closed, Told, Finished)
)
#: Whoever is told what happens.
Emit = Callable[[Event], None]


def to_line(event: Event) -> str:
    """An event as one line of JSON."""
    return json.dumps({"event": event.kind(), **asdict(event)}, separators=(",", ":")) + "\n"


def from_line(line: str) -> Event:
    """The event that a line of JSON holds.

    Raises:
        ValueError: It holds none.
    """
    try:
        found: dict[str, Any] = json.loads(line)
        kind = Event.kinds[found.pop("event")]
        if "stage" in found:
            found["stage"] = About(**found["stage"])
        if "stages" in found:
            found["stages"] = tuple(About(**one) for one in found["stages"])
        return kind(**found)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"no event: {line[:80]!r} ({error})") from error
