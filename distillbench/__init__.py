"""distillbench: distil reasoning traces into student models, and report numbers that cannot lie silently."""

__version__ = "0.1.0"
