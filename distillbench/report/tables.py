"""The rows of a report, their numbers as words, and its plain statements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from distillbench.outcomes import COMPLETED, ERRORS, GRADED, OUTCOMES
from distillbench.report.repeats import AtK, Repeats, can_compare, repeats_of
from distillbench.report.results import CellResult, CheckpointResult, NllPoint, Results, ResultsError
from distillbench.report.statistics import REASONING_STATES, Difference, Interval, Summary, compare, summarise

INVALID = "INVALID"
ACCEPTED = "†"
NOTHING = "-"
_MOST_NAMES = 3
_MOST_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One checkpoint on one evaluation, with its numbers.

    Attributes:
        result: The checkpoint's samples.
        summary: Its numbers.
        difference: To its baseline; None for a baseline, and where no baseline is named.
        nll: The losses at this step; None where there are none.
        repeats: What several completions of a problem are worth together; None where there is one of each.
    """

    result: CheckpointResult
    summary: Summary
    difference: Difference | None
    nll: NllPoint | None
    repeats: Repeats | None = None

    @property
    def name(self) -> str:
        """What a person calls it: `cell @step`, or the baseline's name."""
        step = "" if self.result.is_baseline else f" @{self.result.step}"
        return plain(f"{marked_cell(self.result)}{step}")


def marked_cell(result: CheckpointResult) -> str:
    """The cell's name, marked where a preflight finding on it was accepted: its numbers are not to be trusted blindly.

    The note that says what was accepted begins with the same mark.
    """
    return f"{result.cell} {ACCEPTED}" if result.accepted else result.cell


def build_rows(results: Results) -> list[Row]:
    """One row per (cell, step, evaluation): by evaluation, baselines first, then cells in the matrix's order, by step.

    Raises:
        ResultsError: Samples contradict one another.
    """
    times = Counter((result.cell, result.step, result.evaluation) for result in results.checkpoints)
    if doubled := [key for key, count in times.items() if count > 1]:
        raise ResultsError(f"{doubled[0]!r} (cell, step, evaluation) is there {times[doubled[0]]} times")
    cells = {cell.name: cell for cell in results.cells}
    places = {name: place for place, name in enumerate(cells)}
    evaluations = list(dict.fromkeys(result.evaluation for result in results.checkpoints))
    kinds = {name: _kind_of(results.checkpoints, name) for name in evaluations}

    def place(result: CheckpointResult) -> tuple[int, bool, int, str, int]:
        in_matrix = places.get(result.cell, len(places))
        return evaluations.index(result.evaluation), not result.is_baseline, in_matrix, result.cell, result.step

    ordered = sorted(results.checkpoints, key=place)
    return [_row(result, ordered, cells.get(result.cell), kinds[result.evaluation]) for result in ordered]


@dataclass(frozen=True, slots=True)
class _Kind:
    """What the benchmark of an evaluation gives.

    Asked of the whole evaluation: a checkpoint without one complete answer cannot tell by itself.
    """

    by_score: bool
    compares: bool


def _kind_of(checkpoints: Iterable[CheckpointResult], evaluation: str) -> _Kind:
    mine = [result for result in checkpoints if result.evaluation == evaluation]
    by_score = any(sample.outcome == GRADED for result in mine for sample in result.samples)
    found = [can_compare(result.samples) for result in mine]
    return _Kind(by_score, compares=True in found and False not in found)


def _row(result: CheckpointResult, ordered: Sequence[CheckpointResult], cell: CellResult | None, kind: _Kind) -> Row:
    points = [point for point in cell.nll if point.step == result.step] if cell else []
    difference = None if result.is_baseline or result.baseline is None else _difference(result, ordered, kind.by_score)
    summary = summarise(result, kind.by_score)
    repeats = repeats_of(result.samples, summary, kind.compares)
    return Row(result, summary, difference, points[0] if points else None, repeats)


def _difference(result: CheckpointResult, ordered: Sequence[CheckpointResult], by_score: bool) -> Difference:
    name = result.baseline or ""
    for other in ordered:
        if (other.cell, other.evaluation) == (name, result.evaluation):
            return compare(result, other, by_score)
    return Difference(name, n_dropped=len({s.problem_id for s in result.samples}), reason=f"{name} has no result here")


