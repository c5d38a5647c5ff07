"""The tables of an evaluation: its checkpoints, their repeats, what was scored beside, and the budget curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from distillbench.report.curves import budget_of, curve_label
from distillbench.report.evaluated import Evaluated, marked_cell
from distillbench.report.statistics.differences import Difference
from distillbench.report.table import Column, Table
from distillbench.report.words import (
    NOTHING,
    asked_ks,
    at_k_text,
    at_repeats,
    completed_quality,
    difference_text,
    number,
    occurring,
    pass_at,
    quality,
    reasoning_text,
    settings_text,
    tokens_text,
)

DIGITS = 3
_LOSS_DIGITS = 4


def evaluation_tables(title: str, rows: Sequence[Evaluated], about: str = "") -> Iterator[Table]:
    """The table of some checkpoints, and those that go on with it.

    Args:
        title: Of which evaluation or group.
        rows: The checkpoints.
        about: What goes before the settings.
    """
    settings = settings_text(rows[0].result)
    yield Table(title, tuple(_columns(rows)), "; ".join(filter(None, (about, settings))))
    yield from _repeats(rows)
    yield from _means(rows)


def curve_table(name: str, rows: Sequence[Evaluated]) -> Table:
    """What the same completions are worth when they are cut earlier."""
    columns = [
        *_named(rows),
        _made("budget", rows, lambda row: str(budget_of(row))),
        _made("n", rows, lambda row: str(row.summary.n)),
        _made("scored", rows, lambda row: str(row.summary.scored)),
        _quality(rows),
        *_completed(rows),
        *_outcomes(rows),
    ]
    about = f"Every budget is {curve_label(rows)}: the token ids are cut there, and what is left is graded again."
    return Table(f"Budget curve: {name}", tuple(columns), about, level=3)


def _columns(rows: Sequence[Evaluated]) -> Iterator[Column]:
    yield from _named(rows)
    yield _made("n", rows, lambda row: str(row.summary.n))
    yield _made("problems", rows, lambda row: str(row.summary.n_problems))
    yield _made("scored", rows, lambda row: str(row.summary.scored))
    yield _quality(rows)
    yield _against([row.difference for row in rows])
    yield _made("p", rows, lambda row: _p_value(row.difference))
    yield _made("pairs", rows, lambda row: str(row.difference.n_pairs) if row.difference else NOTHING)
    yield from _completed(rows)
    yield from _outcomes(rows)
    yield _made("ran on", rows, lambda row: str(row.summary.ran_on))
    yield _made("reasoning absent/open/closed", rows, lambda row: reasoning_text(row.summary))
    yield _made("tokens median/p95", rows, lambda row: tokens_text(row.summary))
    yield _made("train loss", rows, lambda row: number(row.nll.train_loss if row.nll else None, _LOSS_DIGITS))
    yield _made("held-out NLL", rows, lambda row: number(row.nll.held_out_nll if row.nll else None, _LOSS_DIGITS))


def _made(header: str, rows: Iterable[Evaluated], make: Callable[[Evaluated], str], is_foreign: bool = False) -> Column:
    return Column(header, tuple(map(make, rows)), is_foreign)


def _named(rows: Sequence[Evaluated]) -> Iterator[Column]:
    """Which checkpoint a row is."""
    yield _made("cell", rows, lambda row: marked_cell(row.result), is_foreign=True)
    yield _made("step", rows, lambda row: "base" if row.result.is_baseline else str(row.result.step))


def _quality(rows: Sequence[Evaluated]) -> Column:
    header = "mean score (completed)" if rows[0].summary.by_score else "accuracy"
    return _made(header, rows, lambda row: quality(row.summary, DIGITS))


def _completed(rows: Sequence[Evaluated]) -> Iterator[Column]:
    yield _made("completion rate", rows, lambda row: number(row.summary.completion_rate, DIGITS))
    if not rows[0].summary.by_score:
        yield _made("accuracy (completed)", rows, lambda row: completed_quality(row.summary, DIGITS))


def _outcomes(rows: Sequence[Evaluated]) -> Iterator[Column]:
    for outcome in occurring(rows):
        yield Column(outcome, tuple(str(row.summary.counts[outcome]) for row in rows))


def _against(gaps: Sequence[Difference | None]) -> Column:
    """The differences, and of each what it is to, or why there is none."""
    asides = tuple("" if gap is None else gap.reason or gap.baseline for gap in gaps)
    return Column("vs. baseline", tuple(difference_text(gap, DIGITS) for gap in gaps), asides=asides)


def _p_value(gap: Difference | None) -> str:
    return NOTHING if gap is None or gap.p_value is None else f"{gap.p_value:.2g}"


def _repeats(rows: Sequence[Evaluated]) -> Iterator[Table]:
    """What the completions of a problem are worth together."""
    repeated = [row for row in rows if row.repeats]
    if not repeated:
        return
    columns = [
        *_named(repeated),
        Column("repeats", tuple(str(row.repeats.asked) for row in repeated if row.repeats)),
        _made(at_repeats("avg", repeated), repeated, lambda row: quality(row.summary, DIGITS)),
        *(
            Column(f"pass@{k}", tuple(at_k_text(pass_at(row, k), DIGITS) for row in repeated))
            for k in asked_ks(repeated)
        ),
        Column(
            at_repeats("maj", repeated),
            tuple(at_k_text(row.repeats.majority, DIGITS) for row in repeated if row.repeats),
        ),
    ]
    yield Table("Several completions of each problem:", tuple(columns), level=0)


def _means(rows: Sequence[Evaluated]) -> Iterator[Table]:
    """The means of everything that the benchmark scored, where that is more than the one number in the table."""
    names = sorted({name for row in rows for name in row.result.scores.metrics} - {"score"})
    if len(names) > 1:
        means = [Column(name, tuple(number(_mean(row, name), DIGITS) for row in rows)) for name in names]
        named = _made("cell", rows, lambda row: row.name, is_foreign=True)
        yield Table("Means over completed samples:", (named, *means), level=0)


def _mean(row: Evaluated, name: str) -> float | None:
    metric = row.result.scores.metrics.get(name)
    if row.summary.invalid or metric is None:
        return None
    return math.fsum(metric.values.tolist()) / len(metric.values)
