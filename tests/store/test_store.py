"""The store: results appear whole or not at all, whatever interrupts; the journal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from core_factories import stage, tree
from hypothesis import given
from hypothesis import strategies as st

from distillbench.errors import DamagedError, StoreError
from distillbench.fingerprint import key_of
from distillbench.plan.stage import Stage
from distillbench.store.format import STORE_FORMAT
from distillbench.store.journal import Journal
from distillbench.store.places import Places
from distillbench.store.store import Made, Store, tree_bytes, write_json

ONE = stage(1, "traces")
TWO = stage(2, "curate", ONE)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def make(store: Store, one: Stage, content: str = "content", holes: int = 0, **facts: Any) -> None:
    """Finishes a stage with one output."""
    (store.work(one) / "out.txt").write_text(content)
    (store.scratch(one) / "journal").write_text("half-way")
    store.finish(one, Made(("out.txt",), facts, holes), 1.5, {"host": "here"})


def test_looking_at_a_store_makes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "store")
    assert store.lookup(ONE) is None and store.digest(ONE) is None and store.facts(TWO) is None
    assert store.latest("train", 9) == []
    assert store.overview()["finished"] == {}
    assert not (tmp_path / "deep").exists()


def test_a_finished_stage(store: Store) -> None:
    make(store, ONE, kept=3)
    found = store.lookup(ONE)
    assert found is not None
    assert (found.holes, found.freed, found.seconds, dict(found.facts), dict(found.inputs)) == (
        0,
        False,
        1.5,
        {"kept": 3},
        {},
    )
    assert sorted(path.name for path in store.folder(ONE).iterdir()) == ["manifest.json", "out.txt"]
    assert not (store.root / "work" / ONE.key).exists()
    manifest = json.loads((store.folder(ONE) / "manifest.json").read_text())
    assert (manifest["key"], manifest["kind"], manifest["label"]) == (ONE.key, "traces", ONE.label)
    assert manifest["about"] == {"host": "here"} and manifest["outputs"] == ["out.txt"]


def test_a_digest_is_of_the_outputs_and_nothing_else(tmp_path: Path) -> None:
    digests = []
    for name, content, more in (("a", "x", ""), ("b", "x", "log"), ("c", "y", "")):
        store = Store(tmp_path / name)
        (store.work(ONE) / "unlisted.log").write_text(more)
        make(store, ONE, content)
        digests.append(store.digest(ONE))
    assert digests[0] == digests[1] != digests[2]


def test_the_inputs_a_stage_read_are_recorded(store: Store) -> None:
    make(store, ONE)
    make(store, TWO)
    first = store.lookup(TWO)
    assert first is not None and first.inputs == {ONE.key: store.digest(ONE)}
    make(store, ONE, "changed")
    assert store.lookup(TWO) == first
    assert first.inputs != {ONE.key: store.digest(ONE)}


def test_a_result_that_is_replaced_is_kept(store: Store) -> None:
    make(store, ONE, "first")
    make(store, ONE, "second")
    assert (store.folder(ONE) / "out.txt").read_text() == "second"
    (kept,) = (store.root / "superseded" / "traces").iterdir()
    assert (kept / "out.txt").read_text() == "first" and (kept / "manifest.json").exists()
    assert store.overview()["superseded_bytes"] == tree_bytes(store.root / "superseded") > 0


class Killed(BaseException):
    """The process is gone: nothing after it runs."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Kills before the n-th operation that changes the file system durably."""
    names = [(os, "fsync"), (Path, "rename"), (Path, "replace")]
    real = [getattr(owner, name) for owner, name in names]

    def arm(number: int) -> None:
        count = 0

        def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                nonlocal count
                count += 1
                if count == number:
                    raise Killed
                return function(*arguments)

            return call

        for (owner, name), function in zip(names, real, strict=True):
            monkeypatch.setattr(owner, name, guarded(function))

    yield arm
    monkeypatch.undo()


