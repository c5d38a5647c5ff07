"""curate: the filters in order, and what they decide of each trace."""

from __future__ import annotations

from collections import Counter
from itertools import compress
from typing import TYPE_CHECKING, Any

from distillbench.bench import Bench
from distillbench.errors import StageError
from distillbench.filtering import decided
from distillbench.plan.stage import Pace, Stage, alike
from distillbench.protocols import Progress
from distillbench.records import Choice
from distillbench.stages.measure import Measure
from distillbench.stages.traces import Traces
from distillbench.store.kept import measured
from distillbench.store.rows import DECISIONS, TRACES, RowWriter, iterate
from distillbench.store.store import Made

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Curate(Stage):
    """Sends traces through filters. It leaves a decision on each, and no copies.

    Attributes:
        traces: The traces.
        filters: In order.
        measures: What the filters read.
    """

    kind = "curate"

    traces: Traces
    filters: tuple[Choice, ...]
    measures: tuple[Measure, ...] = ()

    def pace(self) -> Pace:
        """One set of traces."""
        return Pace(1.0, alike(self.kind, *self.filters))

    def run(self, bench: Bench, progress: Progress) -> Made:
        """Decides: a pass over what is left for each filter, then the traces that are kept."""
        import numpy as np

        is_kept = np.ones((bench.store.facts(self.traces) or {})["traces"], np.bool_)
        counts: Counter[str] = Counter()
        with RowWriter(bench.store.work(self) / DECISIONS) as writer:
            for choice in self.filters:
                self._filter(choice, bench, is_kept, writer, counts, progress)
            if not is_kept.any():
                raise StageError(f"no trace is left after the filters: {dict(counts)}")
            for number, row in enumerate(iterate(bench.store.file(self.traces, TRACES), ("trace_id",))):
                if is_kept[number]:
                    writer.append({"trace_id": row["trace_id"], "row": number, "kept": True})
        return Made((DECISIONS,), {"kept": int(is_kept.sum()), "rejected": dict(counts)})

    def _filter(
        self,
        choice: Choice,
        bench: Bench,
        is_kept: NDArray[np.bool_],
        writer: RowWriter,
        counts: Counter[str],
        progress: Progress,
    ) -> None:
        """One filter's decisions on what the ones before it have kept; those that it rejects are written."""
        import numpy as np

        left, path = is_kept.copy(), bench.store.file(self.traces, TRACES)
        paths = {one.kind: one.path(bench.store) for one in self.measures}
        context = bench.context(self, choice, progress)
        reasons = decided(choice, bench.catalog, measured(path, paths, left), context)
        ids = compress(iterate(path, ("trace_id",)), left)
        for number, row, reason in zip(np.flatnonzero(left), ids, reasons, strict=True):
            if reason is not None:
                is_kept[number] = False
                rejected = row | {"row": int(number), "kept": False} | _rejected(choice, reason)
                writer.append(rejected)
                counts[f"{choice.label}: {rejected['category']}"] += 1
        progress(int(is_kept.sum()), None, f"kept by {choice.label}")


def _rejected(choice: Choice, reason: str) -> dict[str, Any]:
    category, _, detail = reason.partition(":")
    return {"filter": choice.label, "category": category, "detail": detail.strip()}
