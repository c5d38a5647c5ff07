"""Every YAML block is loaded: matrices by `load_matrix` and planned, tasks by lm-eval."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs_blocks import MATRIX, PART, ROOT, Block, all_blocks, module_from, write_page

from distillbench.catalog import Catalog
from distillbench.manager import make_manager, register
from distillbench.matrix.resolve import load_matrix
from distillbench.plan.stage import Stage
from distillbench.stages.planner import build_plan
from distillbench.tasks.data import DATA_ROOT
from distillbench.tasks.identity import GRADING_KEYS, SAMPLING_KEYS, TaskIndex
from distillbench.tasks.loader import LmEvalTasks

BLOCKS = all_blocks("yaml")
MATRICES = [block for block in BLOCKS if block.title in (MATRIX, PART)]
TASKS = [block for block in BLOCKS if block.title and block.title.startswith("my_tasks/")]


def told_rows(stage: Stage) -> dict[str, int]:
    """What a stage tells of its rows, for plans of trainings whose steps depend on it."""
    return {"rows": 100, "tokens": 0, "loss_tokens": 0}


def catalog_for(block: Block, folder: Path) -> Catalog:
    """The built-ins, and the plugin that the block's page writes."""
    manager = make_manager()
    for path in folder.glob("distillbench-*/distillbench_*.py"):
        register(manager, module_from(path, path.stem), path.stem)
    return Catalog(manager)


def test_every_yaml_block_says_what_it_is():
    assert len(MATRICES) >= 6
    assert len(TASKS) >= 2
    assert [str(block) for block in BLOCKS if block not in MATRICES + TASKS] == []


@pytest.mark.parametrize("block", MATRICES, ids=str)
def test_a_matrix_is_resolved_and_planned(block, tmp_path):
    write_page(block.page, tmp_path, until=block)
    catalog = catalog_for(block, tmp_path)
    matrix = load_matrix(tmp_path / MATRIX, catalog)
    plan = build_plan(
        matrix.name, matrix.cells, catalog, matrix.tasks, lambda one: {"rows": 100, "tokens": 0, "loss_tokens": 0}
    )
    assert any(cell.is_baseline for cell in plan.cells)
    assert {"sample", "grade"} <= {stage.kind for stage in plan.stages.values()}


@pytest.mark.parametrize("block", TASKS, ids=str)
def test_a_task_is_loaded_by_lm_eval_and_its_grader_accepts_the_gold_answers(block, tmp_path, monkeypatch):
    write_page(block.page, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    if (tmp_path / "copies").exists():
        monkeypatch.setenv(DATA_ROOT, str(tmp_path / "copies"))
    index = TaskIndex([tmp_path / "my_tasks"])
    name = next(line.removeprefix("task: ") for line in block.text.splitlines() if line.startswith("task: "))
    problems = LmEvalTasks(index).problems(name, "test")
    settings = index.find(name).settings
    assert len(problems) == settings["docs"]
    known = Catalog(make_manager()).kind("benchmark")[settings["grader"]]
    grader = known(known.Options(**settings.get("grader_options", {})))
    if grader.needs_task:
        grader = grader.with_task(LmEvalTasks(index).load(name))
    for problem in problems:
        right = problem.gold if settings["grader"] == "lm_eval" else f"So it is \\boxed{{{problem.gold}}}."
        assert grader.judge(problem, grader.extract(right, problem)).correct is True
        wrong = "99" if settings["grader"] == "lm_eval" else "\\boxed{99}"
        assert grader.judge(problem, grader.extract(wrong, problem)).correct is False


def test_what_only_grades_again_is_what_the_code_says():
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    section = text.split("## What samples again")[1]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = [{word.strip("` ") for word in row.split(", ") if word.startswith((" `", "`"))} for row in rows]
    assert named[0] == GRADING_KEYS
    assert named[1] == SAMPLING_KEYS


@pytest.mark.parametrize(
    "line",
    [
        "sums.yaml: doc_to_target: x{{answer}} -> sampled",
        "sums.yaml: process_results: !function other.score -> graded",
        "problems.py: VERSION = 2 -> sampled",
        "sums-v1.jsonl: {} -> sampled",
    ],
)
def test_the_table_of_what_runs_again_is_true(line, tmp_path):
    what, _, happens = line.partition(" -> ")
    name, _, added = what.partition(": ")
    write_page(ROOT / "docs" / "benchmarks.md", tmp_path)
    (tmp_path / "my_tasks/sums/other.py").write_text("def score(doc, results): ...\n")
    before = TaskIndex([tmp_path / "my_tasks"]).find("sums")
    path = tmp_path / "my_tasks/sums" / name
    kept = [one for one in path.read_text().splitlines() if not one.startswith("doc_to_target") or "doc" not in added]
    path.write_text("\n".join([*kept, added]) + "\n")
    after = TaskIndex([tmp_path / "my_tasks"]).find("sums")
    sampled = before.sample_identity != after.sample_identity
    graded = before.grade_identity != after.grade_identity
    assert (sampled, graded) == {"sampled": (True, True), "graded": (False, True), "nothing": (False, False)}[happens]


def test_the_include_and_exclude_of_the_page_make_the_cells_that_it_says(tmp_path):
    block = next(block for block in MATRICES if "extra-seed" in block.text)
    block.write(tmp_path)
    cells = {cell.name: cell for cell in load_matrix(tmp_path / MATRIX, Catalog(make_manager())).cells}
    trained = {name: cell.trainer.options.max_steps for name, cell in cells.items() if cell.trainer}
    assert sorted(trained.values()) == [80, 80, 80, 160]
    assert trained["concise,seed=0"] == trained["concise,seed=1"] == trained["extra-seed"] == 80


def test_an_axis_of_evaluations_trains_once(tmp_path):
    text = "matrix:\n  teacher: [concise]\n  evaluation.temperature: [0, 0.7]\n"
    Block(ROOT, 0, "yaml", PART, text).write(tmp_path)
    catalog = Catalog(make_manager())
    matrix = load_matrix(tmp_path / MATRIX, catalog)
    plan = build_plan(
        matrix.name, matrix.cells, catalog, matrix.tasks, lambda one: {"rows": 100, "tokens": 0, "loss_tokens": 0}
    )
    assert sum(not cell.is_baseline for cell in plan.cells) == 2
    assert sum(stage.kind == "train" for stage in plan.stages.values()) == 1


def test_a_local_file_that_the_yaml_names_samples_again_when_it_changes(tmp_path, monkeypatch):
    write_page(ROOT / "docs" / "benchmarks.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    before = TaskIndex([tmp_path / "my_tasks"]).find("sums_file")
    data = tmp_path / "my_tasks/sums/sums-v1.jsonl"
    data.write_text(data.read_text().replace("17", "18"))
    after = TaskIndex([tmp_path / "my_tasks"]).find("sums_file")
    assert before.sample_identity != after.sample_identity
