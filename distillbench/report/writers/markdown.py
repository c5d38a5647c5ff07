"""report.md: everything the report knows, as one markdown file (GitHub flavour).

Labels, error texts and whatever else comes from users and models is escaped; a plugin's sections are not.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from distillbench.outcomes import (
    CORRECT,
    GENERATION_ERROR,
    GRADED,
    GRADER_ERROR,
    LOOP,
    NO_ANSWER,
    TRUNCATED,
    UNCLOSED,
    WRONG,
)
from distillbench.report.curves import budget_of, curve_label
from distillbench.report.evaluated import ACCEPTED, Evaluated, marked_cell, plain
from distillbench.report.results import CellResult, Results, Section
from distillbench.report.statistics.differences import Difference
from distillbench.report.tables import Tables
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

_DIGITS = 3

OUTCOME_DEFINITIONS: Mapping[str, str] = {
    CORRECT: "the answer part holds a complete answer and the grader says right",
    WRONG: "the answer part holds a complete answer and the grader says not",
    GRADED: "the answer part holds a complete answer and the grader gives a score instead of a verdict",
    NO_ANSWER: "generation ended by itself, reasoning closed or absent, no complete answer",
    UNCLOSED: "generation ended by itself while the reasoning was still open",
    TRUNCATED: "the token budget ended it before a complete answer",
    LOOP: "as truncated, and the tail repeats itself",
    GENERATION_ERROR: "the engine or the API failed after its retries; not scored",
    GRADER_ERROR: "the grader itself failed; not scored",
}

_MEANINGS = (
    "`scored` = n without `generation_error` and `grader_error`.",
    "`completion rate` = samples with a complete answer / scored. `accuracy` = correct / scored. "
    "`accuracy (completed)` = correct / samples with a complete answer. "
    "So accuracy = completion rate x accuracy (completed).",
    "Brackets hold 95 % intervals: Wilson's for an accuracy, at the effective sample size where problems have "
    "repeats; a bootstrap over problems for a mean score.",
    "`avg@k` is the accuracy over all k completions of each problem. `pass@k`: the chance that one of k completions is "
    "correct, by the unbiased estimator (Chen et al. 2021), each problem from its own scored samples; problems with "
    "fewer than k are left out. `maj@k`: the answer that most completions of a problem give is correct; a completion "
    "without an answer votes for nothing, and of several answers with the most votes the mean counts. Their brackets "
    "are as an accuracy's.",
    "Differences are paired: only problems scored on both sides count. One sample per problem: Newcombe's method 10, "
    "and p is the exact McNemar test's. Repeats and scores: a t interval on the problems' means.",
    f"{ACCEPTED}: the preflight found that training and evaluation do not fit together, and the matrix accepts it by "
    "name; the notes say what it is.",
    "INVALID: more than one sample and more than 1 % of them failed; no number is given.",
)


def escape(text: str) -> str:
    """Makes a text from outside one line that markdown and HTML leave as it is, in a table's cell too."""
    flat = html.escape(plain(text), quote=False)
    flat = re.sub(r"([\\`*\[\]|~$#!])", r"\\\1", flat)
    # between letters or digits an underscore means nothing, and names stay readable
    return re.sub(r"(?<![^\W_])_+|_+(?![^\W_])", lambda found: r"\_" * len(found[0]), flat)


def render_markdown(tables: Tables, sections: Iterable[Section] = ()) -> str:
    """The whole report as markdown.

    Args:
        tables: What to show.
        sections: Plugins' sections, put in as they are.
    """
    results = tables.results
    parts = [f"# distillbench: {escape(results.matrix)}", _provenance(results)]
    parts += [_bullets("What the numbers say", tables.conclusions), _bullets("Notes", tables.notes)]
    parts += [_evaluation(name, group.rows, group.about) for name, group in tables.groups.items() if group.rows]
    for name, rows in tables.by_evaluation().items():
        parts += [_evaluation(name, rows), _curve(name, tables.curves[name]) if name in tables.curves else ""]
    parts += [_definitions(), _losses(results.cells), _traces(results.cells)]
    parts += [f"## {escape(section.title)}\n\n{section.markdown.strip()}" for section in sections]
    return "\n\n".join(part for part in parts if part) + "\n"


def _provenance(results: Results) -> str:
    about = dict(results.provenance)
    if isinstance(about.get("date"), int):
        about["date"] = datetime.fromtimestamp(about["date"], UTC).isoformat()
    lines = [f"- {escape(key)}: {escape(value)}" for key, value in _flat(about)]
    return "\n".join(["## What was run", "", *lines]) if lines else ""


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _bullets(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"## {title}", "", *(f"- {escape(line)}" for line in lines)]) if lines else ""


def _evaluation(name: str, rows: Sequence[Evaluated], about_group: str = "") -> str:
    by_score = rows[0].summary.by_score
    outcomes = occurring(rows)
    quality_headers = ["mean score (completed)"] if by_score else ["accuracy"]
    completed = [] if by_score else ["accuracy (completed)"]
    headers = ["cell", "step", "n", "problems", "scored", *quality_headers, "vs. baseline", "p", "pairs"]
    headers += ["completion rate", *completed, *outcomes, "ran on", "reasoning absent/open/closed"]
    headers += ["tokens median/p95", "train loss", "held-out NLL"]
    body = [_cells(row, outcomes, by_score) for row in rows]
    parts = [
        f"## {'Group' if about_group else 'Evaluation'}: {escape(name)}",
        escape("; ".join(filter(None, (about_group, settings_text(rows[0].result))))),
        table(headers, body),
        _repeats(rows),
        _means(rows),
    ]
    return "\n\n".join(part for part in parts if part)


