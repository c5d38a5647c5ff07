"""Everything that a report shows, as data. Writers lay it out; none of them computes a number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from distillbench.report.cell_tables import cell_tables
from distillbench.report.curves import budget_rows
from distillbench.report.evaluated import Evaluated, build_rows, group_by_evaluation
from distillbench.report.evaluation_tables import curve_table, evaluation_tables
from distillbench.report.groups import Group, group_notes, groups_of, headline_rows
from distillbench.report.results import Results
from distillbench.report.statements import conclusions, notes
from distillbench.report.table import Table


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
        of_evaluations: The tables of groups and evaluations, in the order of a report.
        of_cells: The tables of trainings and traces.
    """

    results: Results
    rows: tuple[Evaluated, ...]
    groups: Mapping[str, Group]
    curves: Mapping[str, list[Evaluated]]
    conclusions: tuple[str, ...]
    notes: tuple[str, ...]
    of_evaluations: tuple[Table, ...]
    of_cells: tuple[Table, ...]

    def by_evaluation(self) -> dict[str, list[Evaluated]]:
        """The rows of each evaluation."""
        return group_by_evaluation(self.rows)


def tables_of(results: Results) -> Tables:
    """Computes every number of a report, once.

    Raises:
        ResultsError: Samples contradict one another.
    """
    rows = build_rows(results)
    groups, curves = groups_of(rows), budget_rows(results, rows)
    return Tables(
        results=results,
        rows=tuple(rows),
        groups=groups,
        curves=curves,
        conclusions=tuple(conclusions(headline_rows(rows, groups))),
        notes=(*group_notes(rows), *notes(rows, results)),
        of_evaluations=(*_group_tables(groups), *_evaluation_tables(rows, curves)),
        of_cells=tuple(cell_tables(results.cells)),
    )


def _group_tables(groups: Mapping[str, Group]) -> Iterator[Table]:
    for name, group in groups.items():
        if group.rows:
            yield from evaluation_tables(f"Group: {name}", group.rows, group.about)


def _evaluation_tables(rows: Sequence[Evaluated], curves: Mapping[str, Sequence[Evaluated]]) -> Iterator[Table]:
    for name, mine in group_by_evaluation(rows).items():
        yield from evaluation_tables(f"Evaluation: {name}", mine)
        if name in curves:
            yield curve_table(name, curves[name])
