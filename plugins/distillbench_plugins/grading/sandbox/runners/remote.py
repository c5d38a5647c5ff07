"""The module `solution` as tests see it when the solution is in another process: each call crosses over a socket."""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

from ..channel import Channel, ChannelError
from ..values import AS_ITERATOR, AS_NOTHING, Foreign, Opaque, comparable, unpack
from ..values import pack as pack_any
from .solution import ARRAY, GET, METHOD, OBJECT, SET, VALUE

#: What crosses as it is.
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_MOST_DEPTH = 100
#: Special methods that are no business of the other side: it must not say what an object equals, is made of, or is.
_KEPT = frozenset(
    {"__eq__", "__ne__", "__hash__", "__init__", "__new__", "__class__", "__del__", "__bool__", "__getattr__"}
    | {
        "__getattribute__",
        "__setattr__",
        "__delattr__",
        "__dir__",
        "__init_subclass__",
        "__subclasshook__",
        "__reduce__",
    }
    | {"__reduce_ex__", "__sizeof__", "__getstate__", "__class_getitem__", "__set_name__", "__instancecheck__"}
)
#: What is made again of a result by the name of its type.
_MADE_AGAIN: Mapping[str, Callable[[Any], Any]] = {
    "dict_keys": lambda items: dict.fromkeys(items).keys(),
    "dict_values": lambda items: dict(enumerate(items)).values(),
}


class SolutionGone(Exception):
    """The solution's process has ended, or says something that is no reply."""


class CannotCross(Exception):
    """A test hands the solution something that is no plain value."""


