"""How a run stands, from its events: what the display shows of one that goes on, and `status` of any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from distillbench.events import (
    About,
    Ended,
    Event,
    Finished,
    Graded,
    Planned,
    Progressed,
    Sampled,
    StageEvent,
    Started,
    Waiting,
)


@dataclass(slots=True)
class Running:
    """A stage that runs.

    Attributes:
        stage: Which.
        since: When it began, in seconds since 1970.
        at: When it last said something.
        first: How much was done when it first said so.
        done: How much of it is done.
        total: Of how much; None where that is not known.
        note: What it says of itself, such as its training loss.
        is_elsewhere: Whether another process runs it.
    """

    stage: About
    since: float
    at: float
    first: int | None = None
    done: int = 0
    total: int | None = None
    note: str = ""
    is_elsewhere: bool = False

    def take(self, at: float, done: int, total: int | None, note: str = "") -> None:
        """It got on."""
        if self.first is None:
            self.first = done
        self.at, self.done, self.total, self.note = at, done, total, note

    def left(self, now: float) -> float | None:
        """The seconds that it still takes at its own pace; None where that cannot be told."""
        new = self.done - (self.first or 0)
        if not self.total or new <= 0:
            return None
        return max(0.0, (self.total - self.done) * (self.at - self.since) / new - (now - self.at))


@dataclass(slots=True)
class Benchmark:
    """The sampling of one benchmark, over all checkpoints that have to be sampled.

    Attributes:
        name: The evaluation's name, or the teacher's who asks.
        stages: Sample stages that have to run.
        done: Samples that have come, by stage.
        size: Samples of one stage; 0 until one has begun.
        tokens: Generated in this run, by stage.
        outcomes: So far, by stage.
        first: The samples that were there when this run began, by stage.
        seconds: The time in which samples came.
        last: When the last sample came, in seconds since 1970.
    """

    name: str
    stages: int = 0
    done: dict[str, int] = field(default_factory=dict)
    size: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, Mapping[str, int]] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    last: float = 0.0

    @property
    def counts(self) -> Counter[str]:
        """Outcomes so far, of all its stages."""
        found: Counter[str] = Counter()
        for counts in self.outcomes.values():
            found.update(counts)
        return found

    @property
    def n_done(self) -> int:
        """Samples that have come."""
        return sum(self.done.values())

    @property
    def total(self) -> int:
        """Samples of all its stages."""
        return self.stages * self.size

    @property
    def is_done(self) -> bool:
        """Whether every sample has come and has its outcome."""
        return 0 < self.total == self.n_done == self.counts.total()

    @property
    def left(self) -> float | None:
        """The seconds of sampling that its samples still take; None where that cannot be told."""
        new = self.n_done - sum(self.first.values())
        return (self.total - self.n_done) * self.seconds / new if new and self.seconds else None

    def take(self, event: Sampled) -> None:
        """Samples of a stage came. The time between two stages, when others were sampled or trained, is not its own."""
        key = event.stage.key
        if key in self.done and event.done > self.done[key]:
            self.seconds += max(0.0, event.at - self.last)
        self.last = event.at
        self.first.setdefault(key, event.done if not event.tokens else 0)
        self.done[key], self.size, self.tokens[key] = event.done, event.total, event.tokens


@dataclass(slots=True)
class RunState:
    """How a run stands.

    Attributes:
        matrix: The matrix's name.
        begun: When it began, in seconds since 1970.
        at: When it last said something.
        cells: For each cell the keys of its stages.
        stages: What had to run, by key.
        n_stages: The number of stages, those too whose results were there.
        grows: Whether there will be more stages.
        running: What runs, by key.
        endings: How stages ended, by key.
        benchmarks: What is sampled, by name.
        is_over: Whether it ended by itself.
    """

    matrix: str = ""
    begun: float = 0.0
    at: float = 0.0
    cells: dict[str, list[str]] = field(default_factory=dict)
    stages: dict[str, About] = field(default_factory=dict)
    n_stages: int = 0
    grows: bool = False
    running: dict[str, Running] = field(default_factory=dict)
    endings: dict[str, str] = field(default_factory=dict)
    benchmarks: dict[str, Benchmark] = field(default_factory=dict)
    is_over: bool = False
    _seconds: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self:
        """The state after some events."""
        state = cls()
        for event in events:
            state.take(event)
        return state

    @property
    def n_left(self) -> int:
        """Stages that still have to run."""
        return sum(key not in self.endings for key in self.stages)

    @property
    def n_done(self) -> int:
        """Stages that have ended, or whose results were there."""
        return self.n_stages - self.n_left

    def share(self, cell: str) -> tuple[int, int]:
        """How many stages of a cell have ended, or were there, and how many it has."""
        keys = self.cells[cell]
        return sum(key not in self.stages or key in self.endings for key in keys), len(keys)

    def take(self, event: Event) -> None:
        """Something happened."""
        self.begun, self.at = self.begun or event.at, event.at
        if isinstance(event, Planned):
            self._plan(event)
        elif isinstance(event, Finished):
            self.is_over = True
        elif isinstance(event, Ended):
            self._end(event)
        elif isinstance(event, Sampled):
            self.benchmark(event.stage.benchmark).take(event)
            self._run(event).take(event.at, event.done, event.total)
        elif isinstance(event, Graded):
            self.benchmark(event.stage.benchmark).outcomes[event.stage.key] = event.outcomes
        elif isinstance(event, Progressed):
            self._run(event).take(event.at, event.done, event.total, event.note)
        elif isinstance(event, Started | Waiting):
            self._run(event).is_elsewhere = isinstance(event, Waiting)

    def benchmark(self, name: str) -> Benchmark:
        """A benchmark that is sampled."""
        return self.benchmarks.setdefault(name, Benchmark(name))

    def left(self, now: float) -> float | None:
        """About how many seconds the rest takes, were it like what has run; None where nothing like it has run.

        The seconds of all stages that are left, over the seconds of stages that one second of the run has brought.
        """
        left = 0.0
        for key in self.stages.keys() - self.endings.keys():
            one = self._seconds_left(key, now)
            if one is None:
                return None
            left += one
        spent = sum(map(sum, self._seconds.values())) + sum(now - one.since for one in self.running.values())
        return left * (now - self.begun) / spent if spent else None

    def _seconds_left(self, key: str, now: float) -> float | None:
        running = self.running.get(key)
        if running is not None and (left := running.left(now)) is not None:
            return left
        known = self._seconds.get(self.stages[key].kind)
        usual = sum(known) / len(known) if known else None
        return usual if usual is None or running is None else max(0.0, usual - (now - running.since))

    def _plan(self, event: Planned) -> None:
        self.matrix, self.n_stages, self.grows = event.matrix, event.n_stages, event.grows
        for cell, keys in event.cells.items():
            self.cells.setdefault(cell, []).extend(keys)
        for stage in event.stages:
            self.stages[stage.key] = stage
            if stage.benchmark:
                self.benchmark(stage.benchmark).stages += 1

    def _run(self, event: StageEvent) -> Running:
        return self.running.setdefault(event.stage.key, Running(event.stage, event.at, event.at))

    def _end(self, event: Ended) -> None:
        self.running.pop(event.stage.key, None)
        self.endings[event.stage.key] = event.ending
        if event.seconds:
            self._seconds.setdefault(event.stage.kind, []).append(event.seconds)
