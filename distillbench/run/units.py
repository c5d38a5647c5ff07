"""The workers of a run, and what of the machine they have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from distillbench.plan.stage import Stage
from distillbench.protocols import Handle, Launcher
from distillbench.records import Resources
from distillbench.run.orders import Close, Take


@dataclass(slots=True)
class Unit:
    """A worker.

    Attributes:
        handle: The process.
        process: What it runs: the key of a stage, or the name of a session.
        resources: What it was granted.
        log: What libraries print there.
        stages: What it was given, without what has ended or was returned, by key.
        is_session: Whether it is given stages as they become ready.
        n_given: How often it was given stages.
        n_idle: How many of these gifts it had read when it last had nothing to do.
        is_closing: Whether it has been told to end.
    """

    handle: Handle
    process: str
    resources: Resources
    log: Path
    stages: dict[str, Stage]
    is_session: bool
    n_given: int = 1
    n_idle: int = 0
    is_closing: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether it waits for stages."""
        return self.n_idle == self.n_given and not self.stages

    @property
    def used(self) -> Resources:
        """What it has of the machine: a session that waits keeps its memory and its GPUs, and needs no core."""
        return replace(self.resources, cpus=0) if self.is_idle else self.resources

    def give(self, stages: Mapping[str, Stage]) -> None:
        """Gives a session more stages."""
        self.stages.update(stages)
        self.n_given += 1
        self.handle.send(Take(tuple(stages.values())))

    def close(self) -> None:
        """Tells a session to end."""
        self.is_closing = True
        self.handle.send(Close())


@dataclass(slots=True)
class Units:
    """The workers there are.

    Attributes:
        launcher: Where they run.
        all: Them.
    """

    launcher: Launcher
    all: list[Unit] = field(default_factory=list)

    def __iter__(self) -> Iterator[Unit]:
        return iter(list(self.all))

    def __bool__(self) -> bool:
        return bool(self.all)

    def of(self, process: str) -> Unit | None:
        """The worker of a process; None where there is none."""
        return next((unit for unit in self.all if unit.process == process), None)

    def given(self) -> set[str]:
        """The keys of the stages that workers have."""
        return {key for unit in self.all for key in unit.stages}

    def granted(self, stages: Iterable[Stage]) -> Resources:
        """What a process for stages gets: what the most demanding asks for, as far as it is here."""
        wanted, here = Resources.most(stage.resources for stage in stages), self.launcher.capacity()
        return Resources(
            min(wanted.cpus, here.cpus), min(wanted.gpus, here.gpus), min(wanted.memory_gb, here.memory_gb)
        )

    def have_room(self, wanted: Resources, without: Iterable[Unit] = ()) -> bool:
        """Whether there is room for one more.

        Args:
            wanted: What it is to get.
            without: Workers that would be gone by then, or that it is.
        """
        gone = set(map(id, without))
        used = [unit.used for unit in self.all if id(unit) not in gone]
        here = self.launcher.capacity()
        return not used or (
            wanted.cpus + sum(one.cpus for one in used) <= here.cpus
            and wanted.gpus + sum(one.gpus for one in used) <= here.gpus
            and wanted.memory_gb + sum(one.memory_gb for one in used) <= here.memory_gb
        )

    def end(self) -> None:
        """Ends them all."""
        for unit in self.all:
            unit.handle.terminate()
        self.all.clear()
