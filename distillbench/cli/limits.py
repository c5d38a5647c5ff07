"""The limits of the shell (`ulimit`) under which a run would break in the middle: told before anything has run."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import click

from distillbench.errors import DistillbenchError

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class _Limit:
    """One limit.

    Attributes:
        kind: As `resource` names it.
        name: In words.
        flag: What `ulimit` calls it.
        unit: What one of `ulimit`'s units is.
        least: What a run takes, in units of `resource`, beyond what is in use.
        why: What would happen below that.
        is_raised: Whether it is raised where the hard limit allows that, as it protects nobody.
        in_use: How much of it is in use already.
    """

    kind: int
    name: str
    flag: str
    unit: int
    least: int
    why: str
    is_raised: bool = False
    in_use: Callable[[], int] = lambda: 0


def _own_threads() -> int:
    """The threads of this user, all of which the limit counts; 0 where the machine does not show them."""
    import psutil

    try:
        own = [one.info for one in psutil.process_iter(["uids", "num_threads"]) if one.info["uids"]]
    except (psutil.Error, OSError):
        return 0
    return sum(one["num_threads"] or 1 for one in own if one["uids"].real == os.getuid())


_LIMITS = (
    _Limit(resource.RLIMIT_NOFILE, "open files", "-n", 1, 256, "files and connections could not be opened", True),
    _Limit(
        resource.RLIMIT_NPROC, "processes and threads", "-u", 1, 256, "workers could not be started", True, _own_threads
    ),
    _Limit(resource.RLIMIT_FSIZE, "size of a file", "-f", 1024, 1024 * _MIB, "results could not be written"),
    _Limit(resource.RLIMIT_STACK, "stack", "-s", 1024, _MIB, "workers would crash"),
    _Limit(resource.RLIMIT_AS, "address space", "-v", 1024, 2048 * _MIB, "libraries could not be loaded"),
    _Limit(resource.RLIMIT_DATA, "data", "-d", 1024, 2048 * _MIB, "libraries could not be loaded"),
    _Limit(resource.RLIMIT_CPU, "processor time in seconds", "-t", 1, 600, "workers would be killed"),
)


def check_limits() -> None:
    """Raises limits that may be raised, and says so.

    Raises:
        DistillbenchError: Under the others a run would lose what it has done.
    """
    if refused := list(_too_low()):
        raise DistillbenchError("\n".join(["the limits of this shell would break the run; nothing has run", *refused]))


def _too_low() -> Iterator[str]:
    for limit in _LIMITS:
        soft, hard = resource.getrlimit(limit.kind)
        if limit.kind == resource.RLIMIT_NPROC and os.geteuid() == 0:
            continue  # which the kernel does not hold root to
        if soft == resource.RLIM_INFINITY or soft >= limit.least + (used := limit.in_use()):
            continue
        wanted = limit.least + used
        if limit.is_raised and (hard == resource.RLIM_INFINITY or hard >= wanted):
            resource.setrlimit(limit.kind, (wanted, hard))
            click.echo(f"note: the limit of {limit.name} is raised from {soft} to {wanted}", err=True)
            continue
        told = f"{soft // limit.unit}" + (f", of which {used} are in use" if used else "")
        yield (
            f"    {limit.name} (ulimit {limit.flag}): {limit.why}\n"
            f"        wanted: {wanted // limit.unit} or more\n        got:    {told}\n"
            f"        hint:   ulimit {limit.flag} {wanted // limit.unit}, or ask whoever set the hard limit"
        )
