"""The notebook's lines are run, on a matrix that takes seconds."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from docs_blocks import ROOT, blocks_of

PAGE = ROOT / "docs" / "python.md"
SMALL = """
name: small
teachers: {concise: {use: synthetic, style: concise, n: 40}}
students: {tiny: {use: tiny-qwen3, steps: 10}}
trainers: {lora: {use: sft, lora_rank: 4, batch_size: 4, max_steps: 2, checkpoint_every: 2, max_length: 256}}
evaluations: {digits: {max_tokens: 8, limit: 4}}
matrix: {teacher: [concise]}
"""


def test_a_notebook_loads_plans_checks_runs_and_has_a_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "matrix.yaml").write_text(SMALL)
    [block] = [one for one in blocks_of(PAGE) if one.language == "python"]
    *lines, last = ast.parse(block.text).body
    names: dict[str, Any] = {}
    exec(compile(ast.Module(lines, []), str(PAGE), "exec"), names)
    frame = eval(compile(ast.Expression(last.value), str(PAGE), "eval"), names)  # type: ignore[attr-defined]
    assert list(frame["cell"]) == ["base-tiny", "concise"] and list(frame["n"]) == [4, 4]
    assert "stages to run" in capsys.readouterr().out and names["report"].exit_code == 0
    assert (names["report"].folder / "report.md").is_file()
    [base, trained] = names["report"].tables.results.checkpoints
    assert [bool(sample.text) for one in (base, trained) for sample in one.samples()] == [True] * 8
