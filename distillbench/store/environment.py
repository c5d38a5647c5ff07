"""What a result was made with: versions, host, commit. For people; never part of a key."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from typing import Any

PACKAGES = ("distillbench", "lm_eval", "torch", "transformers", "peft", "trl", "vllm", "datasets", "math-verify")


def describe() -> dict[str, Any]:
    """Versions of the packages that matter, Python, platform, processors and the commit of the current folder."""
    return {
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "commit": git_commit(),
    }


def git_commit() -> str | None:
    """The commit of the repository the command runs in, marked when files differ from it; None outside one."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    return f"{commit}+changes" if _git("status", "--porcelain", "--untracked-files=no") else commit


def _git(*arguments: str) -> str | None:
    try:
        found = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)  # noqa: S607
    except (OSError, subprocess.SubprocessError):  # no git, or no repository: there is no commit to name
        return None
    return found.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
