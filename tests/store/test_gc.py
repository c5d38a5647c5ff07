"""`distillbench gc`: what is needless, what stays and why, and that nothing in use is touched."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from core_bench import Control, Toys, noted

from distillbench.sealed import write_sealed
from distillbench.store.garbage import find_needless, free
from distillbench.store.report_folders import STAGES

Cli = Callable[..., Any]
Matrix = Callable[..., Path]


@pytest.fixture(autouse=True)
def _with_toys(toys: Path) -> None:
    """The toy plugin is installed in every test of this module."""


def put(path: Path, days: float = 0, size: int = 1000) -> Path:
    """A folder of the store with a file in it, so many days old."""
    path.mkdir(parents=True)
    (path / "file").write_bytes(b"x" * size)
    then = time.time() - days * 86400
    for each in (path / "file", path):
        os.utime(each, (then, then))
    return path


def needless(bench: Toys) -> set[str]:
    root = bench.session.store.root
    return {str(one.path.relative_to(root)) for one in find_needless(bench.session.store).needless}


def one_key(bench: Toys, kind: str, **changes: Any) -> str:
    return next(key for key, stage in bench.plan(changes).stages.items() if stage.kind == kind)


# ---------------------------------------------------------------- what is needless


def test_an_empty_store_has_nothing_to_free(cli: Cli, tmp_path: Path) -> None:
    done = cli("gc", "--yes")
    assert done.code == 0 and done.out == "nothing is needless\n"


def test_superseded_results_and_caches_are_needless(bench: Toys) -> None:
    store = bench.session.store
    noted(bench.load())
    put(store.root / "superseded" / "train" / "abc-1")
    put(store.root / "cache" / "code")
    (store.root / "cache" / "empty").mkdir()
    assert needless(bench) == {"superseded/train/abc-1", "cache/code"}


def test_what_a_kill_left_of_a_report_goes_after_a_day(bench: Toys) -> None:
    noted(bench.load())
    report = bench.session.store.reports("toys")
    for name, days in ((".12.tmp", 1.1), ("lm_eval/.13.tmp", 1.1), (".14.tmp", 0.9)):
        put(report / name, days)
    (report / ".results.parquet.15.tmp").write_text("half")
    os.utime(report / ".results.parquet.15.tmp", (0, 0))
    gone = {f"reports/toys/{name}" for name in (".12.tmp", "lm_eval/.13.tmp", ".results.parquet.15.tmp")}
    assert needless(bench) == gone
    assert len(list(free(bench.session.store, find_needless(bench.session.store).needless))) == 3
    assert needless(bench) == set() and (report / ".14.tmp").exists()


def test_what_a_killed_run_left_stays_for_a_day_and_while_a_plan_wants_it(bench: Toys) -> None:
    store = bench.session.store
    noted(bench.load())
    wanted = one_key(bench, "train")
    for name, days in ((wanted, 30), ("young", 0.9), ("old", 1.1)):
        put(store.root / "work" / name, days)
    put(store.root / "work" / "touched", 9)
    (store.root / "work" / "touched" / "samples.jsonl").write_text("now")
    assert needless(bench) == {"work/old"}


def test_a_stage_that_no_report_names_is_needless(bench: Toys) -> None:
    store = bench.session.store
    noted(bench.load())
    put(store.root / "stages" / "train" / one_key(bench, "train"))
    gone = one_key(bench, "train", trainers={"fit": {"rate": 0.7}})
    put(store.root / "stages" / "train" / gone)
    assert needless(bench) == {f"stages/train/{gone}"}
    noted(bench.load({"name": "other", "trainers": {"fit": {"rate": 0.7}}}))
    assert needless(bench) == set(), "the other report needs it"


@pytest.mark.parametrize("only", [(), ("seed=0",)])
@pytest.mark.parametrize("limit", [None, 2])
def test_a_look_at_few_cells_or_few_problems_gives_nothing_up(
    bench: Toys, only: tuple[str, ...], limit: int | None
) -> None:
    store, changes = bench.session.store, {"matrix": {"seed": [0, 1]}}
    part = bench.load(changes, only=only, limit=limit)
    noted(part)
    for key, stage in {**bench.plan(changes).stages, **part.make_plan().stages}.items():
        put(store.root / "stages" / stage.kind / key)
    assert needless(bench) == set()
    noted(bench.load(changes))
    assert needless(bench) == set(), "the report of the part needs its own"
    own = {*part.make_plan().stages} - {*bench.plan(changes).stages}
    assert bool(own) == (limit is not None)
    if part.subset:
        shutil.rmtree(part.report_folder())
    assert {Path(name).name for name in needless(bench)} == own


def test_a_plan_that_grows_is_named_before_it_runs(
    bench: Toys, cli: Cli, matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ends half-way through the larger plan leaves nothing that `gc` takes for needless."""
    from distillbench.session import running

    written, named = running.write_report, []

    def looked(*arguments: Any) -> Any:
        named.append(json.loads((bench.session.store.reports("toys") / "stages.json").read_text())["stages"])
        return written(*arguments)

    monkeypatch.setattr(running, "write_report", looked)
    changes = {"trainers": {"fit": {"steps": []}}}
    assert cli("--store", bench.session.store.root, "run", matrix(changes)).code == 0
    assert set(named[0]) == set(bench.plan(changes).stages)


