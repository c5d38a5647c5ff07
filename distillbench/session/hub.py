"""Which commit of a repository on the Hugging Face Hub a name stands for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

Sort = Literal["model", "dataset"]
#: A file that a repository of the sort has.
_FILES = {"model": "config.json", "dataset": ".gitattributes"}
_COMMIT = re.compile(r"[0-9a-f]{40}")


def hub_commit(repository: str, revision: str | None, sort: Sort, ask: bool) -> str | None:
    """The commit that would be loaded; None where neither the Hub nor this machine's cache says it.

    Args:
        repository: Its id.
        revision: A commit, tag or branch; None for the newest.
        sort: What it holds.
        ask: Whether the Hub is asked, where it can be reached, as loading asks it; else the cache alone is.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if revision and _COMMIT.fullmatch(revision):
        return revision
    name = _FILES[sort]
    try:
        found = hf_hub_download(repository, name, repo_type=sort, revision=revision, local_files_only=not ask)
        return Path(found).parent.name
    except (HfHubHTTPError, HFValidationError, OSError):  # what cannot be had is told by whoever loads it
        pass
    try:
        folder = f"{sort}s--{repository.replace('/', '--')}"
        return (Path(constants.HF_HUB_CACHE) / folder / "refs" / (revision or "main")).read_text().strip() or None
    except OSError:
        return None
