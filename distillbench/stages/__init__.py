"""What runs: one module for each kind of stage, in the order in which data flows."""

from __future__ import annotations

from distillbench.plan.stage import Stage
from distillbench.stages.build import Build
from distillbench.stages.check import Check
from distillbench.stages.curate import Curate
from distillbench.stages.grade import Grade
from distillbench.stages.length import Length
from distillbench.stages.render import Render
from distillbench.stages.sample import Sample
from distillbench.stages.traces import Traces
from distillbench.stages.train import Train
from distillbench.stages.verdict import Verdict

KINDS: tuple[type[Stage], ...] = (Build, Traces, Verdict, Length, Curate, Render, Check, Train, Sample, Grade)
