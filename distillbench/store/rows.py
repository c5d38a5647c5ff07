"""The parquet files that stages leave, and their rows as records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillbench.records import Message, Problem, Trace
from distillbench.writing import naming

if TYPE_CHECKING:
    import pyarrow as pa

TRACES = "traces.parquet"
KEPT = "kept.parquet"
REJECTED = "rejected.parquet"
UNUSABLE = "unusable.jsonl"
SAMPLES = "samples.parquet"
VERDICTS = "verdicts.parquet"
#: A training's losses, beside its checkpoints.
METRICS = "metrics.jsonl"

Row = dict[str, Any]
_TEXT, _INTEGER, _YES_NO, _IDS = "string", "int64", "bool", "list"
_PROBLEM = {"problem_id": _TEXT, "domain": _TEXT, "messages": _TEXT, "gold": _TEXT, "metadata": _TEXT}
_TRACE = _PROBLEM | {
    "reasoning": _TEXT,
    "answer": _TEXT,
    "finish_reason": _TEXT,
    "n_tokens": _INTEGER,
    "teacher": _TEXT,
    "source": _TEXT,
    "correct": _YES_NO,
}
#: Column types of every file.
SCHEMAS: Mapping[str, Mapping[str, str]] = {
    TRACES: _TRACE,
    KEPT: _TRACE,
    REJECTED: {"problem_id": _TEXT, "source": _TEXT, "filter": _TEXT, "reason": _TEXT},
    SAMPLES: _PROBLEM
    | {
        "sample_id": _TEXT,
        "repeat": _INTEGER,
        "prompt": _TEXT,
        "prefill": _TEXT,
        "token_ids": _IDS,
        "text": _TEXT,
        "finish_reason": _TEXT,
        "error": _TEXT,
        "n_tokens": _INTEGER,
        "n_prompt_tokens": _INTEGER,
        "effective": _TEXT,
        "seed": _INTEGER,
    },
    VERDICTS: {
        "sample_id": _TEXT,
        "problem_id": _TEXT,
        "repeat": _INTEGER,
        "outcome": _TEXT,
        "detail": _TEXT,
        "extracted": _TEXT,
        "canonical": _TEXT,
        "scores": _TEXT,
        "reasoning_state": _TEXT,
        "ran_on": _YES_NO,
        "n_tokens": _INTEGER,
        "sample_digest": _TEXT,
    },
}


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows under the schema that the file's name has; equal rows give equal bytes."""
    import pyarrow.parquet as pq

    with naming(path):
        pq.write_table(_table(path.name, list(rows)), path, compression="zstd")


def why_unwritable(name: str, row: Row) -> str | None:
    """What keeps a row from being written into a file of this name: a number too large, half a character; or None."""
    import pyarrow as pa

    try:
        _table(name, [row])
    except (pa.ArrowException, OverflowError, UnicodeError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _table(name: str, rows: list[Mapping[str, Any]]) -> pa.Table:
    import pyarrow as pa

    types = {_TEXT: pa.string(), _INTEGER: pa.int64(), _YES_NO: pa.bool_(), _IDS: pa.list_(pa.int32())}
    schema = pa.schema([(column, types[kind]) for column, kind in SCHEMAS[name].items()])
    return pa.Table.from_pylist(rows, schema=schema)


def read_rows(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Reads a file's rows.

    Raises:
        OSError: It cannot be read.
    """
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(path, columns=list(columns) if columns else None).to_pylist()
    return rows


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
        "reasoning": trace.reasoning,
        "answer": trace.answer,
        "finish_reason": trace.finish_reason,
        "n_tokens": trace.n_tokens,
        "teacher": trace.teacher,
        "source": trace.source,
        "correct": trace.correct,
    }


def trace_of(row: Mapping[str, Any]) -> Trace:
    """The trace that columns hold."""
    return Trace(
        problem=problem_of(row),
        reasoning=row["reasoning"],
        answer=row["answer"],
        finish_reason=row["finish_reason"],
        n_tokens=row["n_tokens"],
        teacher=row["teacher"],
        source=row["source"],
        correct=row["correct"],
    )
