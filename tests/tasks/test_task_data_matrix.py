"""The data setting and `metadata` of a matrix: keys, mistakes, workers' view, and `distillbench data`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_problems import COPIES, MATH500, TASK_ROOT, counted, tasks_of, write_copies, write_rows

from distillbench.catalog import Catalog
from distillbench.errors import MatrixError, TaskError
from distillbench.manager import make_manager
from distillbench.matrix.resolve import load_matrix
from distillbench.records import Evaluation, TaskRef
from distillbench.tasks.data import DATA_ROOT
from distillbench.tasks.identity import TaskIndex, read_task

Cli = Callable[..., Any]


def evaluations(folder: Path, text: str, head: str = "") -> dict[str, Evaluation]:
    """The evaluations of a small matrix, by name."""
    path = folder / "matrix.yaml"
    path.write_text(f"{head}students: {{tiny: {{use: tiny-qwen3}}}}\nevaluations:\n{text}")
    (cell,) = load_matrix(path, Catalog(make_manager())).cells
    return {evaluation.name: evaluation for evaluation in cell.evaluations}


def mistakes(folder: Path, text: str, head: str = "") -> str:
    with pytest.raises(MatrixError) as caught:
        evaluations(folder, text, head)
    return str(caught.value)


def sample_key(ref: str | TaskRef, root: Path | None) -> str:
    return TaskIndex([TASK_ROOT], root).find(ref).sample_identity


def test_a_changed_copy_samples_again_and_a_moved_one_does_not(tmp_path: Path) -> None:
    one, two = write_copies(tmp_path / "one"), write_copies(tmp_path / "two")
    before = sample_key("math500", one)
    assert sample_key("math500", two) == before
    assert before != sample_key("math500", None), "without a copy the pinned revision stands for the content"
    write_rows(two / COPIES["math500"][0], [*MATH500[:2], MATH500[2] | {"answer": "43"}])
    assert sample_key("math500", two) != before
    assert sample_key("aime", two) == sample_key("aime", one)


def test_what_only_checks_is_in_no_key_and_what_chooses_is(tmp_path: Path) -> None:
    root = write_copies(tmp_path)
    plain = sample_key("livecodebench", root)
    assert sample_key(counted("livecodebench"), root) == plain
    windowed = sample_key(TaskRef("livecodebench", '{"window":["2024-08-01","2025-02-01"]}'), root)
    assert windowed != plain
    assert sample_key(TaskRef("livecodebench", '{"data":{"revision":"main"}}'), None) != sample_key(
        "livecodebench", None
    )


def test_licence_and_columns_that_are_not_stored_are_in_no_key(tmp_path: Path) -> None:
    keys = set()
    for settings in ("{docs: 3}", "{docs: 4, licence: MIT, grading_columns: [tests]}"):
        head = "task: t\ncustom_dataset: !function d.load\n"
        (tmp_path / "t.yaml").write_text(f"{head}metadata: {{distillbench: {settings}}}\n")
        spec = read_task(tmp_path / "t.yaml")
        keys.add((spec.sample_identity, spec.grade_identity))
    assert len(keys) == 1


def test_metadata_of_an_evaluation_reaches_the_task(tmp_path: Path) -> None:
    root = write_copies(tmp_path)
    found = evaluations(
        tmp_path,
        "  lcb: {benchmark: livecodebench, grader: lm_eval, metadata: {data: {rows: 3}}}\n"
        "  late: {benchmark: livecodebench, grader: lm_eval,\n"
        "         metadata: {window: [2025-01-01, 2025-12-31], data: {rows: 3}}}\n",
        head="data_root: .\n",
    )
    assert found["lcb"].sample_identity != found["late"].sample_identity
    assert found["late"].task == "livecodebench" and found["late"].n_docs is None
    tasks = tasks_of(root)
    assert [len(tasks.evaluation_problems(one)) for one in found.values()] == [3, 1]
    assert tasks.evaluation_problems(found["late"])[0].metadata["doc"]["id"] == "own_3"


def test_a_matrix_names_its_data_root_and_it_wins_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_copies(tmp_path / "copies")
    write_rows(tmp_path / "other" / COPIES["math500"][0], MATH500[:1])
    text = "  m: {benchmark: math500}\n"
    monkeypatch.setenv(DATA_ROOT, str(tmp_path / "other"))
    other = evaluations(tmp_path, text)["m"]
    named = evaluations(tmp_path, text, "data_root: copies\n")["m"]
    assert other.sample_identity == sample_key("math500", tmp_path / "other")
    assert named.sample_identity == sample_key("math500", tmp_path / "copies")
    spec = TaskIndex([TASK_ROOT], tmp_path / "copies").find("math500")
    assert spec.runtime == {"data_root": str(tmp_path / "copies")}, "lm-eval hands it to the loader, in any process"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{benchmark: livecodebench, metadata: {windw: [2024-01-01, 2024-02-01]}}", "'windw'; did you mean 'window'?"),
        ("{benchmark: math500, metadata: {data: {revison: x}}}", "'revison'; did you mean 'revision'?"),
        ("{benchmark: math500, metadata: {data: {rows: many}}}", "data.rows: wanted a whole number >= 1, got 'many'"),
        (
            "{benchmark: math500, metadata: {distillbench: {grader: lm_eval}}}",
            "`grader` and `grader_options` are options",
        ),
        ("{benchmark: math500, metadata: [1]}", "wanted: a mapping of strings to values"),
    ],
)
def test_metadata_that_would_do_nothing_is_a_mistake(tmp_path: Path, text: str, told: str) -> None:
    said = mistakes(tmp_path, f"  m: {text}\n")
    assert told in said
    assert "matrix.yaml:3: evaluations.m.metadata" in said


def test_a_data_root_that_is_no_folder_is_a_mistake_of_its_line(tmp_path: Path) -> None:
    said = mistakes(tmp_path, "  m: {benchmark: math500}\n", "data_root: nowhere\n")
    assert "matrix.yaml:1: data_root" in said and "a folder that holds copies of data" in said
    assert said.count("matrix.yaml") == 1, "the task is not called unreadable for it"


def test_metadata_of_a_task_without_data_may_be_anything(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("task: t\ncustom_dataset: !function d.load\nmetadata: {version: 1}\n")
    (tmp_path / "d.py").write_text("def load(**metadata): raise NotImplementedError\n")
    index = TaskIndex([tmp_path])
    changed = index.find(TaskRef("t", '{"lengths":[4096]}'))
    assert changed.runtime == {"lengths": [4096]}
    assert changed.sample_identity != index.find("t").sample_identity
    with pytest.raises(TaskError, match="cannot be changed"):
        index.find(TaskRef("t", '{"version":2}'))


def test_show_says_what_an_evaluation_changes(tmp_path: Path, cli: Cli) -> None:
    given = "metadata: {window: [2025-01-01, 2025-12-31]}"
    evaluations(tmp_path, f"  late: {{benchmark: livecodebench, grader: lm_eval, {given}}}\n")
    shown = cli("show", tmp_path / "matrix.yaml", "base-tiny", "--json").json
    assert shown["evaluations"]["late"]["settings"]["metadata"] == {"window": ["2025-01-01", "2025-12-31"]}


def test_data_lists_every_benchmark_and_what_is_there(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = cli("data", "--json").json
    names = {name for row in listed for name in row["tasks"]}
    with_data = {name for name in TaskIndex([TASK_ROOT]).names if name.removesuffix("_base") in {*COPIES, "aime24"}}
    assert with_data <= names and "coins" not in names
    assert all(row["rows"] and row["licence"] and row["file"] and row["pinned"] for row in listed)
    assert not any(row["local"] for row in listed)
    monkeypatch.setenv(DATA_ROOT, str(write_copies(tmp_path / "copies")))
    there = cli("data", "--json", "math500", "kodcode").json
    assert [row["tasks"] for row in there] == [["math500"], ["kodcode"]]
    assert [row["local"] for row in there] == [
        [str(tmp_path / "copies" / COPIES[name][0])] for name in ("math500", "kodcode")
    ]
    text = cli("data", "math500").out
    assert "math500/math500.jsonl (" in text and f"data root: {tmp_path / 'copies'}" in text
    assert "not there" in cli("data", "--data-root", tmp_path, "math500").out


def test_data_of_a_users_own_task(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "mine.yaml").write_text("task: mine\nmetadata: {data: {hub: me/mine, rows: 9}}\n")
    (row,) = cli("data", "--task-path", tmp_path, "mine", "--json").json
    assert (row["source"], row["pinned"], row["rows"]) == ("me/mine@main (not pinned)", False, 9)
    wrong = cli("data", "math50")
    assert wrong.code == 2 and "did you mean 'math500'?" in wrong.err


def test_data_imports_nothing_heavy(run_python: Callable[..., Any], tmp_path: Path) -> None:
    code = (
        "import sys; from distillbench.cli.main import invoke\n"
        "code = invoke(['data', '--json'])\n"
        "heavy = {'datasets', 'lm_eval', 'torch', 'huggingface_hub'} & sys.modules.keys()\n"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = run_python("-c", code, DISTILLBENCH_DATA_ROOT=str(tmp_path))
    assert done.code == 0, done.err
    assert len(json.loads(done.out)) >= len(COPIES)
