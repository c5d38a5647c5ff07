"""Everything that a report shows, as data. Writers lay it out; none of them computes a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distillbench.report.curves import budget_rows
from distillbench.report.evaluated import Evaluated, build_rows, group_by_evaluation
from distillbench.report.groups import Group, group_notes, groups_of, headline_rows
from distillbench.report.results import Results
from distillbench.report.statements import conclusions, notes


@dataclass(frozen=True, slots=True)
class Tables:
    """What a report shows.

    Attributes:
        results: What it was made from.
        rows: Every checkpoint on every evaluation, by evaluation.
        groups: The groups of evaluations, by name.
        curves: For each evaluation with budgets, every checkpoint at every budget.
        conclusions: What the numbers say.
        notes: What a reader must know beside them.
    """

    results: Results
    rows: tuple[Evaluated, ...]
    groups: Mapping[str, Group]
    curves: Mapping[str, list[Evaluated]]
    conclusions: tuple[str, ...]
    notes: tuple[str, ...]

    def by_evaluation(self) -> dict[str, list[Evaluated]]:
        """The rows of each evaluation."""
        return group_by_evaluation(self.rows)


def tables_of(results: Results) -> Tables:
    """Computes every number of a report, once.

    Raises:
        ResultsError: Samples contradict one another.
    """
    rows = build_rows(results)
    groups = groups_of(rows)
    return Tables(
        results=results,
        rows=tuple(rows),
        groups=groups,
        curves=budget_rows(results, rows),
        conclusions=tuple(conclusions(headline_rows(rows, groups))),
        notes=(*group_notes(rows), *notes(rows, results)),
    )
