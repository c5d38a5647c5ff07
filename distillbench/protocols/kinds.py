"""The kinds of components, by the names that a matrix and the hooks have for them."""

from __future__ import annotations

from collections.abc import Mapping

from distillbench.protocols.component import Component
from distillbench.protocols.engine import Engine
from distillbench.protocols.filter import Filter
from distillbench.protocols.grader import Grader
from distillbench.protocols.launcher import Launcher
from distillbench.protocols.renderer import Renderer
from distillbench.protocols.student import Student
from distillbench.protocols.teacher import Teacher
from distillbench.protocols.trainer import Trainer

COMPONENT_KINDS: Mapping[str, type[Component]] = {
    "teacher": Teacher,
    "student": Student,
    "renderer": Renderer,
    "filter": Filter,
    "trainer": Trainer,
    "benchmark": Grader,
    "engine": Engine,
    "launcher": Launcher,
}
