"""A damaged store never gives another number: what is damaged is named, the rest is reported, a run makes it again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import store_damage
from core_bench import Control, Toys
from core_factories import keys, merged, stage, tree
from hypothesis import given
from hypothesis import strategies as st

from distillbench.errors import DamagedError, StoreError
from distillbench.fingerprint import _large_digests, digest_path
from distillbench.plan.stage import Stage
from distillbench.sealed import sealed, unsealed, write_sealed
from distillbench.store.journal import Journal
from distillbench.store.store import Made, Store

pytestmark = pytest.mark.slow

Cli = Callable[..., Any]
BASE = "base-small"
#: A student that no stage builds, and one checkpoint: few processes.
SMALL = {"students": {"small": {"use": "toy-hub-student"}}, "trainers": {"fit": {"steps": [1, 2]}}}


@pytest.fixture
def bench(bench: Toys) -> Toys:
    return Toys(bench.session, lambda changes=None: bench.matrix(merged(SMALL, changes or {})))


def result(bench: Toys, kind: str, cell: str | None = None, which: int = 0) -> tuple[Stage, Path]:
    """A stage of the plan, and where its result lies."""
    plan = bench.plan()
    one = plan.stages[keys(plan, kind, cell)[which]]
    return one, bench.session.store.folder(one)


def flip(path: Path, place: int = -20) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))


def missing(report: Any) -> list[str]:
    return sorted({why for cell in report["cells"] for why in cell["missing"]})


# ---------------------------------------------------------------- a hundred mutations


def test_a_hundred_mutations_give_the_same_numbers_or_name_what_is_missing(
    toys: Path, control: Control, tmp_path: Path
) -> None:
    """`benchmarks/store_damage.py` makes 1,461 of them."""
    (tmp_path / "here").mkdir()
    found = store_damage.make_bench(tmp_path / "here", rates="0.1")
    tried = list(store_damage.mutations(tmp_path / "here" / "store", 1461))[::14]
    assert {one.kind for one in tried} == set(store_damage.KINDS) and len(tried) > 100
    assert [why for number, one in enumerate(tried) for why in found.try_one(one, runs=number % 30 == 0)] == []


def test_the_comparison_of_reports_can_fail() -> None:
    row = {"cell": "c", "step": 1, "evaluation": "e", "accuracy": 0.5, "difference": 0.1}
    cell = {"name": "c", "missing": [], "nll": [], "traces": {"kept": 3}, "preflight": []}
    before: dict[str, Any] = {"rows": [row], "budgets": [], "cells": [cell]}
    named = cell | {"missing": ["x is damaged"]}

    def wrong(may_miss: bool = True, **changes: Any) -> bool:
        return bool(list(store_damage.differences(before, before | changes, may_miss)))

    assert not wrong()
    assert wrong(rows=[row | {"accuracy": 1.0}], cells=[named]), "another number is wrong, whatever is named"
    assert wrong(rows=[]) and not wrong(rows=[], cells=[named]) and wrong(False, rows=[], cells=[named])
    assert wrong(cells=[named | {"traces": {"kept": 2}}]) and wrong(cells=[cell | {"traces": None}])
    assert not wrong(rows=[row | {"difference": None}], cells=[named])


# ---------------------------------------------------------------- what is damaged, and what a run does about it


def swapped_samples(bench: Toys) -> None:
    """One checkpoint's samples take the place of another's: the same problems, other answers."""
    _, one = result(bench, "sample", "wise", 0)
    _, other = result(bench, "sample", BASE)
    shutil.copy(other / "samples.parquet", one / "samples.parquet")


def swapped_folders(bench: Toys) -> None:
    (_, one), (_, other) = result(bench, "grade", "wise", 0), result(bench, "grade", BASE)
    one.rename(one.with_name("aside"))
    other.rename(one)
    one.with_name("aside").rename(other)


def foreign_manifest(bench: Toys) -> None:
    (_, one), (_, other) = result(bench, "grade", "wise", 0), result(bench, "grade", "wise", 1)
    shutil.copy(other / "manifest.json", one / "manifest.json")


def edited_fact(bench: Toys) -> None:
    """A manifest that says something else, as valid JSON."""
    path = result(bench, "curate")[1] / "manifest.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"facts": {"kept": 99, "rejected": {}}}))


DAMAGES: dict[str, tuple[Callable[[Toys], None], tuple[str, ...]]] = {
    "a flipped bit in verdicts": (
        lambda bench: flip(result(bench, "grade", BASE)[1] / "verdicts.parquet"),
        ("grade base-small@0 on toy is damaged", "verdicts.parquet is not what was written"),
    ),
    "samples cut in half": (
        lambda bench: os.truncate(result(bench, "sample", BASE)[1] / "samples.parquet", 1000),
        ("sample base-small@0 on toy is damaged", "samples.parquet is not what was written"),
    ),
    "samples that are gone": (
        lambda bench: (result(bench, "sample", BASE)[1] / "samples.parquet").unlink(),
        ("sample base-small@0 on toy is damaged", "samples.parquet is not there any more"),
    ),
    "samples of another checkpoint": (swapped_samples, ("sample wise@1 on toy is damaged", "samples.parquet is not")),
    "a result of another stage": (swapped_folders, ("grade wise@1", "is the manifest of another stage, grade base")),
    "the manifest of another stage": (foreign_manifest, ("grade wise@1 on toy is damaged", "grade wise@2 on toy")),
    "a manifest that says otherwise": (
        edited_fact,
        ("curate wise by no filter is damaged", "manifest.json is damaged"),
    ),
    "no manifest": (
        lambda bench: (result(bench, "train")[1] / "manifest.json").unlink(),
        ("train wise is damaged", "manifest.json is not there, and the rest of the result is"),
    ),
    "a loss curve": (
        lambda bench: flip(result(bench, "train")[1] / "metrics.jsonl"),
        ("train wise is damaged", "metrics.jsonl is not what was written"),
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_is_named_left_out_and_made_again(bench: Toys, cli: Cli, name: str) -> None:
    damage, said = DAMAGES[name]
    bench.run()
    store, matrix = bench.session.store.root, bench.matrix()
    before = cli("report", matrix, "--json", store=store).json
    damage(bench)
    spoiled = {content for path, content in tree(store / "stages").items()}
    done = cli("report", matrix, "--json", store=store)
    assert done.code == 0 and "Traceback" not in done.err
    assert list(store_damage.differences(before, done.json, may_miss=True)) == []
    told = missing(done.json)
    assert any(all(part in line for part in said) for line in told), told
    again = cli("run", matrix, "--json", store=store)
    assert again.code == 0 and "damaged: " in again.err and "it is made again" in again.err
    assert list(store_damage.differences(before, again.json, may_miss=False)) == []
    assert spoiled <= {*tree(store / "stages").values(), *tree(store / "damaged").values()}, "nothing is destroyed"
    assert {stage_.state for stage_ in bench.plan().statuses.values()} == {"done"}
    assert "damaged" not in cli("run", matrix, store=store).err


def test_plan_and_status_name_a_damaged_manifest(bench: Toys, cli: Cli) -> None:
    bench.run()
    one, folder = result(bench, "grade", BASE)
    (folder / "manifest.json").write_bytes(b"\xff\xfe")
    store, matrix = bench.session.store.root, bench.matrix()
    assert bench.plan().statuses[one.key].state == "todo"
    for command in (("plan", matrix), ("status",), ("plan", matrix, "--json"), ("run", matrix, "--dry-run")):
        done = cli(*command, store=store)
        assert done.code == 0 and str(folder / "manifest.json") in done.out and "damaged" in done.out
    assert folder.exists(), "looking moves nothing"


def test_damaged_weights_are_noticed_when_somebody_reads_them(bench: Toys, cli: Cli, control: Control) -> None:
    bench.run()
    control.log("train")
    _, folder = result(bench, "train")
    flip(folder / "step-1" / "model.safetensors", 0)
    matrix, store = bench.matrix(), bench.session.store.root
    done = cli("export", matrix, "wise@1", "--to", store.parent / "given", store=store)
    assert done.code == 2 and "step-1/model.safetensors is not what was written" in done.err
    assert cli("run", matrix, store=store).code == 0
    assert control.log("train") == [], "no stage reads them"
    more = bench.matrix({"evaluations": {"more": {"benchmark": "toy", "limit": 1}}})
    done = cli("run", more, store=store)
    assert done.code == 0 and "damaged: train wise" in done.err
    assert control.log("train") == ["0 4"]


def test_a_damaged_result_that_another_process_makes_again_stays_where_it_is(bench: Toys) -> None:
    bench.run()
    one, folder = result(bench, "grade", BASE)
    with bench.session.store.lock(one.key).acquire():
        assert bench.session.store.set_aside(one) is None
    assert folder.exists()


def test_gc_shows_what_was_moved_aside_and_asks(bench: Toys, cli: Cli) -> None:
    bench.run()
    flip(result(bench, "grade", BASE)[1] / "verdicts.parquet")
    store = bench.session.store.root
    assert cli("run", bench.matrix(), store=store).code == 0
    assert "damaged result" in cli("gc", "--dry-run", store=store).out
    assert cli("gc", "--yes", store=store).code == 0 and not list((store / "damaged").glob("*/*"))


# ---------------------------------------------------------------- a store that is not to be written


def test_a_report_goes_elsewhere_and_nothing_into_the_store(bench: Toys, cli: Cli, tmp_path: Path) -> None:
    bench.run()
    store, matrix, out = bench.session.store.root, bench.matrix(), tmp_path / "out" / "here"
    before = tree(store)
    done = cli("report", matrix, "--output", out, store=store)
    assert done.code == 0 and str(out / "report.md") in done.out.replace("\n", "")
    assert tree(store) == before and not list(store.glob("reports"))
    assert {path.name for path in out.iterdir()} >= {"report.md", "results.parquet", "samples.parquet", "lm_eval"}
    assert cli("report", matrix, "--output", out, store=store).code == 0, "an earlier report may be replaced"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.md").write_text("my own")
    refused = cli("report", matrix, "--output", tmp_path / "mine", store=store)
    assert refused.code == 2 and "holds other files" in refused.err
    assert (tmp_path / "mine" / "report.md").read_text() == "my own"


def test_looking_at_locks_writes_nothing(bench: Toys, cli: Cli) -> None:
    bench.run()
    store = bench.session.store
    lock = next((store.root / "locks").glob("*.lock"))
    lock.chmod(0o444)
    before = lock.stat().st_mtime_ns
    assert cli("status", store=store.root).code == 0
    assert not store.is_locked(lock.stem) and lock.stat().st_mtime_ns == before


# ---------------------------------------------------------------- the parts


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=5).filter(lambda name: name != "seal"), VALUES, max_size=4)


@given(value=OBJECTS, damage=st.data())
def test_sealed_json_is_what_was_written_or_an_error(value: dict[str, Any], damage: st.DataObject) -> None:
    content = bytearray(json.dumps(sealed(value, "mine")).encode())
    assert unsealed(bytes(content), "mine") == json.loads(json.dumps(value))
    with pytest.raises(ValueError, match="sealed"):
        unsealed(bytes(content), "another's")
    place, bit = damage.draw(st.integers(0, len(content) - 1)), damage.draw(st.integers(0, 7))
    content[place] ^= 1 << bit
    for spoiled in (bytes(content), bytes(content[:place])):
        with contextlib.suppress(ValueError):  # what is read all the same has a blank for another blank
            assert unsealed(spoiled, "mine") == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    "text", [b"", b"[" * 100_000, b"null", b"7", b'"seal"', b"[1]", b"{}", b"\xff", b'{"seal": {}}']
)
def test_whatever_is_no_sealed_json_is_one_kind_of_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"Error: |sealed"):
        unsealed(text, "mine")


ROWS = st.lists(st.dictionaries(st.sampled_from("abc"), st.integers() | st.text(max_size=6)), min_size=1, max_size=6)


@given(rows=ROWS, damage=st.data(), in_order=st.booleans())
def test_a_damaged_journal_gives_no_other_row_and_can_go_on(
    tmp_path_factory: Any, rows: list[dict[str, Any]], damage: st.DataObject, in_order: bool
) -> None:
    path = tmp_path_factory.mktemp("journal") / "rows.jsonl"
    with Journal(path, "mine", in_order) as journal:
        for row in rows:
            journal.append(row)
    flip(path, damage.draw(st.integers(0, path.stat().st_size - 1)))
    with Journal(path, "mine", in_order) as journal:
        kept = list(journal)
        journal.append({"more": 1})
    assert all(row in rows for row in kept) and len(kept) >= (0 if in_order else len(rows) - 2)
    if in_order:
        assert kept == rows[: len(kept)], "a row's place says which it is"
    assert list(Journal(path, "mine", in_order)) == [*kept, {"more": 1}]


def test_rows_of_another_stage_do_not_count(tmp_path: Path) -> None:
    with Journal(tmp_path / "rows.jsonl", "mine") as journal:
        journal.append({"sample_id": "toy/1#0"})
    assert list(Journal(tmp_path / "rows.jsonl", "another's")) == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"seal": 1}', b"[" * 100_000])
def test_an_interrupted_stage_whose_inputs_are_not_known_is_moved_aside(tmp_path: Path, content: bytes) -> None:
    store, one = Store(tmp_path / "store"), stage(2, "curate", stage(1))
    store.begin(one)
    (store.scratch(one) / "rows").write_text("of unknown inputs")
    (store.scratch(one) / ".inputs.json").write_bytes(content)
    store.begin(one)
    assert not (store.scratch(one) / "rows").exists()
    assert [path.read_text() for path in (store.root / "damaged").rglob("rows")] == ["of unknown inputs"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"key": 1, "seal": 2}'])
def test_a_work_folder_with_a_damaged_manifest_replaces_no_result(tmp_path: Path, content: bytes) -> None:
    store, one = Store(tmp_path / "store"), stage()
    (store.work(one) / "out").write_text("good")
    store.finish(one, Made(("out",), {}), 1.0, {})
    (store.work(one) / "manifest.json").write_bytes(content)
    store.recover(one)
    assert store.lookup(one) is not None and (store.folder(one) / "out").read_text() == "good"
    assert not (store.root / "work" / one.key).exists()


def test_a_file_is_compared_once_and_again_when_its_result_is_another(tmp_path: Path) -> None:
    store, one = Store(tmp_path / "store"), stage()
    (store.work(one) / "out").write_text("good")
    store.finish(one, Made(("out",), {}), 1.0, {})
    assert store.file(one, "out").read_text() == "good"
    with pytest.raises(DamagedError, match="is no file that the result was written with"):
        store.file(one, "other")
    with pytest.raises(DamagedError, match="is not there"):
        store.file(stage(9), "out")
    (store.folder(one) / "out").write_text("bad!")
    with pytest.raises(DamagedError, match=r"traces of a test: .*out is not what was written"):
        Store(store.root).whole(one)


def test_a_result_that_may_not_be_read_is_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moving it aside would not help. Root reads everything, so the refusal is the test's own."""
    store, one = Store(tmp_path / "store"), stage()
    (store.work(one) / "out").write_text("good")
    store.finish(one, Made(("out",), {}), 1.0, {})

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(StoreError, match=r"manifest\.json cannot be read: Permission denied") as raised:
        store.lookup(one)
    assert not isinstance(raised.value, DamagedError)


