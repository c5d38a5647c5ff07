"""Verdicts that an earlier run has left, found again by what they are on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from distillbench.errors import DamagedError
from distillbench.outcomes import GRADER_ERROR
from distillbench.plan.stage import Stage
from distillbench.store.columns import Row
from distillbench.store.mapped import StoredRows
from distillbench.store.places import Places
from distillbench.store.rows import iterate
from distillbench.store.store import Store


class KnownVerdicts:
    """The verdicts of a finished result; none where there is none, or it is damaged.

    Args:
        stage: Whose result; None for none.
        store: Has it.
        file: The name of its file.
        digest: The column with the digest of what was graded.
        failed_too: Whether verdicts count where the grader failed.

    Attributes:
        places: The number of the verdict on each digest.
    """

    def __init__(self, stage: Stage | None, store: Store, file: str, digest: str, failed_too: bool = False) -> None:
        self.places = Places()
        self._rows: StoredRows | None = None
        if stage is None:
            return
        try:
            path = store.file(stage, file)
        except DamagedError:
            return
        for number, row in enumerate(iterate(path, (digest, "outcome"))):
            if failed_too or row["outcome"] != GRADER_ERROR:
                self.places.add(row[digest], number)
        self._rows = StoredRows(path)

    def rows_at(self, numbers: Iterable[int]) -> Iterator[Row]:
        """The verdicts of these numbers."""
        assert self._rows is not None  # noqa: S101 - a number was found in it
        return self._rows.rows_at(numbers)
