"""curate: the filters in order; every rejected trace leaves its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from distillbench.bench import Bench
from distillbench.errors import StageError
from distillbench.plan.stage import Pace, Stage, alike
from distillbench.preflight.look import decide
from distillbench.protocols import FilterContext, Progress
from distillbench.records import Choice, Rendered, Trace
from distillbench.stages.build import Build
from distillbench.stages.traces import Traces
from distillbench.stages.verify import Verify
from distillbench.store.columns import Row
from distillbench.store.rows import KEPT, REJECTED, TRACES, read_rows, trace_of, trace_row, write_rows
from distillbench.store.store import Made


class Curate(Stage):
    """Sends traces through filters.

    Attributes:
        source: The traces, verified where a filter reads verdicts.
        filters: In order.
        student: Whose tokens a filter counts; None where none does.
        renderer: Makes these tokens.
        built: Makes the student.
    """

    kind = "curate"

    source: Traces | Verify
    filters: tuple[Choice, ...]
    student: Choice | None = None
    renderer: Choice | None = None
    built: Build | None = None

    @property
    def traces(self) -> Traces:
        """The traces, verified or not."""
        return self.source.traces if isinstance(self.source, Verify) else self.source

    def pace(self) -> Pace:
        """One set of traces."""
        return Pace(1.0, alike(self.kind, *self.filters))

    def run(self, bench: Bench, progress: Progress) -> Made:
        """Decides, and writes what is kept and what is not."""
        traces = [trace_of(row) for row in read_rows(bench.store.file(self.source, TRACES))]
        context = FilterContext(render_all=self._render_function(bench))
        rejected: list[Row] = []
        counts: Counter[str] = Counter()
        for choice in self.filters:
            decided = decide(choice, bench.catalog, traces, context)
            for trace, reason in decided:
                if reason is None:
                    continue
                counts[f"{choice.label}: {reason.split(':')[0]}"] += 1
                rejected.append(
                    {
                        "problem_id": trace.problem.problem_id,
                        "source": trace.source,
                        "filter": choice.label,
                        "reason": reason,
                    }
                )
            traces = [trace for trace, reason in decided if reason is None]
            progress(len(traces), None, f"kept by {choice.label}")
        if not traces:
            raise StageError(f"no trace is left after the filters: {dict(counts)}")
        write_rows(bench.store.work(self) / KEPT, (trace_row(trace) for trace in traces))
        write_rows(bench.store.work(self) / REJECTED, rejected)
        return Made((KEPT, REJECTED), {"kept": len(traces), "rejected": dict(counts)})

    def _render_function(self, bench: Bench) -> Callable[[Sequence[Trace]], list[Rendered]] | None:
        if self.student is None or self.renderer is None:
            return None
        return bench.renderer(self.student, self.renderer, self.built).render_all
