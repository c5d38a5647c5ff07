"""Rows, plain statements, and what a terminal of any width shows."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_factories import checkpoint, print_table, results, sample, samples, scored, summary_json, write
from rich.console import Console

from distillbench.records import Membership
from distillbench.report.evaluated import build_rows, plain
from distillbench.report.results import CellResult, CheckpointResult, NllPoint, Results, ResultsError
from distillbench.report.statements import conclusions, notes
from distillbench.report.statistics.differences import Difference
from distillbench.report.statistics.intervals import Interval, newcombe
from distillbench.report.words import (
    completed_quality,
    difference_text,
    number,
    occurring,
    quality,
    settings_text,
    tokens_text,
    with_interval,
)


def printed(made: Results, width: int, **more: object) -> str:
    out = io.StringIO()
    print_table(made, Console(file=out, width=width, **more))  # type: ignore[arg-type]
    return out.getvalue()


# --- rows -----------------------------------------------------------------------------------------------------------


def test_rows_stand_by_evaluation_baselines_first_then_the_matrix_then_steps() -> None:
    names = [(row.result.evaluation, row.result.cell, row.result.step) for row in build_rows(results())]
    assert names == [
        ("coins", "base-tiny", 0),
        ("coins", "concise", 20),
        ("coins", "concise", 100),
        ("coins", "verbose", 100),
        ("coins", "flaky", 100),
        ("judge", "base-tiny", 0),
        ("judge", "concise", 100),
    ]


def test_rows_carry_the_losses_of_their_step() -> None:
    losses = {(row.result.cell, row.result.step): row.nll for row in build_rows(results())}
    assert losses["base-tiny", 0] is None
    point = losses["concise", 20]
    assert point is not None
    assert point.held_out_nll == 0.91234


def test_baselines_are_compared_with_nothing_and_others_with_theirs() -> None:
    for row in build_rows(results()):
        if row.result.is_baseline:
            assert row.difference is None
        else:
            assert row.difference is not None
            assert row.difference.baseline == "base-tiny"


def test_a_baseline_that_is_not_there_is_a_reason() -> None:
    made = Results("m", checkpoints=(checkpoint(samples({"correct": 3}), baseline="gone"),))
    (row,) = build_rows(made)
    assert row.difference == Difference("gone", n_dropped=3, reason="gone has no result here")


def test_a_checkpoint_that_is_there_twice_is_an_error() -> None:
    one = checkpoint(samples({"correct": 3}))
    with pytest.raises(ResultsError, match="is there 2 times"):
        build_rows(Results("m", checkpoints=(one, one)))


def test_a_checkpoint_without_a_complete_answer_is_scored_as_its_evaluation_is() -> None:
    cut_off = checkpoint(samples({"truncated": 5}), "verbose", evaluation="judge")
    made = Results("m", checkpoints=(cut_off, checkpoint(scored(range(5)), evaluation="judge")))
    assert [row.summary.by_score for row in build_rows(made)] == [True, True]


def test_no_results_are_no_rows() -> None:
    assert build_rows(Results("m")) == []
    assert printed(Results("m"), 80) == ""


# --- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "sign", "text"),
    [(0.5, False, "0.50"), (None, False, "-"), (-0.001, False, "0.00"), (-0.001, True, "+0.00"), (-0.5, True, "-0.50")],
)
def test_numbers(value: float | None, sign: bool, text: str) -> None:
    assert number(value, sign=sign) == text


def test_intervals() -> None:
    assert with_interval(0.971, Interval(0.9412, 0.9899)) == "0.97 [0.94, 0.99]"
    assert with_interval(0.5, None) == "0.50"
    assert with_interval(None, None) == "-"


def test_a_bound_near_zero_gets_digits_until_its_side_shows() -> None:
    assert difference_text(Difference("b", 0.02, Interval(0.0012, 0.04))) == "+0.020 [0.001, 0.040]"
    assert difference_text(Difference("b", -0.2, Interval(-0.3, -0.1))) == "-0.20 [-0.30, -0.10]"
    assert difference_text(Difference("b", 0.0, Interval(-0.1, 0.1))) == "+0.00 [-0.10, 0.10]"
    assert difference_text(Difference("b", 1e-9, Interval(1e-9, 2e-9))) == "+0.0000 [0.0000, 0.0000]"
    assert difference_text(Difference("b", reason="none")) == "-"
    assert difference_text(None) == "-"


@given(st.text())
def test_plain_is_one_line_that_a_terminal_only_shows(text: str) -> None:
    assert plain(text).isprintable()
    assert len(plain(text)) == len(text)


# --- statements -----------------------------------------------------------------------------------------------------


def test_what_the_numbers_say() -> None:
    lines = conclusions(build_rows(results()))
    concise = difference_text(Difference("b", 133 / 256, newcombe(115, 133, 0, 8)))
    assert lines[0] == f"concise @100: 0.97 [0.94, 0.98] on coins, {concise} against base-tiny: beyond its interval."
    rest = "0.20 hold a complete answer; the others: 4 unclosed, 170 truncated, 32 loop"
    assert lines[1].startswith(f"verbose @100: 0.12 [0.08, 0.16] on coins ({rest}), -0.33 [")
    assert lines[2] == "flaky @100: INVALID on coins: 20 of 256 samples failed."
    assert lines[3].startswith("concise @100: mean score ")
    assert "on judge" in lines[3]
    assert lines[4] == "Each of these 3 intervals holds 95 % by itself; none is corrected for their number."


def test_only_last_checkpoints_are_spoken_of_and_none_is_best() -> None:
    text = " ".join(conclusions(build_rows(results())))
    assert "@20" not in text
    assert "best" not in text.lower()


def test_no_difference_is_said_as_such() -> None:
    both = samples({"correct": 20, "wrong": 20})
    made = Results("m", checkpoints=(checkpoint(both), checkpoint(both, "base-tiny", 0)))
    gap = difference_text(Difference("b", 0.0, newcombe(20, 0, 0, 20)))
    (line,) = conclusions(build_rows(made))
    assert (
        line == f"concise @100: 0.50 [0.35, 0.65] on coins, {gap} against base-tiny: no difference beyond the interval."
    )


def test_what_cannot_be_said_is_not() -> None:
    alone = checkpoint(samples({"correct": 3}), baseline=None)
    lost = checkpoint(samples({"grader_error": 1}), "lost")
    lines = conclusions(build_rows(Results("m", checkpoints=(alone, lost))))
    assert lines == ["concise @100: 1.00 [0.44, 1.00] on coins.", "lost @100: no scored sample on coins."]


def test_notes_name_failures_holes_and_subsets() -> None:
    one = checkpoint([sample("a", "correct"), sample("b", "grader_error")], subset="first 2 problems")
    cells = (CellResult("concise", problems=("train: no memory",), missing=("coins @60",)),)
    made = Results("m", cells, (one, checkpoint([sample("a", "wrong")], "base-tiny", 0)))
    assert notes(build_rows(made), made) == [
        "concise @100 on coins: 1 of 2 samples failed (1 grader_error); "
        "accuracy over all 2 lies within 0.500 .. 1.000.",
        "concise @100 on coins: compared on 1 problems; 1 are not scored on both sides.",
        "coins: a subset, first 2 problems.",
        "concise: failed or blocked: train: no memory",
        "concise: missing: coins @60",
    ]


# --- terminal -------------------------------------------------------------------------------------------------------


def expected(made: Results) -> list[str]:
    """Every number that must be on the screen."""
    rows = build_rows(made)
    wanted = []
    for row in rows:
        wanted += [quality(row.summary), completed_quality(row.summary), difference_text(row.difference)]
        wanted += [tokens_text(row.summary), str(row.summary.n), number(row.summary.completion_rate)]
        wanted += [str(row.summary.counts[outcome]) for outcome in occurring(rows)]
        wanted += [f"{row.nll.held_out_nll:.4f}"] if row.nll and row.nll.held_out_nll else []
    return wanted


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_no_width_loses_a_number(width: int) -> None:
    text = printed(results(), width)
    words = set(re.split(r"\s{2,}|\n", text))
    together = " ".join(text.split())
    for value in expected(results()):
        assert value in words or value in together
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())


@pytest.mark.parametrize("width", [10, 24])
def test_a_terminal_too_narrow_for_tables_gets_lists(width: int) -> None:
    text = printed(results(), width)
    squeezed = re.sub(r"\s", "", text)
    for value in expected(results()):
        assert re.sub(r"\s", "", value) in squeezed
    assert "…" not in text


def test_at_100_columns_the_headline_is_one_table() -> None:
    head = printed(results(), 100).split("\n\n")[0]
    (line,) = re.findall(r"^concise +100 .*$", head, re.MULTILINE)
    assert line.split()[2] == "256"
    assert len(re.findall(r"\[\S+, \S+\]", line)) == 3


def test_shown_outcomes_add_up_to_n() -> None:
    rows = build_rows(results())
    shown = occurring(rows)
    assert "graded" in shown
    assert all(sum(row.summary.counts[outcome] for outcome in shown) == row.summary.n for row in rows)


def test_invalid_is_loud_and_has_no_number() -> None:
    text = printed(results(), 200)
    line = next(line for line in text.splitlines() if line.startswith("flaky"))
    assert line.count("INVALID") == 2
    assert "0.8" not in line
    coloured = printed(results(), 200, force_terminal=True, color_system="standard")
    assert re.search(r"\x1b\[[0-9;]*41m\s*INVALID", coloured)


def test_what_is_piped_has_no_escapes() -> None:
    assert "\x1b" not in printed(results(), 100)


def test_labels_cannot_speak_to_the_terminal() -> None:
    evil = "[red]x[/red]\x1b]0;owned\x07\nnew line"
    made = Results("m", checkpoints=(checkpoint(samples({"correct": 2}), evil, evaluation=evil, subset=evil),))
    text = printed(made, 200, force_terminal=True)
    assert "\x1b]0" not in text
    assert "\x07" not in text
    assert "[red]x[/red]" in text


def test_a_long_name_is_folded_and_never_cut() -> None:
    name = "a-very-long-cell-name/student=qwen3-4b,lr=2e-4,rank=32"
    made = Results("m", checkpoints=(checkpoint(samples({"correct": 2}), name),))
    cells = [line[:24].strip() for line in printed(made, 120).splitlines()[1:]]
    assert name in "".join(cells)


def test_columns_that_say_nothing_are_left_out() -> None:
    bare = [sample(f"p{place}", "correct", reasoning_state="absent") for place in range(3)]
    text = printed(Results("m", checkpoints=(checkpoint(bare),)), 200)
    for header in ("reasoning", "NLL", "baseline", "truncated"):
        assert header not in text


def test_an_ascii_stream_gets_ascii() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_table(results(), Console(file=out, width=100))
    out.flush()


@given(st.lists(st.sampled_from(["correct", "wrong", "loop"]), max_size=12), st.integers(40, 160))
def test_any_result_prints(outcomes: list[str], width: int) -> None:
    made: CheckpointResult = checkpoint([sample(f"p{place}", outcome) for place, outcome in enumerate(outcomes)])
    text = printed(Results("m", checkpoints=(made,)), width)
    assert "nan" not in text
    assert "…" not in text


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("results, distillbench.report.sections", ("numpy", "pyarrow")),  # every plugin with a section imports them
        ("writers.folder, distillbench.report.collect", ()),
    ],
)
def test_importing_the_report_is_light(modules: str, heavy: tuple[str, ...]) -> None:
    unwanted = ("scipy", "statsmodels", "rich", "torch", "lm_eval", "pandas", *heavy)
    code = f"import sys, distillbench.report.{modules};print([name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_settings_that_say_nothing_are_left_out_and_strings_are_quoted() -> None:
    settings = {"temperature": 0.0, "stop": (), "until": ["\n\n", "END"], "metadata": None, "seed": 0}
    text = settings_text(checkpoint(samples({"correct": 1}), settings=settings))
    assert text.endswith("temperature 0.0; until '\\n\\n', 'END'; seed 0")


def lines_run(do: Callable[[], object]) -> int:
    """How many lines of the report's code run: what its time grows with, on any machine."""
    count = 0

    def local(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        count += event == "line"
        return local

    def entered(frame: FrameType, event: str, _: object) -> Any:
        return local if "/distillbench/report/" in frame.f_code.co_filename else None

    earlier = sys.gettrace()
    sys.settrace(entered)
    try:
        do()
    finally:
        sys.settrace(earlier)
    return count


def many_cells(n: int) -> Results:
    """n cells with two checkpoints on the two tasks of a group, and their baseline."""
    cells = {"base-tiny": (0,), **{f"cell-{place}": (1, 2) for place in range(n)}}
    groups = (Membership("g", True, 2),)
    made = [
        checkpoint([sample(f"{task}/{n}", "correct") for n in range(3)], evaluation=task, groups=groups)
        for task in ("a", "b")
    ]
    about = {0: {"is_baseline": True, "baseline": None}}
    return Results(
        f"of {n}",
        tuple(CellResult(name, nll=(NllPoint(1), NllPoint(2))) for name in cells),
        tuple(
            replace(one, cell=cell, step=step, **about.get(step, {}))  # type: ignore[arg-type]
            for cell, steps in cells.items()
            for step in steps
            for one in made
        ),
    )


def test_the_work_of_a_report_grows_with_its_cells_and_not_with_their_square(tmp_path: Path) -> None:
    def report(made: Results) -> None:
        write(made, tmp_path / made.matrix)
        print_table(made, Console(file=io.StringIO(), width=140))
        summary_json(made)

    first, second, third = (lines_run(partial(report, many_cells(n))) for n in (10, 20, 30))
    assert abs((third - second) - (second - first)) < 100  # ten more cells cost the same; one scan of all cells is 200
