"""Tasks that ship with lm-eval, by their own names, on local copies of their data.

The copies are folders in the layout of the Hub's repositories, with rows of our own in the data sets' schemas.
`datasets` takes them where a folder of the repository's name lies below the one that it runs in, so that nothing of the
tasks is changed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from distillbench.errors import GraderError
from distillbench.outcomes import decide
from distillbench.protocols import Context
from distillbench.records import Completion, Verdict
from distillbench.tasks.identity import TaskIndex
from distillbench.tasks.loader import LmEvalTasks
from distillbench_plugins.benchmarks.lm_eval_metric import LmEvalMetric, LmEvalOptions


def pens(number: int) -> dict[str, str]:
    """A row of gsm8k."""
    bought, total = number + 1, 2 * number + 1
    question = f"Ann has {number} pens and buys {bought} more. How many pens has she?"
    answer = f"She has {number} + {bought} = <<{number}+{bought}={total}>>{total} pens.\n#### {total}"
    return {"question": question, "answer": answer}


IFEVAL_ROWS = [
    {
        "key": 1,
        "prompt": "Name three rivers. Do not use any commas.",
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{}],
    },
    {
        "key": 2,
        "prompt": "Describe a lamp in at least 8 words, all in lower case.",
        "instruction_id_list": ["length_constraints:number_words", "punctuation:no_comma"],
        "kwargs": [{"relation": "at least", "num_words": 8}, {}],
    },
    {
        "key": 3,
        "prompt": "Say why tea cools, in fewer than 4 sentences.",
        "instruction_id_list": ["length_constraints:number_sentences"],
        "kwargs": [{"relation": "less than", "num_sentences": 4}],
    },
]
GSM8K_CARD = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train.jsonl}
  - {split: test, path: main/test.jsonl}
---
"""


def write_rows(path: Path, rows: list[Any]) -> None:
    """A JSON-lines file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the copies."""
    folder = tmp_path_factory.mktemp("shipped")
    write_rows(folder / "openai/gsm8k/main/train.jsonl", [pens(number) for number in range(2, 8)])
    write_rows(folder / "openai/gsm8k/main/test.jsonl", [pens(number) for number in range(8, 11)])
    (folder / "openai/gsm8k/README.md").write_text(GSM8K_CARD)
    write_rows(folder / "google/IFEval/ifeval_input_data.jsonl", IFEVAL_ROWS)
    return folder


@pytest.fixture(scope="module")
def shipped(here: Path) -> Iterator[LmEvalTasks]:
    """lm-eval's own tasks, where the copies lie and NLTK has no data."""
    import datasets
    import nltk

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", here / "cache")
        patch.setattr(nltk.data, "path", [str(here / "no-nltk-data")])
        patch.setattr(nltk, "download", lambda name: False)  # this test is not to reach for the network
        yield LmEvalTasks(TaskIndex([]))


def verdict(shipped: LmEvalTasks, name: str, number: int, answer: str, **options: Any) -> Verdict:
    """The verdict on an answer to a test problem, with the task's own stop strings."""
    grader = LmEvalMetric(LmEvalOptions(**options)).with_task(shipped.load(name))
    until = tuple(shipped.index.find(name).generation_kwargs["until"])
    asked = shipped.problems(name, "test")[number]
    return decide(Completion(answer, (), "stop", "", None, answer, "absent"), asked, grader, until)


def test_gsm8k_asks_five_shots_from_the_training_split(shipped: LmEvalTasks) -> None:
    problems = shipped.problems("gsm8k", "test")
    assert [problem.gold for problem in problems] == [pens(number)["answer"] for number in range(8, 11)]
    trained = {f"Question: {pens(number)['question']}\nAnswer:": pens(number)["answer"] for number in range(2, 8)}
    for number, problem in enumerate(problems):
        assert [message.role for message in problem.messages] == [*["user", "assistant"] * 5, "user"]
        contents = [message.content for message in problem.messages]
        assert contents[-1] == f"Question: {pens(8 + number)['question']}\nAnswer:"
        assert len(set(contents[:-1:2])) == 5
        assert all(trained[asked] == told for asked, told in zip(contents[:-1:2], contents[1::2], strict=True))