class Remote:
    """A solution in another process.

    Args:
        channel: To that process.
        classes: The names of the classes whose objects tests may hold, and the special methods that they may use.
    """

    def __init__(self, channel: Channel, classes: Mapping[str, Iterable[str]]) -> None:
        self._channel = channel
        self._held: dict[int, Any] = {}
        exports = unpack(channel.receive())
        self.errors = {name: _error_class(name, base) for name, base in exports["errors"].items()}
        self.classes = {name: self._class(name, classes[name]) for name in exports["classes"] if name in classes}
        self.functions = {name: self._function(None, name) for name in exports["functions"]}
        self.values = exports["values"]
        self.modules = {name: full for name, full in exports["modules"].items() if full in sys.stdlib_module_names}

    def module(self) -> ModuleType:
        """What `import solution` gives."""
        module = ModuleType("solution")
        vars(module).update({name: importlib.import_module(full) for name, full in self.modules.items()})
        for found in (self.values, self.functions, self.classes, self.errors):
            vars(module).update(found)
        return module

    def call(self, owner: int | None, name: str, given: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        """Calls, writes what the call printed, and changes arguments as the call did."""
        request = [
            owner,
            name,
            [_crossing(each) for each in given],
            {key: _crossing(each) for key, each in named.items()},
        ]
        try:
            self._channel.send(pack_any(request))
            result, printed, changed = unpack(self._channel.receive())
            if printed:
                sys.stdout.write(printed)
            if changed is not None:
                _change(given, changed[0])
                _change(tuple(named[key] for key in named), [changed[1][key] for key in named])
            return self._result(result, owner, given)
        except (ChannelError, ValueError, TypeError, KeyError, IndexError) as error:
            raise SolutionGone(str(error)) from None

    def _result(self, said: list[Any], owner: int | None, given: tuple[Any, ...]) -> Any:
        kind = said[0]
        if kind == VALUE:
            return unpack(said[1], made=_made_again)
        if kind == OBJECT:
            made = self.classes.get(said[2])
            return Opaque(str(said[2])) if made is None else self._bound(made, int(said[1]))
        if kind == METHOD:
            return self._function(owner, str(given[0])) if owner is not None and given else Opaque("function")
        return _Raising(self.errors.get(said[1]) or _builtin_error(said[2]), list(said[3]))

    def _bound(self, owner: type, handle: int) -> Any:
        """What stands for an object; always the same for the same, so that `is` and `==` mean what they should."""
        if handle not in self._held:
            held: Any = object.__new__(owner)
            self._held[handle] = held
            object.__setattr__(held, "_handle", handle)
        return self._held[handle]

    def _function(self, owner: int | None, name: str) -> Callable[..., Any]:
        def function(*given: Any, **named: Any) -> Any:
            result = self.call(owner, name, given, named)
            if type(result) is _Raising:
                raise result.error(*result.given)
            return result

        function.__name__ = function.__qualname__ = name
        return function

    def _class(self, name: str, special: Iterable[str]) -> type:
        """A class whose objects live in the other process."""
        make = self._function(None, name)

        def new(owner: type, *given: Any, **named: Any) -> Any:
            return make(*given, **named)

        def read(held: Any, attribute: str) -> Any:
            return (
                self._function(held._handle, GET)(attribute) if not attribute.startswith("__") else _missing(attribute)
            )

        def write(held: Any, attribute: str, value: Any) -> None:
            self._function(held._handle, SET)(attribute, value)

        members: dict[str, Any] = {"__new__": new, "__getattr__": read, "__setattr__": write, "__slots__": ("_handle",)}
        for method in set(special) - _KEPT:
            members[method] = self._special(method)
        return type(name, (), members)

    def _special(self, method: str) -> Callable[..., Any]:
        def forward(held: Any, *given: Any, **named: Any) -> Any:
            return self._function(held._handle, method)(*given, **named)

        return forward


class _Raising:
    """A reply that is to be raised."""

    def __init__(self, error: type[BaseException], given: list[Any]) -> None:
        self.error, self.given = error, given


def _missing(name: str) -> Any:
    raise AttributeError(name)


def _made_again(foreign: Foreign) -> Any:
    """What a test sees in place of a value whose type is not plain: it equals no more than that value does."""
    if (make := _MADE_AGAIN.get(foreign.type_name)) is not None:
        return make(foreign.value)
    if foreign.likeness == AS_ITERATOR:
        return iter(foreign.value)
    if foreign.likeness == AS_NOTHING and isinstance(foreign.value, list):
        return tuple(foreign.value)
    found = comparable(foreign)
    return foreign.value if isinstance(found, Foreign | Opaque) else found


def _builtin_error(name: str) -> type[BaseException]:
    """A builtin exception by name; none that would end the tests."""
    found = getattr(builtins, name, None)
    return found if isinstance(found, type) and issubclass(found, (Exception, SystemExit)) else SolutionGone


def _error_class(name: str, base: str) -> type[BaseException]:
    return type(str(name), (_builtin_error(base),), {})


def _crossing(value: Any) -> list[Any]:
    handle = getattr(value, "_handle", None) if "_handle" in getattr(type(value), "__slots__", ()) else None
    if handle is not None:
        return [OBJECT, handle]
    if type(value).__module__ == "numpy" and type(value).__name__ == "ndarray" and value.dtype.kind in "biufc":
        return [ARRAY, [value.dtype.str, value.tolist()]]
    if not _can_cross(value, _MOST_DEPTH):
        raise CannotCross(f"a {type(value).__name__} is no plain value")
    return [VALUE, value]


def _can_cross(value: Any, depth: int) -> bool:
    kind = type(value)
    if kind in _PLAIN or kind is range:
        return True
    if depth == 0:
        return False
    if kind is dict:
        return all(_can_cross(each, depth - 1) for item in value.items() for each in item)
    return kind in (list, tuple, set, frozenset) and all(_can_cross(each, depth - 1) for each in value)


def _change(given: tuple[Any, ...], changed: list[Any]) -> None:
    """Gives mutable arguments the content that they have in the other process."""
    for old, (kind, new) in zip(given, changed, strict=True):
        if kind != VALUE or type(old) is not type(new):
            continue
        if isinstance(old, list):
            old[:] = new
        elif isinstance(old, dict | set):
            old.clear()
            old.update(new)
