"""The `lm_eval` grader: a task's own filters, `process_results` and deciding metric."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from distillbench.errors import GraderError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Benchmark
from distillbench.records import Judgement, Problem


@dataclass(frozen=True)
class LmEvalOptions:
    """Options of the `lm_eval` grader; a task YAML sets them in `metadata.distillbench.grader_options`.

    Attributes:
        metric: The metric that decides; None for the first that the task reports.
        filter: The lm-eval filter whose result counts; None for the task's first.
        graded: True when the metric is a score and not right or wrong: the outcome is then `graded`.
    """

    metric: str | None = None
    filter: str | None = None
    graded: bool = False


class LmEvalMetric(Benchmark):
    """Grades through lm-eval: the task's own filters, process_results and metric.

    Any answer part that is not empty is a complete answer.
    """

    name = "lm_eval"
    packages = ("lm_eval",)
    Options = LmEvalOptions
    needs_task = True
    _task: Any

    def extract(self, answer: str, problem: Problem) -> str | None:
        """The answer part, unless it is empty."""
        return answer if answer.strip() else None

    def judge(self, problem: Problem, extracted: str) -> Judgement:
        """What the deciding metric says."""
        doc = problem.metadata["doc"]
        metrics = self._task.process_results(doc, [self._filtered(doc, extracted)])
        numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
        decides = self.options.metric or next(iter(numbers), None)
        if decides not in numbers:
            raise GraderError(f"task {problem.domain!r} reports {sorted(metrics)}; the metric {decides!r} is not there")
        value = numbers[decides]
        if self.options.graded:
            return Judgement(None, "", numbers | {"score": value})
        if value not in (0.0, 1.0):
            raise GraderError(f"metric {decides!r} is {value}, not 0 or 1: set `graded: true` in grader_options")
        return Judgement(value == 1.0, "" if value else "wrong_answer", numbers)

    def _filtered(self, doc: Any, answer: str) -> Any:
        from lm_eval.api.instance import Instance

        instance = Instance("generate_until", doc, (answer, {}), 0, metadata=(None, 0, 1))
        instance.resps = [answer]
        filters = getattr(self._task, "_filters", None) or ()
        for ensemble in filters:
            ensemble.apply([instance])
        names = [ensemble.name for ensemble in filters]
        chosen = self.options.filter or (names[0] if names else None)
        if chosen is None:
            return answer
        if chosen not in instance.filtered_resps:
            raise GraderError(f"the task has no filter {chosen!r}; it has {names}")
        return instance.filtered_resps[chosen]


@hookimpl
def distillbench_benchmarks() -> Iterable[type[Benchmark]]:
    """The grader of plain lm-eval tasks."""
    return [LmEvalMetric]
