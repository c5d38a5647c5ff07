"""The `max_tokens` filter: rows that would not fit are rejected before training, with their length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

from annotated_types import Gt

from distillbench.hookspecs import hookimpl
from distillbench.protocols import Filter, FilterContext
from distillbench.records import Trace

#: Rows rendered at a time.
_BATCH = 1024


@dataclass(frozen=True)
class MaxTokensOptions:
    """Options of the `max_tokens` filter.

    Attributes:
        limit: The most tokens a row may have, prompt and response together, as the student's renderer makes it.
    """

    limit: Annotated[int, Gt(0)]


class MaxTokens(Filter):
    """Rejects traces that are longer than a number of tokens, as the cell's student and renderer see them."""

    name = "max_tokens"
    Options = MaxTokensOptions
    needs = frozenset({"render"})

    def decide(self, traces: Iterable[Trace], context: FilterContext) -> Iterator[str | None]:
        """The reason to reject each trace that is too long."""
        if context.render_all is None:
            raise ValueError("max_tokens needs `render_all` in its context")
        rest = iter(traces)
        while batch := list(islice(rest, _BATCH)):
            for row in context.render_all(batch):
                length = len(row.input_ids)
                is_fit = length <= self.options.limit
                yield None if is_fit else f"too long: {length} tokens, limit {self.options.limit}"


@hookimpl
def distillbench_filters() -> Iterable[type[Filter]]:
    """The length filter."""
    return [MaxTokens]
