"""Guards what a solution exports where it shares a process with its tests: none of it may say what it equals."""

from __future__ import annotations

import functools
import inspect
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FunctionType, MethodType, ModuleType
from typing import Any

#: Elements of one value that are looked at.
_MOST_ELEMENTS = 1_000_000
_HEAP_TYPE = 1 << 9
_COMPARISONS: tuple[str, ...] = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__bool__", "__len__")
_COMPARISONS += ("__contains__", "__sub__", "__rsub__", "__abs__", "__float__", "__array__", "__instancecheck__")
#: Modules whose classes compare what they hold. Others are trusted where the reference imports their package.
_DATA: tuple[str, ...] = ("abc", "array", "builtins", "collections", "dataclasses", "datetime", "decimal", "enum")
_DATA += (
    "fractions",
    "functools",
    "itertools",
    "numbers",
    "numpy",
    "pathlib",
    "re",
    "string",
    "types",
    "typing",
    "uuid",
)
#: Packages of classes that are made to equal what they are not.
_NEVER = frozenset({"unittest", "pytest", "_pytest", "mock"})
_CONTAINERS: Mapping[type, Callable[[Any], Iterable[Any]]] = {
    dict: lambda value: (one for item in dict.items(value) for one in item),
    list: list.__iter__,
    tuple: tuple.__iter__,
    set: set.__iter__,
    frozenset: frozenset.__iter__,
    deque: deque.__iter__,
}


def packages_of(module: ModuleType) -> list[str]:
    """The packages that a module imports from, or has classes of."""
    found = vars(module).values()
    homes = [each.__name__ if isinstance(each, ModuleType) else getattr(each, "__module__", None) for each in found]
    return sorted({home.partition(".")[0] for home in homes if isinstance(home, str)} - {module.__name__, "builtins"})


