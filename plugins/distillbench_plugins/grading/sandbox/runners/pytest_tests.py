"""Runs a test module under pytest, on a solution in this process or in another, and tells what became of each test.

What it tells counts only under the nonce, which it is given once the solution was loaded.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType, ModuleType
from typing import Any

from ..channel import Channel
from ..values import pack, unpack
from .clock import end_when_out_of_time
from .functions import LOADED, NOT_LOADED
from .remote import Remote
from .solution import MOST_BYTES, load_module, own_classes, special_methods

#: No configuration, no plugin and no cache from outside; nothing written; failures are not explained to anyone.
_ARGUMENTS = ["-c", "/dev/null", "--rootdir=.", "--noconftest", "--assert=plain", "--tb=no", "--capture=sys", "-q"]
_ARGUMENTS += ["-p", "no:cacheprovider", "-p", "no:faulthandler", "-p", "no:junitxml", "-p", "no:pastebin"]
#: What a test came to, beside the name of what it raised.
PASSED, SKIPPED, COLLECTED = "passed", "skipped", "collected"
_MOST_ELEMENTS = 10_000
_HEAP_TYPE = 1 << 9
_COMPARISONS: tuple[str, ...] = (
    "__eq__",
    "__ne__",
    "__lt__",
    "__le__",
    "__gt__",
    "__ge__",
    "__bool__",
    "__len__",
    "__contains__",
)
_COMPARISONS += ("__sub__", "__rsub__", "__abs__", "__float__", "__array__", "__instancecheck__")


def run_pytest(channel: Channel, files: list[int]) -> None:
    """Receives `{solution, classes, names, seconds}`, loads the solution, and says whether that worked.

    `solution` is None where the solution is in another process: the job's one file leads there. Then receives
    `{nonce, tests}`, and says after the nonce `["collected", test ids, what the solution defines]`, and
    `[test id, what it came to]` for each test.
    """
    job = unpack(channel.receive())
    limit, leave = end_when_out_of_time(lambda: None), os._exit
    limit(job["seconds"])
    try:
        module, defined = _solution(job, files)
    except BaseException as error:
        channel.send(NOT_LOADED + type(error).__name__.encode())
        leave(0)
    channel.send(LOADED)
    told = unpack(channel.receive())
    sys.modules["solution"] = module
    _run(told["tests"], _teller(channel, told["nonce"]), defined)
    leave(0)


def _solution(job: Mapping[str, Any], files: list[int]) -> tuple[ModuleType, dict[str, Any]]:
    """The module that tests import, and what it defines. `import *` gives of it what the reference has too."""
    if job["solution"] is None:
        remote = Remote(Channel(socket.socket(fileno=files[0]), MOST_BYTES), job["classes"])
        module, defined = remote.module(), {}
    else:
        module = load_module(job["solution"])
        classes = {name: special_methods(each) for name, each in own_classes(module).items()}
        defined = {"classes": classes, "names": [name for name in vars(module) if not name.startswith("_")]}
    if job["names"] is not None:
        vars(module)["__all__"] = [name for name in job["names"] if name in vars(module)]
        if job["solution"] is not None:
            guard(module, frozenset(job["classes"]))
    return module, defined


def _teller(channel: Channel, nonce: bytes) -> Callable[[list[Any]], None]:
    send, written = channel.send, pack

    def tell(what: list[Any]) -> None:
        send(nonce + written(what))

    return tell


def _run(tests: str, tell: Callable[[list[Any]], None], defined: Mapping[str, Any]) -> None:
    import inspect

    import pytest

    class InMemory(pytest.Module):
        """The test module; there may be nowhere to write a file."""

        def _getobj(self) -> ModuleType:
            module = ModuleType("test_solution")
            sys.modules["test_solution"] = module
            exec(compile(tests, "test_solution.py", "exec"), module.__dict__)  # noqa: S102 - see above
            return module

    class Plugin:
        """Collects the one module, and tells what becomes of its tests."""

        def __init__(self) -> None:
            self.came_to: dict[str, str] = {}

        def pytest_collection(self, session: pytest.Session) -> bool:
            module = InMemory.from_parent(session, path=session.path / "test_solution.py", nodeid="test_solution.py")
            session.items = list(session.genitems(module))
            session.testscollected = len(session.items)
            tell([COLLECTED, [item.nodeid for item in session.items], dict(defined)])
            return True

        def pytest_pycollect_makeitem(self, obj: Any) -> list[Any] | None:
            """Leaves out what yields: no pytest ever passed it, and a new one refuses the whole module."""
            return [] if inspect.isgeneratorfunction(obj) else None

        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            if report.failed:
                tell(["", _summary(report)])

        @pytest.hookimpl(wrapper=True, trylast=True)
        def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
            report = yield
            raised = "" if call.excinfo is None else call.excinfo.type.__name__
            if report.when == "call" or raised:
                is_plain_pass = report.outcome == PASSED and not raised and not hasattr(report, "wasxfail")
                said = (
                    PASSED if is_plain_pass else SKIPPED if report.outcome != "failed" else raised or "AssertionError"
                )
                self.came_to[item.nodeid] = self.came_to[item.nodeid] if self._failed(item) else said
            if report.when == "teardown":
                tell([item.nodeid, self.came_to.get(item.nodeid, SKIPPED)])
            return report

        def _failed(self, item: pytest.Item) -> bool:
            return self.came_to.get(item.nodeid, PASSED) != PASSED

    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ["TMPDIR"] = os.getcwd()  # noqa: PTH109 - the folder of this job
    pytest.main(_ARGUMENTS, plugins=[Plugin()])


def _summary(report: Any) -> str:
    """The name of what a collection raised."""
    text = str(getattr(report.longrepr, "reprcrash", None) or report.longrepr)
    return "ImportError" if "ImportError" in text or "ModuleNotFoundError" in text else "CollectionError"


def guard(module: ModuleType, classes: frozenset[str]) -> None:
    """Makes a solution's functions refuse results that could say by themselves what they equal.

    Args:
        module: The solution.
        classes: Names of classes that the tests expect it to have: the reference defines them too.
    """
    for name, each in list(vars(module).items()):
        if isinstance(each, FunctionType) and each.__module__ == module.__name__:
            setattr(module, name, _guarded(each, classes))


def _guarded(function: FunctionType, classes: frozenset[str]) -> Callable[..., Any]:
    import functools

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        result = function(*given, **named)
        for each in _elements(result):
            if not _is_trusted(type(each), classes):
                raise TypeError(f"a {type(each).__name__} is no value that a test can compare")
        return result

    return call


def _elements(value: Any) -> Iterable[Any]:
    """A value and what it holds, as far as a test is likely to look."""
    waiting, seen = [value], 0
    while waiting and seen < _MOST_ELEMENTS:
        each = waiting.pop()
        seen += 1
        yield each
        if type(each) is dict:
            waiting += [*each.keys(), *each.values()]
        elif type(each) in (list, tuple, set, frozenset):
            waiting += each


def _is_trusted(kind: type, classes: frozenset[str]) -> bool:
    """Whether a class leaves comparing to others than the solution: a builtin, an installed one, an expected one."""
    for each in kind.__mro__:
        if not each.__flags__ & _HEAP_TYPE or each.__name__ in classes:
            continue
        home = sys.modules.get(each.__module__)
        is_installed = getattr(home, "__spec__", None) is not None and getattr(home, each.__name__, None) is each
        if not is_installed and any(name in vars(each) for name in _COMPARISONS):
            return False
    return type(kind) is type or kind.__module__ != "solution"
