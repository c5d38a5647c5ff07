"""The tables of cells: the losses of their trainings, and what became of their traces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distillbench.report.results import CellResult
from distillbench.report.table import Column, Table
from distillbench.report.words import NOTHING, number

_LOSS_DIGITS = 4


def cell_tables(cells: Sequence[CellResult]) -> Iterator[Table]:
    """Those that have a row."""
    points = [(cell.name, point) for cell in cells for point in cell.nll]
    if points:
        steps = [
            (
                name,
                str(point.step),
                number(point.train_loss, _LOSS_DIGITS),
                number(point.held_out_nll, _LOSS_DIGITS),
                NOTHING if point.held_out_tokens is None else str(point.held_out_tokens),
            )
            for name, point in points
        ]
        headers = ("cell", "step", "train loss", "held-out NLL", "held-out tokens")
        yield Table("Losses (nats per token)", _columns(headers, steps, foreign=1))
    traces = [(cell.name, reason, str(count)) for cell in cells for reason, count in (cell.traces or {}).items()]
    if traces:
        yield Table("Traces", _columns(("cell", "kept, or rejected by", "traces"), traces, foreign=2))


def _columns(headers: Sequence[str], rows: Sequence[Sequence[str]], foreign: int) -> tuple[Column, ...]:
    """Columns from rows, of which the first few hold texts from outside."""
    values = zip(*rows, strict=True)
    return tuple(
        Column(header, of_column, place < foreign)
        for place, (header, of_column) in enumerate(zip(headers, values, strict=True))
    )
