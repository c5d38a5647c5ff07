"""What keeps or rejects traces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

from distillbench.protocols.component import Component, Context, OptionsT_co
from distillbench.records import Trace


class Filter(Component[OptionsT_co]):
    """Keeps or rejects traces, with a reason.

    Attributes:
        reads: The measures that it wants in `trace.measures`: `verdict` (`outcome` and `detail`, as the grader of the
            teacher's task says), `length` (`n_tokens` and `n_loss_tokens` of the row that the student will see; both
            None where it cannot be rendered, and `error` says why).
    """

    reads: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def lacks(cls) -> list[str]:
        """The methods that a filter of this class still has to be given."""
        is_empty = cls.reason is Filter.reason and cls.decide is Filter.decide
        return super().lacks() + (["reason"] if is_empty else [])

    def decide(self, traces: Iterable[Trace], context: Context) -> Iterator[str | None]:
        """For each trace, None to keep it or the reason to reject it, in order.

        Reports count by what stands before the colon of a reason. A filter that looks at the whole set overrides this;
        one that looks at single rows overrides `reason`.
        """
        for trace in traces:
            yield self.reason(trace, context)

    def reason(self, trace: Trace, context: Context) -> str | None:
        """None to keep this trace, or the reason to reject it; to be written unless `decide` is."""
        return None
