"""Every way of data to a document: the copy, the Hub's columns, files of JSON lines; and what is told when not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from data_problems import (
    AIME,
    COPIES,
    HUB,
    LIVECODEBENCH_HUB,
    MATH500,
    TASK_ROOT,
    counted,
    evalplus,
    tasks_of,
    write_copies,
    write_rows,
)  # fmt: skip
from hypothesis import given
from hypothesis import strategies as st

from distillbench.errors import TaskError
from distillbench.fingerprint import canonical_json
from distillbench.records import TaskRef
from distillbench.tasks.data import DATA_ROOT, data_source
from distillbench.tasks.identity import TaskIndex
from distillbench_tasks.codeforces.problems import has_many_answers
from distillbench_tasks.data import read_json
from distillbench_tasks.kodcode.problems import SUBSET, choose, imported
from distillbench_tasks.livecodebench.problems import window

SCHEMAS = {
    "math500": {"id", "problem", "answer", "subject", "level"},
    "aime": {"id", "problem", "answer", "url"},
    "aime25": {"id", "problem", "answer", "url"},
    "humaneval_plus": {"id", "prompt", "entry_point", "canonical_solution", "atol", "base_input", "plus_input"},
    "mbpp_plus": {"id", "prompt", "entry_point", "canonical_solution", "atol", "base_input", "plus_input"},
    "livecodebench": {"id", "title", "content", "platform", "date", "difficulty", "starter_code", "fn_name",
                      "public_tests", "private_tests"},
    "kodcode": {"id", "question", "entry", "signature", "solution", "tests"},
    "codeforces": {"id", "title", "statement", "time_limit", "memory_limit", "many_answers", "tests", "checker"},
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_copies(tmp_path_factory.mktemp("data"))


def docs(root: Path | None, ref: TaskRef) -> list[dict[str, Any]]:
    return [dict(doc) for doc in tasks_of(root).load(ref).test_docs()]


@pytest.mark.parametrize("task", SCHEMAS)
def test_a_copy_gives_the_schema_that_graders_read(root: Path, task: str) -> None:
    found = docs(root, counted(task))
    assert len(found) == COPIES[task][2]
    assert all(set(doc) == SCHEMAS[task] for doc in found)
    assert len({doc["id"] for doc in found}) == len(found)


@pytest.mark.parametrize("task", SCHEMAS)
def test_what_only_the_grader_reads_is_not_stored_with_a_sample(root: Path, task: str) -> None:
    tasks = tasks_of(root)
    unstored = set(tasks.index.find(task).settings.get("grading_columns", ()))
    for problem in tasks.problems(counted(task), "test"):
        assert set(problem.metadata["doc"]) == SCHEMAS[task] - unstored
    assert unstored == {column for column in SCHEMAS[task] if "test" in column or column in
                        {"base_input", "plus_input", "checker", "solution"}}  # fmt: skip


@pytest.mark.parametrize("task", HUB)
def test_the_hubs_columns_give_the_same_schema(tmp_path: Path, task: str) -> None:
    write_rows(tmp_path / "hub" / "test.jsonl", HUB[task])
    block = {"hub": str(tmp_path / "hub"), "config": None, "revision": None, "split": "test", "rows": len(HUB[task])}
    ref = TaskRef(task, canonical_json({"data": block}))
    found = docs(None, ref)
    assert all(set(doc) == SCHEMAS[task] for doc in found)
    if task == "codeforces":
        assert [doc["id"] for doc in found] == ["1/A", "1/B"], "incomplete tests, files and interaction are left out"
        assert [bool(doc["checker"]) for doc in found] == [False, True]
        assert json.loads(found[0]["tests"]) == [{"input": "2\r\n", "output": "4\r\n"}]
        assert "Example input:\n2\n\nExample output:\n4" in found[0]["statement"]
    if task == "kodcode":
        assert sorted(doc["entry"] for doc in found) == ["add_0", "add_1", "add_2", "add_3"]
        assert {doc["signature"] for doc in found} == {f"def add_{number}(x):" for number in range(4)}
    if task.startswith("aime"):
        assert found[0]["id"] == {"aime": "2022-I-3", "aime25": "2025-3"}[task]


def test_files_of_json_lines_are_read_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What EvalPlus releases has no one type for a column; what LiveCodeBench has looks like dates."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    release = write_rows(tmp_path / "release" / "plus.jsonl.gz", evalplus("HumanEval"))
    block = {"urls": [str(release)], "rows": 2}
    found = docs(None, TaskRef("humaneval_plus", canonical_json({"data": block})))
    assert [json.loads(doc["plus_input"]) for doc in found] == [row["plus_input"] for row in evalplus("HumanEval")]
    files = [write_rows(tmp_path / "lcb" / f"t{n}.jsonl", [row]) for n, row in enumerate(LIVECODEBENCH_HUB)]
    block = {"hub": None, "revision": None, "urls": list(map(str, files)), "rows": 2}
    twice, total = docs(None, TaskRef("livecodebench", canonical_json({"data": block})))
    assert (twice["date"], twice["fn_name"], total["fn_name"]) == ("2024-08-01", "twice", "")
    assert twice["private_tests"] == LIVECODEBENCH_HUB[0]["private_test_cases"], "what is encoded is passed on"


def test_evalplus_inputs_are_untouched(root: Path) -> None:
    for name, task in (("HumanEval", "humaneval_plus"), ("Mbpp", "mbpp_plus")):
        for doc, row in zip(docs(root, counted(task)), evalplus(name), strict=True):
            assert json.loads(doc["base_input"]) == row["base_input"]
            assert json.loads(doc["plus_input"]) == row["plus_input"]
            assert doc["atol"] == float(row["atol"])


def test_tests_of_the_local_livecodebench_are_in_its_own_form(root: Path) -> None:
    stdin, text, flags = docs(root, counted("livecodebench"))
    assert json.loads(stdin["private_tests"]) == [{"input": "5 6\n", "output": "11\n", "testtype": "stdin"}]
    assert json.loads(text["private_tests"]) == [{"input": '"x"\n3', "output": '"xxx"', "testtype": "functional"}]
    assert json.loads(flags["private_tests"]) == [
        {"input": "[1, 0]", "output": "[true, false]", "testtype": "functional"}
    ]
    assert flags["public_tests"] == "[]" and flags["fn_name"] == "flags"


def test_codeforces_statements_have_limits_and_no_tags(root: Path) -> None:
    one, many = docs(root, counted("codeforces"))
    assert (one["time_limit"], one["memory_limit"]) == (1.5, 512.0)
    assert one["statement"].startswith("Print twice n.") and "Tags" not in one["statement"]
    assert (one["many_answers"], many["many_answers"]) == (False, True)
    prompt = tasks_of(root).problems(counted("codeforces"), "test")[0].messages[0].content
    assert "1.5 s and 512 MB" in prompt


@pytest.mark.parametrize(
    ("statement", "many"),
    [
        ("If there are multiple possible answers, print any of them.", True),
        ("Output any suitable permutation.", True),
        ("There may be several solutions; find any.", True),
        ("Each test contains multiple test cases.", False),
        ("You can perform the operation any number of times.", False),
        ("Print YES in any case.", False),
    ],
)
def test_words_that_tell_of_many_answers(statement: str, many: bool) -> None:
    assert has_many_answers(statement) == many


@pytest.mark.parametrize(
    ("given", "dates"),
    [
        (["2024-08-01", "2025-02-01"], ["2024-08-01", "2025-02-01"]),
        (["2024-08-02", "2025-01-31"], []),
        (["2024-01-01", "2024-07-31"], ["2024-07-31"]),
        (None, ["2024-07-31", "2024-08-01", "2025-02-01"]),
    ],
)
def test_the_window_holds_both_its_days(root: Path, given: Any, dates: list[str]) -> None:
    ref = counted("livecodebench", window=given)
    if dates:
        assert [doc["date"] for doc in docs(root, ref)] == dates
    else:
        with pytest.raises(TaskError, match="none of the 3 problems is left"):
            docs(root, ref)


@pytest.mark.parametrize("given", ["2024-08-01", ["2024-08-01"], ["2025-01-01", "2024-01-01"], ["a", "b"], 7, [1, 2]])
def test_a_window_that_is_none(given: Any) -> None:
    with pytest.raises(TaskError, match=r"metadata\.window: wanted two dates in order"):
        window({"window": given})


def test_aime24_is_a_part_of_aime(root: Path) -> None:
    assert [doc["id"] for doc in docs(root, counted("aime24"))] == ["2024-II-15"]
    assert [doc["answer"] for doc in docs(root, counted("aime"))] == ["025", "4"]
    assert docs(root, counted("aime25"))[0]["answer"] == "36"


@given(st.sets(st.text(min_size=1), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_the_subset_of_kodcode_does_not_depend_on_the_order_of_rows(names: set[str], rng: Any) -> None:
    ordered = sorted(names)
    shuffled = rng.sample(ordered, len(ordered))
    asked = [[listed[number] for number in choose({"id": listed})] for listed in (ordered, shuffled)]
    assert asked[0] == asked[1] == ordered


def test_the_subset_of_kodcode_is_the_one_of_version_1() -> None:
    """Others under the same version would make published numbers incomparable."""
    names = [f"Own_{number}_I" for number in range(1000)]
    chosen = [names[number] for number in choose({"id": names})]
    assert len(chosen) == SUBSET == len(set(chosen))
    assert chosen == sorted(chosen)
    assert hashlib.sha256("\n".join(chosen).encode()).hexdigest()[:16] == "d49a56fc271fc8e4"


@pytest.mark.parametrize(
    ("tests", "names"),
    [
        ("from solution import a, b as c  # both\n", ["a", "b"]),
        ("from solution import (\n    a,\n    b,\n)\n", ["a", "b"]),
        ("from solution import *\n", []),
        ("import pytest\n", []),
        ("from solution import a\nfrom solution import a, d\n", ["a", "d"]),
    ],
)
def test_names_that_tests_import(tests: str, names: list[str]) -> None:
    assert imported(tests) == names


def test_a_file_of_another_size_is_refused_with_what_to_do(root: Path) -> None:
    with pytest.raises(TaskError) as caught:
        tasks_of(root).load("math500")
    said = str(caught.value)
    assert "math500.yaml: wanted 500 rows, got 3 from" in said
    assert "metadata: {data: {rows: 3}}" in said


def test_data_that_cannot_be_had_says_what_was_looked_for_and_what_to_do(tmp_path: Path) -> None:
    for root, looked in ((None, f"no {DATA_ROOT}"), (tmp_path, f"{tmp_path}/math500/math500.jsonl: not there")):
        with pytest.raises(TaskError) as caught:
            tasks_of(root).load("math500")
        said = str(caught.value)
        assert "math500.yaml" in said and looked in said
        assert "HuggingFaceH4/MATH-500@6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be" in said
        assert f"set {DATA_ROOT}, or `data_root` in the matrix" in said


def test_a_row_without_a_column_is_told_by_file_and_number(tmp_path: Path) -> None:
    write_rows(tmp_path / "math500/math500.jsonl", [MATH500[0], {"problem": "?"}])
    with pytest.raises(TaskError, match=r"math500\.jsonl: row 1: wanted the column 'unique_id', got problem"):
        tasks_of(tmp_path).load("math500")
    write_rows(tmp_path / "aime_2022_2024/aimo-validation-aime.jsonl", [AIME[0] | {"answer": "x"}])
    with pytest.raises(TaskError, match=r"row 0: wanted a whole number as the answer, got 'x'"):
        tasks_of(tmp_path).load("aime")
    (tmp_path / "math500/math500.jsonl").write_text("{")
    with pytest.raises(TaskError, match=r"math500\.jsonl: wanted JSON lines"):
        list(read_json(tmp_path / "math500/math500.jsonl"))


def test_a_bad_row_behind_a_url_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    release = write_rows(tmp_path / "plus.jsonl", [{"task_id": "x"}])
    ref = TaskRef("humaneval_plus", canonical_json({"data": {"urls": [str(release)], "rows": 1}}))
    with pytest.raises(TaskError, match="row 0: wanted the column 'prompt'"):
        docs(None, ref)


def test_a_data_root_that_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_ROOT, str(tmp_path / "nowhere"))
    with pytest.raises(TaskError, match=f"{DATA_ROOT}: wanted a folder"):
        TaskIndex([TASK_ROOT]).find("math500")
    assert TaskIndex([TASK_ROOT]).find("coins"), "a task without data does not ask for it"


def test_the_environment_names_the_data_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_ROOT, str(root))
    assert len(docs(None, counted("math500"))) == 3


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ({"hub": "a/b", "rows": 1, "revison": "x"}, r"got 'revison'; did you mean 'revision'\?"),
        ({"hub": "a/b"}, "wanted `rows`"),
        ({"hub": 3, "rows": 1}, r"m\.data\.hub: wanted a string, got 3"),
        ({"hub": "a/b", "rows": "1"}, r"m\.data\.rows: wanted a whole number >= 1, got '1'"),
        ({"hub": "a/b", "rows": True}, r"m\.data\.rows: wanted a whole number"),
        ({"urls": "https://x", "rows": 1}, r"m\.data\.urls: wanted a list of strings"),
    ],
)
def test_a_data_block_that_is_not_right(block: dict[str, Any], told: str) -> None:
    with pytest.raises(TaskError, match=told):
        data_source({"data": block}, "m")


def test_another_meaning_of_data_is_left_alone() -> None:
    assert data_source({"data": "mine"}, "m") is data_source({}, "m") is data_source({"data": {"a": 1}}, "m") is None


def test_what_is_pinned_and_what_is_not() -> None:
    pinned = data_source({"data": {"hub": "a/b", "rows": 1, "revision": "0" * 40}}, "m")
    tag = data_source({"data": {"hub": "a/b", "rows": 1, "revision": "v5", "urls": ["t.jsonl"]}}, "m")
    newest = data_source({"data": {"hub": "a/b", "rows": 1}}, "m")
    url = data_source({"data": {"urls": ["https://x.org/v1/f.gz"], "rows": 1}}, "m")
    assert pinned and tag and newest and url
    assert [source.is_pinned for source in (pinned, tag, newest, url)] == [True, False, False, True]
    assert newest.pinned == "a/b@main (not pinned)"
    assert tag.addresses == ["hf://datasets/a/b@v5/t.jsonl"] and url.addresses == ["https://x.org/v1/f.gz"]
