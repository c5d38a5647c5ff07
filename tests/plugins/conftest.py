"""Fixtures of the plugins' tests; the tiny student is pretrained once, and trained once in each way."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before anything reads it
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from plugin_helpers import Run, Tiny, full_run, lora_run


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Numbers that are compared bitwise, and a machine that is shared, want one thread."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tiny_student: Tiny) -> Tiny:
    """A tiny student after a short pretraining."""
    return tiny_student


@pytest.fixture(scope="session")
def lora(tiny: Tiny) -> Run:
    """A short training of an adapter, with four checkpoints."""
    return lora_run(tiny)


@pytest.fixture(scope="session")
def full(tiny: Tiny) -> Run:
    """A short training of all weights."""
    return full_run(tiny)
