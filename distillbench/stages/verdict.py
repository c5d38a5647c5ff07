"""verdict: what the task's grader says of each trace."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from distillbench.bench import Bench
from distillbench.fingerprint import key_of
from distillbench.outcomes import CORRECT, GRADER_ERROR, decide_all
from distillbench.plan.stage import Pace, alike
from distillbench.protocols import Progress
from distillbench.records import Choice, Completion, Problem, Trace
from distillbench.stages.known import KnownVerdicts
from distillbench.stages.measure import Measure
from distillbench.store.columns import TEXT, Row
from distillbench.store.journal import Journal
from distillbench.store.rows import TRACES, iterate, trace_of, write_rows
from distillbench.store.store import Made

#: Traces of which something is held while they are graded.
_TOGETHER = 1024


class Verdict(Measure):
    """Grades traces as samples are graded: one outcome for each, `correct` or another.

    Where the grader failed nothing is known: these traces are holes, which the next run grades again.

    Attributes:
        grader: The task's.
        task: The task's name.
        task_identity: Identity of everything in the task that reaches the verdict.
    """

    kind = "verdict"
    columns = {"outcome": TEXT, "detail": TEXT, "trace_digest": TEXT}  # noqa: RUF012 - read only

    grader: Choice
    task: str
    task_identity: str

    def pace(self) -> Pace:
        """One set of traces."""
        return Pace(1.0, alike(self.kind, self.grader))

    def run(self, bench: Bench, progress: Progress) -> Made:
        """Grades what is not graded yet."""
        n_all = (bench.store.facts(self.traces) or {})["traces"]
        counts: Counter[str] = Counter()
        with Journal(bench.store.scratch(self) / "verdicts.jsonl", self.key, in_order=True) as journal:
            for row in self._rows(bench, journal.n_rows):
                journal.append(row)
                progress(journal.n_rows, n_all, "graded")
            columns = {"trace_id": TEXT} | dict(self.columns)
            write_rows(bench.store.work(self) / self.file, _counted(journal, counts), columns)
        _, grading = bench.grading(self.grader, self.task)
        facts = {"correct": counts[CORRECT], "outcomes": dict(counts), "grading": dict(grading.facts)}
        return Made((self.file,), facts, holes=counts[GRADER_ERROR])

    def _rows(self, bench: Bench, n_known: int) -> Iterator[Row]:
        """The verdicts on all traces after the first few, in order; of bounded many, something is held."""
        earlier = KnownVerdicts(self, bench.store, self.file, "trace_digest")
        given = islice(iterate(bench.store.file(self.traces, TRACES)), n_known, None)
        for first in given:
            yield from self._verdicts(bench, chain([first], islice(given, _TOGETHER - 1)), earlier)

    def _verdicts(self, bench: Bench, traces: Iterable[Row], earlier: KnownVerdicts) -> Iterator[Row]:
        """The verdicts on some traces. One that is known of the same content is kept, wherever it stood."""
        grader, grading = bench.grading(self.grader, self.task)
        waiting: deque[Row] = deque()

        def asked() -> Iterator[tuple[Completion, Problem]]:
            for row in traces:
                whose = {"trace_id": row["trace_id"], "trace_digest": _digest_of(row)}
                place = earlier.places.get(whose["trace_digest"])
                if place is None:
                    waiting.append(whose)
                    yield _as_sample(trace_of(row))
                else:
                    waiting.append(next(earlier.rows_at([place])) | whose)

        for verdict in decide_all(asked(), grader, grading):
            while "outcome" in (found := waiting.popleft()):
                yield found
            yield found | {"outcome": verdict.outcome, "detail": verdict.detail}
        yield from waiting


def _digest_of(row: Row) -> str:
    """Tells what a trace says from what it said before; which id it has, and where it stands, is no matter."""
    return key_of({name: value for name, value in row.items() if name != "trace_id"})


def _counted(rows: Journal, counts: Counter[str]) -> Iterator[Row]:
    for row in rows:
        counts[row["outcome"]] += 1
        yield row


def _as_sample(trace: Trace) -> tuple[Completion, Problem]:
    """A trace as a completion that was parsed."""
    completion = Completion(
        text=trace.answer,
        token_ids=(),
        finish_reason=trace.finish_reason,
        prefill="",
        reasoning=trace.reasoning,
        answer=trace.answer,
        reasoning_state="absent" if trace.reasoning is None else "closed",
    )
    return completion, trace.problem
