"""length: every trace as the student sees it, tokenised once."""

from __future__ import annotations

from distillbench.bench import Bench
from distillbench.plan.stage import Pace, alike
from distillbench.preflight.rows import LENGTH, rendered_rows
from distillbench.protocols import Progress
from distillbench.records import Choice
from distillbench.stages.build import Build
from distillbench.stages.measure import Measure
from distillbench.store.columns import TEXT, WHOLE
from distillbench.store.kept import Whole
from distillbench.store.rendered import Cut, stored_row
from distillbench.store.rows import ROWS, RowWriter
from distillbench.store.store import Made


class Length(Measure):
    """Counts the tokens of every trace's row; the rows stay, so that those that are kept are not made again.

    Attributes:
        student: Whose tokens they are.
        renderer: Makes them.
        built: Makes the student.
    """

    kind = LENGTH
    columns = {"n_tokens": WHOLE, "n_loss_tokens": WHOLE, "error": TEXT}  # noqa: RUF012 - read only

    student: Choice
    renderer: Choice
    built: Build | None = None

    def pace(self) -> Pace:
        """One set of traces."""
        return Pace(1.0, alike(self.kind, self.renderer))

    def run(self, bench: Bench, progress: Progress) -> Made:
        """Renders every trace; of one that cannot be, it says why, and its length is null."""
        renderer = bench.renderer(self.student, self.renderer, self.built)
        work, traces = bench.store.work(self), Whole(bench.store, self.traces)
        n_all, n_tokens = len(traces), 0
        columns = {"trace_id": TEXT} | dict(self.columns)
        with RowWriter(work / ROWS) as rows, RowWriter(work / self.file, columns) as lengths:
            for number, (trace, rendered) in enumerate(rendered_rows(renderer, traces), 1):
                row = stored_row(trace, rendered, Cut())
                rows.append(row)
                told = {"trace_id": trace.trace_id, "error": row["error"]}
                if row["error"] is None:
                    told |= {"n_tokens": row["n_trained"], "n_loss_tokens": row["n_loss"]}
                lengths.append(told)
                n_tokens += row["n_trained"]
                progress(number, n_all, "traces")
        return Made((self.file, ROWS), {"traces": n_all, "tokens": n_tokens, "tokenising": renderer.tokenising()})