@dataclass(frozen=True, slots=True)
class Guard:
    """Decides what tests may be given.

    Attributes:
        module: The solution.
        classes: Names of classes that the tests expect it to have: the reference defines them too.
        packages: Packages whose classes are trusted, because the reference imports them.
        seen: The solution's classes that are guarded already.
    """

    module: ModuleType
    classes: frozenset[str]
    packages: frozenset[str]
    seen: set[type] = field(default_factory=set)

    def guard(self) -> None:
        """Puts guards around all that the module exports, and takes away what could compare as it likes."""
        for name, each in list(vars(self.module).items()):
            if name.startswith("__") or isinstance(each, ModuleType):
                continue
            if isinstance(each, type):
                if each.__module__ == self.module.__name__:
                    self._guard_class(each)
                    if not self._is_trusted(each):  # what it makes is refused
                        setattr(self.module, name, self.guarded(each))
            elif callable(each) and not self._is_of_data(each):
                setattr(self.module, name, self.guarded(each))
            elif self._untrusted([each]):
                delattr(self.module, name)

    def guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose results, errors and changes are looked at, unless the solution itself calls it."""
        own = vars(self.module)

        @functools.wraps(function, updated=())
        def call(*given: Any, **named: Any) -> Any:
            if sys._getframe(1).f_globals is own:
                return function(*given, **named)
            before = self._untrusted([given, named])
            try:
                result = function(*given, **named)
            except BaseException as error:
                self._refuse([type(error), error.args, *vars(error).values()])
                raise
            self._refuse([given, named], but=before)
            return self._checked(result)

        if not isinstance(function, type):
            vars(call).update({name: each for name, each in _attributes(function) if not self._untrusted([each])})
        return call

    def _checked(self, result: Any) -> Any:
        if inspect.iscoroutine(result):
            return self._awaited(result)
        if isinstance(result, Iterator) and type(result).__module__ in _DATA:
            return self._iterated(result)
        if isinstance(result, FunctionType | MethodType | functools.partial):
            return self.guarded(result)
        self._refuse([result])
        for each in _elements([result]):
            if type(each).__flags__ & _HEAP_TYPE and not _is_installed(type(each)):
                self._guard_class(type(each))
        return result

    async def _awaited(self, result: Any) -> Any:
        return self._checked(await result)

    def _iterated(self, result: Iterator[Any]) -> Iterator[Any]:
        for each in result:
            yield self._checked(each)

    def _refuse(self, values: list[Any], but: Mapping[int, Any] | None = None) -> None:
        for key, each in self._untrusted(values).items():
            if but is None or key not in but:
                raise TypeError(f"a {type(each).__name__} is no value that a test can compare")

    def _untrusted(self, values: list[Any]) -> dict[int, Any]:
        """What values hold that could compare as it likes, by its identity."""
        return {id(each): each for each in _elements(values) if not self._is_trusted(type(each))}

    def _guard_class(self, owner: type) -> None:
        """Guards a class's methods and attributes in place: its objects may be anywhere already."""
        if owner in self.seen or not owner.__flags__ & _HEAP_TYPE:
            return
        self.seen.add(owner)
        for name, each in list(vars(owner).items()):
            if isinstance(each, FunctionType):
                setattr(owner, name, self.guarded(each))
            elif isinstance(each, staticmethod | classmethod) and isinstance(each.__func__, FunctionType):
                setattr(owner, name, type(each)(self.guarded(each.__func__)))
            elif not name.startswith("__") and self._untrusted([each]):
                delattr(owner, name)
        setattr(owner, "__getattribute__", self._reader(owner.__getattribute__))  # noqa: B010 - mypy: not its type

    def _reader(self, read: Callable[..., Any]) -> Callable[[Any, str], Any]:
        own = vars(self.module)

        def get(held: Any, name: str) -> Any:
            value = read(held, name)
            if name.startswith("__") or sys._getframe(1).f_globals is own:
                return value
            return self.guarded(value) if callable(value) and not isinstance(value, type) else self._checked(value)

        return get

    def _is_of_data(self, value: Any) -> bool:
        """Whether a function is of a module that is trusted."""
        return not isinstance(value, functools.partial) and self._is_home(getattr(value, "__module__", None) or "")

    def _is_home(self, module: str) -> bool:
        package = module.partition(".")[0]
        return module != self.module.__name__ and package not in _NEVER and package in {*_DATA, *self.packages}

    def _is_trusted(self, kind: type) -> bool:
        """Whether a class leaves comparing to others than the solution: a builtin, one of data, an expected one."""
        for each in type.__dict__["__mro__"].__get__(kind):
            if not each.__flags__ & _HEAP_TYPE or each.__name__ in self.classes:
                continue
            if _is_installed(each) and self._is_home(each.__module__):
                continue
            if any(name in vars(each) for name in _COMPARISONS):
                return False
        made_by = type(kind)
        return made_by is type or kind.__module__ != self.module.__name__ or self._is_home(made_by.__module__)


def _is_installed(kind: type) -> bool:
    """Whether a class is the one that its module has, and that module no part of the solution."""
    home = sys.modules.get(kind.__module__)
    return getattr(home, "__spec__", None) is not None and getattr(home, kind.__name__, None) is kind


def _attributes(function: Any) -> list[tuple[str, Any]]:
    return list(getattr(function, "__dict__", {}).items())


def _elements(values: Iterable[Any]) -> Iterator[Any]:
    """Values and what they hold, as far as a test is likely to look."""
    waiting, seen, known = list(values), 0, set[int]()
    while waiting and seen < _MOST_ELEMENTS:
        each = waiting.pop()
        seen += 1
        yield each
        held = next((look for kind, look in _CONTAINERS.items() if isinstance(each, kind)), None)
        if held is not None and id(each) not in known:
            known.add(id(each))
            waiting += held(each)
        elif type(each).__name__ == "ndarray" and each.dtype == object:
            waiting += each.ravel().tolist()