def group_by_evaluation(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each evaluation, in order."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.result.evaluation, []).append(row)
    return groups


def budget_rows(results: Results, rows: Sequence[Row]) -> dict[str, list[Row]]:
    """For each evaluation with recomputed results, every checkpoint at every budget, the generation's own last.

    Args:
        results: What the report shows.
        rows: As `build_rows` gives them.

    Raises:
        ResultsError: A budget is there twice, or without the result that it was made from.
    """
    cut: dict[tuple[str, int, str], dict[int | None, CheckpointResult]] = {}
    for result in results.recomputed:
        budgets = cut.setdefault((result.cell, result.step, result.evaluation), {})
        if result.budget is None or result.budget in budgets:
            raise ResultsError(f"{result.cell!r} at budget {result.budget} on {result.evaluation!r} is there twice")
        budgets[result.budget] = result
    curves: dict[str, list[Row]] = {}
    for row in rows:
        budgets = cut.pop((row.result.cell, row.result.step, row.result.evaluation), {})
        if budgets:
            ordered = [budgets[budget] for budget in sorted(filter(None, budgets))]
            cut_rows = [_cut_row(one, row) for one in ordered]
            curves.setdefault(row.result.evaluation, []).extend([*cut_rows, replace(row, difference=None, nll=None)])
    if cut:
        raise ResultsError(f"{next(iter(cut))!r} (cell, step, evaluation) has budgets, and no result of its own")
    return curves


def _cut_row(result: CheckpointResult, whole: Row) -> Row:
    """A recomputed result, with what the benchmark gives from the result it was made of."""
    summary = summarise(result, whole.summary.by_score)
    compares = whole.repeats is not None and whole.repeats.majority is not None
    return Row(result, summary, None, None, repeats_of(result.samples, summary, compares))


def budget_of(row: Row) -> int | None:
    """The budget that a row of a curve is about."""
    return row.result.settings.get("max_tokens") if row.result.budget is None else row.result.budget


def curve_label(rows: Sequence[Row]) -> str:
    """What a budget curve is made of."""
    most = sorted({row.result.settings["max_tokens"] for row in rows if "max_tokens" in row.result.settings})
    return f"recomputed from one generation at {' or '.join(map(str, most))} tokens"


def last_checkpoints(rows: Sequence[Row]) -> list[Row]:
    """The rows of each cell's last checkpoint."""
    last = {row.result.cell: row.result.step for row in rows}
    return [row for row in rows if row.result.step == last[row.result.cell]]


# --- text -----------------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """One line without control characters: labels and model text may carry newlines and terminal escapes."""
    return "".join(_printable(char) for char in text)


def _printable(char: str) -> str:
    if char.isprintable():
        return char
    return " " if char.isspace() else "\N{REPLACEMENT CHARACTER}"


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


def pass_at(row: Row, k: int) -> AtK | None:
    """A row's pass@k; None where it was asked less often."""
    return next((at for at in row.repeats.pass_at if at.k == k), None) if row.repeats else None


def asked_ks(rows: Iterable[Row]) -> list[int]:
    """Every k of some row."""
    return sorted({at.k for row in rows if row.repeats for at in row.repeats.pass_at})


def at_repeats(name: str, rows: Iterable[Row]) -> str:
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


def occurring(rows: Iterable[Row]) -> list[str]:
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


# --- statements -----------------------------------------------------------------------------------------------------


def conclusions(rows: Sequence[Row]) -> list[str]:
    """What the numbers say, for the last checkpoint of every cell. No checkpoint is called the best.

    Choosing the best of several by the number that is then reported makes that number too good.
    """
    last: dict[tuple[str, str], Row] = {}
    for row in rows:
        if not row.result.is_baseline:
            last[row.result.evaluation, row.result.cell] = row
    lines = [_conclusion(row) for row in last.values()]
    compared = sum(row.difference is not None and row.difference.interval is not None for row in last.values())
    if compared > 1:
        lines.append(f"Each of these {compared} intervals holds 95 % by itself; none is corrected for their number.")
    return lines


def _conclusion(row: Row) -> str:
    summary, evaluation = row.summary, plain(row.result.evaluation)
    if summary.invalid:
        return f"{row.name}: {INVALID} on {evaluation}: {summary.errors} of {summary.n} samples failed."
    if not summary.scored:
        return f"{row.name}: no scored sample on {evaluation}."
    what = "mean score " if summary.by_score else ""
    text = f"{row.name}: {what}{quality(summary)} on {evaluation}"
    if summary.completion_rate is not None and summary.completion_rate < 1:
        text += f" ({number(summary.completion_rate)} hold a complete answer; the others: {_incomplete(summary)})"
    return f"{text}{_versus(row.difference)}."


def _versus(difference: Difference | None) -> str:
    if difference is None:
        return ""
    name = plain(difference.baseline)
    if difference.value is None:
        return f"; not compared with {name}: {plain(difference.reason)}"
    text = f", {difference_text(difference)} against {name}"
    if difference.interval is None:
        return f"{text}: {difference.reason}"
    beyond = difference.interval.excludes_zero()
    return f"{text}: {'beyond its interval' if beyond else 'no difference beyond the interval'}"


def _incomplete(summary: Summary) -> str:
    unfinished = [o for o in OUTCOMES if o not in COMPLETED | ERRORS and summary.counts[o]]
    return ", ".join(f"{summary.counts[outcome]} {outcome}" for outcome in unfinished)


def _failures(summary: Summary) -> str:
    failed = [f"{summary.counts[outcome]} {outcome}" for outcome in sorted(ERRORS) if summary.counts[outcome]]
    return f"{summary.errors} of {summary.n} samples failed ({', '.join(failed)})"


def notes(rows: Sequence[Row], results: Results) -> list[str]:
    """What a reader must know beside the numbers: failures, holes, subsets, dropped pairs."""
    lines = []
    for row in rows:
        where = f"{row.name} on {plain(row.result.evaluation)}"
        if row.summary.errors:
            loud = f"{INVALID}: " if row.summary.invalid else ""
            lines.append(f"{where}: {loud}{_failures(row.summary)}{bounds_text(row.summary)}.")
        if row.difference and row.difference.value is not None and row.difference.n_dropped:
            gap = row.difference
            lines.append(f"{where}: compared on {gap.n_pairs} problems; {gap.n_dropped} are not scored on both sides.")
        lines += [f"{where}: {left_out}." for left_out in _left_out(row)]
    for name, group in group_by_evaluation(rows).items():
        marks = dict.fromkeys(row.result.subset for row in group if row.result.subset)
        lines += [f"{plain(name)}: a subset, {plain(mark)}." for mark in marks]
    for cell in results.cells:
        problems = [" ".join(problem.split()) for problem in cell.problems]
        lines += [f"{plain(cell.name)}: failed or blocked: {plain(problem)}" for problem in problems]
        lines += [f"{plain(cell.name)}: missing: {plain(hole)}" for hole in cell.missing]
    lines += [f"left out: {plain(' '.join(one.split()))}" for one in results.left_out]
    return lines + _preflight_notes(results.cells)


def _left_out(row: Row) -> list[str]:
    """For which pass@k problems have too few scored samples."""
    found = [at for at in row.repeats.pass_at if at.n_left_out] if row.repeats else []
    return [f"pass@{at.k} leaves out {at.n_left_out} problems with fewer than {at.k} scored samples" for at in found]


def _preflight_notes(cells: Iterable[CellResult]) -> list[str]:
    """What the preflight has to say, each thing once for all the cells that it is about."""
    about: dict[str, list[str]] = {}
    for cell in cells:
        for line in cell.preflight:
            about.setdefault(line, []).append(cell.name)
    return [_preflight_note(names, line) for line, names in about.items()]


def _preflight_note(cells: Sequence[str], line: str) -> str:
    mark = f"{ACCEPTED} " if line.startswith("accepted") else ""
    more = f" and {len(cells) - _MOST_NAMES} more" if len(cells) > _MOST_NAMES else ""
    return f"{mark}{plain('; '.join(cells[:_MOST_NAMES]))}{more}: preflight: {plain(line)}"


def bounds_text(summary: Summary) -> str:
    """What the errors leave open, as the end of a sentence; empty without errors."""
    if summary.bounds is None:
        return ""
    low, high = number(summary.bounds.low, 3), number(summary.bounds.high, 3)
    return f"; accuracy over all {summary.n} lies within {low} .. {high}"
