"""The made-up tasks' files: what lm-eval makes of them, and what they promise about themselves."""

from __future__ import annotations

import re

import pytest
from plugin_helpers import TASK_ROOT, tasks

from distillbench.catalog import Catalog
from distillbench.manager import make_manager

NAMES = ("coins", "digits")


def test_the_tasks_are_found_by_name() -> None:
    assert set(NAMES) < set(tasks().index.names)
    assert len(tasks().index.names) == len(list(TASK_ROOT.glob("*/*.yaml")))


@pytest.mark.parametrize("name", NAMES)
def test_lm_eval_loads_it_with_the_documents_it_promises(name: str) -> None:
    task = tasks().load(name)
    assert task.OUTPUT_TYPE == "generate_until"
    assert len(task.test_docs()) == tasks().index.find(name).settings["docs"]
    kwargs = task.config.generation_kwargs
    assert {key: kwargs[key] for key in ("until", "do_sample", "max_gen_toks")} == {
        "until": [],
        "do_sample": False,
        "max_gen_toks": 96,
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["train", "test"])
def test_problems_carry_question_and_gold(name: str, split: str) -> None:
    problems = tasks().problems(name, split)
    assert [problem.problem_id for problem in problems[:3]] == [f"{name}/0", f"{name}/1", f"{name}/2"]
    for problem in problems:
        doc = problem.metadata["doc"]
        assert [(message.role, message.content) for message in problem.messages] == [("user", doc["question"])]
        assert problem.gold == doc["answer"]
        assert problem.domain == name


@pytest.mark.parametrize("name", NAMES)
def test_its_grader_is_declared_and_takes_its_options(name: str) -> None:
    settings = tasks().index.find(name).settings
    graders = Catalog(make_manager()).kind("benchmark")
    assert settings["grader"] in graders
    grader = graders[settings["grader"]]
    assert grader.Options(**settings.get("grader_options", {}))


@pytest.mark.parametrize("name", NAMES)
def test_its_readme_says_where_it_comes_from(name: str) -> None:
    text = (TASK_ROOT / name / "README.md").read_text(encoding="utf-8")
    for heading in ("Source", "Licence", "Version", "Grading"):
        assert f"**{heading}**" in text
    loaded = tasks().load(name)
    train, test = (f"{len(docs):,}" for docs in (loaded.training_docs(), loaded.test_docs()))
    assert re.search(rf"{train} training and {test} test problems", text)
    version = tasks().index.find(name).config["metadata"]["version"]
    assert f"**Version**: {version}" in text
