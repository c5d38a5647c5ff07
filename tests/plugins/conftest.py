"""Fixtures of the plugins' tests."""

from __future__ import annotations

import pytest
from plugin_helpers import Tiny, build_tiny


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Numbers that are compared bitwise, and a machine that is shared, want one thread."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A tiny student after a short pretraining."""
    return build_tiny(tmp_path_factory)
