"""distillbench: distil reasoning traces into student models, and report numbers that cannot lie silently."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distillbench.hookspecs import hookimpl as hookimpl
    from distillbench.session import Session as Session

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`from distillbench import Session, hookimpl`, without importing what nobody asks for."""
    if name == "hookimpl":
        from distillbench.hookspecs import hookimpl

        return hookimpl
    if name == "Session":
        from distillbench.session import Session

        return Session
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
