"""`distillbench eval`: what it decides, the matrix it leaves, what it refuses, and that it is quick."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from core_bench import Control, Heard, Toys

from distillbench.catalog import Catalog
from distillbench.manager import make_manager
from distillbench.preflight.look import PreflightError
from distillbench.protocols import Renderer
from distillbench.run.runner import Runner
from distillbench.session.running import looking_beside

Cli = Callable[..., Any]
ML = ["--benchmarks", "toy"]


@pytest.fixture(autouse=True)
def _with_toys(toys: Path) -> None:
    """The toy plugin is installed in every test of this module."""


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """The small files of a model: `model(template="...", think=True, dtype="bfloat16")`."""

    def make(
        name: str = "my model",
        template: str | None = None,
        think: bool = False,
        tokens: Sequence[str] = (),
        **config: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        added = [{"content": token} for token in (["<think>"] if think else tokens)]
        (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
        if template is not None:
            (folder / "chat_template.jinja").write_text(template)
        return folder

    return make


def adapter(folder: Path, content: str = "weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    (folder / "adapter_model.safetensors").write_text(content)
    return folder


def official(name: str) -> str:
    """A chat template as TRL has it."""
    return (files("trl") / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


# ---------------------------------------------------------------- what is decided


@pytest.mark.parametrize(
    ("name", "renderer"),
    [
        ("qwen3", "qwen3"),
        ("qwen3_instruct_2507", "qwen3-instruct-2507"),
        ("qwen3_5_think", "qwen3.5"),
        ("llama3_1", "llama3"),
        ("llama3_2", "llama3"),
        ("deepseek_r1_distill", "r1-distill"),
    ],
)
def test_an_official_chat_template_names_the_renderer(
    cli: Cli, model: Callable[..., Path], name: str, renderer: str
) -> None:
    done = cli("eval", "--model", model(template=official(name) + "\n"), *ML, "--dry-run", "--json")
    assert done.code == 0 and f"renderer    {renderer} (the model has its chat template)" in done.err
    assert [cell["name"] for cell in done.json["cells"]] == ["base-my-model"]


def test_no_two_renderers_claim_a_template() -> None:
    claims = [digest for cls in Catalog(make_manager()).kind("renderer").values() for digest in cls.templates]  # type: ignore[attr-defined]
    assert len(claims) == len(set(claims)) and Renderer.templates == frozenset()


@pytest.mark.parametrize(
    ("about", "renderers"),
    [
        ({}, {"plain": {}}),
        ({"template": "{{ messages }}", "think": True}, {"chat-template": {}}),
        ({"template": "{{ messages }}"}, {"chat-template": {"reasoning": "text"}}),
        ({"template": "[THINK]{{ messages }}", "tokens": ["[THINK]", "[/THINK]"]}, {"chat-template": {}}),
        ({"template": "[THINK]{{ messages }}", "think": True}, {"chat-template": {"reasoning": "text"}}),
        ({"template": "<|channel|>analysis<|message|>", "tokens": ["<|channel|>"]}, {"chat-template": {}}),
        ({"template": "{{ messages }}", "tokens": ["<seed:think>", "</seed:think>"]}, {"chat-template": {}}),
    ],
)
def test_any_other_model_gets_a_renderer_too(
    bench: Toys, cli: Cli, model: Callable[..., Path], about: dict[str, Any], renderers: dict[str, Any]
) -> None:
    from distillbench.cli.eval import Asked, decide

    asked = Asked(str(model(**about)), (), ("toy",), None, None, None, None, (), {}, {})
    assert decide(bench.session, asked).matrix["renderers"] == renderers


def test_a_template_in_the_tokenizers_configuration_counts(cli: Cli, model: Callable[..., Path]) -> None:
    folder = model()
    for found in (
        official("qwen3"),
        [{"name": "tools", "template": ""}, {"name": "default", "template": official("qwen3")}],
    ):
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": found}))
        assert "renderer    qwen3 (" in cli("eval", "--model", folder, *ML, "--dry-run").err


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ({"torch_dtype": "bfloat16"}, "bfloat16"),
        ({"dtype": "float16"}, "float16"),
        ({"text_config": {"dtype": "bfloat16"}}, "bfloat16"),
        ({"dtype": "float8_e4m3fn"}, "float32"),
        ({}, "float32"),
    ],
)
def test_the_number_format_is_the_models(
    cli: Cli, model: Callable[..., Path], config: dict[str, Any], dtype: str
) -> None:
    folder = model(**config)
    assert f"model       {folder}, {dtype}, on " in cli("eval", "--model", folder, *ML, "--dry-run").err
    assert ", float16, on " in cli("eval", "--model", folder, *ML, "--dry-run", "--dtype", "float16").err


def test_the_engine_is_vllm_where_that_is_installed(
    cli: Cli, model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import distillbench_plugins.engines.vllm as module

    folder = model()
    monkeypatch.setattr(module, "_DISTRIBUTIONS", ("pyyaml",))
    assert "engine      vllm (pyyaml is installed)" in cli("eval", "--model", folder, *ML, "--dry-run").err
    monkeypatch.setattr(module, "_DISTRIBUTIONS", ("no-such-distribution",))
    assert "transformers (vllm is not installed)" in cli("eval", "--model", folder, *ML, "--dry-run").err
    assert "engine      toy-engine\n" in cli("eval", "--model", folder, *ML, "--dry-run", "--engine", "toy-engine").err


def test_a_model_at_a_server_needs_no_files(cli: Cli) -> None:
    given = ["--model", "some/model-2026", "--engine", "api", "--set", "engine.base_url=http://127.0.0.1:9/v1"]
    done = cli("eval", *given, *ML, "--dry-run", "--json")
    assert done.code == 0 and "model       some/model-2026, at a server" in done.err
    assert done.json["cells"][0]["axes"]["engine.base_url"] == "http://127.0.0.1:9/v1"


# ---------------------------------------------------------------- the matrix that it leaves


def test_the_matrix_is_kept_and_read_again(cli: Cli, model: Callable[..., Path], tmp_path: Path, bench: Toys) -> None:
    from distillbench.cli.eval import Asked, prepare

    adapter(tmp_path / "a" / "run" / "checkpoint-20")
    adapter(tmp_path / "a" / "run" / "checkpoint-100")
    adapter(tmp_path / "b" / "run")
    adapter(tmp_path / "b" / "final~v2", "other")
    folders = tuple(tmp_path / name for name in ("a/run", "b/run", "b/final~v2"))
    asked = Asked(
        model=str(model()),
        adapters=folders,
        benchmarks=("toy",),
        renderer="toy-renderer",
        engine="toy-engine",
        dtype=None,
        name=None,
        task_paths=(),
        evaluation={"max_tokens": 7, "limit": 3, "subset": "first"},
        axes={"engine.words": ["yes: "]},
    )
    loaded, decided = prepare(bench.session, asked)
    assert [cell.name for cell in loaded.cells] == ["a-run", "b-run", "final-v2", "base-my-model"]
    assert decided.lines["checkpoints"] == "a-run (step 20, 100); b-run (step 0); final-v2 (step 0)"
    assert loaded.cells[0].evaluations[0].sampling.max_tokens == 7 and loaded.cells[0].evaluations[0].limit == 3
    assert loaded.cells[0].engine.options.words == "yes: "
    again = bench.session.load(loaded.matrix.path)
    assert again.cells == loaded.cells and loaded.matrix.path.name == "matrix.yaml"
    assert prepare(bench.session, asked)[0].matrix.name == loaded.matrix.name, "the same command has the same report"
    other = prepare(bench.session, replace(asked, axes={}))
    assert other[0].matrix.name != loaded.matrix.name, "another question has a report of its own"


def test_a_report_of_a_matrix_is_not_written_over(
    cli: Cli, model: Callable[..., Path], matrix: Callable[..., Path], tmp_path: Path
) -> None:
    assert cli("report", matrix()).code == 0
    done = cli("eval", "--model", model(), *ML, "--name", "toys")
    assert done.code == 2 and "is the report of another matrix" in done.err
    assert not (tmp_path / "store" / "reports" / "toys" / "matrix.yaml").exists()


def test_benchmarks_may_be_named_in_two_ways(cli: Cli, model: Callable[..., Path]) -> None:
    given = ["--benchmarks", "toy,digits", "--benchmarks", "coins", "--benchmarks", "toy"]
    done = cli("eval", "--model", model(), *given, "--dry-run", "--json")
    assert done.code == 0 and "asked of    toy, digits, coins" in done.err


@pytest.mark.parametrize(
    "given", [["--temperature", "nan"], ["--top-p", "inf"], ["--set", "evaluation.min_p=.nan"]], ids=lambda one: one[0]
)
def test_numbers_that_are_none_are_refused(cli: Cli, model: Callable[..., Path], given: list[str]) -> None:
    done = cli("eval", "--model", model(), *ML, *given)
    assert done.code == 2 and "wanted a finite number" in done.err


@pytest.mark.parametrize(("name", "is_told"), [("base", False), ("Base", False), ("base-instruct", True)])
def test_an_adapter_of_another_model_is_told(
    cli: Cli, model: Callable[..., Path], tmp_path: Path, name: str, is_told: bool
) -> None:
    """By its own account; weights of Base and of Instruct have the same shapes."""
    path = adapter(tmp_path / "runs" / "step-1").parent
    done = cli("eval", "--model", model(name), "--adapters", path, *ML, "--dry-run")
    assert done.code == 0
    assert (f"note        by their own account: {path / 'step-1'} was trained on org/base" in done.err) == is_told


def test_a_dry_run_leaves_nothing(cli: Cli, model: Callable[..., Path], tmp_path: Path) -> None:
    done = cli("eval", "--model", model(), *ML, "--fast", "--dry-run")
    assert done.code == 0 and "1 cells" in done.out and not (tmp_path / "store").exists()


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "no/such-model", *ML], ["--model no/such-model", "no such folder, and of that id"]),
        (["--model", "empty", *ML], ["--model empty", "a folder without config.json"]),
        (["--model", "lora", *ML], ["got:    an adapter", "--model org/base --adapters lora"]),
        (["--model", "m"], ["Missing option '--benchmarks'"]),
        (["--model", "m", "--benchmarks", ","], ["wanted names of tasks, got none"]),
        (["--model", "m", "--benchmarks", "toi"], ["--benchmarks: toi", "did you mean 'toy'?"]),
        (["--model", "m", *ML, "--adapters", "gone"], ["--adapters: gone", "No such file"]),
        (["--model", "m", *ML, "--adapters", "empty"], ["--adapters: empty", "holds no checkpoint"]),
        (["--model", "m", *ML, "--adapters", "lora", "--adapters", "x/lora"], ["--adapters", "named 'x-lora'"]),
        (["--model", "m", *ML, "--task-path", "gone"], ["--task-path", "which is no folder"]),
        (["--model", "m", *ML, "--limit", "3", "--fast"], ["--limit and --fast exclude each other"]),
        (
            ["--model", "m", *ML, "--limit", "3", "--set", "evaluation.limit=7"],
            ["--set evaluation.limit and --limit or --fast exclude each other"],
        ),
        (["--model", "m", *ML, "--dtype", "int4"], ["--model: m.dtype", "one of: bfloat16, float16, float32"]),
        (["--model", "m", *ML, "--renderer", "qwen4"], ["--renderer: qwen4", "did you mean 'qwen3'?"]),
        (["--model", "m", *ML, "--engine", "vlm"], ["--engine: vlm", "a registered engine"]),
        (["--model", "m", *ML, "--temperature", "-1"], ["--temperature", "a number >= 0"]),
        (["--model", "m", *ML, "--prefill", "yes"], ["--prefill", "one of: auto, none, think"]),
        (["--model", "m", *ML, "--set", "engine"], ["--set: wanted KEY=VALUE"]),
        (["--model", "m", *ML, "--set", "engine.batchsize=1"], ["--set: engine.batchsize", "batch_size"]),
        (["--model", "m", *ML, "--set", "engine.x=[1"], ["--set engine.x: wanted a value as YAML has it"]),
        (["--model", "m", *ML, "--name", "a/b"], ["--name", "at most 100 letters"]),
    ],
)
def test_mistakes_are_told_in_the_words_of_the_options(
    cli: Cli,
    model: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: list[str],
) -> None:
    import distillbench_plugins.engines.vllm as module

    monkeypatch.setattr(module, "_DISTRIBUTIONS", ())
    monkeypatch.chdir(tmp_path)
    model("m")
    (tmp_path / "empty").mkdir()
    for name in ("lora", "x/lora"):
        adapter(tmp_path / name)
    adapter(tmp_path / "y" / "x-lora")
    if "x/lora" in arguments:
        arguments = [*arguments, "--adapters", "y/x-lora"]
    done = cli("eval", *arguments)
    assert done.code == 2 and done.out == "" and "Traceback" not in done.err
    assert all(words in done.err for words in said), done.err
    assert not (tmp_path / "store").exists(), "what is wrong leaves no trace"


def test_a_file_that_cannot_be_had_is_not_taken_for_one_that_is_not_there(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    def download(model: str, name: str, revision: str | None) -> str:
        if name == "config.json":
            (tmp_path / name).write_text("{}")
            return str(tmp_path / name)
        raise OSError("503: the Hub is down")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    done = cli("eval", "--model", "org/model", *ML, "--dry-run")
    assert done.code == 2 and "503: the Hub is down" in done.err and "plain" not in done.err


def test_what_the_preflight_refuses_ends_a_run_that_has_begun(bench: Toys, control: Control) -> None:
    control.set("sleep-sample", "120")
    loaded = bench.load({"trainers": {}, "teachers": {}, "evaluations": {"toy": {"grader": "judge"}}})
    session, plan = bench.session, loaded.plan()
    launcher = session.catalog.build(loaded.matrix.launcher)
    runner = Runner(loaded.make_plan, session.store, launcher, Heard(), tasks=loaded.tasks)
    with (
        pytest.raises(PreflightError, match=r"(?s)the run was stopped.*no judge model is named"),
        looking_beside(loaded, plan, runner.stop, lambda found: None),
    ):
        runner.run(plan)
    assert control.log("asked") == []
    control.unset("sleep-sample")
    assert not any(session.store.is_locked(key) for key in plan.stages), "every worker has ended"


@pytest.mark.slow
def test_checkpoints_that_vanish_block_what_needs_them_alone(bench: Toys, control: Control, tmp_path: Path) -> None:
    trainers = {"fit": {"use": "existing", "path": str(adapter(tmp_path / "mine"))}}
    loaded = bench.load({"trainers": trainers})
    session, plan = bench.session, loaded.plan()
    (tmp_path / "mine" / "adapter_model.safetensors").unlink()
    launcher = session.catalog.build(loaded.matrix.launcher)
    runner = Runner(loaded.make_plan, session.store, launcher, Heard(), tasks=loaded.tasks)
    summary = runner.run(plan)
    ended = {(stage.kind, stage.label.partition("@")[0]): summary.endings[key] for key, stage in plan.stages.items()}
    assert ended["train", "fit"] == "failed" and ended["sample", "fit"] == ended["grade", "fit"] == "blocked"
    assert ended["sample", "base-small"] == ended["grade", "base-small"] == "done"
    assert any("have changed since the matrix was read" in why for why in summary.reasons.values())


@pytest.mark.slow
def test_a_run_deletes_no_full_checkpoint_that_was_there(bench: Toys, control: Control, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "step-3"
    mine.mkdir(parents=True)
    (mine / "config.json").write_text("{}")
    (mine / "model.safetensors").write_text("mine")
    summary = bench.run({"trainers": {"fit": {"use": "existing", "path": str(mine.parent)}}})
    assert set(summary.endings.values()) == {"done"} and summary.freed_bytes == 0
    train = next(stage for stage in summary.plan.stages.values() if stage.kind == "train")
    assert bench.session.store.facts(train)["checkpoints"][0]["kind"] == "full"  # type: ignore[index]
    assert (bench.session.store.folder(train) / "step-3" / "model.safetensors").read_text() == "mine"
    assert (mine / "model.safetensors").read_text() == "mine"
    assert len(control.log("sessions")) == 1, "what costs nothing runs in the process that samples"


# ---------------------------------------------------------------- speed


def test_nothing_heavy_is_imported_before_the_run(
    run_python: Callable[..., Any], toy_site: Path, model: Callable[..., Path]
) -> None:
    code = """
import sys
from distillbench.cli.main import invoke
code = invoke(sys.argv[1:])
print("imported:", code, *{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""
    folder = model(template=official("qwen3"))
    done = run_python("-c", code, "eval", "--model", str(folder), *ML, "--dry-run", path=toy_site, cwd=folder.parent)
    _, found, *modules = done.err.splitlines()[-1].split()
    assert found == "0" and {"torch", "transformers", "peft", "lm_eval", "vllm", "datasets"}.isdisjoint(modules)


def test_the_digest_of_a_template_is_of_its_text_alone(model: Callable[..., Path]) -> None:
    from distillbench.matrix.model_files import read_model

    text = official("qwen3").strip()
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert read_model(str(model(template=f"\n{text}\n\n"))).template_digest == digest
