"""Why stages failed, until they succeed: a report that is made later says it too.

<root>/failures/<key>.json   what the last attempt at a stage ended with; it goes with the stage's next result
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from distillbench.errors import DamagedError, DistillbenchError
from distillbench.plan.stage import Stage
from distillbench.sealed import read_sealed, write_sealed

if TYPE_CHECKING:
    from distillbench.store.store import Store


def note_failure(store: Store, stage: Stage, why: str) -> None:
    """Writes down why a stage has no result, as far as the disk lets it: the run says it all the same.

    Args:
        store: Where.
        stage: The stage.
        why: In words.
    """
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    about = {"kind": stage.kind, "label": stage.label, "why": why, "at": at}
    with suppress(OSError, DistillbenchError):  # the disk that refused a result may refuse this too
        store.failures()
        write_sealed(_path(store, stage), about, stage.key)


def forget_failure(store: Store, stage: Stage) -> None:
    """Says that a stage has a result now."""
    _path(store, stage).unlink(missing_ok=True)


def failure(store: Store, stage: Stage) -> str | None:
    """Why the last attempt at a stage failed; None where none did, or where it has succeeded since.

    Raises:
        StoreError: It may not be read.
    """
    try:
        return str(read_sealed(_path(store, stage), stage.key)["why"])
    except FileNotFoundError:
        return None
    except DamagedError as error:
        return f"why is not known: {error}"


def _path(store: Store, stage: Stage) -> Path:
    return store.root / "failures" / f"{stage.key}.json"
