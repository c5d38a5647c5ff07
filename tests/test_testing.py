"""The fixtures that authors of plugins get, and that these tests use themselves."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distillbench.errors import DistillbenchError, MatrixError
from distillbench.hookspecs import hookimpl
from distillbench.preflight.look import PreflightError
from distillbench.protocols import Filter
from distillbench.session import Report
from distillbench.testing import TinyStudent

SMALL = """
    teachers: {concise: {use: synthetic, n: 8}}
    students: {tiny: {use: tiny-qwen3, steps: 2}}
    filters: {FILTER}
    trainers: {lora: {use: sft, max_steps: 2, batch_size: 2, holdout: 0}}
    evaluations: {coins: {limit: 2, max_tokens: 8}}
"""
PLAIN = SMALL.replace("FILTER", "fits: {use: max_tokens, limit: 256}")
WORDY = '''
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Filter, Trainer

class Wordy(Filter):
    """Rejects one trace."""
    name = "wordy"
    def decide(self, traces, context):
        yield from ("wordy: first" if number == 0 else None for number, _ in enumerate(traces))

class Broken(Trainer):
    """Raises."""
    name = "broken"
    def checkpoint_steps(self, counts):
        return (2,)
    def train(self, job, context):
        raise KeyError("no such thing")

@hookimpl
def distillbench_filters():
    return [Wordy]

@hookimpl
def distillbench_trainers():
    return [Broken]
'''


def test_importing_the_fixtures_imports_nothing_else_of_distillbench(run_python: Callable[..., Any]) -> None:
    """pytest loads them in every environment, also where nobody tests a plugin."""
    code = "import pytest, sys; a = set(sys.modules); import distillbench.testing; print(*set(sys.modules) - a)"
    assert set(run_python("-c", code).out.split()) == {"distillbench", "distillbench.testing"}


def test_the_manager_has_a_plugin_that_is_not_installed(plugin_manager: Callable[..., Any]) -> None:
    from distillbench.catalog import Catalog

    class Mine(Filter):
        """Keeps everything."""

        name = "mine"

        def reason(self, trace: Any, context: Any) -> str | None:
            return None

    plugin = types.SimpleNamespace(distillbench_filters=hookimpl(lambda: [Mine]))
    assert {"mine", "max_tokens"} <= set(Catalog(plugin_manager(plugin)).kind("filter"))
    assert "mine" not in Catalog(plugin_manager()).kind("filter"), "it is nobody else's"


def test_a_matrix_as_a_text_a_mapping_or_a_file_is_the_same(
    load_matrix: Callable[..., Any], write_matrix: Callable[..., Path], tmp_path: Path
) -> None:
    import yaml

    text = load_matrix(PLAIN)
    assert text.matrix.path == tmp_path / "matrix.yaml" and text.session.store.root == tmp_path / "store"
    keys = set(text.plan().stages)
    assert len(keys) >= 8
    assert set(load_matrix(yaml.safe_load(PLAIN)).plan().stages) == keys
    assert set(load_matrix(write_matrix(PLAIN, "other.yaml")).plan().stages) == keys
    assert [cell.name for cell in load_matrix(PLAIN, only="base-*").cells] == ["base-tiny"]


def test_a_mistake_and_a_refusal_are_errors(
    load_matrix: Callable[..., Any], run_matrix: Callable[..., Report], toy_store: Path
) -> None:
    with pytest.raises(MatrixError, match=r"(?s)matrix\.yaml:4: filters\.fits\.use.*did you mean 'max_tokens'"):
        load_matrix(PLAIN.replace("use: max_tokens", "use: max_token"))
    tags = PLAIN + "    renderers: {tags: {use: qwen3, reasoning: text}}\n"
    with pytest.raises(PreflightError, match="prefilled_tag"):
        run_matrix(tags.replace("coins: {", "coins: {prefill: think, "))
    assert not (toy_store / "stages").exists()


@pytest.mark.slow
def test_a_run_of_a_plugin_that_is_installed_for_this_test(
    run_matrix: Callable[..., Report],
    install_plugin: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(
        install_plugin(tmp_path / "site", "wordy", {"wordy_one": WORDY}, {"wordy": "wordy_one"})
    )
    both = SMALL.replace("FILTER", "w: {use: wordy}").replace("trainers: {", "trainers: {odd: {use: broken}, ")
    report = run_matrix(both + "    matrix: {trainer: [lora, odd]}\n")
    assert report.exit_code == 1
    assert "no such thing" in report.failures()["train odd"] and "train lora" not in report.failures()
    cell = "lora"
    assert report.row(cell=cell, step=2)["n"] == 2 and report.row(is_baseline=True)["step"] == 0
    assert sum(report.outcomes(cell=cell, step=2).values()) == 2 and 0 not in report.outcomes(cell=cell).values()
    assert [one.outcome for one in report.samples(cell=cell)] == list(report.outcomes(cell=cell)) * 2
    assert report.traces(cell) == {"kept": 7, "w: wordy": 1} and report.traces("base-tiny") == {}
    with pytest.raises(DistillbenchError, match="did you mean 'lora'"):
        report.traces("lara")
    for where, said in (
        ({"cell": "none"}, "0 rows with cell='none'"),
        ({"evaluation": "coins"}, "2 rows with evaluation='coins'"),
        ({"cel": "x"}, "did you mean 'cell'"),
    ):
        with pytest.raises(DistillbenchError, match=said):
            report.row(**where)


def test_the_tiny_student_is_what_a_trainer_is_given(tiny_student: TinyStudent) -> None:
    model = tiny_student.student.load_model(tiny_student.built, "cpu")
    assert model.config.vocab_size >= len(tiny_student.tokenizer)
    assert tiny_student.renderer.name == "qwen3" and tiny_student.renderer.tokenizer is tiny_student.tokenizer
