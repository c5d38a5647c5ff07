"""Keeps an earlier report whose numbers the new one has not: no number is replaced by none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from distillbench.report.results import CheckpointResult
from distillbench.report.writers.files import BUDGETS, RESULTS, SAMPLES
from distillbench.store.report_folders import EARLIER, LOCK, REPORT
from distillbench.store.rows import iterate

_KEY = ("cell", "step", "evaluation")


def keep_earlier(folder: Path, results: Iterable[CheckpointResult]) -> Iterator[str]:
    """Moves a report aside that has a result, or samples of one, which the new one has not.

    Args:
        folder: Where the new report goes.
        results: What it has.

    Yields:
        What was kept, in words.

    Raises:
        OSError: It cannot be moved.
    """
    had = _earlier(folder / RESULTS)
    has = {tuple(getattr(one, name) for name in _KEY): len(one.scores) for one in results}
    lost = [key for key, n in had.items() if has.get(key, 0) < n]
    if lost:
        time = datetime.fromtimestamp((folder / RESULTS).stat().st_mtime, UTC)
        aside = folder / f"{EARLIER}{time:%Y-%m-%dT%H-%M-%S.%f}"
        aside.mkdir(exist_ok=True)
        for name in (REPORT, LOCK, SAMPLES, BUDGETS, RESULTS):  # the last one says that there is something to keep
            if (folder / name).exists():
                (folder / name).replace(aside / name)
        what = f"{len(lost)} results of the earlier report are not in this one, or not with all their samples"
        yield f"{what}: that report is kept in {aside.name}"


def _earlier(path: Path) -> dict[tuple[object, ...], int]:
    """How many samples each result of a report has; nothing of a file that is not there, or not what was written."""
    from pyarrow import ArrowException

    try:
        return {tuple(row[name] for name in _KEY): row["n"] for row in iterate(path, (*_KEY, "n"))}
    except (OSError, ArrowException, KeyError):  # nobody could read its numbers either
        return {}
