"""verify: the task's grader says which traces are right."""

from __future__ import annotations

from distillbench.bench import Bench
from distillbench.outcomes import CORRECT, GRADER_ERROR, decide_all
from distillbench.plan.stage import Pace, Stage, alike
from distillbench.protocols import Progress
from distillbench.records import Choice, Completion, Problem, Trace
from distillbench.stages.traces import Traces
from distillbench.store.rows import TRACES, read_rows, trace_of, write_rows
from distillbench.store.store import Made


class Verify(Stage):
    """Grades traces.

    Attributes:
        grader: The task's.
        task: The task's name.
        task_identity: Identity of everything in the task that reaches the verdict.
        traces: What is graded.
    """

    kind = "verify"

    grader: Choice
    task: str
    task_identity: str
    traces: Traces

    def pace(self) -> Pace:
        """One set of traces."""
        return Pace(1.0, alike(self.kind, self.grader))

    def run(self, bench: Bench, progress: Progress) -> Made:
        """Without a complete answer no trace is right."""
        benchmark, grading = bench.grading(self.grader, self.task)
        rows = read_rows(bench.store.file(self.traces, TRACES))
        verdicts = decide_all((_as_sample(trace_of(row)) for row in rows), benchmark, grading)
        for number, (row, verdict) in enumerate(zip(rows, verdicts, strict=True)):
            row["correct"] = None if verdict.outcome == GRADER_ERROR else verdict.outcome == CORRECT
            progress(number + 1, len(rows), "verified")
        write_rows(bench.store.work(self) / TRACES, rows)
        n_correct = sum(row["correct"] is True for row in rows)
        return Made((TRACES,), {"correct": n_correct, "traces": len(rows), "grading": dict(grading.facts)})


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
