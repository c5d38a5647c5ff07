"""The lm_eval grader: a task's own filters, process_results and metric decide, through real lm-eval tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from plugin_helpers import problem, tasks

from distillbench.errors import GraderError
from distillbench.outcomes import decide
from distillbench.protocols import Context
from distillbench.records import Completion, Verdict
from distillbench.tasks.identity import TaskIndex
from distillbench.tasks.loader import LmEvalTasks
from distillbench_plugins.benchmarks.lm_eval_metric import LmEvalMetric, LmEvalOptions

UTILS = """
from datasets import Dataset

def load(**metadata):
    rows = Dataset.from_list([{"question": "2+2?", "answer": "4"}])
    return {"train": rows, "test": rows}

def share(doc, results):
    "The share of the answer's characters, and whether it is right."
    text = results[0]
    return {"share": sum(one == doc["answer"] for one in text) / max(1, len(text)), "right": text == doc["answer"]}

def words(doc, results):
    return {"note": "no number", "passed": ("4" in results[0], 1)}

def each(doc, results):
    "Whether each character is right, as IFEval's list of instructions."
    return {"each": [one == doc["answer"] for one in results[0]]}

def odd(doc, results):
    return {"odd": [True, "x"]}

def nltk_data(doc, results):
    import nltk
    return {"right": nltk.data.find("corpora/no_such_corpus")}

def key_error(doc, results):
    return {"right": {}["nothing to do with NLTK"]}

def numpy(doc, results):
    import numpy
    return {"right": numpy.float64(results[0] == doc["answer"])}
"""
YAML = """
task: {name}
custom_dataset: !function utils.load
training_split: train
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: [], do_sample: false, max_gen_toks: 8}}
{more}
"""
EXACT = "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]"
TWO_FILTERS = f"""{EXACT}
filter_list:
  - name: strict
    filter: [{{function: regex, regex_pattern: '^(\\d+)$'}}, {{function: take_first}}]
  - name: loose
    filter: [{{function: regex, regex_pattern: '(\\d+)', group_select: -1}}, {{function: take_first}}]
