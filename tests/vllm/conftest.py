"""Fixtures of the tests on real vLLM: the trained tiny student, and checkpoints of it of every kind."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before anything reads it
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path

import pytest
from plugin_helpers import Run, Tiny, coins_traces, full_run, train

from distillbench.records import Checkpoint


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Texts that are compared one by one want one thread; vLLM takes the setting away when it starts."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tiny_student: Tiny) -> Tiny:
    """A tiny student after a short pretraining."""
    return tiny_student


@pytest.fixture(scope="session")
def five(tiny: Tiny) -> list[Checkpoint]:
    """Five checkpoints of one adapter."""
    return train(
        tiny, coins_traces(120), tiny.built.with_name("five"), lora_rank=8, learning_rate=5e-3, batch_size=16,
        max_steps=20, checkpoint_every=4, max_length=256, holdout=0.1,
    )  # fmt: skip


@pytest.fixture(scope="session")
def full(tiny: Tiny) -> Run:
    """A short training of all weights."""
    return full_run(tiny)


@pytest.fixture(scope="session")
def kinds(tiny: Tiny, five: list[Checkpoint], full: Run) -> list[Checkpoint | None]:
    """The untouched student, five adapters, and a full checkpoint."""
    return [None, *five, *full.checkpoints]


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sessions' own folder."""
    return tmp_path_factory.mktemp("work")
