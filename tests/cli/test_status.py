"""How a run stands, from its events; what `status` and `samples` show."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from core_bench import Control, Toys
from hypothesis import given
from hypothesis import strategies as st

from distillbench import events
from distillbench.cli.words import counted, duration, numbers
from distillbench.events import (
    About,
    Ended,
    Event,
    Finished,
    Graded,
    Planned,
    Progressed,
    Sampled,
    Started,
    Told,
    from_line,
    to_line,
)
from distillbench.run.state import RunState
from distillbench.store.runs import RunLog, runs_of

Cli = Callable[..., Any]
Matrix = Callable[..., Path]

TRAIN, OTHER = About("t", "train", "wise"), About("u", "train", "wiser")
SAMPLE = About("s", "sample", "wise@1 on toy", "toy", "toy", 1)
PLANNED = Planned(
    at=100.0,
    matrix="toys",
    cells={"wise": ("x", "t", "s"), "wiser": ("x", "u")},
    stages=(TRAIN, OTHER, SAMPLE),
    done=1,
    n_stages=4,
    n_cells=2,
    grows=False,
)


def example(kind: type[Event]) -> Event:
    """An event of a kind."""
    more: dict[type[Event], dict[str, Any]] = {
        Planned: {one.name: getattr(PLANNED, one.name) for one in fields(PLANNED) if one.name != "at"},
        Progressed: {"done": 1, "total": None, "note": "steps"},
        Sampled: {"done": 1, "total": 2, "tokens": 3},
        Graded: {"outcomes": {"correct": 1}},
        Ended: {"ending": "failed", "why": "a line\nand another \x1b[31m"},
        events.Opened: {"session": "s", "student": "tiny", "engine": "vllm", "seconds": 1.5},
        events.Closed: {"session": "s"},
        Told: {"text": "half \ud83d of a character"},
        Finished: {"endings": {"done": 3}},
    }
    stage = {"stage": SAMPLE} if issubclass(kind, events.StageEvent) else {}
    return kind(at=1.25, **stage, **more.get(kind, {}))


@pytest.mark.parametrize("kind", Event.kinds.values(), ids=list(Event.kinds))
def test_an_event_is_a_line_and_the_line_is_the_event(kind: type[Event]) -> None:
    event = example(kind)
    line = to_line(event)
    assert line.endswith("\n") and line.count("\n") == 1
    again = from_line(line.encode().decode())
    assert to_line(again) == line and type(again) is kind


@pytest.mark.parametrize("line", ["", "{", "[]", "null", '{"event": "gone"}', '{"event": "told"}', '{"text": 1}'])
def test_a_line_that_is_no_event(line: str) -> None:
    with pytest.raises(ValueError, match="no event"):
        from_line(line)


def test_shares_of_cells_and_what_is_left() -> None:
    state = RunState.of([PLANNED, Started(at=100.0, stage=TRAIN)])
    assert (state.share("wise"), state.share("wiser"), state.n_done) == ((1, 3), (1, 2), 1)
    assert state.left(110.0) is None, "nothing says how long a training takes"
    state.take(Progressed(at=110.0, stage=TRAIN, done=10, total=40))
    state.take(Progressed(at=120.0, stage=TRAIN, done=20, total=40))
    (running,) = state.running.values()
    assert running.left(120.0) == 40.0, "ten steps in the ten seconds since the first was told"
    state.take(Ended(at=140.0, stage=TRAIN, ending="done", seconds=40.0))
    assert (state.share("wise"), state.n_done) == ((2, 3), 2) and not state.running
    assert state.left(140.0) is None, "nothing was sampled yet"
    state.take(Ended(at=150.0, stage=SAMPLE, ending="done", seconds=10.0))
    assert state.left(150.0) == 40.0, "one training, and fifty seconds of stages took fifty seconds"
    state.take(Ended(at=150.0, stage=OTHER, ending="failed", why="no"))
    assert state.left(150.0) == 0.0 and state.n_left == 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20))
def test_time_left_is_never_negative(done: list[int]) -> None:
    state = RunState.of([PLANNED, Started(at=100.0, stage=TRAIN)])
    for second, one in enumerate(sorted(done), 1):
        state.take(Progressed(at=100.0 + second, stage=TRAIN, done=one, total=50))
        left = state.running["t"].left(100.0 + 2 * second)
        assert left is None or left >= 0


def test_numbers_of_outcomes_leave_errors_out_and_say_their_n() -> None:
    found = numbers({"correct": 30, "wrong": 69, "truncated": 1, "generation_error": 4})
    assert found == "accuracy 0.300 [0.219, 0.396], n = 100: 30 correct, 69 wrong, 1 truncated, 4 generation_error"
    assert "[" not in numbers({"correct": 1, "wrong": 1}, repeats=2)
    assert numbers({"graded": 3}) == "3 graded" and numbers({"grader_error": 2}) == "2 grader_error"
    assert (counted(3, None), counted(1200, 5000)) == ("3", "1,200/5,000")
    assert (duration(99), duration(11100)) == ("99 s", "3 h 05 min")


# ---------------------------------------------------------------- the log


def test_a_log_says_whether_its_run_lives(bench: Toys) -> None:
    store = bench.session.store
    with RunLog(store, "toys") as log:
        log.write(PLANNED)
        (run,) = runs_of(store)
        assert run.is_alive and run.matrix == "toys" and [one.kind() for one in run.events()] == ["planned"]
        with log.path.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not runs_of(store)[0].is_alive


def test_progress_is_logged_now_and_then_and_the_last_word_always(bench: Toys) -> None:
    with RunLog(bench.session.store, "toys") as log:
        for step in range(1, 101):
            log.write(Progressed(at=100 + step / 10, stage=TRAIN, done=step, total=100))
        log.write(Ended(at=111, stage=TRAIN, ending="done"))
    found = [one for one in runs_of(bench.session.store)[0].events() if isinstance(one, Progressed)]
    assert [one.done for one in found] == [1, 51, 100]


def test_a_half_written_last_line_is_no_damage_and_another_is(bench: Toys, cli: Cli) -> None:
    with RunLog(bench.session.store, "toys") as log:
        log.write(PLANNED)
    with log.path.open("a") as stream:
        stream.write('{"event": "sta')
    assert len(list(runs_of(bench.session.store)[0].events())) == 1
    assert cli("status").code == 0
    log.path.write_text("no event\n" + log.path.read_text())
    done = cli("status")
    assert done.code != 0 and f"{log.path}, line 1" in done.err and "Traceback" not in done.err


# ---------------------------------------------------------------- the commands


def test_status_names_cells_and_shares_of_the_last_run(bench: Toys, cli: Cli, control: Control, matrix: Matrix) -> None:
    control.set("fail-train-1", "no luck")
    path = matrix({"matrix": {"engine": "talk", "seed": [0, 1]}})
    assert cli("run", path).code == 1
    said = cli("status").out
    assert "run toys: ended, 5 stages failed or blocked" in said
    lines = {line.split()[0]: line for line in said.splitlines() if line.startswith("  ")}
    assert "100%" in lines["seed=0"] and "FAILED: train" in lines["seed=1"] and "100%" in lines["base-small"]
    (run,) = cli("status", "--json").json["runs"]
    assert run["cells"]["base-small"]["done"] == run["cells"]["base-small"]["all"] and run["seconds_left"] is None


def test_samples_are_shown_raw_with_what_became_of_them(
    bench: Toys, cli: Cli, control: Control, matrix: Matrix
) -> None:
    path = matrix()
    none = cli("samples", path, "wise")
    assert none.code != 0 and f"hint: distillbench run {path} --only wise" in none.err
    assert cli("run", path).code == 0
    shown = cli("samples", path, "wise@1", "--outcome", "wrong", "-n", "2")
    assert shown.code == 0 and shown.out.count("wise@1 on toy: toy/") == 2
    assert "Say 1" in shown.out and "gold: '1'; answered: '-1'" in shown.out
    assert "2 of 3 samples shown; -n shows more; wise@1 has 3 correct, 3 wrong" in shown.out
    rows = cli("samples", path, "wise", "--json").json
    assert {row["step"] for row in rows} == {2} and len(rows) == 5 and rows[0]["outcome"] == "correct"
    assert "samples at steps 1, 2, none at 7" in cli("samples", path, "wise@7").err
    assert "no cell is named 'wize'" in cli("samples", path, "wize").err
    assert "wise has toy" in cli("samples", path, "wise", "--evaluation", "other").err


def test_a_sample_cannot_move_the_cursor(bench: Toys, cli: Cli, matrix: Matrix) -> None:
    path = matrix({"engines": {"talk": {"use": "toy-engine", "words": "\x1b[2J\x07red \u202e"}}})
    assert cli("run", path).code == 0
    said = cli("samples", path, "wise").out
    assert "\\x1b[2J\\x07red \\u202e" in said and "\x1b" not in said
