"""The `correct_only` filter: only traces that the task's grader says are right."""

from __future__ import annotations

from collections.abc import Iterable

from distillbench.hookspecs import hookimpl
from distillbench.outcomes import CORRECT, GRADER_ERROR
from distillbench.protocols import Context, Filter
from distillbench.records import Trace


class CorrectOnly(Filter):
    """Rejects traces whose answer the teacher's task grades as not right."""

    name = "correct_only"
    reads = frozenset({"verdict"})

    def reason(self, trace: Trace, context: Context) -> str | None:
        """The reason to reject a trace that is not right."""
        outcome = trace.measures["verdict"]["outcome"]
        if outcome == GRADER_ERROR:
            return "the grader failed on it"
        return None if outcome == CORRECT else "not correct"


@hookimpl
def distillbench_filters() -> Iterable[type[Filter]]:
    """The correctness filter."""
    return [CorrectOnly]
