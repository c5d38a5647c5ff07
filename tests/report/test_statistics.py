"""Every number against published examples, exact enumeration, simulation, and properties."""

from __future__ import annotations

import itertools
import math
import random
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_factories import any_samples, checkpoint, of_problems, repeated, sample, samples, scored, without_errors
from scipy.stats import binom, multinomial

from distillbench.outcomes import OUTCOMES
from distillbench.report.results import ResultsError
from distillbench.report.statistics import intervals
from distillbench.report.statistics.differences import compare, mcnemar
from distillbench.report.statistics.intervals import (
    Interval,
    bootstrap_interval,
    effective_size,
    newcombe,
    proportion_interval,
    wilson,
)
from distillbench.report.statistics.summary import Summary, summarise

COUNTS = st.integers(0, 400)


def ends(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    return interval.low, interval.high


# --- one proportion -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("r", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(r: int, n: int, low: float, high: float) -> None:
    # Newcombe (1998), Statistics in Medicine 17:857-872, table I, method 3
    assert ends(wilson(r, n)) == pytest.approx((low, high), abs=5e-5)


def test_wilson_solves_its_own_equation() -> None:
    # Wilson's ends are the p for which |share - p| = z sqrt(p (1 - p) / n)
    share, n = 0.3, 57.5
    for p in ends(wilson(share * n, n)):
        assert abs(share - p) == pytest.approx(1.959963984540054 * math.sqrt(p * (1 - p) / n))


def test_wilson_of_nothing() -> None:
    assert wilson(0, 0) is None
    assert proportion_interval(of_problems({})) is None


@given(st.integers(1, 500), st.data())
def test_wilson_holds_the_share_and_stays_in_range(n: int, data: st.DataObject) -> None:
    r = data.draw(st.integers(0, n))
    low, high = ends(wilson(r, n))
    assert 0 <= low <= r / n <= high <= 1
    assert low < high


def test_wilson_covers() -> None:
    # exact coverage by enumeration, not by simulation; mean over p as in Newcombe's table II
    n = 40
    intervals = [ends(wilson(r, n)) for r in range(n + 1)]
    coverage = [
        sum(binom.pmf(r, n, p) for r, (low, high) in enumerate(intervals) if low <= p <= high)
        for p in np.linspace(0.02, 0.98, 97)
    ]
    assert 0.94 < np.mean(coverage) < 0.965


# --- repeats --------------------------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_one_sample_per_problem_is_exactly_wilson(right: list[bool]) -> None:
    groups = {str(place): [float(value)] for place, value in enumerate(right)}
    assert effective_size(of_problems(groups)) == len(right)
    assert proportion_interval(of_problems(groups)) == wilson(sum(right) / len(right) * len(right), len(right))


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(2, 6))
def test_repeats_that_always_agree_add_nothing(right: list[bool], repeats: int) -> None:
    once = {str(place): [float(value)] for place, value in enumerate(right)}
    many = {problem: values * repeats for problem, values in once.items()}
    assert effective_size(of_problems(many)) == pytest.approx(len(right))
    assert ends(proportion_interval(of_problems(many))) == pytest.approx(ends(proportion_interval(of_problems(once))))


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=1, max_size=20))
def test_effective_size_is_never_more_than_the_samples(right: list[list[bool]]) -> None:
    groups = {str(place): [float(value) for value in values] for place, values in enumerate(right)}
    size = effective_size(of_problems(groups))
    assert 0 < size <= sum(map(len, right))
    low, high = ends(proportion_interval(of_problems(groups)))
    share = np.mean([value for values in right for value in values])
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1


def test_independent_repeats_count_almost_fully() -> None:
    generator = np.random.default_rng(0)
    groups = {str(place): list((generator.random(4) < 0.6).astype(float)) for place in range(500)}
    assert effective_size(of_problems(groups)) == pytest.approx(2000, rel=0.15)


def test_clustered_interval_covers_where_the_naive_one_does_not() -> None:
    # 60 problems x 4 samples, each problem with its own chance from Beta(0.6, 0.4): within-problem correlation 0.5
    generator = np.random.default_rng(1)
    clustered = naive = 0
    for _ in range(400):
        drawn = generator.random((60, 4)) < generator.beta(0.6, 0.4, size=(60, 1))
        groups = {str(place): list(values.astype(float)) for place, values in enumerate(drawn)}
        low, high = ends(proportion_interval(of_problems(groups)))
        clustered += low <= 0.6 <= high
        low, high = ends(wilson(int(drawn.sum()), drawn.size))
        naive += low <= 0.6 <= high
    assert clustered / 400 > 0.92
    assert naive / 400 < 0.85


