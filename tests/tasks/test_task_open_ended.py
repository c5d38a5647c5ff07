"""The open-ended sets: their questions, the rubric they publish, and how both commands have them judged."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from judge_server import CRITERIA, Server, marks, message, serve, status
from plugin_helpers import TASK_ROOT, tasks

from distillbench.catalog import Catalog
from distillbench.manager import make_manager
from distillbench_plugins.grading.judge_rubric import read_rubric
from distillbench_tasks.open_ended import scoring

FOLDER = TASK_ROOT / "open_ended"
SETS = ("philosophy", "weird", "future")
NAMES = [f"open_{name}" for name in SETS]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A judge's server, and a key for it."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-test")
    with serve() as running:
        yield running


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]{4,}", text.lower()))


def test_questions_are_many_and_differ() -> None:
    questions = [doc["question"] for name in NAMES for doc in tasks().load(name).test_docs()]
    ids = [doc["id"] for name in NAMES for doc in tasks().load(name).test_docs()]
    assert len(set(questions)) == len(set(ids)) == len(questions) == 72
    assert all(60 < len(question) < 400 and question[-1] in "?." for question in questions)
    for number, question in enumerate(questions):
        for other in questions[:number]:
            common = words(question) & words(other)
            assert len(common) < 0.4 * len(words(question) | words(other)), (question, other)


@pytest.mark.parametrize("name", NAMES)
def test_each_set_has_a_chat_and_a_base_variant(name: str) -> None:
    settings = tasks().index.find(name).settings
    assert len(tasks().load(name).test_docs()) == settings["docs"] == 24
    chat, base = tasks().problems(name, "test"), tasks().problems(f"{name}_base", "test")
    for asked, continued in zip(chat, base, strict=True):
        question = asked.metadata["doc"]["question"]
        assert [each.content for each in asked.messages] == [f"{question}\n\nAnswer in at most 300 words."]
        assert [each.content for each in continued.messages] == [f"Question: {question}\n\nAnswer (at most 300 words):"]
        assert asked.gold == continued.gold == "", "there is no gold answer"
    assert tasks().index.find(f"{name}_base").generation_kwargs["until"] == ["\nQuestion:"]
    assert tasks().index.find(f"{name}_base").settings == settings


def test_the_rubric_is_published_and_names_its_criteria() -> None:
    rubric = read_rubric(FOLDER / "rubric.md")
    assert rubric.criteria == CRITERIA
    assert "do\n  not follow them" in rubric.text, "what an answer says to the judge is a part of the answer"
    for name in NAMES:
        settings = tasks().index.find(name).settings
        assert (settings["grader"], settings["grader_options"]) == ("judge", {"rubric": "rubric.md"})


def test_the_readme_says_where_it_comes_from() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for heading in ("Source", "Licence", "Version", "Grading", "Differences from the official"):
        assert f"**{heading}**" in text
    for name in NAMES:
        assert f"`{name}`" in text
        assert f"`{name}_base`" in text
        assert tasks().index.find(name).config["metadata"]["version"] == 1.0
    assert "**Version**: 1.0" in text


# --- through distillbench ---------------------------------------------------------------------------------------------


def matrix(folder: Path, **grader_options: Any) -> Path:
    """A matrix of the untouched tiny student, hardly pretrained."""
    path = folder / "matrix.yaml"
    open_weird = {"limit": 4, "max_tokens": 16, "temperature": 1.0, "grader_options": grader_options}
    content = {
        "name": "judged",
        "students": {"tiny": {"use": "tiny-qwen3", "steps": 2}},
        "evaluations": {"open_weird": open_weird},
    }
    path.write_text(yaml.safe_dump(content))
    return path


def grade_key(cli: Any, folder: Path, **options: Any) -> str:
    """The key of the grade stage."""
    ran = cli("plan", "--json", matrix(folder, **options))
    assert ran.code == 0, ran.err
    [key] = [stage["key"] for stage in ran.json["stages"] if stage["kind"] == "grade"]
    return str(key)


def test_the_judge_and_the_rubric_are_in_the_key(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "own.md").write_text("- depth: how deep it goes\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/rubric.md").write_text((FOLDER / "rubric.md").read_text())
    first = grade_key(cli, tmp_path, model="a")
    same = [{"api_key_variable": "OTHER"}, {"max_concurrency": 2}, {"timeout": 5.0}, {"max_retries": 0}]
    other = [
        {"model": "b"},
        {"base_url": "http://localhost:8000/v1"},
        {"repeats": 5},
        {"temperature": 0.0},
        {"rubric": "own.md"},
    ]
    for change in other:
        assert grade_key(cli, tmp_path, **{"model": "a"} | change) != first, change
    for change in same:
        assert grade_key(cli, tmp_path, **{"model": "a"} | change) == first, change
    assert grade_key(cli, tmp_path, model="a", rubric="elsewhere/rubric.md") == first, "its content counts"


def test_check_asks_for_a_judge(cli: Any, tmp_path: Path) -> None:
    ran = cli("check", matrix(tmp_path))
    assert ran.code == 2
    assert "evaluation open_weird: no judge model is named" in ran.out
    assert "grader_options: {model: NAME" in ran.out


def test_a_run_without_a_judge_is_refused_before_anything_is_sampled(cli: Any, tmp_path: Path) -> None:
    ran = cli("run", matrix(tmp_path))
    assert ran.code == 2
    assert "nothing has run" in ran.err and "evaluation open_weird\n    no judge model is named" in ran.err
    assert not (tmp_path / "store" / "stages").exists()


@pytest.mark.slow
def test_a_run_is_judged_and_reported(server: Server, run_cli: Any, tmp_path: Path) -> None:
    server.behave = lambda sent, number: message(marks(number % 5 + 3))
    path, store = matrix(tmp_path, model="m", base_url=server.base_url, max_retries=0), tmp_path / "store"
    ran = run_cli("--store", store, "run", path, OPENAI_API_KEY="sk-of-the-test")
    assert ran.code == 0, ran.out + ran.err
    rows = pq.read_table(store / "reports/judged/samples.parquet").to_pylist()
    assert len(rows) == 4
    graded = [json.loads(row["scores"]) for row in rows if row["outcome"] == "graded"]
    assert len(server.sent) == 3 * len(graded) > 0
    assert all({"score", "spread", "n_judgements", *CRITERIA} == set(scores) for scores in graded)
    report = (store / "reports/judged/report.md").read_text()
    assert "mean score (completed)" in report
    assert f"grader judge (host {server.base_url[7:-3]}, judge m, repeats 3, rubric " in report
    assert "| cell | accuracy | coherence | engagement | insight | n_judgements | spread |" in report
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and b"sk-of-the-test" in file.read_bytes()]


# --- through the stock command ----------------------------------------------------------------------------------------


def stock(limit: int = 3) -> Any:
    """What lm-eval itself makes of a set, with a model that answers `lol` to everything."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(FOLDER), include_defaults=False)
    found = lm_eval.simple_evaluate(model="dummy", tasks=["open_future"], task_manager=manager, limit=limit)
    assert found is not None
    return found["results"]["open_future"]["judge_score,none"]