@pytest.mark.parametrize("content", [b"", b"5", b"[1, 2]", b'{"a": "b"}', b"\xff", b"[" * 100_000])
def test_a_damaged_cache_of_digests_is_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("distillbench.fingerprint._LARGE_BYTES", 1)
    (tmp_path / "distillbench").mkdir()
    (tmp_path / "distillbench" / "digests.json").write_bytes(content)
    _large_digests.cache_clear()
    (tmp_path / "weights").write_bytes(b"weights")
    try:
        assert digest_path(tmp_path / "weights", remember=True) == digest_path(tmp_path / "weights")
    finally:
        _large_digests.cache_clear()


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"step": 4, "train_loss": 0.1}'])
@pytest.mark.parametrize(("spoiled", "last"), [((6,), 4), ((4,), 6), ((4, 6), 0)])
def test_a_training_goes_on_from_the_last_checkpoint_whose_row_is_whole(
    tmp_path: Path, content: bytes | None, spoiled: tuple[int, ...], last: int
) -> None:
    from distillbench_plugins.trainers.recording import COMPLETE, METRICS, Recorder

    for step in (4, 6):  # TRL keeps the last two
        trl = tmp_path / "trl" / f"checkpoint-{step}"
        trl.mkdir(parents=True)
        write_sealed(
            trl / COMPLETE, {"rows": [{"step": n, "train_loss": 1 / n} for n in (2, 4, 6) if n <= step]}, trl.name
        )
    for step in (2, 4, 6):
        (tmp_path / "out" / f"step-{step}").mkdir(parents=True)
    (tmp_path / "out" / METRICS).write_bytes(b"\xff what a flipped bit left")
    for step in spoiled:
        damaged = tmp_path / "trl" / f"checkpoint-{step}" / COMPLETE
        damaged.unlink() if content is None else damaged.write_bytes(content)
    recorder = Recorder(tmp_path / "out", tmp_path / "trl", (2, 4, 6), [])
    assert recorder.resume() == (str(tmp_path / "trl" / f"checkpoint-{last}") if last else None)
    rows = [json.loads(line) for line in (tmp_path / "out" / METRICS).read_text().splitlines()]
    assert rows == [{"step": step, "train_loss": 1 / step} for step in (2, 4, 6) if step <= last]
    assert {path.name for path in (tmp_path / "out").glob("step-*")} == {f"step-{n}" for n in (2, 4, 6) if n <= last}
