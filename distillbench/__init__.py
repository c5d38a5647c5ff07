"""distillbench: distil reasoning traces into student models, and report numbers that cannot lie silently."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distillbench.hookspecs import hookimpl as hookimpl

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`from distillbench import hookimpl`, without importing pluggy where nobody asks for it."""
    if name != "hookimpl":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from distillbench.hookspecs import hookimpl

    return hookimpl
