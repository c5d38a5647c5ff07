"""What `distillbench init` writes runs as it is, and its comments are right too."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from distillbench.catalog import Catalog
from distillbench.cli.main import invoke
from distillbench.manager import make_manager
from distillbench.matrix.resolve import load_matrix
from distillbench.plan.stage import Stage
from distillbench.stages.planner import build_plan

STARTER = (files("distillbench.cli") / "starter.yaml").read_text(encoding="utf-8")
#: Lines that are commented out and meant to be used.
OFFERS = re.findall(r"^ +# ((?:\w[\w.-]*: [{\[]).+)$", STARTER, re.MULTILINE)


def told_rows(stage: Stage) -> dict[str, int]:
    """What a stage tells of its rows, for plans of trainings whose steps depend on it."""
    return {"rows": 100, "tokens": 0, "loss_tokens": 0}


def cells_of(text: str, folder):
    path = folder / "matrix.yaml"
    path.write_text(text)
    catalog = Catalog(make_manager())
    matrix = load_matrix(path, catalog)
    plan = build_plan(
        matrix.name, matrix.cells, catalog, matrix.tasks, lambda one: {"rows": 100, "tokens": 0, "loss_tokens": 0}
    )
    return {cell.name: cell for cell in matrix.cells}, plan


def test_init_writes_a_matrix_that_plans(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert invoke(["init"]) == 0
    assert (tmp_path / "matrix.yaml").read_text() == STARTER
    assert invoke(["plan", "matrix.yaml"]) == 0
    assert "3 cells" in capsys.readouterr().out


def test_the_starter_trains_two_cells_and_has_one_baseline(tmp_path):
    cells, plan = cells_of(STARTER, tmp_path)
    assert list(cells) == ["concise", "verbose", "base-tiny"]
    assert sum(stage.kind == "train" for stage in plan.stages.values()) == 2
    assert sum(stage.kind == "grade" for stage in plan.stages.values()) == (2 * 4 + 1) * 2


@pytest.mark.parametrize("offer", OFFERS)
def test_a_line_that_is_commented_out_can_be_used(offer, tmp_path):
    _, plan = cells_of(STARTER.replace(f"# {offer}", offer), tmp_path)
    before = cells_of(STARTER, tmp_path)[1]
    assert len(plan.stages) > len(before.stages)


def test_the_offers_are_found():
    assert {offer.partition(":")[0] for offer in OFFERS} == {"mine", "coins-long", "trainer.learning_rate"}


def test_the_trainer_for_a_larger_model_has_valid_options(tmp_path):
    larger = re.search(r"^ +# (\{use: sft.+\})$", STARTER, re.MULTILINE)
    assert larger
    start = STARTER.index("  lora:\n")
    text = f"{STARTER[:start]}  lora: {larger[1]}\n\n{STARTER[STARTER.index('evaluations:') :]}"
    _, plan = cells_of(text, tmp_path)
    assert not plan.open_cells