@pytest.mark.parametrize("older", [False, True])
def test_a_kill_at_any_moment_leaves_a_whole_result_or_none(
    tmp_path: Path, older: bool, kill_at: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `recover` there is the old result or the new one; the old one is never lost before the new one is there."""
    outcomes = []
    for number in range(1, 40):
        store = Store(tmp_path / f"store-{older}-{number}")
        if older:
            make(store, ONE, "old")
        (store.work(ONE) / "out.txt").write_text("new")
        kill_at(number)
        try:
            store.finish(ONE, Made(("out.txt",), {}), 1.0, {})
            finished = True
        except Killed:
            finished = False
        monkeypatch.undo()
        again = Store(store.root)
        again.recover(ONE)
        found = again.lookup(ONE)
        content = (again.folder(ONE) / "out.txt").read_text() if found else None
        assert content in (("old", "new") if older else (None, "new"))
        kept = list((store.root / "superseded").rglob("out.txt"))
        assert ("old" in [content, *(path.read_text() for path in kept)]) == older
        outcomes.append(content)
        if finished:
            assert content == "new"
            break
        if content == "new":  # installed by recover: nothing is left over
            assert not (store.root / "work" / ONE.key).exists()
    else:
        pytest.fail("finish does more than 38 durable operations")
    assert len(set(outcomes)) == 2, "kills before and after the moment from which the result counts"
    assert outcomes == sorted(outcomes, key=lambda content: content == "new"), "once it counts it stays"


def test_recovering_nothing_leaves_nothing(store: Store) -> None:
    """`status` would show a stage as stopped that never began."""
    make(store, ONE)
    store.recover(ONE)
    store.recover(TWO)
    assert store.overview()["unfinished"] == []


def test_a_half_written_work_folder_is_not_a_result(store: Store) -> None:
    (store.work(ONE) / "out.txt").write_text("half")
    store.recover(ONE)
    assert store.lookup(ONE) is None
    (unfinished,) = store.overview()["unfinished"]
    assert unfinished == {"key": ONE.key, "state": "stopped", "bytes": 4}


def test_large_files_are_freed_and_the_rest_stays(store: Store) -> None:
    work = store.work(ONE)
    for step in (1, 2):
        (work / f"step-{step}").mkdir()
        (work / f"step-{step}" / "model.safetensors").write_bytes(b"x" * 1000)
    make(store, ONE, kept=1)
    digest = store.digest(ONE)
    assert store.free(ONE, ["step-1"]) == 1000
    found = store.lookup(ONE)
    assert found is not None and found.freed and found.digest == digest and found.facts == {"kept": 1}
    assert sorted(path.name for path in store.folder(ONE).iterdir()) == ["manifest.json", "out.txt", "step-2"]


def test_freeing_can_be_interrupted_and_done_again(store: Store) -> None:
    (store.work(ONE) / "step-1").mkdir()
    make(store, ONE)
    store.free(ONE, ["step-1"])
    assert store.free(ONE, ["step-1"]) == 0
    assert store.free(TWO, ["step-1"]) == 0


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1}', "\x00", "[" * 9000, '{"seal": 1}', "\ud83d"])
def test_a_manifest_that_is_damaged_is_no_result_and_says_why(store: Store, text: str) -> None:
    make(store, ONE)
    (store.folder(ONE) / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert store.lookup(ONE) is None and store.facts(ONE) is None and store.latest("traces", 9) == []
    assert "manifest.json is damaged" in (store.damage(ONE) or "")
    assert store.overview()["damaged"] == [store.damage(ONE)]
    with pytest.raises(StoreError, match=r"manifest\.json is damaged"):
        store.manifest(ONE)


@pytest.mark.parametrize("text", ['{"format": 999}', "", "{", "[]", '"x"'])
def test_a_store_of_another_format_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(StoreError, match=r"store\.json(.|\n)*--store DIR"):
        Store(tmp_path)


def test_a_folder_with_other_files_is_no_store(tmp_path: Path) -> None:
    """`gc` would take the user's own `cache` and `work` for the store's."""
    (tmp_path / "cache").mkdir()
    with pytest.raises(StoreError, match=r"is no store of distillbench(.|\n)*--store DIR"):
        Store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"], "nothing was written"
    assert Store(tmp_path / "cache").root.exists(), "an empty folder may become one"


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"the store .*file/store cannot be"):
        Store(tmp_path / "file" / "store").work(ONE)


def test_the_format_is_written_once_something_is(store: Store) -> None:
    store.work(ONE)
    assert json.loads((store.root / "store.json").read_text()) == {"format": STORE_FORMAT}
    assert Store(store.root).lookup(ONE) is None


def test_locks(store: Store) -> None:
    assert not store.is_locked(ONE.key)
    with store.lock(ONE.key):
        assert store.is_locked(ONE.key) and not store.is_locked(TWO.key)
        store.work(ONE)
        assert store.overview()["unfinished"][0]["state"] == "running"
    assert not store.is_locked(ONE.key)


def test_the_latest_stages_of_a_kind(store: Store) -> None:
    for number in range(5):
        one = stage(number, "train")
        (store.work(one) / "o").write_text("x")
        store.finish(one, Made(("o",), {}), float(number), {})
        manifest = store.folder(one) / "manifest.json"
        os.utime(manifest, (1000 + number, 1000 + number))
    assert [manifest["seconds"] for manifest in store.latest("train", most=9)] == [0, 1, 2, 3, 4]
    assert [manifest["seconds"] for manifest in store.latest("train", most=2)] == [3, 4]
    assert store.latest("grade", most=9) == []


def test_the_overview_counts_by_kind(store: Store) -> None:
    make(store, ONE)
    make(store, TWO)
    store.reports("m").joinpath("report.md").write_text("# report")
    found = store.overview()
    assert {kind: about["stages"] for kind, about in found["finished"].items()} == {"traces": 1, "curate": 1}
    assert found["finished"]["traces"]["bytes"] == tree_bytes(store.folder(ONE))
    assert found["reports"] == [str(store.root / "reports" / "m" / "report.md")]


def test_json_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": 1, "a": Path("x")})
    assert json.loads(path.read_text()) == {"a": "x", "b": 1}
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        write_json(path, {"b": 2})
    assert json.loads(path.read_text())["b"] == 1


# ---------------------------------------------------------------- work left by a run with other inputs


def test_what_an_interrupted_run_left_counts_only_while_its_inputs_are_the_same(store: Store) -> None:
    make(store, ONE, "first")
    store.begin(TWO)
    (store.scratch(TWO) / "journal").write_text("rows of the first")
    store.begin(TWO)
    assert (store.scratch(TWO) / "journal").read_text() == "rows of the first"
    make(store, ONE, "second")
    store.begin(TWO)
    assert not (store.scratch(TWO) / "journal").exists()
    assert "inputs.json" not in tree(store.work(TWO)) or tree(store.work(TWO)).keys() <= {"scratch/inputs.json"}


def test_a_stage_without_inputs_goes_on_where_it_was(store: Store) -> None:
    store.begin(ONE)
    (store.scratch(ONE) / "journal").write_text("rows")
    store.begin(ONE)
    assert (store.scratch(ONE) / "journal").read_text() == "rows"


# ---------------------------------------------------------------- journal


def test_a_journal_keeps_what_was_appended(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        assert list(journal) == [] and journal.n_rows == 0
        journal.append({"a": "ü\n\u2028", "n": 1})
        assert list(Journal(path)) == [{"a": "ü\n\u2028", "n": 1}], "another process sees it before it is closed"
    with Journal(path) as journal:
        journal.append({"a": 2})
        assert list(journal) == [{"a": "ü\n\u2028", "n": 1}, {"a": 2}]
    assert Journal(path).n_rows == 2


ROWS = st.lists(
    st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=8) | st.none(), max_size=3), max_size=5
)


@given(rows=ROWS, cut=st.integers(0, 400))
def test_a_journal_cut_anywhere_keeps_every_whole_row_and_can_go_on(
    tmp_path_factory: Any, rows: list[Any], cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j.jsonl"
    with Journal(path) as journal:
        for row in rows:
            journal.append(row)
    content = path.read_bytes()[:cut]
    path.write_bytes(content)
    whole = content.count(b"\n")
    with Journal(path) as journal:
        assert list(journal) == rows[:whole]
        journal.append({"more": 1})
    assert list(Journal(path)) == [*rows[:whole], {"more": 1}]


@given(rows=ROWS, more=ROWS)
def test_a_journals_rows_are_found_where_they_lie(tmp_path_factory: Any, rows: list[Any], more: list[Any]) -> None:
    path = tmp_path_factory.mktemp("journal") / "j.jsonl"
    found: dict[int, Any] = {}
    with Journal(path) as journal:
        placed = {journal.append(row): row for row in rows}
    with Journal(path, found=found.__setitem__) as journal:
        assert found == placed
        placed |= {journal.append(row): row for row in more}
        assert list(journal.rows_at(reversed(placed))) == list(reversed(placed.values()))
        assert journal.n_rows == len(placed) == len(rows) + len(more)


def test_a_row_that_was_damaged_since_is_told_and_not_given(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path, in_order=True) as journal:
        places = [journal.append({"n": number}) for number in range(3)]
        content = path.read_bytes()
        path.write_bytes(content.replace(b'"n": 1', b'"n": 7'))
        assert list(journal.rows_at(places[::2])) == [{"n": 0}, {"n": 2}]
        for read in (journal.rows_at(places), iter(journal)):
            assert next(read) == {"n": 0}
            with pytest.raises(DamagedError, match=r"j\.jsonl.*damaged"):
                next(read)


def test_a_journal_notices_that_another_has_written(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        journal.append({"n": 1})
        assert journal.is_current
        with Journal(path) as other:
            other.append({"n": 2})
        assert not journal.is_current
    with Journal(path) as journal:
        assert journal.is_current
        path.rename(tmp_path / "finished.jsonl")
        assert not journal.is_current
        path.write_bytes((tmp_path / "finished.jsonl").read_bytes())
        assert not journal.is_current


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=120))
def test_places_are_those_that_were_noted_last(added: list[tuple[int, bool]]) -> None:
    """Digests that share their first half, too, and whatever has been sorted in between."""
    digests = [(key_of(number) if is_other else key_of(0)[:16] + key_of(number)[16:]) for number, is_other in added]
    places, wanted = Places(), dict[str, int]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distillbench.store.places._MOST_APART", 3)
        for place, digest in enumerate(digests):
            places.add(digest, place)
            wanted[digest] = place
            assert places.get(digest) == place
    assert {digest: places.get(digest) for digest in digests} == wanted
    assert places.get(key_of("another")) is None
