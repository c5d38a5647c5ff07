"""What a filter decides of traces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from distillbench.catalog import Catalog
from distillbench.protocols import Context, Filter
from distillbench.records import Choice, Trace


def decided(choice: Choice, catalog: Catalog, traces: Iterable[Trace], context: Context) -> Iterator[str | None]:
    """For each trace the reason why a filter rejects it, or None; no trace is held, however far the filter reads ahead.

    Raises:
        PluginError: The filter raised, gave something that is no reason, or does not decide once for each trace.
    """
    component: Filter = catalog.build(choice)
    n_read = n_decided = 0

    def given() -> Iterator[Trace]:
        nonlocal n_read
        for trace in traces:
            n_read += 1
            yield trace

    source = given()
    with catalog.blaming(choice):
        reasons = iter(component.decide(source, context))
    for reason in catalog.given_by(choice, reasons):
        n_decided += 1
        with catalog.blaming(choice):
            if n_decided > n_read and next(source, None) is None:
                raise ValueError(f"it decided {n_decided} times on {n_read} traces")
            _refuse_wordless(reason)
        yield reason
    for _ in source:  # what it did not even read
        pass
    with catalog.blaming(choice):
        if n_decided < n_read:
            raise ValueError(f"it decided {n_decided} times on {n_read} traces")


def _refuse_wordless(reason: object) -> None:
    if not (reason is None or isinstance(reason, str)):
        raise TypeError(f"wanted a reason in words, or None for a trace that is kept; got {reason!r}")
    if reason is not None and (half := re.search("[\ud800-\udfff]", reason)):
        raise ValueError(f"a reason holds half a character, which cannot be written: {half.group()!a} in {reason!a}")
