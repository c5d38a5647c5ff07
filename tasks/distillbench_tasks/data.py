"""Loads the data of the built-in benchmarks, for lm-eval's `custom_dataset`: a local copy, or else the pinned source.

A task says in `metadata.data` what it needs (`distillbench.tasks.data.DataSource`). Its own module turns one row of the
source, or of the copy, into one document; this one reads, counts and checks.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distillbench.errors import DistillbenchError, TaskError
from distillbench.tasks.data import DATA_ROOT, DataSource, data_root, data_source

Row = Mapping[str, Any]
Doc = dict[str, Any]
#: One row of a source or of its copy to one document; None for a row that the release does not have. A row that is not
#: what it should be is a KeyError (a column) or a ValueError.
Adapter = Callable[[Row], Doc | None]
#: Which documents of the source the task asks, by number and in order.
Chooser = Callable[[Any], Sequence[int]]

#: Rows that are written at a time; the tests of one LiveCodeBench problem may take 60 MB.
_WRITE_ROWS = 16


def load(metadata: Mapping[str, Any], adapt: Adapter, choose: Chooser | None = None) -> dict[str, Any]:
    """The documents of a benchmark, as its only split `test`.

    Args:
        metadata: What lm-eval hands to `custom_dataset`: the task's `metadata`, and what the command line adds.
        adapt: Makes the documents.
        choose: Says which of them the task asks; all of them where it is not given.

    Raises:
        TaskError: The data cannot be had, or it is not what the task was made for.
    """
    place = str(metadata.get("config_source", "metadata"))
    source = data_source(metadata, place)
    if source is None:
        raise TaskError(f"{place}: wanted a block `data` with `hub` or `urls` in the task's metadata, got none")
    root = data_root(metadata.get("data_root"))
    files = source.local_files(root)
    found = _from_files(files, adapt) if files else _from_source(source, adapt, root, place)
    _check_count(found, source, files, place)
    chosen = found if choose is None else found.select(list(choose(found)))
    if not len(chosen):
        raise TaskError(f"{place}: none of the {len(found)} problems is left; look at the task's `window` or its like")
    return {"test": chosen}


def read_json(path: Path) -> Iterator[Row]:
    """The rows of a file of JSON lines, which may be compressed, or of a JSON list.

    Raises:
        TaskError: It is none of these.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as stream:
        try:
            if path.suffix == ".json":
                yield from json.load(stream)
            else:
                yield from (json.loads(line) for line in stream if line.strip())
        except ValueError as error:
            raise TaskError(f"{path}: wanted JSON lines or, in *.json, a list of rows; {error}") from error


def _from_files(files: Sequence[Path], adapt: Adapter) -> Any:
    from datasets import Dataset

    docs = []
    for file in files:
        for number, row in enumerate(read_json(file)):
            docs.append(_adapted(row, adapt, f"{file}: row {number}"))
    return Dataset.from_list([doc for doc in docs if doc is not None])


def _from_source(source: DataSource, adapt: Adapter, root: Path | None, place: str) -> Any:
    from datasets import Dataset, load_dataset

    try:
        if source.urls:
            return _from_lines(source.addresses, adapt)
        rows = load_dataset(source.hub, source.config or None, split=source.split, revision=source.revision or None)
    except DistillbenchError:
        raise
    except Exception as error:  # no network, an unknown data set, a full disk: each ends here, and is told
        raise TaskError(_absent(source, root, place, error)) from error
    docs = [_adapted(row, adapt, f"{source.pinned}: row {number}") for number, row in enumerate(rows)]
    return Dataset.from_list([doc for doc in docs if doc is not None])


def _from_lines(addresses: Sequence[str], adapt: Adapter) -> Any:
    """Documents made of files of JSON lines. They go to disk one by one: LiveCodeBench has 4 GB of tests.

    datasets' own reader of JSON is not used: it wants one type for each column, which EvalPlus' inputs do not have, and
    it turns what looks like a date into one.
    """
    from datasets import Dataset, DownloadManager
    from datasets.exceptions import DatasetGenerationError

    paths = [str(path) for path in DownloadManager().download_and_extract(list(addresses))]
    try:
        return Dataset.from_generator(
            _documents, gen_kwargs={"paths": paths, "adapt": adapt}, writer_batch_size=_WRITE_ROWS
        )
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, DistillbenchError):
            raise error.__cause__ from error
        raise


def _documents(paths: Sequence[str], adapt: Adapter) -> Iterator[Doc]:
    for path in paths:
        for number, row in enumerate(read_json(Path(path))):
            doc = _adapted(row, adapt, f"{path}: row {number}")
            if doc is not None:
                yield doc


def _adapted(row: Row, adapt: Adapter, place: str) -> Doc | None:
    try:
        return adapt(row)
    except KeyError as error:
        raise TaskError(f"{place}: wanted the column {error}, got {', '.join(sorted(row))}") from error
    except ValueError as error:
        raise TaskError(f"{place}: {error}") from error


def _check_count(found: Any, source: DataSource, files: Sequence[Path], place: str) -> None:
    key = "file_rows" if files and source.file_rows is not None else "rows"
    wanted = source.file_rows if key == "file_rows" else source.rows
    if len(found) != wanted:
        where = ", ".join(map(str, files)) or source.pinned
        raise TaskError(
            f"{place}: wanted {wanted} rows, got {len(found)} from {where}\n"
            f"    hint: if these are the problems you mean, say so: metadata: {{data: {{{key}: {len(found)}}}}}"
        )


def _absent(source: DataSource, root: Path | None, place: str, error: Exception) -> str:
    looked = f"{root / source.file}: not there" if root else f"not looked for: no {DATA_ROOT}, no `data_root`"
    why = next(iter(str(error).splitlines()), "")
    return (
        f"{place}: the benchmark's data cannot be had\n"
        f"    local copy:  {looked}\n"
        f"    source:      {source.pinned}\n"
        f"                 {type(error).__name__}: {why}\n"
        f"    hint:        set {DATA_ROOT}, or `data_root` in the matrix, to a folder that holds {source.file}, "
        f"or run once with network; `distillbench data` lists what is there"
    )
