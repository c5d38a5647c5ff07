"""The one door: everything that the command line does, for notebooks, tests and programs."""

from __future__ import annotations

from distillbench.session.experiment import Experiment, Report
from distillbench.session.session import Session

__all__ = ["Experiment", "Report", "Session"]
