"""The reference pages say what the code says: hooks, components, options, outcomes, exit codes, stages, layers."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from docs_blocks import ROOT, generator, pages, table_keys, text_of

from distillbench import hookspecs
from distillbench.cli.main import invoke, make_group
from distillbench.matrix.axes import COMPONENT_AXES
from distillbench.matrix.evaluation_options import EvaluationOptions
from distillbench.matrix.sections import SECTIONS
from distillbench.options import fields_of
from distillbench.outcomes import OUTCOMES
from distillbench.plan.plan import State
from distillbench.protocols import COMPONENT_KINDS
from distillbench.stages import KINDS


def printed_json(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    assert invoke(arguments) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("page", [page for page in pages() if page.parent.name == "docs"], ids=lambda page: page.name)
def test_blocks_are_what_the_code_says(page: Path):
    text = page.read_text(encoding="utf-8")
    assert generator().expand(text) == text, "run `make blocks`"


def test_a_block_that_is_out_of_date_is_written_anew():
    before = "a\n<!-- generated: exit codes -->\nold\n<!-- end -->\nb\n<!-- generated: exit codes -->\nc\n"
    after = generator().expand(before)
    assert after.count("| exit code | meaning |") == 2 and "old" not in after
    assert after.startswith("a\n") and "-->\nb\n" in after and after.endswith("-->\nc\n")
    assert generator().expand(after) == after


def test_a_new_mark_takes_nothing_that_stands_before_the_next_block():
    page = "<!-- generated: outcomes -->\nkept\n<!-- generated: exit codes -->\nstale\n<!-- end -->\n"
    after = generator().expand(page)
    assert "-->\nkept\n<!--" in after and "stale" not in after


def test_help_in_the_pages_does_not_hang_on_the_width_of_a_terminal(monkeypatch):
    pages_of_help = []
    for columns in ("60", "80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        pages_of_help.append(generator().expand("<!-- generated: help run -->\n"))
    assert pages_of_help[1:] == pages_of_help[:-1]


def test_every_hook_is_described_in_the_words_of_its_specification():
    page = " ".join(text_of("plugins.md").split())
    specs = {name: spec for name, spec in vars(hookspecs).items() if name.startswith("distillbench_")}
    assert len(specs) >= 13
    for name, spec in specs.items():
        row = f"| `{name}({', '.join(inspect.signature(spec).parameters)})` | {' '.join(spec.__doc__.split())} |"
        assert row in page, name


def test_every_kind_of_component_is_listed_with_its_methods():
    page = text_of("plugins.md")
    for kind, base in COMPONENT_KINDS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| {kind} | `{base.__name__}` |"))
        methods = [name for name, value in vars(base).items() if inspect.isfunction(value) and name[0] != "_"]
        assert all(f"`{name}`" in row for name in methods)


def test_every_component_and_option_is_on_the_components_page(capsys):
    page = text_of("components.md")
    sections = {
        (kind.split("\n", 1)[0].lower().removesuffix("s"), part.split("\n", 1)[0]): part
        for kind in page.split("\n## ")[1:]
        for part in kind.split("\n### ")[1:]
    }
    components = printed_json(["plugins", "--json"], capsys)
    assert {(component["kind"], component["name"]) for component in components} == set(sections)
    for component in components:
        kind, name = component["kind"], component["name"]
        section = sections[kind, name]
        assert component["summary"] in section
        preset_of = re.search(r"The options of \[`([^`]+)`\]", section)
        for option in component["options"]:
            row = f"| `{option['name']}` |"
            assert row in section or (preset_of and row in sections[kind, preset_of[1]]), (name, option["name"])


def test_an_option_is_shown_with_its_type_default_and_meaning():
    rows = [line for line in text_of("components.md").splitlines() if line.startswith("| `checkpoint_every` |")]
    assert rows == [
        "| `checkpoint_every` | a whole number > 0 | `100` | "
        "Steps between checkpoints; the last step always leaves one. |"
    ]


def test_every_option_of_an_evaluation_is_described():
    assert table_keys(text_of("matrix.md"), "## Evaluations") == list(fields_of(EvaluationOptions))


def test_every_outcome_is_defined_once_and_in_the_order_of_reports():
    assert table_keys(text_of("concepts.md"), "## Outcomes") == list(OUTCOMES)


def test_the_stages_are_those_that_run():
    assert table_keys(text_of("concepts.md"), "## Cells, evaluations, stages") == [one.kind for one in KINDS]


def test_the_axes_and_sections_are_those_of_the_code():
    page = text_of("matrix.md")
    axes = " ".join(table_keys(page, "## Axes"))
    assert all(axis in axes for axis in (*COMPONENT_AXES, "seed"))
    assert all(f"{section}:" in page for section in SECTIONS.values())
    order = page.split("3. `defaults:`")[1].partition(";")[0]
    assert set(re.findall(r"`(\w+)`", order)) == set(SECTIONS)


@pytest.mark.parametrize("page", ["commands.md", "concepts.md"])
def test_the_exit_codes_are_those_of_the_command_line(page, capsys):
    assert invoke(["--help"]) == 0
    shown = re.findall(r"^ +(\d+) {2,}(\S.*)$", capsys.readouterr().out.partition("Exit codes:")[2], re.MULTILINE)
    documented = re.findall(r"^\| `(\d+)` \| (.+) \|$", text_of(page), re.MULTILINE)
    assert documented == shown
    assert [code for code, _ in documented] == ["0", "1", "2", "3", "130"]


def test_a_mistake_has_the_exit_code_of_a_mistake(tmp_path, capsys):
    assert invoke(["plan", str(tmp_path / "none.yaml")]) == 2
    assert invoke(["nonsense"]) == 2
    capsys.readouterr()


def test_every_command_has_its_help_on_the_page():
    page = text_of("commands.md")
    assert all(f"Usage: distillbench {name} " in page for name in make_group().commands)


def test_every_state_of_a_stage_is_explained():
    assert set(table_keys(text_of("commands.md"), "<!-- plan states -->")) == set(get_args(State))


def test_json_output_has_the_keys_that_the_docs_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert invoke(["init", "matrix.yaml"]) == 0
    capsys.readouterr()
    named = {
        command: re.findall(r"`(\w+)`", keys)
        for commands, keys in re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|$", text_of("commands.md"), re.MULTILINE)
        for command in re.findall(r"`(\w+)`", commands)
    }
    for arguments in (["plan", "matrix.yaml"], ["show", "matrix.yaml", "concise"], ["report", "matrix.yaml"]):
        assert set(named[arguments[0]]) == set(printed_json([*arguments, "--json"], capsys)), arguments
    for command, found in (
        ("status", ["status"]),
        ("data", ["data"]),
        ("plugins", ["plugins"]),
        ("check", ["check", "matrix.yaml"]),
    ):
        value = printed_json([*found, "--json"], capsys)
        assert set(named[command]) == set(value[0] if isinstance(value, list) else value), command


def test_the_layers_are_those_that_import_linter_holds():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    documented = [re.sub(r"[` ]", "", key) for key in table_keys(text_of("design.md"), "## Layers")]
    assert documented == [re.sub(r"[ ]*\|[ ]*", ",", layer) for layer in layers]


def test_the_rows_of_the_readme_add_up():
    text = (ROOT / "README.md").read_text()
    row = re.compile(r"^[\w,=-]+ +(?:base|\d+) +(\d+) +([\d.]+) \[.*?\] .*?\[[^]]*\]((?: +\d+){5})$", re.MULTILINE)
    found = row.findall(text)
    assert len(found) >= 10
    for n, accuracy, counts in found:
        outcomes = [int(count) for count in counts.split()]
        assert sum(outcomes) == int(n)
        assert round(outcomes[0] / int(n), 2) == pytest.approx(float(accuracy), abs=0.0051)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_inside_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE) if anchor else []
        anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        anchors |= set(re.findall(r'<a id="([^"]+)">', file.read_text()))
        assert not anchor or anchor in anchors, target


def test_files_that_the_docs_name_are_there():
    for page in pages():
        for path in re.findall(r"`((?:examples|docs|tests|distillbench|changes)/[\w./-]+)`", page.read_text()):
            if not path.startswith("changes/"):
                assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_the_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = {path.parent.name for path in (tmp_path / "site").rglob("index.html")}
    assert {"concepts", "matrix", "commands", "plugins", "benchmarks", "components", "design"} <= built
    assert not list((tmp_path / "site").rglob("generated.py"))
    text = (tmp_path / "site" / "index.html").read_text()
    assert not re.search(r'(?:src|href)="https?://[^"]+\.(?:js|css|woff2?)', text), "nothing is fetched from elsewhere"


def test_the_changelog_is_made_from_the_fragments():
    pytest.importorskip("towncrier")
    command = [sys.executable, "-m", "towncrier", "build", "--draft"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "(#2)" in done.stdout
    assert "<!-- towncrier release notes start -->" in (ROOT / "CHANGELOG.md").read_text()
