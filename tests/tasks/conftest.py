"""Fixtures of the tasks' tests; they share the tiny student with the plugins' tests."""

from __future__ import annotations

import pytest
from plugin_helpers import Run, Tiny, build_tiny, full_run, shared_folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A tiny student after a short pretraining."""
    return build_tiny(shared_folder(tmp_path_factory))


@pytest.fixture(scope="session")
def full(tiny: Tiny) -> Run:
    """A short training of all weights."""
    return full_run(tiny)