# --- two proportions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # Fagerland, Lydersen, Laake (2017), Statistical Analysis of Contingency Tables, chapter 8: Cavo et al. (2012)
        ((59, 6, 16, 80), -0.1186, -0.0046),
        # the same, Bentur et al. (2009); three digits in Fagerland et al. (2014), Statistics in Medicine 33:2850-2875
        ((1, 1, 7, 12), -0.507, -0.026),
    ],
)
def test_newcombe_as_published(table: tuple[int, int, int, int], low: float, high: float) -> None:
    assert ends(newcombe(*table)) == pytest.approx((low, high), abs=6e-4 if low == -0.507 else 5e-5)


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_newcombe_is_antisymmetric_holds_the_difference_and_stays_in_range(a: int, b: int, c: int, d: int) -> None:
    if a + b + c + d == 0:
        assert newcombe(a, b, c, d) is None
        return
    low, high = ends(newcombe(a, b, c, d))
    assert -1 <= low <= (b - c) / (a + b + c + d) + 1e-12
    assert (b - c) / (a + b + c + d) - 1e-12 <= high <= 1
    assert ends(newcombe(a, c, b, d)) == pytest.approx((-high, -low), abs=1e-12)
    assert ends(newcombe(d, c, b, a)) == pytest.approx((-high, -low), abs=1e-12)  # right and wrong change places


