"""Real runs of the command line, in processes of their own, on a matrix that trains and evaluates in seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

MATRIX = """
name: small
teachers:
  concise: {use: synthetic, style: concise, n: 200}
  verbose: {use: synthetic, style: verbose, n: 200}
students: {tiny: {use: tiny-qwen3, steps: 60}}
filters: {right: {use: correct_only}, fits: {use: max_tokens, limit: 256}}
trainers:
  lora: {use: sft, lora_rank: 8, learning_rate: 5e-3, batch_size: 8, max_steps: 20, checkpoint_every: 5}
evaluations:
  coins: {max_tokens: 48, limit: 70}
  digits: {max_tokens: 24, limit: 70}
engines: {transformers: {batch_size: 16}}
matrix: {teacher: [TEACHERS]}
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="session")
def small_matrix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.yaml"
    path.write_text(MATRIX.replace("TEACHERS", "concise"))
    return path


@pytest.fixture(scope="session")
def start() -> Start:
    """Starts `distillbench --store STORE ARGUMENTS` and returns its process."""

    def run(store: Path, *arguments: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "distillbench", "--store", str(store), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )

    return run
