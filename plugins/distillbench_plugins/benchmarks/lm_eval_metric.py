"""The `lm_eval` grader: a task's own filters, `process_results` and deciding metric."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

from distillbench.errors import GraderError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Context, Grader, Grading, OneByOne
from distillbench.records import Judgement, Problem
from distillbench_plugins.grading.golds import is_missing

#: Filters that look at all completions of a problem together, which a verdict on one sample cannot.
_NEED_ALL = frozenset({"majority_vote", "take_first_k"})
#: Decides where given continuations are scored and no metric is named.
_ACCURACY = "acc"
#: What lm-eval calls a sample's log-likelihood before it makes the metric of that name from all of them.
_PERPLEXITY, _LOG_LIKELIHOOD = "perplexity", "log_likelihood"
#: How NLTK tells of a data file that it lacks.
_NLTK_DATA = re.compile(r"nltk\.download\('([^']+)'\)")


@dataclass(frozen=True)
class LmEvalOptions:
    """Options of the `lm_eval` grader, for a task YAML's or an evaluation's `grader_options`.

    Attributes:
        metric: The metric that decides; None where the task has but one, or scores given continuations by `acc`.
        filter: The lm-eval filter whose result counts; None where the task has but one.
        graded: True when the metric is a score and not right or wrong: the outcome is then `graded`.
    """

    metric: str | None = None
    filter: str | None = None
    graded: bool = False


class LmEvalMetric(Grader[LmEvalOptions]):
    """Grades through lm-eval: the task's own filters, process_results and metric.

    Any answer part that is not empty is a complete answer. A metric that is a list of numbers for each sample, as those
    of single instructions in IFEval, counts as its mean. Where a task has given continuations scored, the answer is
    what an engine gives: their log-likelihoods as JSON.
    """

    name = "lm_eval"
    version = 3
    packages = ("lm_eval",)
    needs_task = True
    _task: Any

    def with_task(self, task: Any) -> Self:
        """A copy that grades through this lm-eval `Task`.

        Raises:
            GraderError: The task's metrics run the model's code.
        """
        if task.config.unsafe_code:
            raise GraderError(
                f"task {task.config.task!r} runs the model's code outside of any sandbox (`unsafe_code` in its YAML)\n"
                f"    use a task of the same problems whose grader has a sandbox"
            )
        return super().with_task(task)

    def refuse_unusable(self) -> None:
        """Asks for the filter and the metric where there are several.

        Raises:
            GraderError: What is to be written in `grader_options`.
        """
        task = self._task.config.task
        chosen = _only("filter", self.options.filter, [one.name for one in self._filters], task)
        self._metric()
        needing = _NEED_ALL & {step["function"] for step in self._steps(chosen) if isinstance(step["function"], str)}
        if needing:
            raise GraderError(
                f"task {task!r}: the filter {chosen!r} has {sorted(needing)}, which needs all completions of a problem;"
                f" each sample is graded by itself\n    name another filter in grader_options"
            )

    def open(self, context: Context) -> AbstractContextManager[Grading]:
        """Checks what decides, and names it.

        Raises:
            GraderError: See `check`.
        """
        self.refuse_unusable()
        return nullcontext(_Named(self, {"metric": self._metric(), "filter": self._filter()}))

    def unusable_golds(self, problems: Iterable[Problem]) -> Iterator[str | None]:
        """A gold answer that is missing, or none of the choices; lm-eval itself calls every answer to it wrong."""
        return map(self._unusable, problems)

    def _unusable(self, problem: Problem) -> str | None:
        """See `unusable_golds`; what a task's own `process_results` makes of its documents is its own affair."""
        from lm_eval.api.task import ConfigurableTask

        own = type(self._task).process_results is not ConfigurableTask.process_results
        if own or self._task.config.process_results is not None:
            return None
        if self._task.OUTPUT_TYPE == "multiple_choice" and not getattr(self._task, "multiple_input", 0):
            doc = problem.metadata["doc"]
            return _no_choice(self._task.doc_to_target(doc), self._task.doc_to_choice(doc))
        return f"there is no gold answer: {problem.gold!r}" if is_missing(problem) else None

    def extract(self, answer: str, problem: Problem) -> str | None:
        """The answer part, unless it is empty."""
        return answer if answer.strip() else None

    def judge(self, problem: Problem, extracted: str) -> Judgement:
        """What the deciding metric says."""
        if why := self._unusable(problem):
            raise GraderError(why)
        doc = problem.metadata["doc"]
        metrics = self._results(doc, self._filtered(doc, extracted))
        numbers = {name: number for name, value in metrics.items() if (number := _number(value)) is not None}
        decides = self._metric()
        if decides not in metrics:
            raise GraderError(f"task {problem.domain!r} reports {sorted(metrics)}; the metric {decides!r} is not there")
        if decides not in numbers:
            raise GraderError(
                f"metric {decides!r} is a {type(metrics[decides]).__name__} and no number: lm-eval makes it from all "
                f"samples together; numbers of single samples are {sorted(numbers)}"
            )
        value = numbers[decides]
        if math.isnan(value):
            raise GraderError(f"metric {decides!r} is not a number")
        if self._task.OUTPUT_TYPE == "loglikelihood" and _PERPLEXITY in numbers:
            numbers[_LOG_LIKELIHOOD] = numbers.pop(_PERPLEXITY)
        if self.options.graded:
            return Judgement(None, "", numbers | {"score": value})
        if value not in (0.0, 1.0):
            raise GraderError(f"metric {decides!r} is {value}, not 0 or 1: set `graded: true` in grader_options")
        return Judgement(value == 1.0, "" if value else "wrong_answer", numbers)

    def _results(self, doc: Any, filtered: list[Any]) -> Mapping[str, Any]:
        try:
            found: Mapping[str, Any] = self._task.process_results(doc, filtered)
        except LookupError as error:
            named = _NLTK_DATA.search(str(error))
            if named is None:
                raise
            raise GraderError(
                f"the task needs NLTK's data {named[1]!r}, which is not here: where there is a network, run "
                f"`python -m nltk.downloader {named[1]}`; elsewhere let NLTK_DATA name a folder that has it"
            ) from error
        return found

    def _filtered(self, doc: Any, answer: str) -> list[Any]:
        """What `process_results` is given: a text, or a (log-likelihood, is greedy) for each continuation."""
        from lm_eval.api.instance import Instance

        is_scored = self._task.OUTPUT_TYPE != "generate_until"
        responses = [(number, is_greedy) for number, is_greedy in json.loads(answer)] if is_scored else [answer]
        chosen = self._filter()
        if chosen is None:
            return responses
        kind, arguments = ("loglikelihood", ("", "")) if is_scored else ("generate_until", (answer, {}))
        instances = [Instance(kind, doc, arguments, number, metadata=(None, 0, 1)) for number in range(len(responses))]
        for instance, response in zip(instances, responses, strict=True):
            instance.resps = [response]
        next(ensemble for ensemble in self._filters if ensemble.name == chosen).apply(instances)
        return [instance.filtered_resps[chosen] for instance in instances]

    @property
    def _filters(self) -> tuple[Any, ...]:
        """lm-eval's filter ensembles of the task."""
        return tuple(getattr(self._task, "_filters", None) or ())

    def _steps(self, chosen: str | None) -> list[Mapping[str, Any]]:
        """The functions of a filter as the YAML lists them."""
        listed = self._task.config.filter_list or ()
        return [step for one in listed if one["name"] == chosen for step in one["filter"]]

    def _filter(self) -> str | None:
        return _only("filter", self.options.filter, [one.name for one in self._filters], self._task.config.task)

    def _metric(self) -> str:
        found = self.options.metric  # not looked up: `process_results` may report more than the YAML lists
        listed = list(self._task.aggregation())
        if found is None and self._task.OUTPUT_TYPE != "generate_until" and _ACCURACY in listed:
            return _ACCURACY
        if found is None:
            found = _only("metric", None, listed, self._task.config.task)
        if found is None:
            raise GraderError(f"task {self._task.config.task!r} lists no metric: name one in grader_options")
        return str(found)


