"""The `max_tokens` filter: rows that would not fit are rejected before training, with their length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt

from distillbench.hookspecs import hookimpl
from distillbench.protocols import Context, Filter
from distillbench.records import Trace


@dataclass(frozen=True)
class MaxTokensOptions:
    """Options of the `max_tokens` filter.

    Attributes:
        limit: The most tokens a row may have, prompt and response together, as the student's renderer makes it.
    """

    limit: Annotated[int, Gt(0)]


class MaxTokens(Filter[MaxTokensOptions]):
    """Rejects traces that are longer than a number of tokens, as the cell's student and renderer see them."""

    name = "max_tokens"
    reads = frozenset({"length"})

    def reason(self, trace: Trace, context: Context) -> str | None:
        """The reason to reject a trace that is too long; one that cannot be a row at all is the preflight's to tell."""
        length = trace.measures["length"]["n_tokens"]
        if length is None or length <= self.options.limit:
            return None
        return f"too long: {length} tokens, limit {self.options.limit}"


@hookimpl
def distillbench_filters() -> Iterable[type[Filter]]:
    """The length filter."""
    return [MaxTokens]
