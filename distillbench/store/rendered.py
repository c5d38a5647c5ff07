"""Training rows on disk: rendered once, looked at by the preflight, read by trainers in any order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillbench.errors import RowError, StageError
from distillbench.protocols import Overlong, TrainingRows
from distillbench.records import Rendered, Trace, TrainingRow
from distillbench.store.mapped import MappedRows
from distillbench.store.rows import iterate, read_column

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Cut:
    """What is trained on of a row.

    Attributes:
        max_length: The most tokens; None for all of them.
        overlong: What a longer row does.
    """

    max_length: int | None = None
    overlong: Overlong = "error"

    def of(self, n_tokens: int) -> int:
        """How many of a row's tokens are trained on; 0 for a row that is left out."""
        if self.max_length is None or n_tokens <= self.max_length or self.overlong == "error":
            return n_tokens
        return self.max_length if self.overlong == "truncate" else 0


def stored_row(trace: Trace, rendered: Rendered | StageError, cut: Cut) -> dict[str, Any]:
    """A row as columns: all of its tokens, and how many of them are trained on.

    Args:
        trace: What it was made of.
        rendered: The row, or why there is none.
        cut: What is trained on of it.
    """
    told = {"trace_id": trace.trace_id, "problem_id": trace.problem.problem_id, "source": trace.source}
    if isinstance(rendered, StageError):
        return told | {"input_ids": [], "loss": [], "n_trained": 0, "n_loss": 0, "error": str(rendered)}
    n_trained = cut.of(len(rendered.input_ids))
    return told | {
        "input_ids": rendered.input_ids,
        "loss": _spans(rendered.loss_mask),
        "n_trained": n_trained,
        "n_loss": int(rendered.loss_mask[:n_trained].sum()),
        "error": None,
    }


def rendered_again(path: Path) -> Iterator[Rendered | StageError]:
    """The rows of a file in order, uncut, or why there is none."""
    for row in iterate(path, ("input_ids", "loss", "error")):
        if row["error"] is not None:
            yield RowError(row["error"])
        else:
            yield Rendered(row["input_ids"], _mask(row["loss"], len(row["input_ids"])))


class StoredTrainingRows(TrainingRows):
    """The rows of a file that are trained on, in order; the file is mapped, and nothing of it is held.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        import numpy as np

        self._rows = MappedRows(path)
        self._path = path
        self._numbers = np.flatnonzero(read_column(path, "n_trained").to_numpy() > 0)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[place] for place in range(*number.indices(len(self)))]
        row = self._rows[int(self._numbers[number])]
        n = row["n_trained"]
        mask = _mask(row["loss"], len(row["input_ids"]))[:n]
        return TrainingRow(row["input_ids"][:n], mask, row["trace_id"], row["problem_id"], row["source"])

    def problem_ids(self) -> Sequence[str]:
        """The problem of each row."""
        found: Sequence[str] = read_column(self._path, "problem_id").take(self._numbers).to_pylist()
        return found

    def without_loss(self) -> Sequence[str]:
        """Where the rows come from that carry no loss."""
        lost = self._numbers[read_column(self._path, "n_loss").to_numpy()[self._numbers] == 0]
        return [str(self._rows[int(number)]["source"]) for number in lost]


def _spans(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Where runs of tokens with loss begin and end, one after the other: int32[2 * runs]."""
    import numpy as np

    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    return edges.astype(np.int32)


def _mask(spans: NDArray[np.int32], n: int) -> NDArray[np.bool_]:
    """The loss mask of `n` tokens with these runs."""
    import numpy as np

    mask = np.zeros(n, np.bool_)
    for start, end in spans.reshape(-1, 2):
        mask[start:end] = True
    return mask
