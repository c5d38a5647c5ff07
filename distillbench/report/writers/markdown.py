"""report.md: everything the report knows, as one markdown file (GitHub flavour).

Labels, error texts and whatever else comes from users and models is escaped; a plugin's sections are not.
"""

from __future__ import annotations

import html
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
from distillbench.report.evaluated import ACCEPTED, plain
from distillbench.report.results import Results, Section
from distillbench.report.table import Column, Table
from distillbench.report.tables import Tables

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
    parts += [*map(_shown, tables.of_evaluations), _definitions(), *map(_shown, tables.of_cells)]
    parts += [f"## {escape(section.title)}\n\n{section.markdown.strip()}" for section in sections]
    return "\n\n".join(part for part in parts if part) + "\n"


def _shown(shown: Table) -> str:
    title = f"{'#' * shown.level} {escape(shown.title)}" if shown.level else escape(shown.title)
    headers, values = [escape(one.header) for one in shown.columns], map(_values, shown.columns)
    return "\n\n".join(filter(None, [title, escape(shown.about), table(headers, list(zip(*values, strict=True)))]))


def _values(column: Column) -> list[str]:
    values = [escape(value) if column.is_foreign else _bold_if_invalid(value) for value in column.values]
    if not column.asides:
        return values
    pairs = zip(values, column.asides, strict=True)
    return [f"{value} ({escape(aside)})" if aside else value for value, aside in pairs]


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