# ---------------------------------------------------------------- what stays


def test_while_something_runs_stages_and_caches_stay(bench: Toys) -> None:
    store = bench.session.store
    noted(bench.load())
    for name in ("stages/train/unnamed", "work/old", "work/running", "cache/code", "superseded/train/abc-1"):
        put(store.root / name, days=3)
    with store.lock("running").acquire():
        assert needless(bench) == {"work/old", "superseded/train/abc-1"}
        assert find_needless(store).kept == ("stages and caches: 1 stages are running",)
    assert needless(bench) == {
        "work/old",
        "work/running",
        "superseded/train/abc-1",
        "cache/code",
        "stages/train/unnamed",
    }


def test_a_store_whose_needs_are_not_known_keeps_every_stage(bench: Toys, cli: Cli) -> None:
    store = bench.session.store
    put(store.root / "stages" / "train" / "unnamed")
    assert find_needless(store).kept[0].startswith("every stage: no report says what it needs")
    noted(bench.load())
    (store.reports("older", "limit-2") / "report.md").write_text("")
    assert needless(bench) == set()
    assert (
        "kept: every stage: report older, report older/limit-2 does not say what it needs" in cli("gc", "--dry-run").out
    )


def test_a_spoiled_list_of_stages_stops_it(bench: Toys, cli: Cli) -> None:
    (bench.session.store.reports("toys") / "stages.json").write_text("{")
    done = cli("gc", "--yes")
    assert done.code == 2 and "stages.json cannot be read" in done.err


def test_what_has_been_claimed_meanwhile_is_left(bench: Toys) -> None:
    store = bench.session.store
    noted(bench.load())
    claimed, named, gone = (put(store.root / "stages" / "train" / name) for name in ("claimed", "named", "gone"))
    found = find_needless(store).needless
    assert {one.path for one in found} == {claimed, named, gone}
    write_sealed(store.reports("toys") / "stages.json", {"stages": {"named": "train"}}, STAGES)
    with store.lock("claimed").acquire():
        assert list(free(store, found)) == [] and all(path.exists() for path in (claimed, named, gone))
    assert {one.path for one in free(store, found)} == {claimed, gone}
    assert named.exists() and not claimed.exists() and not gone.exists()


# ---------------------------------------------------------------- the command


def test_it_shows_asks_and_frees(bench: Toys, cli: Cli) -> None:
    store = bench.session.store
    noted(bench.load())
    put(store.root / "superseded" / "train" / "abc-1", size=3 << 20)
    put(store.root / "stages" / "grade" / "unnamed")
    seen = cli("gc", "--dry-run")
    assert seen.code == 0 and "superseded result" in seen.out and "3.0 MiB" in seen.out and "grade stage" in seen.out
    told = cli("gc", "--json").json
    assert {one["what"] for one in told["needless"]} == {"superseded result", "grade stage"}
    assert told["bytes"] == (3 << 20) + 1000
    asked = cli("gc")
    assert asked.code == 2 and "say --yes" in asked.err
    assert (store.root / "stages" / "grade" / "unnamed").exists()
    done = cli("gc", "--yes")
    assert done.code == 0 and "freed: 2 folders, 3.0 MiB" in done.out
    assert not any((store.root / "superseded").rglob("*.*")) and not (store.root / "stages/grade/unnamed").exists()
    assert cli("gc", "--yes").out == "nothing is needless\n"


def test_links_are_removed_and_what_they_lead_to_stays(bench: Toys, tmp_path: Path) -> None:
    store = bench.session.store
    noted(bench.load())
    mine = tmp_path / "adapter.safetensors"
    mine.write_bytes(b"x" * 5000)
    folder = put(store.root / "stages" / "train" / "unnamed" / "step-1", size=10).parent
    (folder / "step-1" / "adapter.safetensors").symlink_to(mine)
    [found] = find_needless(store).needless
    assert found.n_bytes < 5000
    assert [one.path for one in free(store, [found])] == [folder]
    assert mine.stat().st_size == 5000 and not folder.exists()


@pytest.mark.slow
def test_a_run_after_it_reuses_everything(cli: Cli, matrix: Matrix, control: Control, tmp_path: Path) -> None:
    assert cli("run", matrix({"trainers": {"fit": {"rate": 0.7}}})).code == 0
    assert cli("run", matrix()).code == 0
    assert "grade stage" in cli("gc", "--dry-run").out
    assert cli("gc", "--yes").code == 0
    for what in ("teacher", "train", "asked"):
        control.log(what)
    done = cli("run", matrix())
    assert done.code == 0 and control.log("asked") == control.log("train") == control.log("teacher") == []
    assert cli("run", matrix({"trainers": {"fit": {"rate": 0.7}}})).code == 0
    assert control.log("train") == ["0 4"], "what was freed is made again"
