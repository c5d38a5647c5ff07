"""The report's files: whole, equal for equal results, and readable by lm-eval itself."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from lm_eval.result_schema import EvalResults, SampleResult
from lm_eval.utils import (
    get_file_datetime,
    get_file_task_name,
    get_results_filenames,
    get_sample_results_filenames,
    handle_non_serializable,
    make_table,
)
from report_factories import GRADED_AT, any_samples, checkpoint, repeated, results, sample, samples, summary_json, write

from distillbench.outcomes import OUTCOMES
from distillbench.report.evaluated import build_rows
from distillbench.report.results import CellResult, NllPoint, Results, Section
from distillbench.report.writers import columns, files
from distillbench.store import rows

STAMP = "2026-02-16T12-30-15.000000"


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def lm_eval_of(made: Results, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The results and the samples of a report with one checkpoint on one evaluation."""
    write(made, folder)
    (path,) = folder.glob("lm_eval/*/results_*.json")
    (lines,) = folder.glob("lm_eval/*/samples_*.jsonl")
    return json.loads(path.read_text(encoding="utf-8")), lines_of(lines)


# --- parquet --------------------------------------------------------------------------------------------------------


def test_results_come_back_from_parquet(tmp_path: Path) -> None:
    write(results(), tmp_path)
    read = pq.read_table(tmp_path / "results.parquet")
    assert read.column_names == list(columns.ROW_COLUMNS)
    assert read.to_pylist() == [columns.flat_row(row) for row in build_rows(results())]
    for row in read.to_pylist():
        assert sum(row[f"n_{outcome}"] for outcome in OUTCOMES) == row["n"]


def test_a_row_holds_every_number(tmp_path: Path) -> None:
    write(results(), tmp_path)
    rows = {
        (row["evaluation"], row["cell"], row["step"]): row
        for row in pq.read_table(tmp_path / "results.parquet").to_pylist()
    }
    concise = rows["coins", "concise", 100]
    assert concise["accuracy"] == 248 / 256
    assert concise["accuracy_low"] < concise["accuracy"] < concise["accuracy_high"]
    assert concise["difference"] == (248 - 115) / 256
    assert (concise["difference_method"], concise["n_pairs"], concise["n_dropped"]) == ("Newcombe method 10", 256, 0)
    assert concise["difference_p"] == pytest.approx(2 / 2**133)
    assert (concise["held_out_nll"], concise["held_out_tokens"], concise["axes"]) == (0.412, 5000, '{"lr": 0.001}')
    flaky = rows["coins", "flaky", 100]
    assert flaky["invalid"]
    assert flaky["accuracy"] is None
    assert flaky["difference_reason"] == "this checkpoint is INVALID"
    assert (flaky["bound_low"], flaky["bound_high"]) == (200 / 256, 220 / 256)
    judge = rows["judge", "concise", 100]
    assert judge["by_score"]
    assert judge["score_low"] < judge["score"] < judge["score_high"]
    assert rows["coins", "base-tiny", 0]["difference"] is None


def test_samples_come_back_from_parquet(tmp_path: Path) -> None:
    write(results(), tmp_path)
    read = pq.read_table(tmp_path / "samples.parquet").to_pylist()
    wanted = [one for row in build_rows(results()) for one in row.result.samples()]
    assert len(read) == len(wanted)
    for row, one in zip(read, wanted, strict=True):
        assert (row["problem_id"], row["repeat"], row["outcome"]) == (one.problem_id, one.repeat, one.outcome)
        assert (row["extracted"], row["n_tokens"]) == (one.extracted, one.n_tokens)
        assert json.loads(row["scores"]) == one.scores


def test_nothing_at_all_is_written_too(tmp_path: Path) -> None:
    write(Results("m"), tmp_path / "new" / "folder")
    assert pq.read_table(tmp_path / "new" / "folder" / "results.parquet").num_rows == 0
    assert pq.read_table(tmp_path / "new" / "folder" / "samples.parquet").column_names == list(columns.SAMPLE_COLUMNS)


def test_text_that_is_no_utf8_is_kept_as_its_escape(tmp_path: Path) -> None:
    half = "half \ud83d pair é"
    wrong = sample("a", "wrong", text=half, doc={"q": half}, extracted=half)
    made = Results("m", checkpoints=(checkpoint([wrong]),))
    _, (line,) = lm_eval_of(made, tmp_path)
    assert line["resps"] == [[half]]
    assert pq.read_table(tmp_path / "samples.parquet")["extracted"].to_pylist() == ["half \\ud83d pair é"]


