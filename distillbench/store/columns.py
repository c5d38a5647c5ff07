"""Rows as columns and back: the types that columns have, and token ids as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

Row = dict[str, Any]
#: Column types: those of files and of reports. IDS are int32 arrays of any length.
TEXT, WHOLE, REAL, YES_NO, IDS = "string", "int64", "double", "bool", "list<int32>"
#: The columns of a file, each with its type.
Columns = Mapping[str, str]


def schema_of(columns: Columns) -> pa.Schema:
    """The columns as Arrow has them."""
    import pyarrow as pa

    types = {
        TEXT: pa.string(),
        WHOLE: pa.int64(),
        REAL: pa.float64(),
        YES_NO: pa.bool_(),
        IDS: pa.list_(pa.int32()),
    }
    return pa.schema([(column, types[kind]) for column, kind in columns.items()])


def weight(value: Any) -> int:
    """What a value weighs, about; of its content alone, so that equal rows weigh the same."""
    if isinstance(value, str):
        return len(value)
    return 8 if value is None or isinstance(value, int | float) else 4 * len(value)


def batch_of(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Rows as columns.

    Raises:
        TypeError: A value is not of its column's type; so are `pa.ArrowException` and `OverflowError`.
    """
    import pyarrow as pa

    columns = [
        _ids_array([row.get(field.name) for row in rows])
        if pa.types.is_list(field.type)
        else pa.array([row.get(field.name) for row in rows], field.type)
        for field in schema
    ]
    return pa.record_batch(columns, schema=schema)


def _ids_array(arrays: Sequence[Any]) -> pa.ListArray:
    import numpy as np
    import pyarrow as pa

    found = [np.zeros(0, np.int32) if ids is None else int32(ids) for ids in arrays]
    ends = np.cumsum([0, *(len(ids) for ids in found)])
    missing = np.array([ids is None for ids in arrays], bool)
    mask = pa.array(missing) if missing.any() else None
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(np.concatenate(found)), mask=mask)


def int32(ids: Any) -> NDArray[np.int32]:
    """Token ids as an array of them.

    Raises:
        TypeError: They are no whole numbers.
        OverflowError: One has more than 32 bits.
    """
    import numpy as np

    given = np.asarray(ids)
    if len(given) and (given.dtype.kind not in "iu" or given.ndim != 1):
        raise TypeError(f"wanted whole numbers as token ids, got {given.dtype}")
    if given.dtype != np.int32 and len(given) and not (given.min() >= -(2**31) and given.max() < 2**31):
        raise OverflowError(f"{given.max()} is no token id: it has more than 32 bits")
    return given.astype(np.int32, copy=False)


def rows_of(batch: pa.RecordBatch) -> Iterator[Row]:
    """The rows of a batch; token ids are views on it."""
    names = batch.schema.names
    for values in zip(*(_values(column) for column in batch.columns), strict=True):
        yield dict(zip(names, values, strict=True))


def _values(column: pa.Array) -> list[Any]:
    """A column's values; token ids as views on the batch, without Python numbers."""
    import pyarrow as pa

    if not pa.types.is_list(column.type):
        values: list[Any] = column.to_pylist()
        return values
    ids, ends = column.values.to_numpy(), column.offsets.to_numpy()
    known = column.is_valid().to_pylist()
    return [
        ids[start:end] if is_known else None for start, end, is_known in zip(ends[:-1], ends[1:], known, strict=True)
    ]
