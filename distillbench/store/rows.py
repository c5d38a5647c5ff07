"""The tables that stages leave: written and read in batches of bounded size, so that memory does not grow with rows.

A file's name ends in what it is for: `.parquet` is small and scanned, `.arrow` is mapped into memory and read anywhere.
Token ids are int32 arrays, going in and coming out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from distillbench.records import Message, Problem, Trace
from distillbench.store.columns import IDS, TEXT, WHOLE, YES_NO, Columns, Row, batch_of, rows_of, schema_of, weight
from distillbench.writing import naming

if TYPE_CHECKING:
    import pyarrow as pa

TRACES = "traces.parquet"
DECISIONS = "decisions.parquet"
UNUSABLE = "unusable.jsonl"
SAMPLES = "samples.parquet"
VERDICTS = "verdicts.parquet"
ROWS = "rows.arrow"
#: A training's losses, beside its checkpoints.
METRICS = "metrics.jsonl"

#: A batch ends with the first row that reaches one of these, so that equal rows are cut into equal batches. What a file
#: says of its batches is held while it is read: with batches of half the size it would be twice as much.
_BATCH_ROWS, _BATCH_BYTES = 1024, 8 << 20

_PROBLEM = {"problem_id": TEXT, "domain": TEXT, "messages": TEXT, "gold": TEXT, "metadata": TEXT}
_TRACE = _PROBLEM | {
    "trace_id": TEXT,
    "reasoning": TEXT,
    "answer": TEXT,
    "finish_reason": TEXT,
    "n_tokens": WHOLE,
    "teacher": TEXT,
    "source": TEXT,
}
#: The columns of every file, by its name.
SCHEMAS: Mapping[str, Columns] = {
    TRACES: _TRACE,
    DECISIONS: {
        "trace_id": TEXT,
        "row": WHOLE,
        "kept": YES_NO,
        "filter": TEXT,
        "category": TEXT,
        "detail": TEXT,
    },
    ROWS: {
        "trace_id": TEXT,
        "problem_id": TEXT,
        "source": TEXT,
        "input_ids": IDS,
        "loss": IDS,
        "n_trained": WHOLE,
        "n_loss": WHOLE,
        "error": TEXT,
    },
    SAMPLES: _PROBLEM
    | {
        "sample_id": TEXT,
        "repeat": WHOLE,
        "prompt": TEXT,
        "prefill": TEXT,
        "token_ids": IDS,
        "text": TEXT,
        "finish_reason": TEXT,
        "error": TEXT,
        "n_tokens": WHOLE,
        "n_prompt_tokens": WHOLE,
        "effective": TEXT,
        "seed": WHOLE,
    },
    VERDICTS: {
        "sample_id": TEXT,
        "problem_id": TEXT,
        "repeat": WHOLE,
        "outcome": TEXT,
        "detail": TEXT,
        "extracted": TEXT,
        "canonical": TEXT,
        "scores": TEXT,
        "reasoning_state": TEXT,
        "ran_on": YES_NO,
        "n_tokens": WHOLE,
        "sample_digest": TEXT,
    },
}


class RowWriter:
    """Writes rows as they come; at most a batch of them is held. Equal rows give equal bytes.

    What was appended is on disk once the `with` block has ended; a block that raises leaves a file that is not whole.

    Args:
        path: The file, replaced where it is there.
        columns: Its columns; those that `SCHEMAS` has for its name where None.
    """

    def __init__(self, path: Path, columns: Columns | None = None) -> None:
        self.path = path
        self.columns = SCHEMAS[path.name] if columns is None else columns
        self.n_rows = 0
        self._batch: list[Mapping[str, Any]] = []
        self._n_bytes = 0

    def __enter__(self) -> Self:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema = schema_of(self.columns)
        with naming(self.path):
            self._file = pa.OSFile(str(self.path), "wb")
            if is_mapped(self.path):
                self._writer = pa.ipc.new_stream(self._file, self._schema)
            else:
                self._writer = pq.ParquetWriter(  # texts and ids that differ gain nothing from a dictionary
                    self._file, self._schema, compression="zstd", use_dictionary=False, write_statistics=False
                )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            with suppress(OSError):  # a disk that refused a batch refuses the end of the file too
                self._close()
            return
        with naming(self.path):
            self._flush()
            self._close()

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a row.

        Args:
            row: A value for each column; a column that it lacks is null.

        Raises:
            OSError: The disk refuses it.
            TypeError: A value is not of its column's type; so are `pa.ArrowException` and `OverflowError`.
        """
        self._batch.append(row)
        self._n_bytes += sum(weight(row.get(column)) for column in self.columns)
        if len(self._batch) >= _BATCH_ROWS or self._n_bytes >= _BATCH_BYTES:
            with naming(self.path):
                self._flush()

    def _flush(self) -> None:
        if not self._batch:
            return
        self._writer.write_batch(batch_of(self._batch, self._schema))
        _give_back()
        self.n_rows += len(self._batch)
        self._batch, self._n_bytes = [], 0

    def _close(self) -> None:
        try:
            self._writer.close()
        finally:
            self._file.close()


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], columns: Columns | None = None) -> int:
    """Writes rows as they come (see `RowWriter`); returns how many they were."""
    with RowWriter(path, columns) as writer:
        for row in rows:
            writer.append(row)
    return writer.n_rows


