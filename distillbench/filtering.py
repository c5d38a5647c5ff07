"""What a filter decides of traces."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from distillbench.catalog import Catalog
from distillbench.protocols import Context, Filter
from distillbench.records import Choice, Trace


def decided(
    choice: Choice, catalog: Catalog, traces: Iterable[Trace], context: Context
) -> Iterator[tuple[Trace, str | None]]:
    """Each trace with the reason why a filter rejects it, or None; as many are held as the filter reads ahead.

    Raises:
        PluginError: The filter raised, or does not decide once for each trace.
    """
    component: Filter = catalog.build(choice)
    read: deque[Trace] = deque()
    n_read = n_decided = 0

    def given() -> Iterator[Trace]:
        nonlocal n_read
        for trace in traces:
            n_read += 1
            read.append(trace)
            yield trace

    source = given()
    with catalog.blaming(choice):
        reasons = component.decide(source, context)
    for reason in catalog.given_by(choice, reasons):
        n_decided += 1
        with catalog.blaming(choice):
            if not read and next(source, None) is None:
                raise ValueError(f"it decided {n_decided} times on {n_read} traces")
            if not (reason is None or isinstance(reason, str)):
                raise TypeError(f"wanted a reason in words, or None for a trace that is kept; got {reason!r}")
        yield read.popleft(), reason
    for _ in source:  # what it did not even read
        pass
    with catalog.blaming(choice):
        if read:
            raise ValueError(f"it decided {n_decided} times on {n_read} traces")
