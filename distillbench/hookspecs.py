"""The hooks a plugin may implement, with `from distillbench.hookspecs import hookimpl`. Declarations return values.

A plugin is a module or object registered under the entry-point group `distillbench`. No hook has side effects at
import, and none imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING

import pluggy

from distillbench.events import Event
from distillbench.protocols import Engine, Filter, Grader, Launcher, Renderer, Student, Teacher, Trainer
from distillbench.records import Cell

if TYPE_CHECKING:
    import click

    from distillbench.report.results import Results, Section

hookspec = pluggy.HookspecMarker("distillbench")
hookimpl = pluggy.HookimplMarker("distillbench")


@hookspec
def distillbench_teachers() -> Iterable[type[Teacher]]:  # type: ignore[empty-body]
    """Teacher classes: where traces come from."""


@hookspec
def distillbench_students() -> Iterable[type[Student]]:  # type: ignore[empty-body]
    """Student classes: the models that are trained."""


@hookspec
def distillbench_renderers() -> Iterable[type[Renderer]]:  # type: ignore[empty-body]
    """Renderer classes: messages and traces to tokens, completions back to reasoning and answer."""


@hookspec
def distillbench_filters() -> Iterable[type[Filter]]:  # type: ignore[empty-body]
    """Filter classes: keep or reject a trace, with a reason."""


@hookspec
def distillbench_trainers() -> Iterable[type[Trainer]]:  # type: ignore[empty-body]
    """Trainer classes: fit a student to traces and leave checkpoints."""


@hookspec
def distillbench_benchmarks() -> Iterable[type[Grader]]:  # type: ignore[empty-body]
    """Graders, the classes that a task YAML names in `metadata.distillbench.grader`."""


@hookspec
def distillbench_engines() -> Iterable[type[Engine]]:  # type: ignore[empty-body]
    """Engine classes: generate completions."""


@hookspec
def distillbench_launchers() -> Iterable[type[Launcher]]:  # type: ignore[empty-body]
    """Launcher classes: where stages run."""


@hookspec
def distillbench_task_roots() -> Iterable[Traversable]:  # type: ignore[empty-body]
    """Folders of lm-eval task YAML files; their tasks become benchmarks by name."""


@hookspec
def distillbench_add_commands(group: click.Group) -> None:
    """Add commands to the command line: `group.add_command(...)`."""


@hookspec
def distillbench_modify_cells(cells: list[Cell]) -> None:
    """Change the resolved cells in place, before they are planned."""


@hookspec
def distillbench_event(event: Event) -> None:
    """Called with everything that happens in a run: a class of `distillbench.events`, such as `Started` or `Ended`."""


@hookspec
def distillbench_report_sections(results: Results) -> Iterable[Section]:  # type: ignore[empty-body]
    """Sections to add to the report."""
