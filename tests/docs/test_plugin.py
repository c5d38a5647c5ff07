"""The plugin of "Write a plugin in ten minutes" is installed as a package and used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from docs_blocks import MATRIX, ROOT, blocks_of, module_from, write_page

pytestmark = pytest.mark.xdist_group("docs-plugin")
PAGE = ROOT / "docs" / "plugins.md"


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    """A folder with the page's files, and the page's package installed beside them."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("lab")
    write_page(PAGE, folder)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", str(folder / "site"), str(folder / "distillbench-lab")], check=True)
    return folder


def run(lab: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(lab / "site"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("DISTILLBENCH_STORE", None)
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=lab, env=environment, capture_output=True, text=True, check=False)


def bench(lab: Path, *arguments: str) -> str:
    done = run(lab, "-m", "distillbench", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_cheap_commands_of_the_page_run(lab):
    lines = [arguments for block in blocks_of(PAGE) for arguments in block.commands()]
    assert len(lines) >= 4
    for arguments in lines:
        if arguments[0] != "run":
            bench(lab, *arguments)


def test_the_components_are_there_with_their_options(lab):
    found = {one["name"]: one for one in json.loads(bench(lab, "plugins", "--json")) if one["plugin"] == "lab"}
    assert set(found) == {"hedging", "recorded"}
    assert found["hedging"]["options"][0]["help"] == 'How often a trace may say "Wait".'
    assert found["recorded"]["summary"] == "Traces that were recorded in a file."


def test_blocking_the_plugin_leaves_its_components_out(lab):
    assert "hedging" not in bench(lab, "-p", "no:lab", "plugins")


def test_the_content_of_the_file_is_in_the_key_and_its_place_is_not(lab, tmp_path):
    before = keys(lab, lab / MATRIX)
    moved = tmp_path / MATRIX
    moved.write_text((lab / MATRIX).read_text())
    (tmp_path / "traces.jsonl").write_text((lab / "traces.jsonl").read_text())
    assert keys(lab, moved) == before
    (tmp_path / "traces.jsonl").write_text((lab / "traces.jsonl").read_text().splitlines(keepends=True)[0])
    assert keys(lab, moved) != before


def keys(lab: Path, matrix: Path) -> set[str]:
    return {stage["key"] for stage in json.loads(bench(lab, "plan", str(matrix), "--json"))["stages"]}


@pytest.mark.slow
def test_the_tests_of_the_page_pass(lab):
    plugins = [
        "-p",
        "no:cacheprovider",
        "-p",
        "distillbench.testing",
    ]  # an old editable installation has no entry point
    done = run(lab, "-m", "pytest", "-q", *plugins, "-c", os.devnull, "distillbench-lab/test_lab.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_the_class_that_is_derived_from_a_built_in_one_rejects_cut_traces(lab, plugin_manager):
    from distillbench.catalog import Catalog
    from distillbench.protocols import Context
    from distillbench.records import Message, Problem, Trace

    whole = Catalog(plugin_manager(module_from(lab / "whole.py", "lab_whole"))).kind("filter")["whole"]
    filtered = whole(whole.Options(limit=5))
    problem = Problem("p1", "sums", (Message("user", "1+1?"),), "2")
    reasons = []
    for ending, tokens in (("stop", 5), ("stop", 6), ("length", 5)):
        measures = {"length": {"n_tokens": tokens}}
        trace = Trace(problem, None, "2", ending, None, "made", "line 1", measures=measures)
        reasons.append(filtered.reason(trace, Context(work=lab)))
    assert reasons == [None, "too long: 6 tokens, limit 5", "cut: by its teacher's budget"]


def test_the_fixtures_and_the_report_are_described_as_they_are():
    from distillbench import testing
    from distillbench.session import Report

    page = PAGE.read_text()
    there = {name for name, value in vars(testing).items() if type(value).__name__ == "FixtureFunctionDefinition"}
    fixtures = page.split("| fixture |")[1].split("\n\n")[0]
    assert {line.split("`")[1].partition("(")[0] for line in fixtures.splitlines()[2:]} == there
    report = page.split("| of a report |")[1].split("\n\n")[0]
    said = {line.split("`")[1].partition("(")[0] for line in report.splitlines()[2:]}
    assert said <= set(vars(Report)) and len(said) == 7


def test_the_section_of_the_page_names_a_loop(lab):
    from distillbench.manager import make_manager
    from distillbench.report.results import CheckpointResult, GradedSample, Results
    from distillbench.report.sections import with_sections

    manager = make_manager()
    manager.register(module_from(lab / "sections.py", "lab_sections"), "lab-sections")
    samples = [GradedSample("p/1", 0, "correct"), GradedSample("p/2", 0, "loop", text="and so on and so on")]
    looping = CheckpointResult.of(samples, cell="a", step=1, evaluation="coins", task="coins")
    fine = CheckpointResult.of(samples[:1], cell="b", step=1, evaluation="coins", task="coins")
    results, sections = with_sections(Results("m", checkpoints=(fine, looping)), manager)
    assert results.left_out == ()
    assert [(one.title, one.markdown) for one in sections] == [
        ("Loops", "- a @1: 1, such as p/2: 'and so on and so on'")
    ]
    assert with_sections(Results("m", checkpoints=(fine,)), manager)[1] == []


@pytest.mark.slow
def test_the_matrix_of_the_page_really_runs(lab):
    text = (lab / MATRIX).read_text()
    (lab / "small.yaml").write_text(text.replace("tiny-qwen3}", "tiny-qwen3, steps: 5}"))
    found = json.loads(bench(lab, "-q", "run", "small.yaml", "--limit", "10", "--json"))
    cells = {cell["name"]: cell for cell in found["cells"]}
    assert cells["right"]["traces"] == {"kept": 3}
    assert cells["right+sober"]["traces"] == {"kept": 2, "sober: hedges": 1}
    assert {row["n"] for row in found["rows"]} == {10}
    assert len(found["rows"]) == 2 * 2 + 1
