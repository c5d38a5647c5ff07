"""The `correct_only` filter: only traces that the task's grader says are right."""

from __future__ import annotations

from collections.abc import Iterable

from distillbench.hookspecs import hookimpl
from distillbench.protocols import Filter, FilterContext
from distillbench.records import Trace


class CorrectOnly(Filter):
    """Rejects traces whose answer the teacher's task grades as not right."""

    name = "correct_only"
    needs = frozenset({"verdicts"})

    def reason(self, trace: Trace, context: FilterContext) -> str | None:
        """The reason to reject a trace that is not right."""
        if trace.correct is None:
            return "the grader failed on it"
        return None if trace.correct else "not correct"


@hookimpl
def distillbench_filters() -> Iterable[type[Filter]]:
    """The correctness filter."""
    return [CorrectOnly]
