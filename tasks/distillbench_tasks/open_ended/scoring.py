"""How the stock `lm_eval` command scores open-ended answers: by the `judge` grader, on the text after the reasoning.

The judge is chosen by environment variables, because a task YAML has no place for it.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from distillbench.errors import DistillbenchError
from distillbench.records import Message, Problem
from distillbench_plugins.benchmarks.judge import Judge, JudgeOptions
from distillbench_plugins.renderers.reasoning import split_reasoning

RUBRIC = Path(__file__).with_name("rubric.md")
#: What the judge is shown as the question: the chat variant's prompt, also where the base variant was asked.
PROMPT = "{question}\n\nAnswer in at most 300 words."
MODEL, BASE_URL = "DISTILLBENCH_JUDGE_MODEL", "DISTILLBENCH_JUDGE_BASE_URL"

_log = logging.getLogger(__name__)


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """`judge_score`, 0 to 1: 0 for an empty answer, NaN without a judge or when the judge fails."""
    _, answer, _ = split_reasoning(results[0])  # nothing when the reasoning was never closed
    model = os.environ.get(MODEL)
    if not model:
        _say_once(f"no judge: set {MODEL} (and {BASE_URL}, OPENAI_API_KEY); until then judge_score is NaN")
        return {"judge_score": math.nan}
    problem = Problem(doc["id"], "open_ended", (Message("user", PROMPT.format(question=doc["question"])),), "")
    base_url = os.environ.get(BASE_URL, JudgeOptions.base_url)
    judge = Judge(JudgeOptions(model=model, base_url=base_url, rubric=RUBRIC))
    extracted = judge.extract(answer, problem)
    if extracted is None:
        return {"judge_score": 0.0}
    try:
        return {"judge_score": judge.judge(problem, extracted).scores["score"]}
    except DistillbenchError as error:  # stock lm_eval has no outcome for it: NaN shows in its mean, and ends no run
        _log.warning("%s: no judgement, judge_score is NaN: %s", doc["id"], error)
        return {"judge_score": math.nan}


@cache
def _say_once(text: str) -> None:
    _log.warning(text)