# --- files ----------------------------------------------------------------------------------------------------------


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    sections = [Section("Mine", "text")]
    write(results(), tmp_path / "one", sections)
    write(results(), tmp_path / "two", sections)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_written_files_are_the_ones_named_and_no_others(tmp_path: Path) -> None:
    written = write(results(), tmp_path)
    assert sorted(written) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert f"lm_eval/concise@100/results_{STAMP}.json" in bytes_of(tmp_path)
    assert f"lm_eval/concise@100/samples_coins_word_{STAMP}.jsonl" in bytes_of(tmp_path)
    assert f"lm_eval/base-tiny@0/samples_judged_{STAMP}.jsonl" in bytes_of(tmp_path)


def of_one(graded_at: int, git_hash: str = "a", **of_tasks: int) -> Results:
    """A checkpoint on some tasks with so many right answers; the last was graded at this time."""
    made = [checkpoint(samples({"correct": n}), evaluation=name, task=name) for name, n in of_tasks.items()]
    made[-1] = replace(made[-1], graded_at=graded_at)
    return Results("m", checkpoints=tuple(made), provenance={"git_hash": git_hash})


def sets_of(folder: Path) -> dict[str, list[str]]:
    """The tasks of each set of lm-eval's files, by the second in its name."""
    found: dict[str, list[str]] = {}
    for path in sorted((folder / "lm_eval" / "concise@100").iterdir()):
        kind, _, time = path.stem.rpartition("_")
        found.setdefault(time[-9:-7], []).append(kind)
    return found


def at(second: int) -> int:
    return GRADED_AT + second


@pytest.mark.parametrize("again", [1, 2, 5])
def test_a_result_is_there_once_however_often_it_is_reported(tmp_path: Path, again: int) -> None:
    for number in range(again):
        write(of_one(at(0), git_hash=str(number), a=3, b=2), tmp_path)
    assert sets_of(tmp_path) == {"15": ["results", "samples_a", "samples_b"]}
    (path,) = tmp_path.glob("lm_eval/concise@100/results_*.json")
    document = json.loads(path.read_text())
    assert document["git_hash"] == str(again - 1) and document["date"] == GRADED_AT, "the newest report's words"


def test_a_result_that_is_there_no_more_keeps_its_files(tmp_path: Path) -> None:
    write(of_one(at(0), a=3), tmp_path)
    before = {name: data for name, data in bytes_of(tmp_path).items() if name.startswith("lm_eval")}
    write(of_one(at(1), a=4), tmp_path)
    assert sets_of(tmp_path) == {"15": ["results", "samples_a"], "16": ["results", "samples_a"]}
    assert before.items() <= bytes_of(tmp_path).items()


def test_a_set_whose_every_result_is_in_a_newer_one_goes(tmp_path: Path) -> None:
    write(of_one(at(0), a=3), tmp_path)
    write(of_one(at(1), a=3, b=2), tmp_path)
    assert sets_of(tmp_path) == {"16": ["results", "samples_a", "samples_b"]}
    write(of_one(at(2), a=3, b=5), tmp_path)
    assert sets_of(tmp_path) == {
        "16": ["results", "samples_a", "samples_b"],
        "17": ["results", "samples_a", "samples_b"],
    }, "b has other samples now"
    links = {path.name[:9]: path.stat().st_nlink for path in tmp_path.glob("lm_eval/*/samples_*")}
    assert links == {"samples_a": 2, "samples_b": 1}, "what did not change takes no more room"


def test_results_of_other_programs_stay(tmp_path: Path) -> None:
    folder = tmp_path / "lm_eval" / "concise@100"
    folder.mkdir(parents=True)
    names = ["results_2026-01-01T00-00-00.000001.json", "results_[a-z].json", "samples_a_[a-z].jsonl", "notes.txt"]
    for name in names:
        (folder / name).write_text("{}")
    write(of_one(at(0), a=3), tmp_path)
    assert {*names} <= {path.name for path in folder.iterdir()}


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(results(), tmp_path)
    before = bytes_of(tmp_path)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(rows.RowWriter, "append", fail)
    with pytest.raises(OSError, match="disk full"):
        write(results(), tmp_path)
    assert bytes_of(tmp_path) == before


@pytest.mark.parametrize("cell", ["../../evil", "a/b", "..", "x" * 300, "lr=2e-4,rank=32", "a b|c", "é"])
def test_no_cell_leaves_the_folder(tmp_path: Path, cell: str) -> None:
    folder = tmp_path / "report"
    write(Results("m", checkpoints=(checkpoint(samples({"correct": 2}), cell, task=cell),)), folder)
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert len(list((folder / "lm_eval").iterdir())) == 1


