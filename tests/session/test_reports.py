"""Reports of parts of a matrix, of failures and of refusals: what is kept, and what is said later."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from core_bench import Control, Toys
from core_factories import tree
from hypothesis import given
from hypothesis import strategies as st

from distillbench.errors import DistillbenchError
from distillbench.session.subset import Subset
from distillbench.store.failures import note_failure
from distillbench.store.report_folders import parts

Cli = Callable[..., Any]
Matrix = Callable[..., Path]
#: Two trainings with one checkpoint each, and a student that no stage builds.
TWO: dict[str, Any] = {
    "students": {"small": {"use": "toy-hub-student"}},
    "trainers": {"fit": {"steps": [1]}},
    "matrix": {"engine": "talk", "seed": [0, 1]},
}
PARTS = [
    (("--limit", "2"), "limit-2"),
    (("--fast",), "fast"),
    (("--only", "seed=1"), "only-seed=1"),
    (("--only", "seed=1", "--limit", "2"), "limit-2,only-seed=1"),
]


@pytest.fixture(autouse=True)
def _with_toys(toys: Path) -> None:
    """The toy plugin is installed in every test of this module."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store" / "reports" / "toys"


def cells(folder: Path) -> set[tuple[str, int]]:
    """The cells of a report's table, and how many samples each has."""
    return {(row["cell"], row["n"]) for row in pq.read_table(folder / "results.parquet").to_pylist()}


def notes(cli: Cli, *arguments: Any) -> list[str]:
    done = cli("report", *arguments, "--json")
    assert done.code == 0, done.err
    found: list[str] = done.json["notes"]
    return found


WHOLE = {("seed=0", 6), ("seed=1", 6), ("base-small", 6)}


# ---------------------------------------------------------------- parts beside the whole


@pytest.mark.parametrize("command", ["run", "report"])
def test_a_part_is_reported_beside_the_whole_and_not_over_it(
    cli: Cli, matrix: Matrix, folder: Path, command: str
) -> None:
    path = matrix(TWO)
    assert cli("run", path).code == 0 and cells(folder) == WHOLE
    before = tree(folder)
    for options, name in PARTS:
        done = cli(command, path, *options)
        assert done.code == 0 and f"report: {folder / name / 'report.md'}" in done.out
        now = tree(folder)
        assert before.items() <= now.items(), options
    assert [path.name for path in parts(folder)] == sorted(name for _, name in PARTS)
    assert cells(folder / "only-seed=1") == WHOLE - {("seed=0", 6)}
    if command == "run":
        assert cells(folder / "limit-2") == {(cell, 2) for cell, _ in WHOLE}
        assert f"distillbench run {path.name} --limit 2" in (folder / "limit-2" / "report.md").read_text()


@pytest.mark.parametrize(("options", "name"), [PARTS[0], PARTS[1]])
def test_a_report_says_which_part_the_store_has(
    cli: Cli, matrix: Matrix, folder: Path, options: Sequence[str], name: str
) -> None:
    path = matrix(TWO)
    assert cli("run", path, *options).code == 0
    shown = cells(folder / name)
    told = f"the store has 3 results under `{' '.join(options)}` that are not in this report: "
    how = f"`distillbench report {path.name} {' '.join(options)}` shows them"
    assert told + how in notes(cli, path) and cells(folder) == set()
    assert f"note: {told}" in " ".join(cli("report", path).out.split())
    assert not any("the store has" in note for note in notes(cli, path, *options)) and cells(folder / name) == shown
    assert told + how in notes(cli, path, "--limit", "3")


def test_a_part_of_the_cells_is_in_the_report_of_the_whole(cli: Cli, matrix: Matrix, folder: Path) -> None:
    path = matrix(TWO)
    assert cli("run", path, "--only", "seed=0").code == 0
    assert not any("the store has" in note for note in notes(cli, path))
    assert cells(folder) == cells(folder / "only-seed=0") == WHOLE - {("seed=1", 6)}


