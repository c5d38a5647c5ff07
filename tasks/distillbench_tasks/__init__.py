"""The built-in benchmarks: folders of lm-eval task YAML, which stock `lm_eval --include_path` loads too."""

from collections.abc import Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable

from distillbench.hookspecs import hookimpl


@hookimpl
def distillbench_task_roots() -> Iterable[Traversable]:
    """The folder this package lies in."""
    return [files(__name__)]
