"""Tables: what goes in comes out, cut into batches of bounded size at places that depend on the rows alone."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from core_factories import trace
from hypothesis import given
from hypothesis import strategies as st

from distillbench.records import Generation, Message, Problem, Sample, SampleVerdict, Trace, Verdict
from distillbench.store.columns import IDS, REAL, TEXT, WHOLE, YES_NO
from distillbench.store.journal import Journal
from distillbench.store.mapped import MappedRows, StoredRows
from distillbench.store.places import Whereabouts
from distillbench.store.rows import (
    SCHEMAS,
    RowWriter,
    batches,
    count_rows,
    iterate,
    problem_of,
    problem_row,
    read_column,
    read_rows,
    trace_of,
    trace_row,
    write_rows,
)
from distillbench.store.samples import (
    digest_of,
    from_journal,
    given_row,
    journal_row,
    sample_of,
    sample_row,
    verdict_of,
    verdict_row,
)

TEXTS = st.text(max_size=12).filter(lambda text: text.isascii() or text.encode("utf-8", "ignore").decode() == text)
PROBLEMS = st.builds(
    lambda number, texts, gold, doc: Problem(
        f"t/{number}", "t", tuple(Message("user", text) for text in texts), gold, {"doc": doc}
    ),
    st.integers(0, 99),
    st.lists(TEXTS, min_size=1, max_size=3),
    TEXTS,
    st.dictionaries(TEXTS, st.integers(-9, 9) | TEXTS | st.lists(st.integers(0, 9), max_size=3), max_size=3),
)
TRACE_SETS = st.builds(
    Trace,
    PROBLEMS,
    st.none() | TEXTS,
    TEXTS,
    st.sampled_from(["stop", "length"]),
    st.none() | st.integers(0, 2**40),
    TEXTS,
    TEXTS,
    TEXTS,
)


@given(st.lists(TRACE_SETS, max_size=5))
def test_traces_come_back_as_they_were(tmp_path_factory: Any, traces: list[Trace]) -> None:
    path = tmp_path_factory.mktemp("tables") / "traces.parquet"
    write_rows(path, map(trace_row, traces))
    assert [trace_of(row) for row in read_rows(path)] == traces


@given(PROBLEMS)
def test_problems_come_back_as_they_were(problem: Problem) -> None:
    assert problem_of(problem_row(problem)) == problem


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    rows = [trace_row(trace(number)) for number in range(20)]
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_rows(tmp_path / folder / "traces.parquet", iter(rows))
    assert (tmp_path / "one" / "traces.parquet").read_bytes() == (tmp_path / "two" / "traces.parquet").read_bytes()


def test_a_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    for name, columns in SCHEMAS.items():
        write_rows(tmp_path / name, [])
        assert read_rows(tmp_path / name) == []
        assert read_rows(tmp_path / name, list(columns)[:1]) == []


def test_token_ids_and_chosen_columns(tmp_path: Path) -> None:
    row = dict.fromkeys(SCHEMAS["samples.parquet"]) | {
        "sample_id": "t/0#0",
        "token_ids": [1, 151_668, 0],
        "seed": 2**47,
    }
    write_rows(tmp_path / "samples.parquet", [row])
    (found,) = read_rows(tmp_path / "samples.parquet", ("sample_id", "token_ids"))
    assert found.keys() == {"sample_id", "token_ids"}
    assert found["token_ids"].dtype == np.int32
    (found,) = read_rows(tmp_path / "samples.parquet")
    assert found | {"token_ids": found["token_ids"].tolist()} == row


def test_a_row_of_another_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"n_tokens|int|convert"):
        write_rows(tmp_path / "traces.parquet", [trace_row(replace(trace(), n_tokens="many"))])  # type: ignore[arg-type]


COLUMNS = {"id": TEXT, "n": WHOLE, "share": REAL, "is_kept": YES_NO, "ids": IDS}
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.none() | TEXTS,
            "n": st.none() | st.integers(-(2**63), 2**63 - 1),
            "share": st.none() | st.floats(allow_nan=False),
            "is_kept": st.none() | st.booleans(),
            "ids": st.none() | st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
        }
    ),
    max_size=12,
)


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its token ids as a list, after a look at their type."""
    assert row["ids"] is None or row["ids"].dtype == np.int32
    return row | {"ids": None if row["ids"] is None else row["ids"].tolist()}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of at most 3 rows and about 100 bytes."""
    monkeypatch.setattr("distillbench.store.rows._BATCH_ROWS", 3)
    monkeypatch.setattr("distillbench.store.rows._BATCH_BYTES", 100)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
@given(rows=ROWS)
def test_rows_come_back_as_they_were_in_order_whatever_they_are(
    tmp_path_factory: Any, name: str, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("rows") / name
    given_rows = (row | {"ids": None if row["ids"] is None else np.array(row["ids"], np.int32)} for row in rows)
    assert write_rows(path, given_rows, COLUMNS) == len(rows) == count_rows(path)
    assert [plain(row) for row in iterate(path)] == rows
    assert [row["n"] for row in iterate(path, ("n",))] == [row["n"] for row in rows]
    if rows:
        assert read_column(path, "share").to_pylist() == [row["share"] for row in rows]
    if name.endswith(".arrow"):
        mapped = pickle.loads(pickle.dumps(MappedRows(path)))
        assert [plain(mapped[place]) for place in range(len(mapped))] == rows == [plain(row) for row in mapped]
        assert [plain(row) for row in mapped[-2:]] == rows[-2:]
        for place in (len(rows), -len(rows) - 1):
            with pytest.raises(IndexError, match=r"rows\.arrow"):
                mapped[place]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
def test_a_batch_is_bounded_in_rows_and_in_bytes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with RowWriter(path, COLUMNS) as writer:
        for number in range(3000):
            assert number - writer.n_rows < 1024
            writer.append({"id": str(number)})
        for _ in range(40):
            writer.append({"id": "long " * 100_000, "ids": np.arange(125_000, dtype=np.int32)})  # 1 MB
    assert [batch.num_rows for batch in batches(path)] == [1024, 1024, 961, 9, 9, 9, 4]
    assert max(batch.nbytes for batch in batches(path)) < 10 << 20


@pytest.mark.parametrize("name", ["traces.parquet", "traces.arrow"])
def test_equal_rows_give_equal_bytes_however_they_come(tmp_path: Path, name: str) -> None:
    """Also of what differs in how it is held: arrays that are views, numbers of another width."""
    columns = SCHEMAS["traces.parquet"] | {"ids": IDS}
    block = np.arange(5000, dtype=np.int32)

    def rows(as_views: bool) -> Iterator[dict[str, Any]]:
        for number in range(2500):
            ids = block[number : number + 3] if as_views else np.array([number, number + 1, number + 2], np.int64)
            yield trace_row(trace(number)) | {"ids": ids}

    contents = []
    for as_views in (True, False):
        write_rows(tmp_path / name, rows(as_views), columns)
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize("bad", [[2**31], [-(2**31) - 1], [1.5], ["7"], [[1, 2]]])
def test_what_is_no_token_id_is_refused_and_never_wrapped(tmp_path: Path, bad: list[Any]) -> None:
    with (
        pytest.raises((OverflowError, TypeError), match=r"token id"),
        RowWriter(tmp_path / "rows.arrow", {"ids": IDS}) as writer,
    ):
        writer.append({"ids": np.array(bad)})
    with pytest.raises((OverflowError, TypeError), match=r"token id"):
        write_rows(tmp_path / "rows.parquet", [{"ids": bad}], {"ids": IDS})


def test_a_view_of_a_mapped_file_cannot_be_written_to(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.arrow", [{"ids": [1, 2, 3]}], {"ids": IDS})
    with pytest.raises(ValueError, match="read-only"):
        MappedRows(tmp_path / "rows.arrow")[0]["ids"][0] = 7
    assert MappedRows(tmp_path / "rows.arrow")[0]["ids"].tolist() == [1, 2, 3]


def test_a_data_set_reads_the_same_file(tmp_path: Path) -> None:
    """`datasets`, which trainers take their rows from, maps it as it is."""
    datasets = pytest.importorskip("datasets")
    write_rows(tmp_path / "rows.arrow", [{"ids": [1, 2]}, {"ids": [3]}], {"ids": IDS})
    assert datasets.Dataset.from_file(str(tmp_path / "rows.arrow"))["ids"][:] == [[1, 2], [3]]


SAMPLE_SETS = st.builds(
    Sample,
    sample_id=TEXTS,
    problem=PROBLEMS.map(lambda problem: problem_of(problem_row(problem))),
    repeat=st.integers(0, 9),
    prompt=TEXTS,
    prefill=TEXTS,
    seed=st.integers(0, 2**47),
    token_ids=st.lists(st.integers(0, 2**31 - 1), max_size=4).map(lambda ids: np.array(ids, np.int32)),
    text=TEXTS,
    finish_reason=st.sampled_from(["stop", "length", None]),
    error=st.none() | TEXTS,
    n_tokens=st.none() | st.integers(0, 9),
    n_prompt_tokens=st.none() | st.integers(0, 9),
    effective=st.dictionaries(TEXTS, st.integers(0, 9) | st.floats(0.25, 0.75), max_size=2),
)


@given(st.lists(SAMPLE_SETS, max_size=4))
def test_samples_come_back_as_they_were_from_files_and_from_journals(tmp_path_factory: Any, made: list[Sample]) -> None:
    folder = tmp_path_factory.mktemp("samples")
    write_rows(folder / "samples.parquet", map(sample_row, made))
    found = [sample_of(row) for row in iterate(folder / "samples.parquet")]
    digests = [digest_of(one) for one in made]
    assert [digest_of(one) for one in found] == digests
    assert [one.problem for one in found] == [one.problem for one in made]
    with Journal(folder / "samples.jsonl") as journal:
        places = [journal.append(journal_row(sample_row(one))) for one in made]
        again = [sample_of(from_journal(row)) for row in journal.rows_at(places)]
    assert [digest_of(one) for one in again] == digests


@given(SAMPLE_SETS, st.data())
def test_a_sample_that_differs_in_anything_has_another_digest(made: Sample, data: st.DataObject) -> None:
    """Else a verdict would be taken for one that it does not hold for."""
    name = data.draw(st.sampled_from([one.name for one in fields(Sample)]))
    other = replace(made, **{name: getattr(data.draw(SAMPLE_SETS), name)})
    is_same = np.array_equal(getattr(made, name), getattr(other, name))
    assert (digest_of(made) == digest_of(other)) == is_same


def test_what_an_engine_gave_is_stored_as_it_came() -> None:
    row = given_row(Generation("p#0", (1, 151_668), "text", "stop", None, None, 7, {"top_p": 0.5}))
    assert (row["token_ids"].dtype, row["token_ids"].tolist(), row["n_tokens"]) == (np.int32, [1, 151_668], 2)
    assert given_row(Generation("p#0", error="down"))["n_tokens"] is None
    for ids in ((2**31,), ("a",), (0.5,)):
        with pytest.raises((TypeError, OverflowError)):
            given_row(Generation("p#0", ids))  # type: ignore[arg-type]


@given(
    verdict=st.builds(Verdict, TEXTS, TEXTS, st.none() | TEXTS, st.dictionaries(TEXTS, st.floats(0, 1)), st.booleans())
)
def test_verdicts_come_back_as_they_were(tmp_path_factory: Any, verdict: Verdict) -> None:
    path = tmp_path_factory.mktemp("verdicts") / "verdicts.parquet"
    made = SampleVerdict("p#1", "p", 1, verdict, "5", "closed", 7, "0" * 32)
    write_rows(path, [verdict_row(made)])
    assert [verdict_of(row) for row in iterate(path)] == [made]


@pytest.mark.usefixtures("small")
@given(st.lists(st.integers(0, 2), min_size=1, max_size=20), st.data())
def test_rows_are_read_from_whichever_file_they_lie_in(
    tmp_path_factory: Any, sources: list[int], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("where")
    order = data.draw(st.permutations(range(len(sources))))
    with Journal(folder / "j.jsonl") as journal:
        for name in ("a.parquet", "b.parquet"):
            write_rows(folder / name, ({"n": number} for number in order), {"n": WHOLE})
        stored = [StoredRows(folder / name).rows_at for name in ("a.parquet", "b.parquet")]
        where = Whereabouts(len(sources), [journal.rows_at, *stored])
        for place, number in enumerate(order):
            assert number not in where and where.n_known == place
            source = sources[number]
            where.put(number, source, place if source else journal.append({"n": number}))
        assert [row["n"] for row in where.rows(range(len(sources)))] == list(range(len(sources)))
        where.forget(0)
        assert where.n_known == len(sources) - 1 and 0 not in where
        with pytest.raises(LookupError):
            list(where.rows([0]))


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
def test_a_column_does_not_hold_the_others(tmp_path: Path, name: str) -> None:
    """24 MB of ids lie beside it; what Arrow has taken to give the column is less than one batch of them."""
    ids = np.arange(30_000, dtype=np.int32)
    write_rows(tmp_path / name, ({"n": number, "ids": ids} for number in range(200)), {"n": WHOLE, "ids": IDS})
    before = pa.total_allocated_bytes()
    column = read_column(tmp_path / name, "n")
    assert pa.total_allocated_bytes() - before < 1 << 20
    assert column.to_pylist() == list(range(200)) and count_rows(tmp_path / name) == 200
