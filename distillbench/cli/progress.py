"""Shows how a run goes: live bars in a terminal, a line now and then when piped, nothing but failures when quiet.

Sampling is shown by benchmark, over all checkpoints: done of all, tokens a second, outcomes so far, time left.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from distillbench.outcomes import OUTCOMES
from distillbench.plan.plan import Plan
from distillbench.plan.stage import Stage
from distillbench.run.runner import BLOCKED, FAILED, HOLES, REUSED

#: A line about a running stage or benchmark at most this often when the output is not a terminal, in seconds.
_LINE_EVERY = 30.0


@dataclass(slots=True)
class Benchmark:
    """The sampling of one benchmark, over all checkpoints that have to be sampled.

    Attributes:
        name: The evaluation's name.
        stages: Sample stages that have to run.
        done: Samples that have come, by stage.
        size: Samples of one stage; 0 until one has begun.
        tokens: Generated in this run, by stage.
        outcomes: So far, by stage.
        first: The samples that were there when this run began, by stage.
        begun: When the first stage began, in seconds.
        last: When the last sample came, in seconds.
    """

    name: str
    stages: int = 0
    done: dict[str, int] = field(default_factory=dict)
    size: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, Mapping[str, int]] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    begun: float = 0.0
    last: float = 0.0

    @property
    def counts(self) -> Counter[str]:
        """Outcomes so far, of all its stages."""
        found: Counter[str] = Counter()
        for counts in self.outcomes.values():
            found.update(counts)
        return found

    @property
    def is_done(self) -> bool:
        """Whether every sample has come and has its outcome."""
        return 0 < self.total == sum(self.done.values()) == self.counts.total()

    @property
    def total(self) -> int:
        """Samples of all its stages."""
        return self.stages * self.size

    def line(self) -> str:
        """What is known of it, in words."""
        seconds = max(self.last - self.begun, 1e-6)
        done = sum(self.done.values())
        new = done - sum(self.first.values())
        counts = self.counts
        parts = [f"{self.name}: {done}/{self.total}", f"{sum(self.tokens.values()) / seconds:,.0f} tokens/s"]
        parts += [f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome]]
        if new and done < self.total:
            parts.append(f"{duration((self.total - done) * seconds / new)} left")
        return ", ".join(parts)


class ProgressListener:
    """Prints what the runner tells it.

    Args:
        console: Standard error, so that a piped result stays clean.
        verbosity: -1 says only what failed; 1 also names stages as they start, and those that are reused.
    """

    def __init__(self, console: Console, verbosity: int) -> None:
        self.console = console
        self.verbosity = verbosity
        self._live = console.is_terminal and verbosity >= 0
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not self._live,
        )
        self._running: dict[str, TaskID] = {}
        self._begun: dict[str, float] = {}
        self._said: dict[str, float] = {}
        self._benchmarks: dict[str, Benchmark] = {}
        self._left = 0
        self._blocked = 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *unused: Any) -> None:
        self._bars.stop()
        if self._blocked:
            self._say(f"BLOCKED: {self._blocked} stages that need what failed (-v names them)")

    def planned(self, plan: Plan) -> None:
        """Says how much there is to do."""
        pending = plan.pending()
        self._left = len(pending)
        names = Counter(_benchmark(stage) for stage in pending if stage.completions() is not None)
        self._benchmarks = {name: Benchmark(name, stages) for name, stages in names.items()}
        if self.verbosity >= 0:
            done = len(plan.stages) - self._left
            more = "; more once traces are rendered" if plan.open_cells else ""
            self._say(f"{len(plan.cells)} cells, {len(plan.stages)} stages: {done} done, {self._left} to do{more}")

    def started(self, stage: Stage) -> None:
        """Opens a bar."""
        self._begun[stage.key] = self._said[stage.key] = time.monotonic()
        if self._live and stage.completions() is None:  # that is shown by benchmark, once samples come
            self._running[stage.key] = self._bars.add_task(stage.name, total=None, note="")
        elif self.verbosity > 0:
            self._say(f"{stage.name}: started")

    def progressed(self, stage: Stage, done: int, total: int | None, note: str) -> None:
        """Moves a bar, or says a line now and then."""
        if stage.key in self._running:
            self._bars.update(self._running[stage.key], completed=done, total=total, note=note)
        elif self._is_time(stage.key):
            self._say(f"{stage.name}: {done}/{total or '?'} {note}")

    def sampled(self, stage: Stage, done: int, total: int, tokens: int) -> None:
        """Moves the bar of a benchmark, or says a line now and then."""
        found = self._benchmarks.setdefault(_benchmark(stage), Benchmark(_benchmark(stage), 1))
        if not found.done:
            found.begun = self._said[found.name] = time.monotonic()
        found.last = time.monotonic()
        found.first.setdefault(stage.key, done if not tokens else 0)
        found.done[stage.key], found.size, found.tokens[stage.key] = done, total, tokens
        self._show(found)

    def graded(self, stage: Stage, outcomes: Mapping[str, int]) -> None:
        """Notes the outcomes so far."""
        found = self._benchmarks.setdefault(_benchmark(stage), Benchmark(_benchmark(stage), 1))
        found.outcomes[stage.key] = outcomes
        self._show(found)

    def ended(self, stage: Stage, ending: str, why: str) -> None:
        """Closes a bar and says how the stage ended."""
        for name in {stage.key, "" if stage.evaluation else stage.label} & self._running.keys():
            self._bars.remove_task(self._running.pop(name))
        self._left -= 1
        if ending == FAILED or (ending == BLOCKED and self.verbosity > 0):
            self._say(f"{ending.upper()}: {stage.name}\n    {why}")
        elif ending == BLOCKED:
            self._blocked += 1
        elif self.verbosity > 0 or (self.verbosity == 0 and _is_worth_a_line(stage, ending)):
            seconds = time.monotonic() - self._begun[stage.key] if stage.key in self._begun else 0.0
            holes = f", {why}" if ending == HOLES else ""
            self._say(f"{stage.name}: {ending} in {seconds:.1f} s{holes} ({self._left} stages left)")

    def waiting(self, stage: Stage) -> None:
        """Says that another process is at work on a stage."""
        if self.verbosity >= 0:
            self._say(f"{stage.name}: another process is running it; waiting for its result")

    def told(self, text: str) -> None:
        """Says it, however quiet."""
        self._say(text)

    def _show(self, found: Benchmark) -> None:
        """Moves the bar of a benchmark, or says a line now and then, and one when every sample has its outcome."""
        if self._live:
            if found.name not in self._running:
                self._running[found.name] = self._bars.add_task(found.name, total=None, note="")
            _, _, note = found.line().partition(", ")
            done = sum(found.done.values())
            self._bars.update(self._running[found.name], completed=done, total=found.total, note=note)
        elif not found.is_done and self._is_time(found.name):
            self._say(found.line())
        if found.is_done:
            if found.name in self._running:
                self._bars.remove_task(self._running.pop(found.name))
            if self.verbosity >= 0:
                self._say(f"{found.line()}, sampled in {duration(found.last - found.begun)}")

    def _is_time(self, key: str) -> bool:
        """Whether a line about something is due; counted as said when it is."""
        now = time.monotonic()
        is_due = self.verbosity >= 0 and not self._live and now - self._said.get(key, 0.0) >= _LINE_EVERY
        if is_due:
            self._said[key] = now
        return is_due

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds as a person says them: `48 s`, `12 min`, `3 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _is_worth_a_line(stage: Stage, ending: str) -> bool:
    """Whether a person who asked for nothing special is told; samples and grades are told by benchmark."""
    return ending == HOLES or (ending != REUSED and stage.evaluation is None)


def _benchmark(stage: Stage) -> str:
    """What its samples are counted under: the evaluation, or the teacher that asks."""
    return stage.label if stage.evaluation is None else stage.evaluation.name