def _no_choice(target: Any, choices: list[str]) -> str | None:
    """Why a target names none of the choices, or not only choices; None where it does."""
    named = target if isinstance(target, list) else [target]
    is_one = [one in choices if isinstance(one, str) else one in range(len(choices)) for one in named]
    return None if named and all(is_one) else f"the gold answer {target!r} is none of the choices {choices!r:.300}"


class _Named(OneByOne):
    """Judges one answer after the other, and says what decides."""

    def __init__(self, grader: Grader, facts: Mapping[str, Any]) -> None:
        super().__init__(grader)
        self.facts = facts


def _only(what: str, named: str | None, there: list[str], task: str) -> str | None:
    """The one that is named, or the only one there is.

    Raises:
        GraderError: None of this name, or several and none is named.
    """
    if named is not None and named not in there:
        raise GraderError(f"task {task!r} has no {what} {named!r}; it has {there}")
    if named is None and len(there) > 1:
        raise GraderError(
            f"task {task!r} has several {what}s, and none is named as the one that decides: {there}\n"
            f"    name it in the evaluation: grader_options: {{{what}: {there[0]}}}"
        )
    return named if named is not None else next(iter(there), None)


def _number(value: Any) -> float | None:
    """A metric of one sample as a number: a list as its mean; None for anything else."""
    if isinstance(value, list):
        numbers = [_number(entry) for entry in value]
        known = [number for number in numbers if number is not None]
        return sum(known) / len(known) if known and len(known) == len(numbers) else None
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a scalar of numpy or torch
        value = value.item()
    return float(value) if isinstance(value, int | float) else None


@hookimpl
def distillbench_benchmarks() -> Iterable[type[Grader]]:
    """The grader of plain lm-eval tasks."""
    return [LmEvalMetric]