def test_a_part_reports_that_the_whole_is_there(cli: Cli, matrix: Matrix) -> None:
    path = matrix(TWO)
    assert cli("run", path).code == 0
    told = "the store has 3 results of the whole matrix that are not in this report: "
    assert f"{told}`distillbench report {path.name}` shows them" in notes(cli, path, "--limit", "2")


def test_a_report_that_lacks_nothing_speaks_of_no_part(cli: Cli, matrix: Matrix) -> None:
    path = matrix(TWO)
    assert cli("run", path, "--limit", "2").code == 0 and cli("run", path).code == 0
    assert notes(cli, path) == [] and notes(cli, path, "--limit", "2") == ["toy: a subset, first 2 problems."]


def test_parts_of_an_earlier_matrix_are_not_offered(cli: Cli, matrix: Matrix) -> None:
    assert cli("run", matrix(TWO), "--limit", "2").code == 0
    changed = matrix(TWO | {"evaluations": {"toy": {"max_tokens": 9}}})
    assert not any("the store has" in note for note in notes(cli, changed)), "`report --limit 2` would show nothing"


def test_all_cells_by_a_pattern_are_the_whole(bench: Toys) -> None:
    assert not bench.load(TWO, only=("*",)).subset
    assert bench.load(TWO, only=("*",), limit=3).subset == Subset(limit=3)


NAMES = st.lists(st.text(st.sampled_from("ab *+,=/\n."), min_size=1, max_size=4), max_size=3).map(tuple)
SUBSETS = st.builds(Subset, limit=st.none() | st.integers(1, 99), only=NAMES) | st.builds(
    Subset, fast=st.booleans(), only=NAMES
)


@given(SUBSETS, SUBSETS)
def test_parts_that_differ_have_folders_that_differ(one: Subset, other: Subset) -> None:
    def meaning(part: Subset) -> Any:
        return part.limit, part.fast, frozenset(part.only)

    assert (one.folder == other.folder) == (meaning(one) == meaning(other))
    assert "/" not in one.folder and "\n" not in one.folder and bool(one.folder) == bool(one)
    assert Subset.of(json.loads(json.dumps(one.plain()))) == one


def test_a_name_of_any_letters_fits_into_a_file_system(bench: Toys) -> None:
    for letter in "aé語🎲/":
        assert len(Subset(limit=10**9, only=(letter * 300,)).folder.encode()) < 200


def test_two_ways_to_cut_exclude_each_other() -> None:
    with pytest.raises(DistillbenchError, match="exclude"):
        Subset(limit=3, fast=True)


# ---------------------------------------------------------------- earlier reports


def test_numbers_that_a_changed_matrix_does_not_have_are_kept(cli: Cli, matrix: Matrix, folder: Path) -> None:
    assert cli("run", matrix(TWO)).code == 0
    before = {name: data for name, data in tree(folder).items() if "/" not in name and name != "stages.json"}
    changed = matrix(TWO | {"evaluations": {"toy": {"max_tokens": 9}}})
    told = [note for note in notes(cli, changed) if "earlier report" in note]
    (aside,) = folder.glob("earlier-*")
    assert told == [
        f"3 results of the earlier report are not in this one, or not with all their samples: that report is kept in "
        f"{aside.name}"
    ]
    assert tree(aside) == before and cells(folder) == set()
    assert not any("earlier report" in note for note in notes(cli, changed)), "there is nothing to lose any more"
    assert cli("status", "--json").json["reports"] == [str(folder / "report.md")]


def test_a_report_that_has_all_of_the_earlier_one_replaces_it(cli: Cli, matrix: Matrix, folder: Path) -> None:
    assert cli("run", matrix(TWO | {"matrix": {"engine": "talk", "seed": [0, 1, 2]}}), "--only", "seed=1").code == 0
    assert cli("run", matrix(TWO)).code == 0
    assert cli("run", matrix(TWO | {"matrix": {"engine": "talk", "seed": [0, 1, 2]}})).code == 0
    (folder / "results.parquet").write_bytes(b"PAR1 spoiled")
    assert cli("report", matrix(TWO)).code == 0
    assert not list(folder.glob("earlier-*"))