"""


def own(function: str, *metrics: str) -> str:
    """A task that grades with its own function."""
    listed = ", ".join(f"{{metric: {metric}, aggregation: mean, higher_is_better: true}}" for metric in metrics)
    return f"process_results: !function utils.{function}\nmetric_list: [{listed}]"


@pytest.fixture
def verdict(tmp_path: Path) -> Any:
    """Writes a task and gives the verdict on an answer."""

    def make(answer: str, more: str, **options: Any) -> Verdict:
        (tmp_path / "utils.py").write_text(UTILS)
        (tmp_path / "made.yaml").write_text(YAML.format(name="made_for_tests", more=more))
        task = LmEvalTasks(TaskIndex([tmp_path])).load("made_for_tests")
        grader = LmEvalMetric(LmEvalOptions(**options)).with_task(task)
        return decide(Completion(answer, (), "stop", "", None, answer, "absent"), problem("2+2?", "4"), grader)

    return make


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("\\boxed{4}", "correct"),
        ("no \\boxed{3}, but \\boxed{4}", "correct"),
        ("no \\boxed{4}, but \\boxed{3}", "wrong"),
        ("4", "wrong"),
        ("\\boxed{04}", "wrong"),
        ("", "no_answer"),
        (" \n", "no_answer"),
    ],
)
def test_digits(answer: str, outcome: str) -> None:
    settings = tasks().index.find("digits").settings
    grader = LmEvalMetric(LmEvalOptions(**settings["grader_options"])).with_task(tasks().load("digits"))
    found = decide(Completion(answer, (), "stop", "", None, answer, "absent"), problem("Digits?", "4"), grader)
    assert found.outcome == outcome
    if outcome in ("correct", "wrong"):
        assert found.scores == {"exact_match": float(outcome == "correct")}
        assert found.extracted == answer


def test_grading_one_problem_leaves_nothing_behind_for_the_next() -> None:
    grader = LmEvalMetric(LmEvalOptions()).with_task(tasks().load("digits"))
    asked = tasks().problems("digits", "test", 12)
    right = [grader.judge(one, f"\\boxed{{{one.gold}}}").correct for one in asked]
    wrong = [grader.judge(one, "\\boxed{x}").correct for one in asked]
    assert (right, wrong) == ([True] * 12, [False] * 12)
    assert grader.judge(asked[0], f"\\boxed{{{asked[0].gold}}}").correct


def test_the_only_metric_decides_unless_one_is_named(verdict: Any) -> None:
    share = own("share", "right", "share")
    assert verdict("4", share, metric="right").outcome == "correct"
    assert verdict("45", share, metric="right").outcome == "wrong"
    assert verdict("4", EXACT).outcome == "correct"
    assert verdict("5", EXACT).detail == "wrong_answer"


def test_a_score_is_graded(verdict: Any) -> None:
    found = verdict("4454", own("share", "share"), metric="share", graded=True)
    assert found.outcome == "graded"
    assert found.scores == {"share": 0.75, "right": 0.0, "score": 0.75}


def test_a_score_that_is_not_said_to_be_one_is_an_error(verdict: Any) -> None:
    found = verdict("4454", own("share", "share"), metric="share")
    assert found.outcome == "grader_error"
    assert "0.75, not 0 or 1: set `graded: true`" in found.detail


def test_a_metric_that_is_not_there_is_an_error(verdict: Any) -> None:
    found = verdict("4", EXACT, metric="pass_at_1")
    assert found.outcome == "grader_error"
    assert "['exact_match']; the metric 'pass_at_1' is not there" in found.detail


def test_numbers_of_numpy_decide(verdict: Any) -> None:
    assert [verdict(answer, own("numpy", "right")).outcome for answer in "45"] == ["correct", "wrong"]


@pytest.mark.parametrize(
    ("options", "answer", "outcome"),
    [
        ({}, "4", "grader_error"),
        ({"filter": "strict"}, "4", "correct"),
        ({"filter": "strict"}, "It is 4", "wrong"),
        ({"filter": "loose"}, "It is 4", "correct"),
        ({"filter": "loose"}, "It is 4 or 5", "wrong"),
        ({"filter": "lose"}, "4", "grader_error"),
    ],
)
def test_of_several_filters_the_one_that_is_named_decides(
    verdict: Any, options: dict[str, str], answer: str, outcome: str
) -> None:
    found = verdict(answer, TWO_FILTERS, **options)
    assert found.outcome == outcome
    if outcome == "grader_error" and options:
        assert "no filter 'lose'; it has ['strict', 'loose']" in found.detail
    elif outcome == "grader_error":
        assert "several filters, and none is named" in found.detail
        assert "grader_options: {filter: strict}" in found.detail


def test_a_list_of_numbers_counts_as_its_mean(verdict: Any) -> None:
    assert verdict("44x4", own("each", "each"), graded=True).scores == {"each": 0.75, "score": 0.75}
    assert verdict("44", own("each", "each")).outcome == "correct"
    assert "0.75, not 0 or 1" in verdict("44x4", own("each", "each")).detail
    assert verdict("y", own("odd", "odd")).outcome == "grader_error", "a list with a word in it is no number"


def test_a_metric_made_from_all_samples_together_is_named_as_one(verdict: Any) -> None:
    found = verdict("4", own("words", "passed"))
    assert found.outcome == "grader_error"
    assert "'passed' is a tuple and no number: lm-eval makes it from all samples together" in found.detail


@pytest.fixture
def grader(tmp_path: Path) -> Any:
    """Writes a task and gives its grader."""

    def make(more: str, **options: Any) -> LmEvalMetric:
        (tmp_path / "utils.py").write_text(UTILS)
        (tmp_path / "made.yaml").write_text(YAML.format(name="made_for_tests", more=more))
        task = LmEvalTasks(TaskIndex([tmp_path])).load("made_for_tests")
        return LmEvalMetric(LmEvalOptions(**options)).with_task(task)

    return make


def test_what_decides_is_asked_for_before_anything_is_graded(grader: Any, tmp_path: Path) -> None:
    with pytest.raises(GraderError, match=r"several metrics, and none is named .*\['right', 'share'\]"):
        grader(own("share", "right", "share")).refuse_unusable()
    with pytest.raises(GraderError, match="several filters"), grader(TWO_FILTERS).open(Context(tmp_path)):
        pass
    with grader(TWO_FILTERS, filter="loose").open(Context(tmp_path)) as grading:
        assert grading.facts == {"metric": "exact_match", "filter": "loose"}


def test_a_filter_that_needs_all_completions_of_a_problem_is_refused(grader: Any) -> None:
    vote = f"{EXACT}\nfilter_list: [{{name: vote, filter: [{{function: majority_vote}}, {{function: take_first}}]}}]"
    with pytest.raises(GraderError, match=r"'vote' has \['majority_vote'\], which needs all completions"):
        grader(vote).refuse_unusable()


def test_a_task_that_runs_model_code_is_refused(grader: Any) -> None:
    with pytest.raises(GraderError, match="runs the model's code outside of any sandbox"):
        grader(f"{EXACT}\nunsafe_code: true")


def test_data_that_nltk_lacks_is_asked_for(verdict: Any) -> None:
    found = verdict("4", own("nltk_data", "right"))
    assert found.outcome == "grader_error"
    assert "run `python -m nltk.downloader no_such_corpus`" in found.detail
    assert verdict("4", own("key_error", "right")).detail == "KeyError: 'nothing to do with NLTK'"
