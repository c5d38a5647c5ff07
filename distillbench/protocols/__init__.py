"""What a plugin implements: one base class for each kind of component. Nothing heavy is imported here.

A component is a class with a `name`, a `version` (bumped when its meaning changes: it is part of the key of every
stage that uses the component), the dataclass of its options behind the base (`class Short(Filter[ShortOptions])`;
`class Short(Filter)` has none), and a docstring whose first line is its summary. It is built as `cls(options)`. Its
module imports nothing heavy; its methods do.
"""

from __future__ import annotations

from distillbench.protocols.asking import AskingOptions, AskingTeacher
from distillbench.protocols.component import (
    UNSHOWN,
    Component,
    Context,
    NoOptions,
    OptionsT_co,
    Progress,
    TaskSource,
    no_progress,
)
from distillbench.protocols.engine import Engine, EngineSession
from distillbench.protocols.filter import Filter
from distillbench.protocols.grader import Grader, Grading, OneByOne
from distillbench.protocols.kinds import COMPONENT_KINDS
from distillbench.protocols.launcher import Handle, Launcher
from distillbench.protocols.renderer import Renderer
from distillbench.protocols.student import Student
from distillbench.protocols.teacher import Teacher
from distillbench.protocols.trainer import ListedRows, Overlong, Trainer, TrainingJob, TrainingRows

__all__ = [
    "COMPONENT_KINDS",
    "UNSHOWN",
    "AskingOptions",
    "AskingTeacher",
    "Component",
    "Context",
    "Engine",
    "EngineSession",
    "Filter",
    "Grader",
    "Grading",
    "Handle",
    "Launcher",
    "ListedRows",
    "NoOptions",
    "OneByOne",
    "OptionsT_co",
    "Overlong",
    "Progress",
    "Renderer",
    "Student",
    "TaskSource",
    "Teacher",
    "Trainer",
    "TrainingJob",
    "TrainingRows",
    "no_progress",
]