def _curve(name: str, rows: Sequence[Evaluated]) -> str:
    """What the same completions are worth when they are cut earlier."""
    by_score, outcomes = rows[0].summary.by_score, occurring(rows)
    headers = ["cell", "step", "budget", "n", "scored", "mean score (completed)" if by_score else "accuracy"]
    headers += ["completion rate", *([] if by_score else ["accuracy (completed)"]), *outcomes]
    body = [
        [
            escape(marked_cell(row.result)),
            "base" if row.result.is_baseline else str(row.result.step),
            str(budget_of(row)),
            *(str(value) for value in (row.summary.n, row.summary.scored)),
            _bold_if_invalid(quality(row.summary, _DIGITS)),
            number(row.summary.completion_rate, _DIGITS),
            *([] if by_score else [_bold_if_invalid(completed_quality(row.summary, _DIGITS))]),
            *(str(row.summary.counts[outcome]) for outcome in outcomes),
        ]
        for row in rows
    ]
    about = f"Every budget is {curve_label(rows)}: the token ids are cut there, and what is left is graded again."
    return f"### Budget curve: {escape(name)}\n\n{about}\n\n{table(headers, body)}"


def _repeats(rows: Sequence[Evaluated]) -> str:
    """What the completions of a problem are worth together."""
    repeated = [row for row in rows if row.repeats]
    if not repeated:
        return ""
    ks = asked_ks(repeated)
    headers = ["cell", "step", "repeats", at_repeats("avg", repeated), *(f"pass@{k}" for k in ks)]
    headers += [at_repeats("maj", repeated)]
    body = [
        [
            escape(marked_cell(row.result)),
            "base" if row.result.is_baseline else str(row.result.step),
            str(row.repeats.asked),
            quality(row.summary, _DIGITS),
            *(at_k_text(pass_at(row, k), _DIGITS) for k in ks),
            at_k_text(row.repeats.majority, _DIGITS),
        ]
        for row in repeated
        if row.repeats
    ]
    return f"Several completions of each problem:\n\n{table(headers, body)}"


def _means(rows: Sequence[Evaluated]) -> str:
    """The means of everything that the benchmark scored, where that is more than the one number in the table."""
    names = sorted({name for row in rows for name in row.result.scores.metrics} - {"score"})
    if len(names) < 2:
        return ""
    body = [[escape(row.name), *(number(_mean(row, name), _DIGITS) for name in names)] for row in rows]
    return f"Means over completed samples:\n\n{table(['cell', *map(escape, names)], body)}"


def _mean(row: Evaluated, name: str) -> float | None:
    metric = row.result.scores.metrics.get(name)
    if row.summary.invalid or metric is None:
        return None
    return math.fsum(metric.values.tolist()) / len(metric.values)


def _cells(row: Evaluated, outcomes: Sequence[str], by_score: bool) -> list[str]:
    summary, gap = row.summary, row.difference
    loss = number(row.nll.train_loss if row.nll else None, 4)
    held_out = number(row.nll.held_out_nll if row.nll else None, 4)
    return [
        escape(marked_cell(row.result)),
        "base" if row.result.is_baseline else str(row.result.step),
        *(str(value) for value in (summary.n, summary.n_problems, summary.scored)),
        _bold_if_invalid(quality(summary, _DIGITS)),
        _against(gap),
        NOTHING if gap is None or gap.p_value is None else f"{gap.p_value:.2g}",
        NOTHING if gap is None else str(gap.n_pairs),
        number(summary.completion_rate, _DIGITS),
        *([] if by_score else [_bold_if_invalid(completed_quality(summary, _DIGITS))]),
        *(str(summary.counts[outcome]) for outcome in outcomes),
        str(summary.ran_on),
        reasoning_text(summary),
        tokens_text(summary),
        loss,
        held_out,
    ]


def _against(gap: Difference | None) -> str:
    if gap is None:
        return NOTHING
    return f"{difference_text(gap, _DIGITS)} ({escape(gap.reason or gap.baseline)})"


def _bold_if_invalid(text: str) -> str:
    return f"**{text}**" if text.startswith("INVALID") else text


def table(headers: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A markdown table; every cell is already escaped."""
    rule = ["---", *["---:"] * (len(headers) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (headers, rule, *body))


def _definitions() -> str:
    rows = [[f"`{outcome}`", meaning] for outcome, meaning in OUTCOME_DEFINITIONS.items()]
    lines = "\n".join(f"- {line}" for line in _MEANINGS)
    return "## What the words mean\n\n| outcome | when |\n|---|---|\n" + _lines(rows) + f"\n\n{lines}"


def _lines(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _losses(cells: Sequence[CellResult]) -> str:
    body = [
        [
            escape(cell.name),
            str(point.step),
            number(point.train_loss, 4),
            number(point.held_out_nll, 4),
            NOTHING if point.held_out_tokens is None else str(point.held_out_tokens),
        ]
        for cell in cells
        for point in cell.nll
    ]
    headers = ["cell", "step", "train loss", "held-out NLL", "held-out tokens"]
    return f"## Losses (nats per token)\n\n{table(headers, body)}" if body else ""


def _traces(cells: Sequence[CellResult]) -> str:
    body = [
        [escape(cell.name), escape(reason), str(count)]
        for cell in cells
        for reason, count in (cell.traces or {}).items()
    ]
    return f"## Traces\n\n{table(['cell', 'kept, or rejected by', 'traces'], body)}" if body else ""
