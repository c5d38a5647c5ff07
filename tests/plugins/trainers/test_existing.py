"""The `existing` trainer: which folders are checkpoints and of which step, links, the key, and who pairs with whom."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plugin_helpers import Run, Tiny

from distillbench.catalog import Catalog
from distillbench.errors import MatrixError, StageError
from distillbench.manager import make_manager
from distillbench.matrix.resolve import Matrix, load_matrix
from distillbench.plan.plan import Plan
from distillbench.protocols import Context, ListedRows, TrainingJob
from distillbench.records import Checkpoint
from distillbench.stages.planner import build_plan
from distillbench_plugins.renderers.plain import PlainOptions, PlainRenderer
from distillbench_plugins.students.hf import HfOptions, HfStudent
from distillbench_plugins.trainers.existing import ExistingOptions, ExistingTrainer

MATRIX: dict[str, Any] = {
    "students": {"small": {"use": "tiny-qwen3"}},
    "trainers": {"mine": {"use": "existing", "path": "run"}},
    "evaluations": {"coins": {}},
}


def adapter(folder: Path, content: str = "weights", step: int | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_text(content)
    (folder / "optimizer.pt").write_text("large")
    if step is not None:
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return folder


def full(folder: Path, content: str = "weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model-00001-of-00002.safetensors").write_text(content)
    (folder / "model-00002-of-00002.safetensors").write_text(content)
    (folder / "model.safetensors.index.json").write_text("{}")
    return folder


def trainer(path: Path, steps: tuple[int, ...] | None = None) -> ExistingTrainer:
    return ExistingTrainer(ExistingOptions(path, steps))


def steps_of(path: Path) -> tuple[int, ...]:
    return trainer(path).checkpoint_steps(None)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog(make_manager())


@pytest.fixture
def load(tmp_path: Path, catalog: Catalog, write_matrix: Callable[..., Path]) -> Callable[..., Matrix]:
    """Reads a matrix of some sections; `run` beside it holds two adapters."""

    def read(**sections: Any) -> Matrix:
        return load_matrix(write_matrix(MATRIX | sections, "m.yaml"), catalog)

    adapter(tmp_path / "run" / "checkpoint-20", "twenty")
    adapter(tmp_path / "run" / "checkpoint-100", "hundred")
    return read


def plan_of(matrix: Matrix, catalog: Catalog) -> Plan:
    return build_plan(matrix.name, matrix.cells, catalog, matrix.tasks, lambda key: None)


# ---------------------------------------------------------------- folders and steps


def test_subfolders_are_steps_in_their_natural_order(tmp_path: Path) -> None:
    for name in ("checkpoint-100", "checkpoint-20", "step-3"):
        adapter(tmp_path / name)
    (tmp_path / "logs").mkdir()
    (tmp_path / ".step-7").mkdir()
    assert steps_of(tmp_path) == (3, 20, 100)
    assert trainer(tmp_path, (100, 3)).checkpoint_steps(None) == (3, 100)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step-100-loss0.41", 100),
        ("step-300-loss0.29", 300),
        ("checkpoint-50-r8", 50),
        ("checkpoint-1000-v2", 1000),
        ("global_step_20", 20),
        ("GlobalStep20", 20),
        ("iter_0000500", 500),
        ("epoch=1-step=300", 300),
        ("v2.1-r16_step_7", 7),
        ("lr2e-4-checkpoint-40", 40),
        ("checkpoint-40-step-40", 40),
        ("step-0", 0),
        ("epoch_2", None),
        ("best_model", None),
        ("run-5", None),
        ("stepsize-5", None),
        ("footstep5", None),
        ("500steps", None),
        ("step-3k", None),
        ("step-1e3", None),
        ("step-1.5", None),
        ("step_1_000", None),
        ("step-1,000", None),
        ("step-100of500", None),
        ("max_steps_1000-checkpoint-50", None),
        ("checkpoint-2-step-500", None),
        ("checkpoint-" + "9" * 19, None),
    ],
)
def test_the_step_in_a_name_is_what_follows_its_word(name: str, step: int | None, tmp_path: Path) -> None:
    """In a run of several and in one of a single checkpoint; a state says it for every name."""
    adapter(tmp_path / "single" / name)
    adapter(tmp_path / "several" / name)
    adapter(tmp_path / "several" / "step-77")
    adapter(tmp_path / "stated" / name, step=66)
    assert steps_of(tmp_path / "stated") == (66,)
    if step is None:
        for run in ("single", "several"):
            with pytest.raises(ValueError, match=r"says (no step|several steps)"):
                trainer(tmp_path / run)
    else:
        assert steps_of(tmp_path / "single") == (step,)
        assert steps_of(tmp_path / "several") == tuple(sorted((step, 77)))


@pytest.mark.parametrize("inside", ["adapter", "actor/huggingface", "actor/huggingface/merged", "hf-r16"])
def test_a_checkpoint_may_lie_deeper_than_its_step(inside: str, tmp_path: Path) -> None:
    for step in (20, 100):
        adapter(tmp_path / f"global_step_{step}" / inside, f"weights {step}")
    (tmp_path / "global_step_20" / "data").mkdir()
    assert steps_of(tmp_path) == (20, 100)
    assert [file.parent for file in trainer(tmp_path, (20,)).inputs()] == [tmp_path / "global_step_20" / inside] * 2
    assert steps_of(tmp_path / "global_step_20") == (20,), "the folder of one step may be named itself"


def test_a_folder_of_folders_of_checkpoints(tmp_path: Path) -> None:
    adapter(tmp_path / "checkpoints" / "checkpoint-5")
    full(tmp_path / "checkpoints" / "checkpoint-9" / "model")
    assert steps_of(tmp_path) == (5, 9)


def test_a_state_may_lie_above_the_weights(tmp_path: Path) -> None:
    adapter(tmp_path / "last" / "adapter")
    (tmp_path / "last" / "trainer_state.json").write_text('{"global_step": 31}')
    assert steps_of(tmp_path) == (31,)


def test_a_link_to_a_checkpoint_is_no_other_one(tmp_path: Path) -> None:
    adapter(tmp_path / "step-9", step=9)
    (tmp_path / "latest").symlink_to(tmp_path / "step-9")
    assert steps_of(tmp_path) == (9,)
    assert trainer(tmp_path).inputs()[0].parent == tmp_path / "step-9"


def two_models_of_a_step(run: Path) -> None:
    full(run / "global_step_20" / "actor" / "huggingface")
    full(run / "global_step_20" / "critic" / "huggingface")


def shards_of_a_step(run: Path) -> None:
    adapter(run / "global_step_10" / "actor")
    actor = run / "global_step_20" / "actor"
    (actor / "huggingface").mkdir(parents=True)
    (actor / "huggingface" / "config.json").write_text("{}")
    (actor / "model_world_size_2_rank_0.pt").write_text("shard")


def a_step_that_was_cut(run: Path) -> None:
    adapter(run / "checkpoint-5")
    (run / "checkpoint-10").mkdir()
    (run / "checkpoint-10" / "optimizer.pt").write_text("large")


def only_shards(run: Path) -> None:
    (run / "global_step_20" / "actor").mkdir(parents=True)
    (run / "global_step_20" / "actor" / "model_rank_0.pt").write_text("shard")


def a_state_of_another_type(run: Path) -> None:
    (adapter(run / "step-5") / "trainer_state.json").write_text('{"global_step": true}')


def test_a_trainer_state_outweighs_the_name(tmp_path: Path) -> None:
    adapter(tmp_path / "lora-r16-best", step=40)
    adapter(tmp_path / "lora-r16-last", step=60)
    assert steps_of(tmp_path) == (40, 60)


@pytest.mark.parametrize(
    ("name", "step"), [("final", 0), ("qwen3-lora-r16", 0), ("checkpoint-250", 250), ("step_7", 7), ("ckpt12", 12)]
)
def test_one_checkpoint_by_itself(tmp_path: Path, name: str, step: int) -> None:
    assert steps_of(adapter(tmp_path / name)) == (step,)
    assert steps_of(full(tmp_path / "full" / name)) == (step,)


def test_weights_beside_checkpoints_are_the_last_one_again(tmp_path: Path) -> None:
    run = adapter(tmp_path / "run")
    adapter(run / "checkpoint-8")
    assert steps_of(run) == (8,)


def two_of_a_step(run: Path) -> None:
    adapter(run / "step-5")
    adapter(run / "other-checkpoint-5")


def one_without_a_step(run: Path) -> None:
    adapter(run / "step-5")
    adapter(run / "last")


def another_format(run: Path) -> None:
    (adapter(run) / "adapter_model.safetensors").rename(run / "adapter_model.bin")


def one_of_another_format(run: Path) -> None:
    adapter(run / "step-5")
    another_format(run / "step-9")


def a_state_without_a_step(run: Path) -> None:
    (adapter(run / "step-5") / "trainer_state.json").write_text("{}")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (two_of_a_step, ["other-checkpoint-5", "step-5", "both of step 5"]),
        (one_without_a_step, ["last says no step", "rename it (step-100)"]),
        (another_format, ["holds no checkpoint", "adapter_model.bin is another format"]),
        (one_of_another_format, ["step-9 holds weights that are not read", "save it as safetensors", "left out"]),
        (a_state_without_a_step, ["names no `global_step`"]),
        (a_state_of_another_type, ["names no `global_step` (it says True)"]),
        (two_models_of_a_step, ["actor/huggingface", "critic/huggingface", "both of step 20"]),
        (shards_of_a_step, ["global_step_20", "safetensors", "left out"]),
        (a_step_that_was_cut, ["checkpoint-10", "optimizer.pt is another format", "left out"]),
        (only_shards, ["holds no checkpoint", "global_step_20/actor/model_rank_0.pt is another format"]),
        (lambda run: (run / "logs").mkdir(parents=True), ["holds no checkpoint", "*.safetensors"]),
        (lambda run: run.write_text("a file"), ["wanted a folder, got the file"]),
    ],
)
def test_a_folder_that_is_not_clear_is_refused(tmp_path: Path, make: Callable[[Path], Any], said: list[str]) -> None:
    make(tmp_path / "run")
    with pytest.raises(ValueError, match="path: ") as caught:
        ExistingOptions(tmp_path / "run")
    assert all(words in str(caught.value) for words in said)


def test_a_step_that_is_not_there_is_refused(tmp_path: Path) -> None:
    adapter(tmp_path / "step-5")
    with pytest.raises(ValueError, match=r"has checkpoints at steps \[5\], none at \[6\]"):
        ExistingOptions(tmp_path, (5, 6))


# ---------------------------------------------------------------- links


def test_training_leaves_links_and_takes_nothing_of_the_users(tmp_path: Path) -> None:
    mine, output = tmp_path / "mine", tmp_path / "output"
    adapter(mine / "step-2", "two")
    full(mine / "step-10", "ten")
    output.mkdir()
    before = {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()}
    job = TrainingJob(HfStudent(HfOptions("m")), None, PlainRenderer(PlainOptions()), ListedRows(), output)
    for _ in range(2):  # a kill may have left links
        found = trainer(mine).train(job, Context(work=output))
    assert [(one.path, one.kind, one.step) for one in found] == [
        (output / "step-2", "adapter", 2),
        (output / "step-10", "full", 10),
    ]
    assert not (output / "step-2").is_symlink() and (output / "step-2" / "adapter_model.safetensors").is_symlink()
    assert (output / "step-2" / "adapter_model.safetensors").read_text() == "two"
    assert not (output / "step-2" / "optimizer.pt").exists()
    assert {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()} == before


# ---------------------------------------------------------------- the key


def test_content_and_steps_are_the_key_and_places_are_not(load: Callable[..., Matrix], tmp_path: Path) -> None:
    def identity(path: str) -> str:
        cell = load(trainers={"mine": {"use": "existing", "path": path}}).cells[0]
        assert cell.trainer is not None
        return cell.trainer.identity

    first = identity("run")
    (tmp_path / "run" / "checkpoint-20" / "optimizer.pt").write_text("changed")
    (tmp_path / "run" / "checkpoint-20" / "trainer_state.json").write_text('{"global_step": 20, "loss": 1}')
    (tmp_path / "run").rename(tmp_path / "moved")
    assert identity("moved") == first
    (tmp_path / "moved" / "checkpoint-20" / "adapter_model.safetensors").write_text("changed")
    changed = identity("moved")
    (tmp_path / "moved" / "checkpoint-20" / "trainer_state.json").unlink()
    (tmp_path / "moved" / "checkpoint-20").rename(tmp_path / "moved" / "checkpoint-30")
    assert len({first, changed, identity("moved")}) == 3


# ---------------------------------------------------------------- in a matrix


def test_a_cell_has_no_teacher_and_its_baseline_is_added(load: Callable[..., Matrix], catalog: Catalog) -> None:
    matrix = load()
    cell, base = matrix.cells
    assert (cell.name, cell.teacher, cell.filters, cell.is_baseline) == ("mine", None, (), False)
    assert base.is_baseline and base.setup == cell.setup
    plan = plan_of(matrix, catalog)
    kinds = [plan.stages[key].kind for key in plan.cell_stages["mine"]]
    assert kinds == ["student", "train", "sample", "grade", "sample", "grade"] and not plan.open_cells
    assert [one.step for one in plan.graded["mine"]] == [20, 100]
    train, *samples = (one for one in plan.stages.values() if one.kind in ("train", "sample"))
    assert {one.process for one in samples} == {train.process}  # one process, one loaded student
    assert plan.pairings["mine"] == plan.pairings[base.name]


def test_beside_cells_that_are_trained(load: Callable[..., Matrix], catalog: Catalog) -> None:
    matrix = load(
        teachers={"one": {"use": "synthetic"}, "two": {"use": "synthetic", "n": 5}},
        filters={"right": {"use": "correct_only"}},
        trainers=MATRIX["trainers"] | {"fit": {"use": "sft", "max_steps": 2}},
        matrix={"trainer": "fit", "seed": [0, 1], "include": [{"trainer": "mine"}]},
    )
    found = {cell.name: cell for cell in matrix.cells}
    assert list(found) == ["one,seed=0", "one,seed=1", "two,seed=0", "two,seed=1", "mine", "base-small"]
    assert found["mine"].teacher is None and found["mine"].filters == () and found["two,seed=1"].seed == 1
    plan = plan_of(matrix, catalog)
    assert {plan.stages[key].kind for key in plan.cell_stages["mine"]} == {"student", "train", "sample", "grade"}


def test_teachers_that_nothing_uses_make_no_cell(load: Callable[..., Matrix]) -> None:
    matrix = load(teachers={"one": {"use": "synthetic"}})
    assert [cell.name for cell in matrix.cells] == ["mine", "base-small"]


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"teachers": {"one": {"use": "synthetic"}}, "matrix": {"teacher": "one"}},
            ["neither teacher nor filters beside trainer 'mine'", "with `teacher`", "include: [{trainer: mine}]"],
        ),
        ({"matrix": {"filters": [["correct_only"]]}}, ["beside trainer 'mine'", "with `filters`"]),
        (
            {"trainers": MATRIX["trainers"] | {"fit": {"use": "sft"}}},
            ["at least one teacher", "only mine needs no traces"],
        ),
        ({"matrix": {"seed": [0, 1]}}, ["duplicate cells"]),
        ({"trainers": {"mine": {"use": "existing", "path": "gone"}}}, ["trainers.mine.path", "gone: No such file"]),
        ({"trainers": {"mine": {"use": "existing", "path": "m.yaml"}}}, ["trainers.mine", "wanted a folder"]),
    ],
)
def test_what_does_not_go_together_is_refused(
    load: Callable[..., Matrix], sections: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(MatrixError) as caught:
        load(**sections)
    assert all(words in str(caught.value) for words in said), str(caught.value)


def test_the_store_never_frees_what_is_linked(tmp_path: Path, load: Callable[..., Matrix], catalog: Catalog) -> None:
    from distillbench.store.store import Made, Store, tree_bytes

    stage = next(one for one in plan_of(load(), catalog).stages.values() if one.kind == "train")
    store = Store(tmp_path / "store")
    job = TrainingJob(HfStudent(HfOptions("m")), None, PlainRenderer(PlainOptions()), ListedRows(), store.work(stage))
    trainer(tmp_path / "run").train(job, Context(work=store.scratch(stage)))
    store.finish(stage, Made(("step-20/adapter_model.safetensors",), {"checkpoints": []}), 1.0, {})
    linked = store.folder(stage) / "step-20" / "adapter_model.safetensors"
    assert linked.readlink() == tmp_path / "run" / "checkpoint-20" / "adapter_model.safetensors"
    assert store.free(stage, ["step-20"]) == 0 and linked.read_text() == "twenty"
    (tmp_path / "run" / "checkpoint-20" / "adapter_model.safetensors").write_text("x" * 100_000)
    assert tree_bytes(store.folder(stage) / "step-20") < 1000


# ---------------------------------------------------------------- with a real model


def prompt_logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model.eval()(input_ids=torch.arange(5, 25)[None]).logits


@pytest.mark.slow
def test_checkpoints_are_evaluated_and_given_away(
    cli: Callable[..., Any], tiny: Tiny, lora: Run, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    mine = tmp_path / "mine"
    for one in lora.checkpoints[-2:]:
        shutil.copytree(one.path, mine / f"checkpoint-{one.step}")
    asked = ("eval", "--model", tiny.built, "--adapters", mine, "--benchmarks", "coins,digits", "--limit", "3")
    done = cli(*asked, "--engine", "transformers", "--max-tokens", "24", "--json")
    assert done.code == 0, done.err
    last = lora.checkpoints[-1].step
    assert {(row["cell"], row["step"], row["evaluation"], row["n"], row["subset"]) for row in done.json["rows"]} == {
        (cell, step, task, 3, "first 3 problems")
        for cell, step in (("mine", lora.checkpoints[-2].step), ("mine", last), ("base-tiny-student", 0))
        for task in ("coins", "digits")
    }
    [matrix] = (tmp_path / "store" / "reports").glob("*/matrix.yaml")
    again = cli("run", matrix)
    assert again.code == 0 and "stages: 13 reused" in again.out, "`run` goes on from the matrix that `eval` left"

    assert cli("export", matrix, f"mine@{last}", "--to", tmp_path / "adapter").code == 0
    assert cli("export", matrix, f"mine@{last}", "--to", tmp_path / "merged", "--merge").code == 0
    base = AutoModelForCausalLM.from_pretrained(tiny.built, dtype=torch.float32)
    untouched = prompt_logits(base)
    beside = prompt_logits(PeftModel.from_pretrained(base, tmp_path / "adapter"))
    within = prompt_logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32))
    torch.testing.assert_close(within, beside, rtol=1e-4, atol=1e-4)
    assert (beside - untouched).abs().max() > 0.1
    assert AutoTokenizer.from_pretrained(tmp_path / "merged")("12 coins") == tiny.tokenizer("12 coins")
    assert "| coins | this one | 3 |" in (tmp_path / "merged" / "README.md").read_text()


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({}, ""),
        ({"added": "<reason>"}, "'<reason>'"),
        ({"added": "<pad>", "pad_token": "<pad>"}, ""),
        ({"moved": True}, "with tokens that the student's has not"),
    ],
    ids=["the student's own", "a token more", "a token to pad with", "other places"],
)
def test_a_checkpoint_with_other_tokens_is_refused_by_name(
    tiny: Tiny, lora: Run, tmp_path: Path, change: dict[str, Any], refused: str
) -> None:
    folder = tmp_path / "mine" / "step-7"
    shutil.copytree(lora.checkpoints[-1].path, folder)
    tiny.tokenizer.save_pretrained(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    if added := change.get("added"):
        template = content["added_tokens"][-1]
        content["added_tokens"].append(template | {"content": added, "id": len(tiny.tokenizer)})
    if change.get("moved"):
        vocabulary = content["model"]["vocab"]
        one, other = list(vocabulary)[-2:]
        vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    if padding := change.get("pad_token"):
        config = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": padding}))
    output = tmp_path / "out"
    output.mkdir()
    trainer = ExistingTrainer(ExistingOptions(path=folder.parent))
    job = TrainingJob(tiny.student, tiny.built, tiny.renderer, ListedRows(), output)
    if not refused:
        assert [one.step for one in trainer.train(job, Context(work=tmp_path))] == [7]
        return
    with pytest.raises(StageError) as caught:
        trainer.train(job, Context(work=tmp_path))
    assert refused in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.slow
def test_benchmarks_that_cannot_be_had_stop_no_other(cli: Callable[..., Any], tiny: Tiny, tmp_path: Path) -> None:
    """One has no data here and no Hub, one is not known: both are named at the start and at the end."""
    gone = tmp_path / "tasks"
    gone.mkdir()
    (gone / "gone.yaml").write_text(
        "task: gone\ndataset_path: nobody/has-this\ntest_split: test\noutput_type: generate_until\n"
        "doc_to_text: '{{question}}'\ndoc_to_target: '{{answer}}'\nmetric_list: [{metric: exact_match}]\n"
    )
    asked = ("eval", "--model", tiny.built, "--task-path", gone, "--limit", "3", "--engine", "transformers", "--json")
    done = cli(*asked, "--benchmarks", "gone,coins,no-such,digits", "--max-tokens", "24")
    assert done.code == 1
    assert {(row["evaluation"], row["n"]) for row in done.json["rows"]} == {("coins", 3), ("digits", 3)}
    assert done.err.count("not evaluated: no-such: no task is named 'no-such'") == 2
    assert "not evaluated: gone: " in done.err and "nobody/has-this" in done.err
    [report] = (tmp_path / "store" / "reports").glob("*/report.md")
    assert "on gone" in report.read_text(), "the report says that it is not there"


def test_a_full_checkpoint_is_given_away_with_the_students_tokenizer(tiny: Tiny, full: Run, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    checkpoint, folder = full.checkpoints[-1], tmp_path / "out"
    folder.mkdir()
    tiny.student.merge(tiny.built, checkpoint, folder)
    weights = (folder / "model.safetensors").read_bytes()
    assert weights == (checkpoint.path / "model.safetensors").read_bytes()
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected = tiny.student.load_model(tiny.built, "cpu", weights=checkpoint.path)
    assert torch.equal(prompt_logits(loaded), prompt_logits(expected))
    assert AutoTokenizer.from_pretrained(folder)("12 coins") == tiny.tokenizer("12 coins")


@pytest.mark.parametrize("spoil", ["prefix", "shape", "missing"])
def test_an_adapter_of_another_model_is_not_merged(tiny: Tiny, lora: Run, tmp_path: Path, spoil: str) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "adapter"
    shutil.copytree(lora.checkpoints[-1].path, folder)
    weights = load_file(folder / "adapter_model.safetensors")
    first = next(iter(weights))
    if spoil == "prefix":
        weights = {f"wrong.{name}": value for name, value in weights.items()}
    elif spoil == "shape":
        weights[first] = weights[first][:, :-1].contiguous()
    else:
        del weights[first]
    save_file(weights, folder / "adapter_model.safetensors")
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(StageError, match="would not be applied as it is"):
        tiny.student.merge(tiny.built, Checkpoint(folder, "adapter", 1, 1), target)
    assert not any(target.iterdir())
