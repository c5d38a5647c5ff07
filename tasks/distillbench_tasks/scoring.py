"""How the stock `lm_eval` command scores a task: as the task's grader does, on the text after the reasoning."""

from __future__ import annotations

import atexit
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distillbench.catalog import Catalog
from distillbench.errors import MatrixError, Place
from distillbench.fingerprint import canonical_json
from distillbench.manager import make_manager
from distillbench.options import Given, resolve_options
from distillbench.outcomes import CORRECT, GRADER_ERROR, decide_all
from distillbench.protocols import Context, Grader, Grading
from distillbench.records import Completion, Problem
from distillbench_plugins.renderers.reasoning import split_reasoning

ProcessResults = Callable[[Mapping[str, Any], Sequence[str]], dict[str, float]]
#: The grader of each process and what its gradings hold, closed when the process ends.
_open = ExitStack()
atexit.register(_open.close)


def graded_by(
    grader: str, metric: str, options: Mapping[str, Any] | None = None, gold: str | None = None
) -> ProcessResults:
    """Makes a task's `process_results`.

    Args:
        grader: The grader's name, as in the task's `metadata.distillbench`.
        metric: The name of the metric: 1 right, 0 wrong or without a complete answer, NaN when the grader fails.
        options: The grader's options.
        gold: The column of the gold answer.
    """

    def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
        judging, grading = _grading(grader, canonical_json(options or {}))
        problem = Problem(str(doc.get("id", "")), grader, (), str(doc[gold]) if gold else "", {"doc": dict(doc)})
        verdict = next(decide_all([(_completion(results[0]), problem)], judging, grading))
        if verdict.outcome == GRADER_ERROR:  # stock lm_eval has no outcome for it: NaN shows in its mean, ends no run
            logging.getLogger(__name__).warning("%s failed on %s: %s", grader, problem.problem_id, verdict.detail)
            return {metric: math.nan}
        return {metric: float(verdict.outcome == CORRECT)}

    return process_results


def _completion(text: str) -> Completion:
    """A response as the parser reads it where nothing was prefilled."""
    reasoning, answer, state = split_reasoning(text)
    return Completion(text, (), "stop", "", reasoning, answer, state)


@cache
def _grading(grader: str, options_json: str) -> tuple[Grader, Grading]:
    """A grader, opened once for the process."""
    component = Catalog(make_manager()).kind("benchmark")[grader]
    place = Place(keys=("scoring",))
    layer = {name: Given(value, place.below(name)) for name, value in json.loads(options_json).items()}
    resolved = resolve_options(component.Options, [layer], place, f"grader {grader!r}")
    if resolved.mistakes:
        raise MatrixError(resolved.mistakes)
    opened: Any = component(resolved.options)
    folder = Path(_open.enter_context(TemporaryDirectory(prefix="distillbench-grading-")))
    return opened, _open.enter_context(opened.open(Context(work=folder)))