def test_cells_whose_names_look_alike_as_folders_do_not_share_one(tmp_path: Path) -> None:
    made = tuple(checkpoint(samples({"correct": 2}), cell) for cell in ("a/b", "a_b", "a|b"))
    write(Results("m", checkpoints=made), tmp_path)
    assert len(list((tmp_path / "lm_eval").iterdir())) == 3


# --- lm-eval --------------------------------------------------------------------------------------------------------


def test_lm_eval_finds_and_tabulates_the_files(tmp_path: Path) -> None:
    write(results(), tmp_path)
    folder = tmp_path / "lm_eval" / "concise@100"
    names = [str(path) for path in sorted(folder.iterdir())]
    (found,) = get_results_filenames(names)
    sample_names = get_sample_results_filenames(names)
    assert get_file_datetime(Path(found).name) == f"{STAMP}.json"
    assert [get_file_task_name(Path(name).name) for name in sample_names] == ["coins_word", "judged"]
    text = make_table(json.loads(Path(found).read_text(encoding="utf-8")))
    assert "|coins_word|" in text
    assert "0.9688" in text
    assert "math_boxed" in text


def test_lm_eval_tabulates_invalid_as_a_word(tmp_path: Path) -> None:
    made = Results("m", checkpoints=(checkpoint(samples({"correct": 10, "generation_error": 5})),))
    document, lines = lm_eval_of(made, tmp_path)
    assert document["results"]["coins_word"]["acc,math_boxed"] == "INVALID"
    assert "INVALID" in make_table(document)
    assert [line["metrics"] for line in lines] == [["acc"]] * 10 + [[]] * 5
    assert "acc" not in lines[-1]
    assert document["distillbench"]["coins_word"]["bound_high"] == 1.0


def test_documents_have_only_keys_that_lm_eval_knows_and_ours(tmp_path: Path) -> None:
    document, lines = lm_eval_of(
        Results("m", checkpoints=results().checkpoints[:1], provenance=results().provenance), tmp_path
    )
    assert set(document) - set(EvalResults.__annotations__) == {"distillbench"}
    assert set(SampleResult.__annotations__) <= set(lines[0])
    own = {"acc", "problem_id", "outcome", "detail", "reasoning_state", "finish_reason", "n_tokens", "ran_on"}
    assert set(lines[0]) - set(SampleResult.__annotations__) == own


def test_task_hash_is_lm_evals(tmp_path: Path) -> None:
    document, lines = lm_eval_of(Results("m", checkpoints=results().checkpoints[:1]), tmp_path)
    joined = "".join(line["doc_hash"] + line["prompt_hash"] + line["target_hash"] for line in lines)
    assert document["task_hashes"]["coins_word"] == hashlib.sha256(joined.encode()).hexdigest()


def test_repeats_are_one_line_per_document(tmp_path: Path) -> None:
    made = repeated([["correct", "wrong"], ["correct", "correct"], ["loop", "wrong"]])
    document, lines = lm_eval_of(Results("m", checkpoints=(checkpoint(made[::-1]),)), tmp_path)
    assert [line["doc_id"] for line in lines] == [0, 1, 2]
    assert {line["problem_id"]: line["acc"] for line in lines} == {"p0000": 0.5, "p0001": 1.0, "p0002": 0.0}
    assert lines[0]["outcome"] == ["loop", "wrong"]
    assert lines[0]["filtered_resps"] == [["[invalid]", "3"]]
    assert len(lines[0]["resps"][0]) == 2
    metrics = document["results"]["coins_word"]
    assert metrics["acc,math_boxed"] == 0.5
    assert metrics["acc_stderr,math_boxed"] == pytest.approx(0.5 / math.sqrt(3))  # of 1/2, 1, 0
    assert metrics["sample_len"] == 3
    assert document["configs"]["coins_word"]["repeats"] == 2


def test_two_evaluations_of_one_task_do_not_overwrite_each_other(tmp_path: Path) -> None:
    made = tuple(checkpoint(samples({"correct": n}), evaluation=name) for n, name in ((3, "short"), (4, "long")))
    write(Results("m", checkpoints=made), tmp_path)
    document = json.loads((tmp_path / "lm_eval" / "concise@100" / f"results_{STAMP}.json").read_text())
    assert {name: values["sample_len"] for name, values in document["results"].items()} == {
        "coins_word@short": 3,
        "coins_word@long": 4,
    }
    assert len(list((tmp_path / "lm_eval" / "concise@100").glob("samples_*"))) == 2


def test_unknown_values_become_what_lm_eval_makes_of_them() -> None:
    import numpy as np

    for value in (np.int64(3), np.float32(0.5), np.bool_(True), Path("x"), {1}):
        assert files.unknown(value) == handle_non_serializable(value)


