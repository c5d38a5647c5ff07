"""Fixtures of the tasks' tests; they share the tiny student with the plugins' tests."""

from __future__ import annotations

import pytest
from plugin_helpers import Run, Tiny, full_run


@pytest.fixture(scope="session")
def tiny(tiny_student: Tiny) -> Tiny:
    """A tiny student after a short pretraining."""
    return tiny_student


@pytest.fixture(scope="session")
def full(tiny: Tiny) -> Run:
    """A short training of all weights."""
    return full_run(tiny)
