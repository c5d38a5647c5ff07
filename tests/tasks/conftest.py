"""Fixtures of the tasks' tests; they share the tiny student with the plugins' tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "plugins"))

from plugin_helpers import Tiny, build_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A tiny student after a short pretraining."""
    return build_tiny(tmp_path_factory)
