"""pass@k and maj@k against formulas that do not share a line with ours, and what the report shows of them."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_factories import (
    any_samples,
    checkpoint,
    of_problems,
    print_table,
    render_markdown,
    repeated,
    results,
    sample,
    summary_json,
    write,
)
from rich.console import Console

from distillbench.outcomes import COMPLETED, ERRORS
from distillbench.report.evaluated import build_rows
from distillbench.report.results import GradedSample, Results
from distillbench.report.scores import Scores
from distillbench.report.statistics.intervals import mean_interval
from distillbench.report.statistics.repeats import (
    Repeats,
    can_compare,
    majority_values,
    pass_at_k,
    pass_values,
    repeats_of,
)
from distillbench.report.statistics.summary import summarise

counts = st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))


@given(counts)
def test_pass_at_k_is_the_share_of_all_subsets_that_hold_a_correct_one(drawn: tuple[int, int, int]) -> None:
    n, c, k = drawn
    flags = np.array([True] * c + [False] * (n - c))
    subsets = np.array(list(combinations(range(n), k)))
    assert pass_at_k(n, c, k) == pytest.approx(flags[subsets].any(axis=1).mean(), abs=1e-12)


@given(st.integers(1, 400), st.data())
def test_pass_at_k_is_the_published_product(n: int, data: st.DataObject) -> None:
    """Figure 3 of Chen et al. (2021) computes the estimator as a product, to keep the numbers small."""
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    product = 1.0 if n - c < k else 1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1))
    assert pass_at_k(n, c, k) == pytest.approx(product, abs=1e-9)


def test_it_is_unbiased() -> None:
    chance, n, k = 0.15, 8, 4
    c = np.random.default_rng(0).binomial(n, chance, size=40_000)
    table = np.array([pass_at_k(n, each, k) for each in range(n + 1)])
    assert table[c].mean() == pytest.approx(1 - (1 - chance) ** k, abs=0.005)
    biased = 1 - (1 - c / n) ** k  # what the estimator is there to avoid
    assert abs(biased.mean() - (1 - (1 - chance) ** k)) > 0.02


def found(made: Sequence[GradedSample], compares: bool = True) -> Repeats:
    repeats = repeats_of(Scores.of(made), summarise(checkpoint(made)), compares)
    assert repeats is not None
    return repeats


def test_each_problem_takes_its_own_number_of_scored_samples_and_too_few_are_left_out_and_counted() -> None:
    groups = [["correct", "wrong", "wrong", "wrong"], *[["correct"] * 4] * 99]
    groups.append(["correct", "wrong", "wrong", "generation_error"])
    repeats = found(repeated(groups))
    by_k = {at.k: at for at in repeats.pass_at}
    assert list(by_k) == [1, 2, 4]
    assert by_k[1].value == pytest.approx((1 / 4 + 99 + 1 / 3) / 101)
    assert by_k[2].value == pytest.approx((1 / 2 + 99 + 2 / 3) / 101)
    assert (by_k[4].value, by_k[4].n_problems, by_k[4].n_left_out) == (1.0, 100, 1)
    assert [by_k[k].n_left_out for k in (1, 2)] == [0, 0]


def test_the_largest_k_is_the_number_of_repeats() -> None:
    assert [at.k for at in found(repeated([["correct"] * 6, ["wrong"] * 6])).pass_at] == [1, 2, 4, 6]


@given(any_samples(repeats=5))
def test_pass_at_k_grows_with_k_and_starts_at_the_mean_over_problems(made: tuple[GradedSample, ...]) -> None:
    scored = [one for one in made if one.outcome not in ERRORS]
    groups: dict[str, list[bool]] = {}
    for one in scored:
        groups.setdefault(one.problem_id, []).append(one.outcome == "correct")
    assert pass_values(of_problems(groups), 1) == [pytest.approx(sum(v) / len(v)) for v in groups.values()]
    for k in range(1, 5):
        enough = of_problems({problem: values for problem, values in groups.items() if len(values) > k})
        pairs = zip(pass_values(enough, k), pass_values(of_problems(groups), k + 1), strict=True)
        assert all(longer >= shorter - 1e-12 for shorter, longer in pairs)


def test_there_is_nothing_without_repeats_without_verdicts_and_where_the_result_is_invalid() -> None:
    for made in (
        repeated([["correct"], ["wrong"]]),
        [sample("a", "graded", repeat, scores={"score": 1.0}) for repeat in range(2)],
        repeated([["correct", "generation_error"], ["grader_error", "wrong"]]),
        (),
    ):
        assert repeats_of(Scores.of(made), summarise(checkpoint(made)), True) is None


# --- majority ---


def votes(*answers: tuple[str | None, str]) -> Scores:
    """Samples of one problem, each (canonical answer, outcome)."""
    return Scores.of(sample("p", outcome, repeat, canonical=form) for repeat, (form, outcome) in enumerate(answers))


@pytest.mark.parametrize(
    ("answers", "worth"),
    [
        ([("3", "correct"), ("3", "correct"), ("4", "wrong")], 1),
        ([("3", "correct"), ("4", "wrong"), ("4", "wrong")], 0),
        ([("3", "correct"), ("4", "wrong")], 1 / 2),
        ([("3", "correct"), ("4", "wrong"), ("5", "wrong")], 1 / 3),
        ([("3", "correct"), (None, "truncated"), (None, "loop"), (None, "no_answer")], 1),
        ([(None, "truncated"), (None, "unclosed")], 0),
        ([("3", "correct"), ("4", "wrong"), (None, "generation_error"), (None, "grader_error")], 1 / 2),
        ([("3", "correct"), ("3", "wrong")], 1 / 2),  # one form, judged in two ways
        ([("3", "correct"), ("3", "wrong"), ("4", "wrong")], 1 / 2),
    ],
)
def test_what_a_majority_is_worth(answers: list[tuple[str | None, str]], worth: float) -> None:
    assert majority_values(votes(*answers)) == [pytest.approx(worth)]


def test_a_problem_of_errors_alone_has_no_majority() -> None:
    assert majority_values(votes((None, "generation_error"), (None, "grader_error"))) == []


answered = st.sampled_from([("3", "correct"), ("4", "wrong"), ("5", "wrong"), (None, "truncated")])


@given(st.lists(answered, min_size=1, max_size=7))
def test_a_majority_is_the_mean_over_every_way_to_break_a_tie(answers: list[tuple[str | None, str]]) -> None:
    named = Counter(form for form, _ in answers if form is not None)
    best = [form for form in named if named[form] == max(named.values())]
    assert majority_values(votes(*answers)) == [pytest.approx(np.mean([form == "3" for form in best] or [False]))]


def test_of_two_completions_a_majority_is_as_good_as_one() -> None:
    """With two votes a majority decides nothing that one of them would not."""
    made = repeated([["correct", "wrong"], ["correct", "correct"], ["wrong", "wrong"]])
    named = [_named(one) for one in made]
    repeats = found(named)
    assert repeats.majority is not None
    assert repeats.majority.value == pytest.approx(repeats.pass_at[0].value)


def _named(one: GradedSample) -> GradedSample:
    """With its outcome as the form of its answer."""
    return replace(one, canonical=one.outcome if one.outcome in COMPLETED else None)


def test_a_grader_compares_answers_or_not() -> None:
    assert can_compare(votes(("3", "correct"), (None, "truncated"))) is True
    assert can_compare(votes(("3", "correct"), (None, "wrong"))) is False
    assert can_compare(votes((None, "truncated"))) is None


# --- intervals ---


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=12))
def test_pass_at_1_has_the_interval_of_the_accuracy(groups: list[list[bool]]) -> None:
    made = repeated([["correct" if right else "wrong" for right in group] for group in groups])
    summary, at = summarise(checkpoint(made)), found(made).pass_at[0]
    assert summary.accuracy_interval and at.interval
    assert (at.interval.low, at.interval.high) == pytest.approx(
        (summary.accuracy_interval.low, summary.accuracy_interval.high)
    )


@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_95_of_100_intervals_hold_the_true_value(k: int) -> None:
    rng, m, n = np.random.default_rng(k), 60, 8
    true = float(1 - np.mean((1 - rng.beta(0.5, 1.0, size=400_000)) ** k))
    held = 0
    for _ in range(600):
        c = rng.binomial(n, rng.beta(0.5, 1.0, size=m))
        interval = mean_interval([pass_at_k(n, int(each), k) for each in c], m * n)
        assert interval is not None
        held += int(interval.low <= true <= interval.high)
    assert 0.925 <= held / 600 <= 0.98


@pytest.mark.parametrize("values", [[0.0] * 5, [1.0] * 5, [0.5] * 5, [1.0], [0.25]])
def test_no_spread_is_no_certainty(values: list[float]) -> None:
    interval = mean_interval(values, 4 * len(values))
    assert interval is not None
    assert interval.high - interval.low > 0.1
    assert interval.low <= values[0] <= interval.high
    assert mean_interval([], 0) is None


# --- what is shown ---


def made(asked: int = 4, compares: bool = True) -> Results:
    groups = [["correct"] * asked] * 20 + [["correct"] + ["wrong"] * (asked - 1)] * 10 + [["truncated"] * asked] * 10
    samples = repeated(groups)
    named = [_named(one) for one in samples] if compares else samples
    none = [_named(one) for one in repeated([["truncated"] * asked] * 40)]
    return results(checkpoints=(checkpoint(none, "base-tiny", 0), checkpoint(named)))


def printed(one: Results, width: int = 140) -> str:
    stream = io.StringIO()
    print_table(one, Console(file=stream, width=width, no_color=True))
    return stream.getvalue()


def test_the_terminal_names_the_average_and_shows_the_others() -> None:
    text = printed(made())
    for header in ("= avg@4", "pass@2", "pass@4", "maj@4"):
        assert header in text
    assert "pass@1" not in text  # the accuracy
    row = " ".join(line for line in text.splitlines() if line.startswith("concise"))
    assert all(f" {value} [" in row for value in ("0.56", "0.62", "0.75", "0.50"))
    assert "pass@" not in printed(made(asked=1))
    assert "maj@" not in printed(made(compares=False))


def test_a_cell_without_one_answer_has_a_majority_of_nothing() -> None:
    base = build_rows(made())[0]
    assert base.repeats and base.repeats.majority
    assert base.repeats.majority.value == 0.0
    plain_base = build_rows(made(compares=False))[0]
    assert plain_base.repeats and plain_base.repeats.majority is None


def test_answers_that_are_compared_in_one_cell_alone_give_no_majority() -> None:
    """A grader that compares only some answers would count others as if nobody had given them."""
    with_forms, without = made().checkpoints[1], made(compares=False).checkpoints[1]
    rows = build_rows(results(checkpoints=(with_forms, replace(without, cell="verbose"))))
    assert [row.repeats.majority for row in rows if row.repeats] == [None, None]


def test_markdown_has_a_table_of_them() -> None:
    text = render_markdown(made())
    part = text.partition("Several completions of each problem:")[2].partition("\n\n## ")[0]
    assert "| cell | step | repeats | avg@4 | pass@1 | pass@2 | pass@4 | maj@4 |" in part
    row = next(line for line in part.splitlines() if line.startswith("| concise"))
    assert [cell.split(" [")[0] for cell in row.strip("| ").split(" | ")] == [
        *("concise", "100", "4"),
        *("0.562", "0.562", "0.625", "0.750", "0.500"),
    ]
    assert "Several completions" not in render_markdown(made(asked=1))


def test_parquet_json_and_lm_evals_files_hold_them(tmp_path: Path) -> None:
    write(made(), tmp_path)
    row = pq.read_table(tmp_path / "results.parquet").to_pylist()[1]
    assert (row["repeats"], row["maj_at_k"]) == (4, 0.5)
    assert row["maj_at_k_low"] < 0.5 < row["maj_at_k_high"]
    at_4 = json.loads(row["pass_at_k"])["4"]
    assert (at_4["value"], at_4["n_problems"], at_4["n_left_out"]) == (0.75, 40, 0)
    assert summary_json(made())["rows"][1] == row
    samples = pq.read_table(tmp_path / "samples.parquet").to_pylist()
    assert {one["canonical"] for one in samples} == {None, "correct", "wrong"}
    (path,) = (tmp_path / "lm_eval/concise@100").glob("results_*.json")
    document: dict[str, Any] = json.loads(path.read_text())
    metrics = document["results"]["coins_word"]
    assert (metrics["pass@4,math_boxed"], metrics["maj@4,math_boxed"]) == (0.75, 0.5)
    assert metrics["pass@4_stderr,math_boxed"] == pytest.approx(np.std([1] * 30 + [0] * 10, ddof=1) / 40**0.5)
    assert document["higher_is_better"]["coins_word"]["pass@4"] is True


def test_evaluations_of_one_completion_hold_none(tmp_path: Path) -> None:
    write(made(asked=1), tmp_path)
    row = pq.read_table(tmp_path / "results.parquet").to_pylist()[1]
    assert (row["repeats"], row["pass_at_k"], row["maj_at_k"]) == (1, None, None)


def test_problems_that_are_left_out_are_told() -> None:
    groups = [["correct"] * 4] * 100 + [["correct", "wrong", "wrong", "generation_error"]]
    one = results(checkpoints=(checkpoint([_named(each) for each in repeated(groups)]),))
    assert "pass@4 leaves out 1 problems with fewer than 4 scored samples." in printed(one, 200)


def test_rows_that_were_asked_differently_often_stand_in_one_table() -> None:
    rows = (checkpoint(repeated([["correct"] * 2] * 5)), checkpoint(repeated([["correct"] * 4] * 5), "verbose"))
    text = printed(results(checkpoints=rows))
    assert "= avg@k" in text
    assert "pass@4" in text
