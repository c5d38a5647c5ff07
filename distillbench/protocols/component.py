"""What every component has, and what its methods are given."""

from __future__ import annotations

import typing
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, get_args, get_origin

from distillbench.records import Problem, Resources

Progress = Callable[[int, int | None, str], None]
#: For an option whose value may hold a secret, such as an address: `field(metadata=UNSHOWN)`.
UNSHOWN: dict[str, Any] = {"shown": False}


def no_progress(done: int, total: int | None, note: str) -> None:
    """A progress callback that shows nothing."""


class TaskSource(Protocol):
    """Gives components the problems of an lm-eval task without importing lm_eval themselves."""

    def problems(self, task: str, split: str, limit: int | None = None) -> list[Problem]:
        """The problems of one split (`train` or `test`) of a task, in the task's own order."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a component's method is given to work with.

    Attributes:
        work: A folder of the stage's own; it survives a kill, so that the next run goes on from what lies there.
        seed: The stage's seed.
        progress: Call as `progress(done, total, note)`.
        tasks: The problems of lm-eval tasks.
        resources: What the launcher granted.
        components: The components that this one needs, built, by the option that names each.
    """

    work: Path
    seed: int = 0
    progress: Progress = no_progress
    tasks: TaskSource | None = None
    resources: Resources = field(default_factory=Resources)
    components: Mapping[str, Any] = field(default_factory=dict)


if TYPE_CHECKING:  # type checkers alone need to know what stands for options that are not given
    from typing_extensions import TypeVar

    OptionsT_co = TypeVar("OptionsT_co", covariant=True, default=object)
else:
    OptionsT_co = typing.TypeVar("OptionsT_co", covariant=True)


@dataclass(frozen=True)
class NoOptions:
    """For a component without options."""


class Component(ABC, Generic[OptionsT_co]):
    """Base of every component.

    Attributes:
        name: What a matrix calls it.
        version: Bumped when results with the same options would differ.
        packages: Distributions whose version decides the result (math-verify for a math grader).
        Options: The frozen dataclass that stands behind the base, as in `class Short(Filter[ShortOptions])`. A field
            with `metadata={"key": False}` only affects speed or memory; the value of one with `metadata=UNSHOWN` may
            be a secret, and is repeated in no message.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    packages: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type] = NoOptions
    #: What stands for the options in a class that leaves them open; None where they are given.
    _open: ClassVar[Any] = None

    def __init_subclass__(cls, **more: Any) -> None:
        """Finds the options behind the base; those of a type variable are what it is bound to.

        Raises:
            TypeError: They are given in another way.
        """
        super().__init_subclass__(**more)
        if "Options" in cls.__dict__:
            raise TypeError(
                f"{cls.__qualname__}.Options is set\n"
                f"    wanted: the options behind the base, as in `class {cls.__name__}(Filter[ShortOptions])`"
            )
        for base in cls.__dict__.get("__orig_bases__", ()):
            owner = get_origin(base)
            if isinstance(owner, type) and issubclass(owner, Component):
                given = dict(zip(vars(owner)["__parameters__"], get_args(base), strict=False))
                cls._find_options(given.get(owner._open, owner._open))

    @classmethod
    def _find_options(cls, given: Any) -> None:
        """Takes what was given for the options; of a variable, what it is bound to, where that is options."""
        cls._open = given if isinstance(given, typing.TypeVar) else None
        found = getattr(given, "__bound__", None) if cls._open else given
        if found is not None and (cls._open is None or is_dataclass(found)):
            cls.Options = found

    def __init__(self, options: OptionsT_co) -> None:
        self.options = options

    def inputs(self) -> Sequence[Path]:
        """Files and folders whose content is part of the key."""
        return ()

    @classmethod
    def lacks(cls) -> list[str]:
        """The methods that a component of this class still has to be given."""
        return sorted(cls.__abstractmethods__)


Component._open = vars(Component)["__parameters__"][0]
