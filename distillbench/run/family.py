"""A worker and everything that it starts end together, whoever is killed, and however."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from multiprocessing import parent_process

#: How often a guard looks whether its worker is still there, in seconds.
_LOOKS_EVERY = 0.5


def lead_family() -> None:
    """Makes this process the head of a family: whatever it starts from now on ends when it does, or its runner does.

    The family is a process group. When the runner is gone this process ends it; when this process is gone (killed, or
    at its end with helpers still running), its guard does. To be called first, while there is one thread.
    """
    os.setpgid(0, 0)
    leader = os.getpid()
    if os.fork() == 0:
        _guard(leader)
    threading.Thread(target=_end_with_runner, name="runner", daemon=True).start()


def end_family(leader: int | None) -> None:
    """Ends a family whose head is this process; nothing where none is left."""
    if leader:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)


def _end_with_runner() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.killpg(os.getpgrp(), signal.SIGKILL)


def _guard(leader: int) -> None:
    """A process of its own, outside the family. It holds nothing open, and lives as long as the worker."""
    try:
        os.setpgid(0, 0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.closerange(0, 4096)
        while os.getppid() == leader:
            time.sleep(_LOOKS_EVERY)
        end_family(leader)
    finally:
        os._exit(0)