def why_unwritable(name: str, row: Row) -> str | None:
    """What keeps a row from being written into a file of this name: a number too large, half a character; or None."""
    import pyarrow as pa

    try:
        batch_of([row], schema_of(SCHEMAS[name]))
    except (pa.ArrowException, OverflowError, UnicodeError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def iterate(path: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of a file in order, of which a batch at a time is held; token ids are int32 arrays.

    Args:
        path: The file.
        columns: Those that are read; all where None.

    Raises:
        OSError: It cannot be read.
    """
    for batch in batches(path, columns):
        yield from rows_of(batch)


def batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The batches of a file in order, as they were written; as for `iterate`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = None if columns is None else list(columns)
    if is_mapped(path):  # read, not mapped: pages of a mapped file count as this process's memory
        with pa.OSFile(str(path), "rb") as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                yield batch if wanted is None else batch.select(wanted)
                _give_back()
        return
    with pq.ParquetFile(path, pre_buffer=False) as source:
        for number in range(source.num_row_groups):
            yield from source.read_row_group(number, wanted, use_threads=False).to_batches()
            _give_back()


def read_column(path: Path, name: str) -> pa.ChunkedArray:
    """One column of a file, whole: of small values such as numbers and ids.

    Raises:
        OSError: It cannot be read.
    """
    import pyarrow.parquet as pq

    if is_mapped(path):
        return mapped_table(path, (name,)).column(0)
    with pq.ParquetFile(path, pre_buffer=False) as source:
        return source.read([name], use_threads=False).column(0)


def mapped_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """An `.arrow` file, mapped into memory. What is read of a batch holds all of it, for its columns lie together.

    Args:
        path: The file.
        columns: Those that it has; all where None.

    Raises:
        OSError: It cannot be read.
    """
    import pyarrow as pa

    table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    return table if columns is None else table.select(list(columns))


def count_rows(path: Path) -> int:
    """The number of rows of a file.

    Raises:
        OSError: It cannot be read.
    """
    import pyarrow.parquet as pq

    if is_mapped(path):
        return int(mapped_table(path).num_rows)
    with pq.ParquetFile(path, pre_buffer=False) as source:
        return int(source.metadata.num_rows)


def read_rows(path: Path, columns: Sequence[str] | None = None) -> list[Row]:
    """All rows of a small file at once; as for `iterate`."""
    return list(iterate(path, columns))


def _give_back() -> None:
    """Has Arrow return what it holds unused: it keeps several batches' worth, more or less by chance."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()


def is_mapped(path: Path) -> bool:
    """Whether a file of this name can be read in any order (see `mapped`)."""
    return path.suffix == ".arrow"


def problem_row(problem: Problem) -> dict[str, Any]:
    """A problem as columns."""
    return {
        "problem_id": problem.problem_id,
        "domain": problem.domain,
        "messages": json.dumps([[message.role, message.content] for message in problem.messages]),
        "gold": problem.gold,
        "metadata": json.dumps(problem.metadata, sort_keys=True, default=str),
    }


def problem_of(row: Mapping[str, Any]) -> Problem:
    """The problem that columns hold."""
    return Problem(
        problem_id=row["problem_id"],
        domain=row["domain"],
        messages=tuple(Message(role, content) for role, content in json.loads(row["messages"])),
        gold=row["gold"],
        metadata=json.loads(row["metadata"]),
    )


def trace_row(trace: Trace) -> dict[str, Any]:
    """A trace as columns."""
    return problem_row(trace.problem) | {
        "trace_id": trace.trace_id,
        "reasoning": trace.reasoning,
        "answer": trace.answer,
        "finish_reason": trace.finish_reason,
        "n_tokens": trace.n_tokens,
        "teacher": trace.teacher,
        "source": trace.source,
    }


def trace_of(row: Mapping[str, Any], measures: Mapping[str, Mapping[str, Any]] | None = None) -> Trace:
    """The trace that columns hold, with what was measured of it."""
    return Trace(
        problem=problem_of(row),
        reasoning=row["reasoning"],
        answer=row["answer"],
        finish_reason=row["finish_reason"],
        n_tokens=row["n_tokens"],
        teacher=row["teacher"],
        source=row["source"],
        trace_id=row["trace_id"],
        measures=measures or {},
    )