@pytest.mark.parametrize(
    ("answer", "strict", "flexible"),
    [
        ("8 + 9 = 17.\n#### 17", "correct", "correct"),
        ("It is $17.", "wrong", "correct"),
        ("17, no: 18", "wrong", "wrong"),
        ("#### 18, but 17", "wrong", "correct"),
        ("#### 17\n\nQuestion: And 5 more?\n#### 22", "correct", "correct"),
        ("", "no_answer", "no_answer"),
    ],
)
def test_gsm8k_is_graded_by_the_filter_that_is_named(
    shipped: LmEvalTasks, answer: str, strict: str, flexible: str
) -> None:
    assert verdict(shipped, "gsm8k", 0, answer, filter="strict-match").outcome == strict
    assert verdict(shipped, "gsm8k", 0, answer, filter="flexible-extract").outcome == flexible


def test_ifeval_is_right_or_wrong_by_prompt_and_a_score_by_instruction(shipped: LmEvalTasks) -> None:
    by_prompt, by_instruction = {"metric": "prompt_level_strict_acc"}, {"metric": "inst_level_strict_acc"}
    both, one = "a small brass lamp stands on my desk", "a lamp of brass"
    assert verdict(shipped, "ifeval", 1, both, **by_prompt).outcome == "correct"
    assert verdict(shipped, "ifeval", 1, one, **by_prompt).outcome == "wrong"
    graded = verdict(shipped, "ifeval", 1, one, **by_instruction, graded=True)
    assert (graded.outcome, graded.scores["score"]) == ("graded", 0.5)
    assert graded.scores["prompt_level_strict_acc"] == 0.0
    assert verdict(shipped, "ifeval", 1, both, **by_instruction, graded=True).scores["score"] == 1.0
    assert "0.5, not 0 or 1: set `graded: true`" in verdict(shipped, "ifeval", 1, one, **by_instruction).detail


def test_the_loose_metric_of_ifeval_differs_where_it_should(shipped: LmEvalTasks) -> None:
    answer = "Here are three, as asked:\nRhine and Elbe and Oder"
    assert verdict(shipped, "ifeval", 0, answer, metric="prompt_level_strict_acc").outcome == "wrong"
    assert verdict(shipped, "ifeval", 0, answer, metric="prompt_level_loose_acc").outcome == "correct"


def test_data_that_nltk_lacks_is_an_error_that_says_what_to_do(shipped: LmEvalTasks) -> None:
    found = verdict(shipped, "ifeval", 2, "Heat leaves it.", metric="prompt_level_strict_acc")
    assert found.outcome == "grader_error"
    assert "python -m nltk.downloader punkt_tab" in found.detail


@pytest.mark.parametrize(("name", "what"), [("gsm8k", "filters"), ("ifeval", "metrics")])
def test_what_decides_must_be_named(shipped: LmEvalTasks, tmp_path: Path, name: str, what: str) -> None:
    grader = LmEvalMetric(LmEvalOptions()).with_task(shipped.load(name))
    with pytest.raises(GraderError, match=f"task '{name}' has several {what}"), grader.open(Context(tmp_path)):
        pass


def matrix(folder: Path, **evaluations: Any) -> Path:
    """A matrix of the untouched tiny student, hardly pretrained."""
    path = folder / "matrix.yaml"
    content = {"name": "shipped", "students": {"tiny": {"use": "tiny-qwen3", "steps": 2}}, "evaluations": evaluations}
    path.write_text(yaml.safe_dump(content))
    return path


NAMED = {
    "gsm8k": {"grader_options": {"filter": "flexible-extract"}, "max_tokens": 24, "temperature": 1.0},
    "ifeval": {
        "grader_options": {"metric": "inst_level_strict_acc", "graded": True},
        "max_tokens": 24,
        "temperature": 1.0,
    },
}