def test_newcombe_covers() -> None:
    # exact coverage by enumeration of every 2x2 table of 20 pairs
    n = 20
    tables = [(a, b, c, n - a - b - c) for a, b, c in itertools.product(range(n + 1), repeat=3) if a + b + c <= n]
    intervals = np.array([ends(newcombe(*table)) for table in tables])
    for chances in ((0.5, 0.2, 0.1, 0.2), (0.3, 0.3, 0.05, 0.35), (0.7, 0.1, 0.1, 0.1)):
        truth = chances[1] - chances[2]
        weights = multinomial.pmf(np.array(tables), n, chances)
        coverage = weights[(intervals[:, 0] <= truth) & (truth <= intervals[:, 1])].sum()
        assert 0.93 < coverage < 0.99


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    # 2 P(X <= 1 | 8, 1/2) = 18/256 = 0.0703; Bentur's table in Fagerland et al. (2013), BMC Med Res Methodol 13:91
    [(1, 7, 18 / 256), (7, 1, 18 / 256), (0, 0, 1.0), (5, 5, 1.0), (0, 6, 2 / 64)],
)
def test_mcnemar(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(p)


# --- a checkpoint ---------------------------------------------------------------------------------------------------


def check_sound(summary: Summary) -> None:
    assert sum(summary.counts.values()) == summary.n
    assert tuple(summary.counts) == OUTCOMES
    assert summary.scored == summary.n - summary.errors
    if summary.accuracy is not None and summary.accuracy_completed is not None:
        assert summary.completion_rate is not None
        assert summary.accuracy == pytest.approx(summary.completion_rate * summary.accuracy_completed)
    for value, interval in (
        (summary.accuracy, summary.accuracy_interval),
        (summary.accuracy_completed, summary.accuracy_completed_interval),
        (summary.score, summary.score_interval),
    ):
        if value is not None and interval is not None:
            assert interval.low <= value <= interval.high
            assert math.isfinite(interval.low)
            assert math.isfinite(interval.high)


@given(any_samples())
def test_outcomes_add_up_and_accuracy_is_completion_times_accuracy_completed(made: tuple) -> None:  # type: ignore[type-arg]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_sound(summarise(checkpoint(made)))


@given(any_samples(), st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(made: tuple, shuffler: random.Random) -> None:  # type: ignore[type-arg]
    shuffled = list(made)
    shuffler.shuffle(shuffled)
    assert summarise(checkpoint(shuffled)) == summarise(checkpoint(made))


def test_the_order_of_scores_does_not_matter() -> None:
    made = list(scored(range(50)))
    forwards, backwards = summarise(checkpoint(made)), summarise(checkpoint(made[::-1]))
    assert forwards == backwards


@given(any_samples())
def test_bounds_hold_whatever_the_errors_would_have_been(made: tuple) -> None:  # type: ignore[type-arg]
    summary = summarise(checkpoint(made))
    if not summary.errors:
        assert summary.bounds is None
        return
    assert summary.bounds is not None
    assert summary.bounds.low == summary.counts["correct"] / summary.n
    assert summary.bounds.high == pytest.approx(summary.bounds.low + summary.errors / summary.n)


@pytest.mark.parametrize(
    ("correct", "errors", "invalid"),
    [(100, 0, False), (99, 1, False), (1, 1, False), (198, 2, False), (197, 3, True), (1, 2, True), (0, 2, True)],
)
def test_invalid_is_more_than_one_error_and_more_than_one_percent(correct: int, errors: int, invalid: bool) -> None:
    summary = summarise(checkpoint(samples({"correct": correct, "grader_error": errors})))
    assert summary.invalid is invalid
    assert (summary.accuracy is None) is invalid
    assert (summary.accuracy_interval is None) is invalid
    assert (summary.completion_rate is None) is invalid
    assert (summary.bounds is None) is (errors == 0)


@pytest.mark.parametrize(
    ("made", "accuracy", "completed"),
    [((), None, None), (samples({"correct": 5}), 1.0, 1.0), (samples({"loop": 5}), 0.0, None)],
)
def test_nothing_and_everything(made: tuple, accuracy: float | None, completed: float | None) -> None:  # type: ignore[type-arg]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = summarise(checkpoint(made))
    assert (summary.accuracy, summary.accuracy_completed) == (accuracy, completed)
    assert (summary.accuracy_interval is None) is (accuracy is None)


def test_an_error_alone_leaves_nothing_to_score() -> None:
    summary = summarise(checkpoint(samples({"generation_error": 1})))
    assert (summary.invalid, summary.scored, summary.accuracy) == (False, 0, None)
    assert summary.bounds == Interval(0.0, 1.0)


def test_what_the_completions_look_like() -> None:
    made = [sample(f"p{place}", "correct", n_tokens=place, ran_on=place < 3) for place in range(1, 21)]
    made += [sample("open", "truncated", n_tokens=500, reasoning_state="open"), sample("lost", "generation_error")]
    made += [sample("bare", "wrong", n_tokens=None, reasoning_state="absent")]
    summary = summarise(checkpoint(made))
    assert summary.reasoning == pytest.approx({"absent": 1 / 22, "open": 1 / 22, "closed": 20 / 22})
    assert summary.ran_on == 2
    assert summary.tokens_median == 11
    assert summary.tokens_p95 == 20  # nearest rank: the 20th of 21


def test_a_sample_that_is_there_twice_is_an_error() -> None:
    with pytest.raises(ResultsError, match="there 2 times"):
        summarise(checkpoint([sample("a", "correct"), sample("a", "wrong")]))


def test_an_unknown_outcome_is_an_error() -> None:
    with pytest.raises(ResultsError, match="'passed'"):
        summarise(checkpoint([sample("a", "passed")]))


# --- scores ---------------------------------------------------------------------------------------------------------


def test_scores_have_a_mean_and_no_accuracy() -> None:
    made = (*scored(range(40)), sample("cut", "truncated"))
    summary = summarise(checkpoint(made))
    assert summary.by_score
    assert summary.accuracy is None
    assert summary.bounds is None
    assert summary.score == pytest.approx(np.mean([value * value % 10 for value in range(40)]))
    assert summary.completion_rate == pytest.approx(40 / 41)
    check_sound(summary)


def test_the_bootstrap_is_seeded_and_near_the_normal_interval() -> None:
    groups = {str(place): [value] for place, value in enumerate(np.random.default_rng(3).normal(5, 2, 400))}
    low, high = ends(bootstrap_interval(of_problems(groups)))
    values = [value for (value,) in groups.values()]
    half = 1.96 * np.std(values) / math.sqrt(400)
    assert (low, high) == pytest.approx((np.mean(values) - half, np.mean(values) + half), abs=0.05)
    assert bootstrap_interval(of_problems(groups)) == bootstrap_interval(of_problems(dict(reversed(groups.items()))))


def test_the_bootstrap_resamples_problems_whole() -> None:
    once = {str(place): [float(place % 7)] for place in range(50)}
    many = {problem: values * 4 for problem, values in once.items()}
    assert bootstrap_interval(of_problems(many)) == bootstrap_interval(of_problems(once))


def test_what_the_bootstrap_draws_does_not_depend_on_how_much_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = of_problems({f"p{place}": [place % 7 / 3] * (1 + place % 3) for place in range(301)})
    whole = bootstrap_interval(groups)
    for cells in (1, 1000, 70_000):
        monkeypatch.setattr(intervals, "_BOOTSTRAP_CELLS", cells)
        assert bootstrap_interval(groups) == whole


@pytest.mark.parametrize("groups", [{}, {"a": [1.0, 2.0]}, {"a": [2.0], "b": [2.0]}])
def test_no_spread_no_interval(groups: dict[str, list[float]]) -> None:
    assert bootstrap_interval(of_problems(groups)) is None


@pytest.mark.parametrize("broken", [{}, {"score": math.nan}, {"other": 1.0}])
def test_a_score_that_is_not_there_is_an_error(broken: dict[str, float]) -> None:
    with pytest.raises(ResultsError, match="no finite 'score'"):
        summarise(checkpoint([sample("a", "graded", scores=broken)]))


def test_verdicts_and_scores_do_not_mix() -> None:
    with pytest.raises(ResultsError, match="both verdicts and scores"):
        summarise(checkpoint([*scored(range(3)), sample("a", "correct")]))


def test_a_grader_of_scores_without_one_complete_answer_has_no_accuracy_of_zero() -> None:
    summary = summarise(checkpoint(samples({"truncated": 9})), by_score=True)
    assert (summary.accuracy, summary.score, summary.completion_rate) == (None, None, 0.0)


# --- against the baseline -------------------------------------------------------------------------------------------


def test_pairs_are_the_problems_scored_on_both_sides() -> None:
    ours = checkpoint(
        [sample("a", "correct"), sample("b", "wrong"), sample("c", "correct"), sample("e", "grader_error")]
    )
    theirs = checkpoint([sample("a", "wrong"), sample("b", "loop"), sample("d", "correct"), sample("e", "correct")])
    gap = compare(ours, theirs)
    assert (gap.value, gap.n_pairs, gap.n_dropped) == (0.5, 2, 3)
    assert gap.interval == newcombe(0, 1, 0, 1)
    assert gap.p_value == 1.0


@given(any_samples(most=20), any_samples(most=20))
@settings(max_examples=60)
def test_differences_are_antisymmetric_and_never_warn(ours: tuple, theirs: tuple) -> None:  # type: ignore[type-arg]
    here, there = checkpoint(without_errors(ours)), checkpoint(without_errors(theirs))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gap, back = compare(here, there), compare(there, here)
    assert (gap.n_pairs, gap.n_dropped, gap.p_value) == (back.n_pairs, back.n_dropped, back.p_value)
    if gap.value is None:
        assert gap.reason
        return
    assert back.value == pytest.approx(-gap.value)
    low, high = ends(gap.interval)
    assert -1 <= low <= gap.value + 1e-12
    assert gap.value - 1e-12 <= high <= 1
    assert low < high
    assert ends(back.interval) == pytest.approx((-high, -low))


def test_repeats_use_the_problems_means() -> None:
    ours = checkpoint(repeated([["correct", "correct"], ["correct", "wrong"], ["wrong", "wrong"]]))
    theirs = checkpoint(repeated([["wrong"], ["wrong"], ["wrong"]]))
    gap = compare(ours, theirs)
    # differences 1, 1/2, 0: mean 1/2, standard deviation 1/2, t(2) = 4.3027, clipped at 1
    assert gap.value == pytest.approx(0.5)
    assert ends(gap.interval) == pytest.approx((max(-1, 0.5 - 4.302653 * 0.5 / math.sqrt(3)), 1.0))
    assert gap.p_value is None


def test_repeats_that_never_differ_are_no_certainty() -> None:
    both = checkpoint(repeated([["correct", "wrong"], ["correct", "wrong"], ["wrong", "correct"]]))
    gap = compare(both, both)
    low, high = ends(gap.interval)
    assert gap.value == 0
    assert low < -0.1
    assert high > 0.1


def test_scores_are_compared_by_problem() -> None:
    ours, theirs = checkpoint(scored(range(9, 39))), checkpoint(scored(range(7, 37)))
    gap = compare(ours, theirs)
    gaps = [a * a % 10 - b * b % 10 for a, b in zip(range(9, 39), range(7, 37), strict=True)]
    assert gap.value == pytest.approx(np.mean(gaps))
    half = 2.045230 * np.std(gaps, ddof=1) / math.sqrt(30)
    assert ends(gap.interval) == pytest.approx((np.mean(gaps) - half, np.mean(gaps) + half), abs=1e-5)


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [
        (samples({"correct": 3}), (), "no problem is scored"),
        ((), (), "no problem is scored"),
        (samples({"correct": 3, "grader_error": 3}), samples({"correct": 6}), "this checkpoint is INVALID"),
        (samples({"correct": 6}), samples({"correct": 3, "grader_error": 3}), "base is INVALID"),
        (scored([1, 1]), scored([0, 0]), "no spread"),
    ],
)
def test_no_difference_has_a_reason(ours: tuple, theirs: tuple, reason: str) -> None:  # type: ignore[type-arg]
    gap = compare(checkpoint(ours), checkpoint(theirs, "base", 0))
    assert gap.interval is None
    assert reason in gap.reason


@given(n=st.integers(1, 10_000), data=st.data())
def test_wilson_is_that_of_statsmodels(n: int, data: st.DataObject) -> None:
    from statsmodels.stats.proportion import proportion_confint

    successes = data.draw(st.integers(0, n))
    found = wilson(successes, n)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(proportion_confint(successes, n, method="wilson"), abs=1e-9)
