"""The plain statements of a report: what its numbers say, and what a reader must know beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from distillbench.outcomes import COMPLETED, ERRORS, OUTCOMES
from distillbench.report.evaluated import ACCEPTED, Evaluated, group_by_evaluation, plain
from distillbench.report.results import CellResult, Results
from distillbench.report.statistics.differences import Difference
from distillbench.report.statistics.summary import Summary
from distillbench.report.words import INVALID, difference_text, number, quality

_MOST_NAMES = 3


def conclusions(rows: Sequence[Evaluated]) -> list[str]:
    """What the numbers say, for the last checkpoint of every cell. No checkpoint is called the best.

    Choosing the best of several by the number that is then reported makes that number too good.
    """
    last: dict[tuple[str, str], Evaluated] = {}
    for row in rows:
        if not row.result.is_baseline:
            last[row.result.evaluation, row.result.cell] = row
    lines = [_conclusion(row) for row in last.values()]
    compared = sum(row.difference is not None and row.difference.interval is not None for row in last.values())
    if compared > 1:
        lines.append(f"Each of these {compared} intervals holds 95 % by itself; none is corrected for their number.")
    return lines


def _conclusion(row: Evaluated) -> str:
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


def notes(rows: Sequence[Evaluated], results: Results) -> list[str]:
    """What a reader must know beside the numbers: failures, holes, subsets, dropped pairs."""
    lines = [plain(remark) for remark in results.remarks]
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


def _left_out(row: Evaluated) -> list[str]:
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
