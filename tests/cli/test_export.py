"""`distillbench export`: which checkpoint, into which folder, and what its model card says."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from core_bench import Control, Toys

from distillbench.records import Cell, Choice
from distillbench.report.results import CheckpointResult, GradedSample, Results
from distillbench.report.writers.card import Exported, render_card

Cli = Callable[..., Any]
Matrix = Callable[..., Path]


@pytest.fixture(autouse=True)
def _with_toys(toys: Path) -> None:
    """The toy plugin is installed in every test of this module."""


# ---------------------------------------------------------------- which checkpoint, where to


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wize@1", "no cell is named 'wize'; did you mean 'wise'?"),
        ("base-small@0", "base-small is the untouched student: nothing was trained"),
        ("base-small", "base-small is the untouched student: nothing was trained"),
        ("wise@1", "wise has no checkpoints yet\n    hint: distillbench run "),
    ],
)
def test_what_is_not_there_is_told_with_what_to_do(
    cli: Cli, matrix: Matrix, tmp_path: Path, name: str, said: str
) -> None:
    done = cli("export", matrix(), name, "--to", tmp_path / "out")
    assert done.code == 2 and said in done.err and "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_empty_is_left_alone(cli: Cli, matrix: Matrix, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    done = cli("export", matrix(), "wise@1", "--to", tmp_path / "out")
    assert done.code == 2 and "nothing in it is overwritten" in done.err
    assert (tmp_path / "out" / "mine").read_text() == "mine"


@pytest.mark.slow
def test_an_adapter_is_copied_with_its_results(cli: Cli, matrix: Matrix, bench: Toys, tmp_path: Path) -> None:
    path, out = matrix(), tmp_path / "out"
    assert cli("run", path).code == 0
    for name, said in (("wise", "and no step was named"), ("wise@3", "none at 3")):
        done = cli("export", path, name, "--to", out)
        assert done.code == 2 and f"wise has checkpoints at steps 1, 2, {said}\n    hint: wise@2" in done.err
    out.mkdir()  # an empty folder is as good as none
    done = cli("export", path, "wise@2", "--to", out)
    assert (done.code, done.out) == (0, f"adapter: {out}\n")
    train = next(stage for stage in bench.plan().stages.values() if stage.kind == "train")
    stored = bench.session.store.folder(train) / "step-2" / "model.safetensors"
    assert {file.name for file in out.iterdir()} == {"README.md", "model.safetensors"}
    assert (out / "model.safetensors").read_bytes() == stored.read_bytes()
    card = (out / "README.md").read_text()
    assert "| toy | this one | 6 | 0.500 [0.188, 0.812] | 1.000 | +0.000" in card
    assert "| toy | untouched | 6 | 0.500" in card and "toy-trainer" in card and "trainer.rate | 0.1" in card
    assert re.search(r"lm_eval \d", card.replace("\\", "")) and "untouched=" not in card
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".out")]


@pytest.mark.slow
def test_a_student_that_cannot_merge_says_so_and_leaves_nothing(cli: Cli, matrix: Matrix, tmp_path: Path) -> None:
    path = matrix()
    assert cli("run", path).code == 0
    done = cli("export", path, "wise@2", "--to", tmp_path / "out", "--merge")
    assert done.code == 1 and "student 'toy-student' cannot write a full model" in done.err
    assert not [file for file in tmp_path.iterdir() if "out" in file.name]


@pytest.mark.slow
def test_a_checkpoint_that_was_deleted_says_what_to_run(
    cli: Cli, matrix: Matrix, bench: Toys, control: Control, tmp_path: Path
) -> None:
    full = {"trainers": {"fit": {"kind": "full"}}}
    path = matrix(full)
    assert cli("run", path).code == 0
    done = cli("export", path, "wise@2", "--to", tmp_path / "out")
    assert done.code == 2 and "was deleted after its evaluation" in done.err and "keep: [full]" in done.err
    [folder] = re.findall(r"remove (\S+), then distillbench run (\S+) --only wise", done.err)
    shutil.rmtree(folder[0])  # as it says
    assert cli("run", matrix(full | {"keep": ["full"]}), "--only", "wise").code == 0
    done = cli("export", path, "wise@2", "--to", tmp_path / "out")
    assert done.code == 1 and "cannot write a full model" in done.err, "it is there again"


@pytest.mark.slow
def test_a_link_that_leads_nowhere_is_told(cli: Cli, matrix: Matrix, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "adapter_config.json").write_text("{}")
    (mine / "model.safetensors").write_text("mine")
    path = matrix({"teachers": {}, "trainers": {"fit": {"use": "existing", "path": str(mine)}}})
    assert cli("run", path).code == 0
    assert cli("export", path, "fit@0", "--to", tmp_path / "out").code == 0
    assert not (tmp_path / "out" / "model.safetensors").is_symlink()
    [linked] = (tmp_path / "store" / "stages" / "train").glob("*/step-0/adapter_config.json")
    linked.unlink()
    linked.symlink_to(tmp_path / "gone")
    done = cli("export", path, "fit@0", "--to", tmp_path / "again")
    assert done.code == 2 and f"is a link to {tmp_path / 'gone'}, which is not there any more" in done.err


# ---------------------------------------------------------------- the card


def exported(**changes: Any) -> Exported:
    def choice(kind: str, label: str, options: Any = None) -> Choice:
        from distillbench.protocols import NoOptions

        return Choice(kind, label, f"{kind}-x", options or NoOptions(), "{}")

    cell = Cell(
        name="a|b",
        student=choice("student", "<script>"),
        renderer=choice("renderer", "chat"),
        engine=choice("engine", "e"),
        evaluations=(),
        teacher=choice("teacher", "wise*"),
        trainer=choice("trainer", "lora"),
    )
    about: dict[str, Any] = {"cell": cell, "step": 7, "form": "adapter", "base": "org/base", "is_public": True}
    return Exported(**about | {"dtype": "bfloat16", "rank": 12} | changes)


def results(text: str) -> Results:
    def one(cell: str, step: int, right: int) -> CheckpointResult:
        samples = [
            GradedSample(f"p{n}", 0, "correct" if n < right else "wrong", extracted=text, text=text, prompt=text)
            for n in range(40)
        ]
        base = cell == "base"
        about = {"is_baseline": base, "baseline": None if base else "base", "grader": "g"}
        return CheckpointResult.of(samples, cell=cell, step=step, evaluation="coins", task="coins", **about)

    return Results("m", (), (one("base", 0, 10), one("a|b", 7, 30), one("a|b", 9, 40)))


def test_a_card_has_the_numbers_of_its_own_step_and_no_text_of_a_model() -> None:
    card = render_card(exported(versions={"peft": "1.0"}), results("MODEL TEXT"))
    assert "| coins | this one | 40 | 0.750 [0.598, 0.858] | 1.000 | +0.500 [" in card
    assert "| coins | untouched | 40 | 0.250 [" in card and "1.000 [" not in card, "step 9 is another checkpoint"
    assert "MODEL TEXT" not in card and "<script>" not in card
    assert "distilled from wise\\*" in card and "peft 1.0" in card


def test_a_card_says_how_to_load_each_form() -> None:
    adapter = render_card(exported(), Results("m"))
    assert 'base_model: "org/base"' in adapter and "library_name: peft" in adapter
    assert "vllm serve org/base --dtype bfloat16 --enable-lora --max-lora-rank 16 --lora-modules" in adapter
    assert "No results of this checkpoint were in the store." in adapter
    merged = render_card(exported(form="merged", rank=None), results(""))
    assert "library_name: transformers" in merged and "vllm serve THIS_FOLDER" in merged
    assert "not with the merged weights" in merged
    private = render_card(exported(base="/home/me/base", is_public=False), Results("m"))
    assert "/home/me" not in private and "base_model:" not in private and "THE_BASE_MODEL" in private


def test_the_head_of_a_card_is_yaml() -> None:
    import yaml

    head = render_card(exported(base='org/"odd'), Results("m")).split("---")[1]
    assert yaml.safe_load(head) == {"base_model": 'org/"odd', "library_name": "peft", "tags": ["distillbench"]}
