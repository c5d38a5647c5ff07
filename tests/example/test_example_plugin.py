"""The example plugin, installed by pip, found by its entry point, used in fresh processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "distillbench-example"
NAMES = {
    ("teacher", "example-jsonl"),
    ("student", "example-tiny"),
    ("renderer", "example-plain"),
    ("filter", "example-short"),
    ("trainer", "example-loop"),
    ("benchmark", "example-number"),
}


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, installed beside the environment from a copy, so that nothing is left in the checkout."""
    copy = tmp_path_factory.mktemp("example") / "source"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", "distillbench-runs"))
    target = tmp_path_factory.mktemp("site")
    command = [
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        str(target),
        str(copy),
    ]
    subprocess.run([sys.executable, "-m", "pip", *command], check=True, timeout=120)
    return target


@pytest.fixture(scope="session")
def ran(site: Path, run_cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run of the example's own matrix; its store and what was printed."""
    store = tmp_path_factory.mktemp("store")
    return store, run_cli("--store", str(store), "run", str(EXAMPLE / "matrix.yaml"), "--json", path=site)


def test_it_is_one_module_with_one_entry_point(site: Path) -> None:
    (about,) = site.glob("distillbench_example-*.dist-info")
    assert (about / "entry_points.txt").read_text().split() == [
        "[distillbench]",
        "example",
        "=",
        "distillbench_example",
    ]
    assert (site / "distillbench_example.py").read_bytes() == (EXAMPLE / "distillbench_example.py").read_bytes()
    assert not (site / "digits.jsonl").exists()


def test_it_declares_one_component_of_each_kind(site: Path, run_cli: Callable[..., Any]) -> None:
    listed = run_cli("plugins", "--json", path=site).json
    ours = [one for one in listed if one["plugin"] == "example"]
    assert {(one["kind"], one["name"]) for one in ours} == NAMES
    assert all(one["summary"].endswith(".") for one in ours)
    assert all(option["help"] for one in ours for option in one["options"]), "every option says what it is"
    without = run_cli("-p", "no:example", "plugins", "--json", path=site).json
    assert [one for one in without if one["plugin"] == "example"] == []


def test_importing_it_imports_nothing_heavy(site: Path, run_python: Callable[..., Any]) -> None:
    code = "import sys, distillbench_example; print(*sys.modules)"
    modules = set(run_python("-c", code, path=site).out.split())
    assert "distillbench_example" in modules
    assert modules.isdisjoint({"torch", "transformers", "tokenizers", "numpy"})


def test_planning_its_matrix(site: Path, run_cli: Callable[..., Any], tmp_path: Path) -> None:
    done = run_cli("--store", str(tmp_path), "plan", str(EXAMPLE / "matrix.yaml"), "--json", path=site)
    assert done.code == 0, done.err
    kinds = [stage["kind"] for stage in done.json["stages"]]
    assert sorted(kinds) == sorted(
        ["student", "traces", "curate", "render", "check", "train", *["sample", "grade"] * 3]
    )
    assert {cell["name"] for cell in done.json["cells"]} == {"written", "base-tiny"}
    assert done.json["estimate"]["samples"] == 120


@pytest.mark.slow
def test_running_its_matrix_gives_results(ran: tuple[Path, Any]) -> None:
    store, done = ran
    assert done.code == 0, done.err
    report = (store / "reports" / "example" / "report.md").read_text()
    for name in ("written", "base-tiny", "digits", "example-number"):
        assert name in report
    import pyarrow.parquet as pq

    rows = {
        (row["cell"], row["step"]): row
        for row in pq.read_table(store / "reports" / "example" / "results.parquet").to_pylist()
    }
    assert set(rows) == {("base-tiny", 0), ("written", 30), ("written", 60)}
    for row in rows.values():
        outcomes = {
            name: row[name]
            for name in row
            if name.startswith("n_") and name not in ("n_problems", "n_pairs", "n_dropped")
        }
        assert sum(outcomes.values()) == row["n"] == 40
    assert rows["base-tiny", 0]["completion_rate"] == 0, "random weights end nothing"
    assert rows["written", 60]["completion_rate"] > 0.9, "sixty steps teach the form of an answer"
    assert rows["written", 60]["difference"] is not None and rows["written", 60]["baseline"] == "base-tiny"


@pytest.mark.slow
def test_what_its_filter_rejected_is_kept_with_the_reason(ran: tuple[Path, Any]) -> None:
    import pyarrow.parquet as pq

    store, _ = ran
    (curate,) = (store / "stages" / "curate").iterdir()
    decisions = pq.read_table(curate / "decisions.parquet").to_pylist()
    rejected = [row for row in decisions if not row["kept"]]
    assert len(rejected) == 4 and len(decisions) == 64
    assert rejected[0]["filter"] == "short" and rejected[0]["category"] == "too wordy" and rejected[0]["row"] == 15


@pytest.mark.slow
def test_running_it_again_reuses_everything(ran: tuple[Path, Any], site: Path, run_cli: Callable[..., Any]) -> None:
    store, first = ran
    again = run_cli("--store", str(store), "run", str(EXAMPLE / "matrix.yaml"), "--json", path=site)
    assert again.code == 0 and "12 stages: 12 done, 0 to do" in again.err
    found, before = again.json, first.json
    assert found.pop("provenance").keys() == before.pop("provenance").keys()
    assert found == before and found["cells"]


@pytest.mark.slow
def test_its_components_and_built_in_ones_mix(site: Path, run_cli: Callable[..., Any], tmp_path: Path) -> None:
    """A built-in student under the example's trainer, the example's student under the built-in one, graders of both."""
    rows = [json.loads(line) for line in (EXAMPLE / "digits.jsonl").read_text().splitlines()]
    boxed = [row | {"answer": f"\\boxed{{{row['answer']}}}"} for row in rows[:12]]
    (tmp_path / "boxed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in boxed))
    (tmp_path / "mixed.yaml").write_text(
        """
name: mixed
teachers: {file: {use: example-jsonl, path: boxed.jsonl}}
students:
  tiny: {use: tiny-qwen3, steps: 2}
  ours: {use: example-tiny}
filters: {short: {use: example-short}, fits: {use: max_tokens, limit: 300}}
trainers:
  loop: {use: example-loop, steps: 2, checkpoint_every: 2, batch_size: 2}
  sft: {max_steps: 2, batch_size: 2, checkpoint_every: 2, max_length: 300, method: full, holdout: 0}
evaluations:
  digits: {max_tokens: 4, limit: 3}
  numbers: {benchmark: digits, grader: example-number, max_tokens: 4, limit: 3}
matrix:
  include:
    - {student: tiny, trainer: loop}
    - {student: ours, trainer: sft}
"""
    )
    done = run_cli("--store", str(tmp_path / "store"), "run", str(tmp_path / "mixed.yaml"), "--json", path=site)
    assert done.code == 0, done.err
    import pyarrow.parquet as pq

    rows = pq.read_table(tmp_path / "store" / "reports" / "mixed" / "results.parquet").to_pylist()
    assert {(row["student"], row["trainer"], row["renderer"], row["evaluation"]) for row in rows if row["trainer"]} == {
        ("tiny", "loop", "qwen3", "digits"),
        ("tiny", "loop", "qwen3", "numbers"),
        ("ours", "sft", "example-plain", "digits"),
        ("ours", "sft", "example-plain", "numbers"),
    }


def test_an_edited_trace_file_is_read_again(site: Path, run_cli: Callable[..., Any], tmp_path: Path) -> None:
    for name in ("matrix.yaml", "digits.jsonl"):
        shutil.copy(EXAMPLE / name, tmp_path)

    def traces() -> str:
        planned = run_cli("--store", str(tmp_path / "s"), "plan", str(tmp_path / "matrix.yaml"), "--json", path=site)
        return next(stage["key"] for stage in planned.json["stages"] if stage["kind"] == "traces")

    before = traces()
    assert traces() == before
    with (tmp_path / "digits.jsonl").open("a") as stream:
        stream.write('{"question": "Digits: 1, 2. Which is the first?", "reasoning": "It is 1.", "answer": "1"}\n')
    assert traces() != before
    (tmp_path / "digits.jsonl").unlink()
    missing = run_cli("plan", str(tmp_path / "matrix.yaml"), path=site, cwd=tmp_path)
    assert missing.code == 2 and "digits.jsonl" in missing.err and "Traceback" not in missing.err
