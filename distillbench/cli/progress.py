"""Shows how a run goes: live bars in a terminal, one line a stage when piped, nothing but failures when quiet."""

from __future__ import annotations

import time
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

from distillbench.plan.stages import Plan, Stage
from distillbench.run.runner import BLOCKED, FAILED, HOLES, REUSED

#: A line about a running stage at most this often when the output is not a terminal, in seconds.
_LINE_EVERY = 30.0


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
        self._left = len(plan.pending())
        if self.verbosity >= 0:
            done = len(plan.stages) - self._left
            more = "; more once traces are curated" if plan.open_cells else ""
            self._say(f"{len(plan.cells)} cells, {len(plan.stages)} stages: {done} done, {self._left} to do{more}")

    def started(self, stage: Stage) -> None:
        """Opens a bar."""
        self._begun[stage.key] = self._said[stage.key] = time.monotonic()
        if self._live:
            self._running[stage.key] = self._bars.add_task(_name(stage), total=None, note="")
        elif self.verbosity > 0:
            self._say(f"{_name(stage)}: started")

    def progressed(self, stage: Stage, done: int, total: int | None, note: str) -> None:
        """Moves a bar, or says a line now and then."""
        if stage.key in self._running:
            self._bars.update(self._running[stage.key], completed=done, total=total, note=note)
        elif self.verbosity >= 0 and time.monotonic() - self._said.get(stage.key, 0.0) >= _LINE_EVERY:
            self._said[stage.key] = time.monotonic()
            self._say(f"{_name(stage)}: {done}/{total or '?'} {note}")

    def ended(self, stage: Stage, ending: str, why: str) -> None:
        """Closes a bar and says how the stage ended."""
        if stage.key in self._running:
            self._bars.remove_task(self._running.pop(stage.key))
        self._left -= 1
        if ending == FAILED or (ending == BLOCKED and self.verbosity > 0):
            self._say(f"{ending.upper()}: {_name(stage)}\n    {why}")
        elif ending == BLOCKED:
            self._blocked += 1
        elif (ending != REUSED and self.verbosity >= 0) or self.verbosity > 0:
            seconds = time.monotonic() - self._begun[stage.key] if stage.key in self._begun else 0.0
            holes = f", {why}" if ending == HOLES else ""
            self._say(f"{_name(stage)}: {ending} in {seconds:.1f} s{holes} ({self._left} stages left)")

    def waiting(self, stage: Stage) -> None:
        """Says that another process is at work on a stage."""
        if self.verbosity >= 0:
            self._say(f"{_name(stage)}: another process is running it; waiting for its result")

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _name(stage: Stage) -> str:
    return f"{stage.kind} {stage.label}"