def test_fewer_samples_do_not_replace_more(cli: Cli, matrix: Matrix, folder: Path) -> None:
    assert cli("run", matrix(TWO)).code == 0
    assert cli("run", matrix(TWO | {"evaluations": {"toy": {"limit": 2}}})).code == 0
    (aside,) = folder.glob("earlier-*")
    assert cells(aside) == WHOLE and cells(folder) == {(cell, 2) for cell, _ in WHOLE}


# ---------------------------------------------------------------- failures and refusals


@pytest.mark.parametrize(
    ("steered", "said"),
    [
        ("fail-train-1", "failed or blocked: train seed=1: no luck"),
        ("kill-train-1", "its process ended with exit code -9"),
    ],
)
def test_a_failed_training_is_told_by_a_later_report_until_it_succeeds(
    cli: Cli, matrix: Matrix, control: Control, steered: str, said: str
) -> None:
    path = matrix(TWO)
    control.set(steered, "no luck")
    assert cli("run", path).code == 1
    found = notes(cli, path)
    assert len([note for note in found if said in note and note.startswith("seed=1: failed or blocked")]) == 1
    assert any(note.endswith("needs train seed=1, which did not succeed") for note in found)
    assert not any(note.startswith(("seed=0", "base-small")) for note in found)
    assert found == notes(cli, path, "--only", "seed=1"), "a part of the matrix says it of its cells"
    control.unset(steered)
    assert cli("run", path).code == 0
    assert notes(cli, path) == []


def test_rows_that_a_training_refuses_are_told_by_a_later_report(cli: Cli, matrix: Matrix) -> None:
    path = matrix(TWO | {"renderers": {"toy-renderer": {"end_loss": False}}})
    assert cli("run", path).code == 1
    told = [note for note in notes(cli, path) if "end_without_loss" in note]
    assert len(told) == 2 and all("failed or blocked: check wise" in note for note in told)


def test_a_refused_run_is_told_by_a_later_report_until_it_runs(cli: Cli, matrix: Matrix, folder: Path) -> None:
    assert cli("run", matrix(TWO)).code == 0
    forgetful = TWO | {"renderers": {"toy-renderer": {"end_loss": False}}}
    done = cli("run", matrix(forgetful))
    assert done.code == 2 and "nothing has run" in done.err
    told = [note for note in notes(cli, matrix(forgetful)) if "the preflight refuses it" in note]
    assert [note.partition(":")[0] for note in told] == ["seed=0", "seed=1"]
    assert all("end_without_loss: the end-of-turn token carries no loss" in note for note in told)
    accepted = matrix(forgetful | {"accept": ["end_without_loss"]})
    assert cli("run", accepted).code == 0
    assert not any("refuses" in note for note in notes(cli, accepted))


def test_a_student_that_is_not_there_is_told_by_a_later_report(cli: Cli, matrix: Matrix) -> None:
    lost = {"students": {"small": {"use": "hf", "model": "nobody/nothing", "device": "cpu"}}}
    path = matrix(TWO | lost | {"renderers": {"toy-renderer": {}}})
    assert cli("run", path).code == 2
    found = notes(cli, path)
    assert any(note.startswith("seed=1: failed or blocked: train") and "nobody/nothing" in note for note in found)
    assert any(note.startswith("base-small: failed or blocked: sample") for note in found)


def test_a_failure_is_not_told_of_a_result_that_is_whole(cli: Cli, matrix: Matrix, bench: Toys) -> None:
    """A process may have failed at a stage that another one had finished, or was finishing."""
    path = matrix(TWO)
    assert cli("run", path).code == 0
    for stage in bench.plan(TWO).stages.values():
        note_failure(bench.session.store, stage, "no lock to be had")
    assert notes(cli, path) == []
