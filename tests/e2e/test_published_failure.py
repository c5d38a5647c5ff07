"""The published failure, on purpose: trained on `<think>` as text, evaluated with the token `<think>` prefilled."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Start = Callable[..., subprocess.Popen[str]]

pytestmark = [pytest.mark.slow, pytest.mark.twenty_steps]

MATRIX = """
name: published-failure
teachers: {concise: {use: synthetic, n: 120}}
students: {tiny: {use: tiny-qwen3, steps: 10}}
renderers: {tags: {use: qwen3, reasoning: text}}
filters: {right: {use: correct_only}}
trainers: {lora: {use: sft, max_steps: 2, checkpoint_every: 2, max_length: 400, batch_size: 8}}
evaluations: {coins: {prefill: think, limit: 4, max_tokens: 32}}
"""


def ran(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def test_it_is_refused_mended_or_accepted(start: Start, tmp_path: Path) -> None:
    published, mended, accepted = (tmp_path / f"{name}.yaml" for name in ("published", "mended", "accepted"))
    published.write_text(MATRIX)
    mended.write_text(MATRIX.replace("prefill: think", "prefill: auto"))
    accepted.write_text(MATRIX.replace("name: published-failure", "name: accepted") + "accept: [prefilled_tag]\n")
    store = tmp_path / "store"

    for command in ("check", "run"):
        code, output = ran(start(store, command, published))
        assert code == 2 and "Traceback" not in output
        assert "prefilled_tag (coins): evaluation prefills a reasoning tag that training never wrote" in output
        assert "training has '<' (30), evaluation '<think>' (384)" in output
        assert "do: set `prefill: auto` in the evaluation" in output
    assert not (store / "stages").exists(), "nothing has run"

    assert ran(start(store, "check", mended))[0] == 0
    code, output = ran(start(store, "run", mended))
    assert code == 0 and "†" not in output

    code, output = ran(start(store, "run", accepted))
    assert code == 0, output
    assert "concise †" in output and "base-tiny †" not in output
    assert "train concise" not in output, "the prefill belongs to the evaluation: nothing is trained again"
    code, output = ran(start(store, "report", accepted, "--json"))
    rows = {row["cell"]: row["accepted"] for row in json.loads(output)["rows"]}
    assert code == 0 and rows == {"concise": "prefilled_tag", "base-tiny": ""}
