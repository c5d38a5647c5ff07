"""Loads a solution and lets another child, which runs its tests, call it: the tests never run beside the solution.

The two talk over a socket of their own. What crosses is plain values, so that a result of a class of the solution's
own cannot say by itself what it equals, and the solution sees inputs and nothing of the tests that gave them.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import socket
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ..channel import Channel
from ..values import Foreign, pack, unpack
from .clock import end_when_out_of_time
from .functions import LOADED, NOT_LOADED

#: The longest message between the two.
MOST_BYTES = 64 << 20
#: What a reply is.
VALUE, OBJECT, METHOD, RAISED, ARRAY = "value", "object", "method", "raised", "array"
#: Instead of a method: reading and setting an attribute. No method has such a name.
GET, SET = ".get", ".set"
#: What a call leaves of its output.
_MOST_OUTPUT = 1 << 20
#: Classes whose instances are told by their content.
_KNOWN_MODULES = frozenset({"builtins", "collections", "itertools", "numpy", "fractions", "decimal", "types"})
_KNOWN_BASES = (int, float, complex, str, bytes, dict, list, tuple, set, frozenset)


def run_solution(channel: Channel, files: list[int]) -> None:
    """Receives `{code, seconds}`; says whether that could be loaded, and then serves calls on the job's one file.

    The first message there is `{functions: [name, ...], classes: {name: [special method, ...]},
    errors: {name: builtin}, values: {name: value}, modules: {name: full name}}`.
    """
    job = unpack(channel.receive())
    limit = end_when_out_of_time(lambda: None)
    limit(job["seconds"])
    leave = os._exit
    try:
        module = load_module(job["code"])
        served = _Served(module)
        announced = pack(served.exports())
    except BaseException as error:
        channel.send(NOT_LOADED + type(error).__name__.encode())
        leave(0)
    tests = Channel(socket.socket(fileno=files[0]), MOST_BYTES)
    tests.send(announced)
    channel.send(LOADED)
    while True:
        request = unpack(tests.receive())
        tests.send(served.reply(request))


def load_module(code: str) -> ModuleType:
    """Runs a solution as the module `solution`."""
    module = ModuleType("solution")
    module.__file__ = "solution.py"
    sys.modules["solution"] = module
    exec(compile(code, "solution.py", "exec"), module.__dict__)  # noqa: S102 - this process exists for it
    return module


def own_classes(module: ModuleType) -> dict[str, type]:
    """The classes that a module defines itself."""
    found = vars(module).items()
    return {name: each for name, each in found if isinstance(each, type) and each.__module__ == module.__name__}


def special_methods(owner: type) -> list[str]:
    """The names of a class's special methods, those of its bases included."""
    names = {name for each in owner.__mro__[:-1] for name in vars(each)}
    return sorted(name for name in names if name.startswith("__") and callable(getattr(owner, name, None)))


class _Served:
    """A solution's functions, classes, and the objects that were made of these."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._classes = own_classes(module)
        self._objects: list[Any] = []

    def exports(self) -> dict[str, Any]:
        public = {name: each for name, each in vars(self._module).items() if not name.startswith("__")}
        errors = {name: each for name, each in self._classes.items() if issubclass(each, BaseException)}
        return {
            "functions": [name for name, each in public.items() if callable(each) and name not in self._classes],
            "classes": {name: special_methods(each) for name, each in self._classes.items() if name not in errors},
            "errors": {name: _builtin_name(each) for name, each in errors.items()},
            "values": {name: each for name, each in public.items() if _is_plain(each)},
            "modules": {name: each.__name__ for name, each in public.items() if isinstance(each, ModuleType)},
        }

    def reply(self, request: Any) -> bytes:
        """What came of a call, what it printed, and what it changed its arguments to (nothing where it did not)."""
        printed = io.StringIO()
        arguments, before = [], b""
        try:
            owner, name, given, named = request
            before = pack([given, named])
            arguments = [self._argument(each) for each in given]
            keywords = {key: self._argument(each) for key, each in named.items()}
            with contextlib.redirect_stdout(printed):
                said = self._told(self._call(owner, name, arguments, keywords))
            after = [self._as_given(old, new) for old, new in zip(given, arguments, strict=True)]
            changed = {key: self._as_given(named[key], new) for key, new in keywords.items()}
            is_changed = pack([after, changed]) != before
            return pack([said, printed.getvalue()[:_MOST_OUTPUT], [after, changed] if is_changed else None])
        except BaseException as error:
            return pack([_raised(error), printed.getvalue()[:_MOST_OUTPUT], None])

    def _call(self, owner: int | None, name: str, arguments: list[Any], keywords: Mapping[str, Any]) -> Any:
        if owner is None:
            return getattr(self._module, name)(*arguments, **keywords)
        target = self._objects[owner]
        if name == GET:
            return getattr(target, *arguments)
        if name == SET:
            return setattr(target, *arguments)
        return getattr(target, name)(*arguments, **keywords)

    def _argument(self, given: Any) -> Any:
        kind, value = given
        if kind == ARRAY:
            import numpy as np

            return np.array(value[1], dtype=value[0])
        return self._objects[value] if kind == OBJECT else value

    def _as_given(self, old: Any, new: Any) -> Any:
        return [VALUE, new] if old[0] == VALUE else old

    def _told(self, result: Any) -> list[Any]:
        """A result as it crosses."""
        kind = type(result)
        if kind in self._classes.values():
            known = next((number for number, each in enumerate(self._objects) if each is result), None)
            if known is None:
                known = len(self._objects)
                self._objects.append(result)
            return [OBJECT, known, kind.__name__]
        if callable(result):
            return [METHOD]
        if kind.__module__ not in _KNOWN_MODULES and not isinstance(result, _KNOWN_BASES):
            return [VALUE, pack(object())]
        return [VALUE, pack(result)]


def _is_plain(value: Any) -> bool:
    try:
        return not callable(value) and not isinstance(unpack(pack(value)), Foreign)
    except ValueError:
        return False


def _builtin_name(error: type) -> str:
    """The nearest builtin class of an exception's class."""
    return next(str(each.__name__) for each in error.__mro__ if getattr(builtins, each.__name__, None) is each)


def _raised(error: BaseException) -> list[Any]:
    given = list(error.args) if _is_plain(list(error.args)) else [str(error)[:_MOST_OUTPUT]]
    return [RAISED, type(error).__name__, _builtin_name(type(error)), given]
