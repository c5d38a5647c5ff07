"""Shows how a run goes: live bars in a terminal, a line now and then when piped, nothing but failures when quiet.

Sampling is shown by benchmark, over all checkpoints: done of all, tokens a second, outcomes so far, time left. The
numbers of a checkpoint are said as soon as they are there.
"""

from __future__ import annotations

import time
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from distillbench.cli.words import counted, duration, numbers
from distillbench.events import (
    BLOCKED,
    DONE,
    FAILED,
    HOLES,
    REUSED,
    Ended,
    Event,
    Graded,
    Opened,
    Planned,
    Progressed,
    Sampled,
    Started,
    Told,
    Waiting,
)
from distillbench.outcomes import OUTCOMES
from distillbench.run.state import Benchmark, RunState

#: A line about a running stage or benchmark at most this often when the output is not a terminal, in seconds.
_LINE_EVERY = 30.0


class Display:
    """Prints what happens; to be called with every event.

    Args:
        console: Standard error, so that a piped result stays clean.
        verbosity: -1 says only what failed; 1 also names stages as they start, and those that are reused.
    """

    def __init__(self, console: Console, verbosity: int) -> None:
        self.console = console
        self.verbosity = verbosity
        self.state = RunState()
        self._live = console.is_terminal and verbosity >= 0
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not self._live,
        )
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, float] = {}
        self._reasons: dict[str, str] = {}
        self._blocked = 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *unused: Any) -> None:
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self._bars.stop()
        if self._blocked:
            self._say(f"BLOCKED: {self._blocked} stages that need what failed (-v names them)")

    def __call__(self, event: Event) -> None:
        """Takes one event in, and shows what is worth it."""
        self.state.take(event)
        if isinstance(event, Told):
            self._say(event.text)
        elif isinstance(event, Ended):
            self._ended(event)
        elif self.verbosity >= 0:
            self._show(event)

    def _show(self, event: Event) -> None:
        if isinstance(event, Planned):
            self._planned(event)
        elif isinstance(event, Started):
            self._started(event)
        elif isinstance(event, Progressed):
            self._progressed(event)
        elif isinstance(event, Sampled | Graded):
            self._benchmark(self.state.benchmark(event.stage.benchmark))
            if isinstance(event, Graded) and event.is_whole:
                self._say(f"{event.stage.label}: {numbers(event.outcomes, event.stage.repeats)}")
        elif isinstance(event, Waiting):
            self._say(f"{event.stage.name}: another process is running it; waiting for its result")
        elif isinstance(event, Opened) and self.verbosity > 0:
            self._say(f"engine {event.engine} has loaded student {event.student} in {duration(event.seconds)}")

    def _planned(self, event: Planned) -> None:
        more = "; more once rows are rendered" if event.grows else ""
        left = event.n_stages - event.done
        self._say(f"{event.n_cells} cells, {event.n_stages} stages: {event.done} done, {left} to do{more}")

    def _started(self, event: Started) -> None:
        self._said[event.stage.key] = time.monotonic()
        if self._live and not event.stage.benchmark:  # that is shown by benchmark, once samples come
            self._bar(event.stage.key, event.stage.name, 0, None, "")
        elif self.verbosity > 0:
            self._say(f"{event.stage.name}: started")

    def _progressed(self, event: Progressed) -> None:
        if event.stage.key in self._tasks:
            self._bar(event.stage.key, event.stage.name, event.done, event.total, event.note)
        elif self._is_time(event.stage.key):
            self._say(f"{event.stage.name}: {counted(event.done, event.total)} {event.note}".rstrip())

    def _ended(self, event: Ended) -> None:
        """Says how a stage ended."""
        self._drop_bar(event.stage.key)
        if event.ending == FAILED or (event.ending == BLOCKED and self.verbosity > 0):
            self._say(f"{event.ending.upper()}: {event.stage.name}\n    {self._once(event)}")
        elif event.ending == BLOCKED:
            self._blocked += 1
        elif self.verbosity > 0 or (self.verbosity == 0 and _is_worth_a_line(event)):
            why = f", {event.why}" if event.ending == HOLES else ""
            took = f" in {event.seconds:.1f} s" if event.ending != REUSED else ""
            self._say(f"{event.stage.name}: {event.ending}{took}{why} ({self.state.n_left} stages left)")

    def _once(self, event: Ended) -> str:
        """Why a stage failed; a long reason that was said of another one already is not said again."""
        reason, _, log = event.why.partition("\n    log: ")
        first = self._reasons.setdefault(reason, event.stage.name)
        if first == event.stage.name or "\n" not in reason:
            return event.why
        return f"for the same reason as {first}" + (f"; log: {log}" if log else "")

    def _benchmark(self, found: Benchmark) -> None:
        """Moves the bar of a benchmark, or says a line now and then, and one when every sample has its outcome."""
        if found.is_done:
            self._drop_bar(found.name)
            self._say(f"{_line(found)}, sampled in {duration(found.seconds)}")
        elif self._live:
            _, _, note = _line(found).partition(", ")
            self._bar(found.name, found.name, found.n_done, found.total or None, note)
        elif self._is_time(found.name):
            self._say(_line(found))

    def _bar(self, key: str, name: str, done: int, total: int | None, note: str) -> None:
        """Makes or moves a bar; one whose end is not known has no count."""
        if not self._live:
            return
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(name, total=None, note="", count="")
        count = counted(done, total) if total or done else ""
        self._bars.update(self._tasks[key], completed=done, total=total, note=note, count=count)

    def _drop_bar(self, key: str) -> None:
        if key in self._tasks:
            self._bars.remove_task(self._tasks.pop(key))

    def _is_time(self, key: str) -> bool:
        """Whether a line about something is due; counted as said when it is."""
        now = time.monotonic()
        is_due = not self._live and now - self._said.setdefault(key, now) >= _LINE_EVERY
        if is_due:
            self._said[key] = now
        return is_due

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _line(found: Benchmark) -> str:
    """What is known of a benchmark, in words."""
    parts = [f"{found.name}: {counted(found.n_done, found.total)}"]
    if found.seconds:
        parts.append(f"{sum(found.tokens.values()) / found.seconds:,.0f} tokens/s")
    counts = found.counts
    parts += [f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome]]
    if found.n_done < found.total and found.left is not None:
        parts.append(f"{duration(found.left)} left")
    return ", ".join(parts)


def _is_worth_a_line(event: Ended) -> bool:
    """Whether a person who asked for nothing special is told; samples and grades are told by benchmark."""
    return event.ending == HOLES or (event.ending == DONE and not event.stage.evaluation)