def test_check_asks_for_what_decides_before_anything_runs(here: Path, tmp_path: Path, run_cli: Any) -> None:
    arguments = "--store", tmp_path / "store", "check", "--json", matrix(tmp_path, gsm8k={})
    ran = run_cli(*arguments, cwd=here, HF_HOME=str(tmp_path))
    assert ran.code == 2
    assert ("ok", "task gsm8k", " 3 problems") in [(line["level"], line["subject"], line["text"]) for line in ran.json]
    [refused] = [line for line in ran.json if line["level"] == "refused"]
    assert refused["subject"] == "evaluation gsm8k"
    assert "grader_options: {filter: strict-match}" in refused["text"]


def left_to_do(printed: Any) -> set[tuple[str, str]]:
    """Kind and label of the stages of a plan that are not done."""
    return {
        (stage["kind"], stage["label"].split(" on ")[-1]) for stage in printed["stages"] if stage["state"] != "done"
    }


@pytest.mark.slow
def test_both_run_by_their_own_names(here: Path, tmp_path: Path, run_cli: Any) -> None:
    own, store = tmp_path / "here", tmp_path / "store"
    shutil.copytree(here, own)
    # The third row needs NLTK's data: without a network its grade is a hole, and the run says so by its exit code.
    write_rows(own / "google/IFEval/ifeval_input_data.jsonl", IFEVAL_ROWS[:2])
    path = matrix(tmp_path, **NAMED)

    def distillbench(*arguments: str) -> Any:
        ran = run_cli("--store", store, *arguments, path, cwd=own, HF_HOME=str(tmp_path / "home"))
        assert ran.code == 0, ran.out + ran.err
        return ran

    distillbench("run")
    rows = pq.read_table(store / "reports/shipped/samples.parquet").to_pylist()
    found = {(row["evaluation"], row["problem_id"]) for row in rows}
    problems = {"gsm8k": 3, "ifeval": 2}
    assert found == {(name, f"{name}/{number}") for name in NAMED for number in range(problems[name])}
    unfinished = {"no_answer", "truncated", "loop"}
    assert {row["outcome"] for row in rows if row["evaluation"] == "gsm8k"} <= {"correct", "wrong"} | unfinished
    assert {row["outcome"] for row in rows if row["evaluation"] == "ifeval"} <= {"graded"} | unfinished
    assert not left_to_do(distillbench("plan", "--json").json)

    write_rows(own / "openai/gsm8k/main/test.jsonl", [pens(number) for number in range(8, 12)])
    left = left_to_do(distillbench("plan", "--json").json)
    assert {kind for kind, _ in left} == {"sample", "grade"}, "a changed row of the data samples and grades again"
    assert {name for _, name in left} == {"gsm8k"}


#: Of many kinds: plain and instruct prompts, includes, many filters, sampling, one beam, stop strings of one letter.
PLANNED = (
    "aime", "arc_challenge_chat", "ask_gec_p0", "bbh_cot_zeroshot_boolean_expressions", "coqa", "drop", "eq_bench",
    "gsm8k", "gsm8k_cot_self_consistency", "gsm_plus", "hendrycks_math500", "ifeval", "longbench_2wikimqa",
    "minerva_math_algebra", "nq_open", "triviaqa", "truthfulqa_gen",
)  # fmt: skip


def test_tasks_of_many_kinds_can_be_planned_by_name(tmp_path: Path, cli: Any) -> None:
    ran = cli("plan", "--json", matrix(tmp_path, **{name: {} for name in PLANNED}))
    assert ran.code == 0, ran.err
    assert {name for kind, name in left_to_do(ran.json) if kind == "sample"} == set(PLANNED)


def test_a_beam_search_is_refused_and_not_left_out(tmp_path: Path, cli: Any) -> None:
    ran = cli("plan", matrix(tmp_path, code2text_go={}))
    assert ran.code == 2
    assert "generation_kwargs.num_beams" in ran.err
