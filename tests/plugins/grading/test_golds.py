"""Gold answers that no answer can equal: each grader names them, and none of their answers is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distillbench.outcomes import decide_all
from distillbench.protocols import Context
from distillbench.records import Completion, Message, Problem
from distillbench_plugins.benchmarks.lm_eval_metric import LmEvalMetric, LmEvalOptions
from distillbench_plugins.benchmarks.math_boxed import MathBoxed, MathBoxedOptions

GRADER = MathBoxed(MathBoxedOptions())


def asked(gold: str, **doc: Any) -> Problem:
    """A problem as a task makes it: the gold answer as text, beside the document that it comes from."""
    return Problem("made/0", "made", (Message("user", "?"),), gold, {"doc": {"question": "?", **doc}})


UNUSABLE = {
    "a null in a template": (asked("None", answer=None), "there is no gold answer: 'None'"),
    "a null by its column": (asked("null", answer=None), "there is no gold answer: 'null'"),
    "not a number": (asked("nan", answer=float("nan")), "there is no gold answer: 'nan'"),
    "an undefined field": (asked("", other="5"), "there is no gold answer: ''"),
    "blanks": (asked(" \n", answer=" \n"), "there is no gold answer"),
    "a nested null": (asked("None", truth={"value": None}), "there is no gold answer"),
    "a list of texts in a template": (asked('["5", "6"]', answer=["5", "6"]), "is a list or a mapping"),
    "a list of texts, written": (asked("['5']", answer=["5"]), "is a list or a mapping"),
    "a list of texts of which nothing else is known": (asked('["5"]'), "is a list or a mapping"),
    "a list of numbers": (asked("[5, 6]", answer=[5, 6]), "is a list or a mapping"),
    "an empty list": (asked("[]", answer=[]), "is a list or a mapping"),
    "a mapping": (asked('{"value": 5}', answer={"value": 5}), "is a list or a mapping"),
    "nothing that can be read": (asked("\\frac{", answer="\\frac{"), "braces of the gold answer do not balance"),
    "a time of day": (asked("05:00", answer="05:00"), "ValueError: Can't evaluate nan or zoo"),
}
USABLE = {
    "a closed interval": asked("[1, 2]", answer="[1,2]"),
    "a text that says so": asked("None", answer="None"),
    "words": asked("\\text{None}", answer="\\text{None}", other=None),
    "a set": asked("\\{1, 2\\}", answer="\\{1, 2\\}"),
    "a number beside a list": asked("5", answer="5", others=["5", "6"]),
    "a zero": asked("0", answer=0),
    "a padded number": asked("025", answer="025"),
    "a formula": asked("\\frac{\\pi}{2}", answer="\\frac{\\pi}{2}"),
}


def test_unusable_golds_are_named_in_order() -> None:
    problems = [one for one, _ in UNUSABLE.values()] + list(USABLE.values())
    found = list(GRADER.unusable_golds(problems))
    for (name, (_, why)), said in zip(UNUSABLE.items(), found, strict=False):
        assert said is not None and why in said, name
    assert found[len(UNUSABLE) :] == [None] * len(USABLE)


def test_no_answer_to_an_unusable_gold_is_wrong(tmp_path: Path) -> None:
    completion = Completion("\\boxed{7}", (), "stop", "", None, "\\boxed{7}", "absent")
    with GRADER.open(Context(tmp_path)) as grading:
        verdicts = list(decide_all([(completion, one) for one, _ in UNUSABLE.values()], GRADER, grading))
        assert [one.outcome for one in verdicts] == ["grader_error"] * len(UNUSABLE)
        for (name, (_, why)), verdict in zip(UNUSABLE.items(), verdicts, strict=True):
            assert why in verdict.detail, name


def choice_task(**more: Any) -> Any:
    """A task of lm-eval's own class, with documents from here."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    letters = ["cat", "D", "cow", "", "A"]
    rows = [
        {"q": "?", "choices": ["cat", "cow"], "text": text, "place": place}
        for text, place in zip(letters, [0, 2, -1, 1, None], strict=True)
    ]
    config = {
        "task": "made",
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
        "test_split": "test",
        "doc_to_text": "{{q}}",
        "metric_list": [{"metric": "acc"}],
    }
    return ConfigurableTask(config=config | more)


@pytest.mark.parametrize(("target", "right"), [("{{text}}", [0, 2]), ("place", [0, 3])])
def test_a_gold_that_is_none_of_the_choices(target: str, right: list[int]) -> None:
    task = choice_task(output_type="multiple_choice", doc_to_target=target, doc_to_choice="choices")
    grader = LmEvalMetric(LmEvalOptions()).with_task(task)
    problems = [asked(str(doc["text"])) for doc in task.test_docs()]
    problems = [
        Problem(one.problem_id, one.domain, one.messages, one.gold, {"doc": dict(doc)})
        for one, doc in zip(problems, task.test_docs(), strict=True)
    ]
    found = list(grader.unusable_golds(problems))
    assert [number for number, why in enumerate(found) if why is None] == right
    assert all("is none of the choices ['cat', 'cow']" in why for why in found if why)
    scored = json.dumps([[-1.0, True], [-2.0, False]])
    completion = Completion("", (), "stop", "", None, scored, "absent")
    with grader.open(Context(Path())) as grading:
        verdicts = decide_all([(completion, one) for one in problems], grader, grading)
        assert [one.outcome == "grader_error" for one in verdicts] == [why is not None for why in found]


def test_a_missing_gold_of_a_text_task_that_its_own_function_does_not_grade() -> None:
    text = {
        "output_type": "generate_until",
        "doc_to_target": "{{place}}",
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    grader = LmEvalMetric(LmEvalOptions()).with_task(choice_task(**text))
    problems = [asked("0", place=0), asked("None", place=None)]
    assert list(grader.unusable_golds(problems)) == [None, "there is no gold answer: 'None'"]
    own = LmEvalMetric(LmEvalOptions()).with_task(choice_task(**text, process_results=lambda doc, results: {"a": 1}))
    assert list(own.unusable_golds(problems)) == [None, None]
