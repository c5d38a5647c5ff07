"""The real data, where a copy of it is there: how many problems each benchmark has, and what they look like."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from data_problems import COPIES, TASK_ROOT, tasks_of

from distillbench.records import TaskRef
from distillbench.tasks.data import data_source
from distillbench.tasks.loader import LmEvalTasks
from distillbench_plugins.benchmarks.math_boxed import MathBoxed

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real data is not there: {SHARED}")

N_PROBLEMS = {
    "math500": 500, "aime": 90, "aime24": 30, "aime25": 30, "humaneval_plus": 164, "mbpp_plus": 378,
    "livecodebench": 880, "kodcode": 109, "codeforces": 408,
}  # fmt: skip


@pytest.fixture(scope="module")
def tasks() -> LmEvalTasks:
    return tasks_of(SHARED)


@pytest.mark.parametrize("task", [name for task in N_PROBLEMS for name in (task, f"{task}_base")])
def test_every_problem_becomes_a_prompt(tasks: LmEvalTasks, task: str) -> None:
    problems = tasks.problems(task, "test")
    assert len(problems) == N_PROBLEMS[task.removesuffix("_base")]
    assert len({problem.metadata["doc"]["id"] for problem in problems}) == len(problems)
    for problem in problems:
        (message,) = problem.messages
        assert message.role == "user"
        assert len(message.content) > 60 and "{{" not in message.content.replace("{{{", "")[:40]
        assert "\\boxed{}" in message.content or "```python" in message.content, "the prompt names the answer's form"


def test_what_the_yaml_says_of_rows_and_files_is_so(tasks: LmEvalTasks) -> None:
    for task, n in N_PROBLEMS.items():
        spec = tasks.index.find(task)
        source = data_source(spec.config["metadata"], task)
        assert source is not None and source.is_pinned
        assert source.local_files(SHARED), task
        docs = spec.settings.get("docs")
        assert docs is None or docs == n or task == "kodcode", "the copy of kodcode holds other problems"


def test_golds_of_mathematics_are_right_by_their_own_grader(tasks: LmEvalTasks) -> None:
    for task in ("aime", "aime25"):
        for problem in tasks.problems(task, "test"):
            assert re.fullmatch(r"\d{1,3}", problem.gold), problem.problem_id
            assert MathBoxed(None).extract(f"\\boxed{{{problem.gold}}}", problem) == problem.gold


def test_livecodebench_has_both_kinds_and_its_window(tasks: LmEvalTasks) -> None:
    docs = [dict(doc) for doc in tasks.load("livecodebench").test_docs()]
    assert Counter(bool(doc["fn_name"]) for doc in docs) == {False: 499, True: 381}
    assert (min(doc["date"] for doc in docs), max(doc["date"] for doc in docs)) == ("2023-05-07", "2025-01-04")
    window = TaskRef("livecodebench", '{"window":["2024-08-01","2025-02-01"]}')
    assert len(tasks.problems(window, "test")) == 279
    hidden = 0
    for doc in docs:
        private = json.loads(doc["private_tests"])
        hidden += len(private)
        for test in json.loads(doc["public_tests"]) + private:
            assert set(test) == {"input", "output", "testtype"}
            if doc["fn_name"]:
                arguments = [json.loads(line) for line in test["input"].split("\n")]  # raises where it is no JSON
                json.loads(test["output"])
                assert test["testtype"] == "functional" and len(arguments) >= 1
    assert hidden == 812
    assert sum(doc["private_tests"] != "[]" for doc in docs) == 644, "as the README says"


def test_codeforces_reports_the_share_without_a_checker_that_may_need_one(tasks: LmEvalTasks) -> None:
    docs: Any = tasks.load("codeforces").test_docs()
    without = sum(many and not checker for many, checker in zip(docs["many_answers"], docs["checker"], strict=True))
    text = " ".join((TASK_ROOT / "codeforces" / "README.md").read_text(encoding="utf-8").split())
    assert f"{without} of its {len(docs)} problems ({without / len(docs):.0%})".replace("%", " %") in text
    assert not any("Tags:" in statement for statement in docs["statement"])


def test_kodcode_names_what_its_tests_call(tasks: LmEvalTasks) -> None:
    docs = [dict(doc) for doc in tasks.load("kodcode").test_docs()]
    assert all(doc["entry"] for doc in docs)
    assert all(name in doc["tests"] for doc in docs for name in doc["entry"].split(", ")[:1])


def test_evalplus_rows_are_complete(tasks: LmEvalTasks) -> None:
    for task, prefix in (("humaneval_plus", "HumanEval/"), ("mbpp_plus", "Mbpp/")):
        for doc in tasks.load(task).test_docs():
            assert doc["id"].startswith(prefix) and doc["entry_point"].isidentifier()
            assert json.loads(doc["base_input"])
            assert isinstance(plus := json.loads(doc["plus_input"]), list) or plus == {}


def test_the_copies_of_the_other_tests_lie_where_the_real_ones_do() -> None:
    assert {file.split("/")[0] for file, _, _ in COPIES.values()} <= {folder.name for folder in SHARED.iterdir()}
