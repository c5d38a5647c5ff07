"""The numbers of a report as words."""

from __future__ import annotations

from collections.abc import Iterable

from distillbench.outcomes import OUTCOMES
from distillbench.report.evaluated import Evaluated, plain
from distillbench.report.results import CheckpointResult
from distillbench.report.scores import REASONING_STATES
from distillbench.report.statistics.differences import Difference
from distillbench.report.statistics.intervals import Interval
from distillbench.report.statistics.repeats import AtK
from distillbench.report.statistics.summary import Summary

INVALID = "INVALID"
NOTHING = "-"
_MOST_DIGITS = 4


def number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """A number with fixed digits; `-` for None; never `-0.00`."""
    if value is None:
        return NOTHING
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return text.replace("-", "+" if sign else "") if text.strip("-0.") == "" else text


def with_interval(value: float | None, interval: Interval | None, digits: int = 2, sign: bool = False) -> str:
    """`0.97 [0.94, 0.99]`; the number alone where there is no interval. `sign` is for the number."""
    text = number(value, digits, sign)
    if value is None or interval is None:
        return text
    return f"{text} [{number(interval.low, digits)}, {number(interval.high, digits)}]"


def quality(summary: Summary, digits: int = 2) -> str:
    """The accuracy, or the mean score, with its interval; INVALID where it is that."""
    if summary.invalid:
        return INVALID
    if summary.by_score:
        return with_interval(summary.score, summary.score_interval, digits)
    return with_interval(summary.accuracy, summary.accuracy_interval, digits)


def at_k_text(at: AtK | None, digits: int = 2) -> str:
    """pass@k or maj@k with its interval."""
    return NOTHING if at is None else with_interval(at.value, at.interval, digits)


def pass_at(row: Evaluated, k: int) -> AtK | None:
    """A row's pass@k; None where it was asked less often."""
    return next((at for at in row.repeats.pass_at if at.k == k), None) if row.repeats else None


def asked_ks(rows: Iterable[Evaluated]) -> list[int]:
    """Every k of some row."""
    return sorted({at.k for row in rows if row.repeats for at in row.repeats.pass_at})


def at_repeats(name: str, rows: Iterable[Evaluated]) -> str:
    """`avg@4`; `avg@k` where rows were not all asked equally often."""
    asked = {row.repeats.asked for row in rows if row.repeats}
    return f"{name}@{asked.pop() if len(asked) == 1 else 'k'}"


def completed_quality(summary: Summary, digits: int = 2) -> str:
    """The accuracy among complete answers."""
    if summary.invalid:
        return INVALID
    return with_interval(summary.accuracy_completed, summary.accuracy_completed_interval, digits)


def difference_text(difference: Difference | None, digits: int = 2) -> str:
    """The difference with its interval, with as many digits as it takes to see on which side of zero a bound lies."""
    if difference is None or difference.value is None:
        return NOTHING
    bounds = (difference.interval.low, difference.interval.high) if difference.interval else ()
    while digits < _MOST_DIGITS and any(bound and not round(bound, digits) for bound in bounds):
        digits += 1
    return with_interval(difference.value, difference.interval, digits, sign=True)


def tokens_text(summary: Summary) -> str:
    """Median and 95th percentile, as `40/185`."""
    if summary.tokens_median is None:
        return NOTHING
    return f"{summary.tokens_median:g}/{summary.tokens_p95}"


def reasoning_text(summary: Summary) -> str:
    """Shares of absent, open and closed reasoning, as `0.02/0.10/0.88`."""
    return "/".join(number(summary.reasoning.get(state)) for state in REASONING_STATES)


def occurring(rows: Iterable[Evaluated]) -> list[str]:
    """The outcomes that some row has."""
    found = {outcome for row in rows for outcome, count in row.summary.counts.items() if count}
    return [outcome for outcome in OUTCOMES if outcome in found]


def settings_text(result: CheckpointResult) -> str:
    """What an evaluation is, in words: task, grader and how completions were drawn."""
    about = ", ".join(f"{key} {value}" for key, value in result.grading.items() if value is not None)
    grader = f"grader {result.grader}" + (f" ({about})" if about else "")
    named = [f"task {result.task}", grader if result.grader else ""]
    drawn = [f"{key} {_words(value)}" for key, value in result.settings.items() if value not in (None, [], ())]
    return plain("; ".join([part for part in (*named, *drawn, result.subset) if part]))


def _words(value: object) -> str:
    """A setting; strings in lists are quoted, because they may be white space."""
    return ", ".join(map(repr, value)) if isinstance(value, list | tuple) else str(value)
