"""Runs a test module under pytest, on a solution in this process or in another, and tells what became of each test.

What it tells counts only under the nonce, which it is given once the solution was loaded.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from ..channel import Channel
from ..values import pack, unpack
from .clock import end_when_out_of_time
from .functions import LOADED, NOT_LOADED
from .guarding import Guard, packages_of
from .remote import Remote
from .solution import MOST_BYTES, load_module, own_classes, special_methods

#: No configuration, no plugin and no cache from outside; nothing written; failures are not explained to anyone.
_ARGUMENTS = ["-c", "/dev/null", "--rootdir=.", "--noconftest", "--assert=plain", "--tb=no", "--capture=sys", "-q"]
_ARGUMENTS += ["-p", "no:cacheprovider", "-p", "no:faulthandler", "-p", "no:junitxml", "-p", "no:pastebin"]
#: What a test came to, beside the name of what it raised.
PASSED, SKIPPED, COLLECTED = "passed", "skipped", "collected"


def run_pytest(channel: Channel, files: list[int]) -> None:
    """Receives `{solution, classes, names, packages, seconds}`, loads the solution, and says whether that worked.

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
        names = [name for name in vars(module) if not name.startswith("_")]
        defined = {"classes": classes, "names": names, "packages": packages_of(module)}
    if job["names"] is not None:
        vars(module)["__all__"] = [name for name in job["names"] if name in vars(module)]
        if job["solution"] is not None:
            Guard(module, frozenset(job["classes"]), frozenset(job["packages"])).guard()
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
