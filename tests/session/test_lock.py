"""Locks: a report holds what it was made with, and `run --frozen` refuses what is another here, each by its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from core_bench import Control
from hypothesis import given
from hypothesis import strategies as st

from distillbench.sealed import read_sealed, write_sealed
from distillbench.session.lock import Versions, differences
from distillbench.store.report_folders import LOCK

Cli = Callable[..., Any]
Matrix = Callable[..., Path]
HUB: dict[str, Any] = {"students": {"small": {"use": "toy-hub-student"}}, "trainers": {"fit": {"steps": [1]}}}


@pytest.fixture(autouse=True)
def _with_toys(toys: Path) -> None:
    """The toy plugin is installed in every test of this module."""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "store" / "reports" / "toys" / LOCK


def locked(lock: Path) -> Versions:
    found: Versions = read_sealed(lock, LOCK)["versions"]
    return found


def rewritten(lock: Path, sort: str, name: str, versions: list[str] | None) -> None:
    """The lock of a machine on which something had other versions; none at all for None."""
    whole = read_sealed(lock, LOCK)
    whole["versions"][sort].pop(name, None)
    if versions is not None:
        whole["versions"][sort][name] = versions
    write_sealed(lock, whole, LOCK)


def test_what_was_locked_runs_and_a_report_keeps_the_lock(cli: Cli, matrix: Matrix, lock: Path) -> None:
    path = matrix(HUB)
    assert cli("run", path).code == 0
    found, before = locked(lock), lock.read_bytes()
    assert found["package"]["distillbench"] == [version("distillbench")] and "torch" in found["package"]
    assert found["plugin"].keys() == {"distillbench-toys"}
    assert found["task"].keys() == {"toy (its prompts)", "toy (its grading)"}
    assert {"teacher toy-teacher", "trainer toy-trainer", "grader toy-grader"} <= found["component"].keys()
    assert cli("run", path, "--frozen", lock).code == 0
    assert cli("report", path).code == 0 and lock.read_bytes() == before, "equal results give an equal lock"
    assert cli("run", path, "--frozen", lock, "--only", "wise", "--limit", "2").code == 0, "a part of what was locked"


@pytest.mark.parametrize(
    ("sort", "name", "versions", "said"),
    [
        ("package", "transformers", ["0.1"], ["locked: 0.1", "pip install 'transformers==0.1'"]),
        ("package", "transformers", ["0.1", "0.2"], ["locked: 0.1, 0.2"]),
        ("package", "torch", None, ["locked: not in the lock", "pip uninstall 'torch'"]),
        ("package", "gone", ["7"], ["here:   not here", "pip install 'gone==7'"]),
        ("plugin", "distillbench-toys", ["99"], ["locked: 99", "pip install 'distillbench-toys==99'"]),
        ("plugin", "distillbench-gone", ["99"], ["here:   not here"]),
        ("component", "trainer toy-trainer", ["99"], ["locked: 99", "the version of the plugin that has it"]),
        ("task", "toy (its prompts)", ["0" * 32], [f"locked: {'0' * 32}", "put its file, and what that includes"]),
        ("python", "itself", ["2.7"], ["locked: 2.7", "with Python 2.7"]),
    ],
)
def test_what_differs_is_refused_by_name_before_anything_runs(
    cli: Cli, matrix: Matrix, lock: Path, tmp_path: Path, sort: str, name: str, versions: Any, said: list[str]
) -> None:
    path = matrix(HUB)
    assert cli("report", path).code == 0
    rewritten(lock, sort, name, versions)
    done = cli("run", path, "--frozen", lock)
    assert done.code == 2 and "nothing has run" in done.err and "Traceback" not in done.err
    assert f"    {sort} {name}\n" in done.err and done.err.count("        locked: ") == 1
    assert all(text in done.err for text in said) and "run without --frozen" in done.err
    assert not (tmp_path / "store" / "stages").exists()


def test_files_that_changed_are_refused_by_name(
    cli: Cli, matrix: Matrix, lock: Path, toys: Path, tmp_path: Path
) -> None:
    rows, tasks = tmp_path / "rows.jsonl", tmp_path / "tasks"
    rows.write_text("first")
    shutil.copytree(toys / "toy_tasks", tasks)
    task = tasks / "toy.yaml"
    task.write_text(task.read_text().replace("task: toy", "task: mine"))
    path = matrix(
        HUB
        | {
            "task_paths": ["tasks"],
            "evaluations": {"mine": {}},
            "teachers": {"wise": {"path": str(rows), "task": "mine"}},
        }
    )
    assert cli("report", path).code == 0 and cli("plan", path).code == 0
    assert locked(lock)["file"].keys() == {"rows.jsonl of teacher wise"}
    rows.write_text("second")
    task.write_text(task.read_text().replace("{{question}}", "Well: {{question}}"))
    done = cli("run", path, "--frozen", lock)
    assert done.code == 2 and done.err.count("        locked: ") == 3
    for name in ("file rows.jsonl of teacher wise", "task mine (its prompts)", "task mine (its grading)"):
        assert f"    {name}\n" in done.err
    assert "put the file back that was read then" in done.err
    rows.write_text("first")
    assert cli("run", path, "--frozen", lock).err.count("        locked: ") == 2


def test_a_matrix_that_asks_for_more_than_was_locked_is_refused(cli: Cli, matrix: Matrix, lock: Path) -> None:
    assert cli("report", matrix(HUB)).code == 0
    more = matrix(
        HUB | {"filters": {"even": {"use": "toy-filter"}}, "matrix": {"engine": "talk", "filters": [["even"]]}}
    )
    done = cli("run", more, "--frozen", lock)
    assert done.code == 2 and "    component filter toy-filter\n        locked: not in the lock\n" in done.err


def checkpoint(folder: Path, weights: str) -> None:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8, "peft_type": "LORA"}))
    (folder / "adapter_model.safetensors").write_text(weights)


def test_checkpoints_that_are_there_already_are_locked_by_their_content(
    cli: Cli, matrix: Matrix, lock: Path, tmp_path: Path
) -> None:
    for step in (20, 40):
        checkpoint(tmp_path / "mine" / f"checkpoint-{step}", f"weights {step}")
    trainers = {"fit": None, "mine": {"use": "existing", "path": str(tmp_path / "mine")}}
    path = matrix(HUB | {"trainers": trainers, "teachers": None})
    assert cli("report", path).code == 0
    files = locked(lock)["file"]
    names = ("adapter_model.safetensors", "adapter_config.json")
    assert files.keys() == {f"{name}{number} of trainer mine" for name in names for number in ("", " (2)")}
    first, second = (tmp_path / "mine" / f"checkpoint-{step}" / names[0] for step in (20, 40))
    first.write_text("weights 40"), second.write_text("weights 20")
    done = cli("run", path, "--frozen", lock)
    assert done.code == 2 and done.err.count("        locked: ") == 2, "each is another's"
    first.write_text("weights 20"), second.write_text("other weights")
    done = cli("run", path, "--frozen", lock)
    assert done.code == 2 and done.err.count("        locked: ") == 1
    assert f"    file {names[0]} (2) of trainer mine\n" in done.err
    second.write_text("weights 40")
    assert "--frozen" not in cli("run", path, "--frozen", lock).err


@pytest.mark.parametrize("revision", [None, "v1", "c" * 40])
def test_a_model_of_the_hub_is_locked_by_its_commit(
    cli: Cli, matrix: Matrix, lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str | None
) -> None:
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    repository, name = cache / "models--someone--tiny", revision or "main"

    def moves_to(commit: str) -> None:
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / name).write_text(commit)
        (repository / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
        (repository / "snapshots" / commit / "config.json").write_text("{}")

    def hub_student(revision: str | None) -> dict[str, Any]:
        student = {"use": "hf", "model": "someone/tiny", "device": "cpu", "revision": revision}
        return {
            "students": {"small": student},
            "renderers": {"toy-renderer": {}},
            "trainers": {"fit": {"steps": [1]}},
        }

    path = matrix(hub_student(revision))
    moves_to("a" * 40)
    assert cli("report", path).code == 0
    first, second = (name, name) if len(name) == 40 else ("a" * 40, "b" * 40)
    assert locked(lock)["model"] == {"someone/tiny": [first]}
    moves_to("b" * 40)
    done = cli("run", path, "--frozen", lock)
    told = f"    model someone/tiny\n        locked: {first}\n        here:   {second}\n"
    assert done.code == 2 and (told in done.err) == (first != second)
    hint = f"write `revision: {first}` where the matrix names the model"
    assert (hint in done.err) == (first != second)
    pinned = matrix(hub_student(first))
    assert "--frozen" not in cli("run", pinned, "--frozen", lock).err, "what the hint says helps"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        ("", "is damaged"),
        ('{"a": 1}', "is damaged"),
        ("[]", "is damaged"),
    ],
)
def test_what_is_no_lock_is_refused(cli: Cli, matrix: Matrix, tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content)
    done = cli("run", matrix(HUB), "--frozen", path)
    assert done.code == 2 and said in done.err and "Traceback" not in done.err
    assert f"--frozen {path}\n    wanted: the lock.json of a report" in done.err


def test_a_lock_that_somebody_changed_is_refused(cli: Cli, matrix: Matrix, lock: Path) -> None:
    assert cli("report", matrix(HUB)).code == 0
    lock.write_text(lock.read_text().replace('"python"', '"Python"'))
    assert "is damaged" in cli("run", matrix(HUB), "--frozen", lock).err
    write_sealed(lock, {"format": 99, "versions": {}}, LOCK)
    assert "a lock of format 1" in cli("run", matrix(HUB), "--frozen", lock).err


def test_packages_are_those_that_the_results_were_made_with(
    cli: Cli, matrix: Matrix, lock: Path, control: Control, tmp_path: Path
) -> None:
    """What is installed when a report is written again says nothing of numbers that were there already."""
    path = matrix(HUB)
    assert cli("run", path).code == 0
    for manifest in (tmp_path / "store" / "stages" / "sample").glob("*/manifest.json"):
        found = read_sealed(manifest, "manifest.json")
        found["about"]["packages"]["transformers"] = "0.1"
        write_sealed(manifest, found, "manifest.json")
    assert cli("report", path).code == 0
    assert locked(lock)["package"]["transformers"] == sorted(["0.1", version("transformers")])


NAMES = st.sampled_from("abc")
VERSIONS = st.dictionaries(NAMES, st.lists(st.sampled_from("123"), min_size=1, max_size=2, unique=True))
LOCKS = st.dictionaries(st.sampled_from(["package", "file", "model"]), VERSIONS)


@given(LOCKS, LOCKS)
def test_nothing_differs_from_itself_and_everything_else_is_named(one: Versions, other: Versions) -> None:
    assert list(differences(one, one)) == []
    found = {(each.sort, each.name) for each in differences(one, other)}
    for sort, names in other.items():
        for name, now in names.items():
            then = one.get(sort, {}).get(name, [])
            assert ((sort, name) in found) == (not {*now} <= {*then})
        gone = one.get(sort, {}).keys() - names.keys()
        assert {name for each, name in found if each == sort} - names.keys() == (gone if sort == "package" else set())