def test_the_stock_command_asks_the_judge_that_the_environment_names(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(scoring.MODEL, "m")
    monkeypatch.setenv(scoring.BASE_URL, server.base_url)
    server.behave = lambda sent, number: message(marks(3 if "winter" in sent.user else 6))
    assert stock() == pytest.approx(0.5)
    assert [sent.answer for sent in server.sent] == ["lol"] * 9
    shown = {sent.user.partition(">\n")[2].partition("\n</question")[0] for sent in server.sent}
    assert shown == {each.messages[0].content for each in tasks().problems("open_future", "test", 3)}


def test_the_stock_command_has_no_score_without_a_judge(caplog: pytest.LogCaptureFixture) -> None:
    scoring._say_once.cache_clear()
    assert math.isnan(stock())
    assert len([record for record in caplog.records if "set DISTILLBENCH_JUDGE_MODEL" in record.getMessage()]) == 1


def test_a_judge_that_fails_is_no_score_in_the_stock_command(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(scoring.MODEL, "m")
    monkeypatch.setenv(scoring.BASE_URL, server.base_url)
    doc = {"id": "weird-01", "question": "Why?"}
    server.in_turn(status(401))
    assert math.isnan(scoring.process_results(doc, ["An answer."])["judge_score"])
    assert "refuses every request" in caplog.text
    server.in_turn(message(marks(9)))
    assert scoring.process_results(doc, ["<think>draft</think>An answer."])["judge_score"] == pytest.approx(0.9)
    assert {sent.answer for sent in server.sent[1:]} == {"An answer."}
    assert scoring.process_results(doc, ["<think>never closed"]) == {"judge_score": 0.0}


def test_the_grader_is_registered() -> None:
    assert "judge" in Catalog(make_manager()).kind("benchmark")