def test_what_is_not_known_is_not_invented(tmp_path: Path) -> None:
    document, _ = lm_eval_of(Results("m", checkpoints=results().checkpoints[:1]), tmp_path)
    assert document["n-shot"] == document["versions"] == {}
    assert document["n-samples"] == {"coins_word": {"effective": 256}}
    told = checkpoint(samples({"correct": 2}), settings={"n_docs": 500, "num_fewshot": 4, "task_version": 1.0})
    document, _ = lm_eval_of(Results("m", checkpoints=(told,), provenance={"git_hash": "a"}), tmp_path / "told")
    assert document["n-samples"] == {"coins_word": {"original": 500, "effective": 2}}
    assert (document["n-shot"], document["versions"]) == ({"coins_word": 4}, {"coins_word": 1.0})
    assert document["git_hash"] == "a"


LM_EVAL_RUN = """
import sys
from lm_eval import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

folder = sys.argv[1]
tracker = EvaluationTracker(output_path=folder + "/out")
manager = TaskManager(include_path=folder, include_defaults=False)
how = dict(task_manager=manager, evaluation_tracker=tracker, log_samples=True)
found = simple_evaluate(model="dummy", tasks=["toy"], **how)
samples = found.pop("samples")
tracker.save_results_aggregated(results=found, samples=samples)
tracker.save_results_samples(task_name="toy", samples=samples["toy"])
"""

TOY_TASK = """
task: toy
dataset_path: json
dataset_kwargs: {data_files: {test: %s/docs.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "Q: {{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["X"], max_gen_toks: 5}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
metadata: {version: 1}
"""


def run_lm_eval(folder: Path, docs: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """lm-eval's own files for a toy task that its dummy model answers with `lol`."""
    (folder / "docs.jsonl").write_text("\n".join(json.dumps(doc) for doc in docs), encoding="utf-8")
    (folder / "toy.yaml").write_text(TOY_TASK % folder, encoding="utf-8")
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", LM_EVAL_RUN, str(folder)], check=True, capture_output=True, env=offline)
    (document,) = (folder / "out").rglob("results_*.json")
    (lines,) = (folder / "out").rglob("samples_*.jsonl")
    return json.loads(document.read_text(encoding="utf-8")), lines_of(lines)


def test_the_files_are_those_that_lm_eval_itself_writes(tmp_path: Path) -> None:
    docs = [{"question": f"q {place} é", "answer": str(place)} for place in range(4)]
    theirs, their_lines = run_lm_eval(tmp_path, docs)
    made = [
        sample(
            f"toy/{place}",
            "wrong",
            text="lol",
            extracted="lol",
            gold=doc["answer"],
            prompt=f"Q: {doc['question']}",
            doc=doc,
        )
        for place, doc in enumerate(docs)
    ]
    drawn = {"until": ["X"], "max_gen_toks": 5}
    one = checkpoint(made, task="toy", settings=drawn, grader="none")
    ours, our_lines = lm_eval_of(Results("m", checkpoints=(one,)), tmp_path / "ours")
    for our, their in zip(our_lines, their_lines, strict=True):
        shared = set(their) - {"exact_match", "metrics"}
        assert {key: our[key] for key in shared} == {key: their[key] for key in shared}
        assert our["acc"] == their["exact_match"]
    assert ours["task_hashes"] == theirs["task_hashes"]
    assert set(ours) - {"distillbench"} <= set(theirs)
    metrics = {key.replace("exact_match", "acc"): value for key, value in theirs["results"]["toy"].items()}
    assert {key: ours["results"]["toy"][key] for key in metrics} == metrics
    assert set(ours["config"]) <= set(theirs["config"])


# --- json -----------------------------------------------------------------------------------------------------------


def test_json_has_no_nan_and_every_row() -> None:
    cells = (CellResult("concise", nll=(NllPoint(100, float("nan"), float("inf"), 3),)),)
    made = Results("m", cells, results().checkpoints, {"path": Path("x"), "versions": {"torch": "2"}})
    text = json.dumps(summary_json(made), allow_nan=False)
    document = json.loads(text)
    assert [row["cell"] for row in document["rows"]] == [row.result.cell for row in build_rows(made)]
    assert document["cells"][0]["nll"] == [
        {"step": 100, "train_loss": None, "held_out_nll": None, "held_out_tokens": 3}
    ]
    assert document["provenance"] == {"path": "x", "versions": {"torch": "2"}}
    assert document["conclusions"]
    assert any("INVALID" in note for note in document["notes"])


@given(any_samples())
@settings(max_examples=40)
def test_any_result_makes_json_without_nan(made: tuple) -> None:  # type: ignore[type-arg]
    both = (checkpoint(made), checkpoint(made, "base-tiny", 0))
    json.dumps(summary_json(Results("m", checkpoints=both)), allow_nan=False)
