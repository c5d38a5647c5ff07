"""The terminal tables of a report."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from distillbench.report.curves import budget_of, curve_label
from distillbench.report.evaluated import Evaluated, last_checkpoints, marked_cell, plain
from distillbench.report.groups import Group
from distillbench.report.tables import Tables
from distillbench.report.words import (
    INVALID,
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

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_LONGEST_NAME = 24
#: Where lines may be as long as this, a row is one line.
_UNBOUNDED = 10_000
#: Parts of a name that stay whole, each with the mark that ends it.
_PARTS = re.compile(r"[^,/@ ]*[,/@ ]|[^,/@ ]+$")


@dataclass(frozen=True)
class Column:
    """A column of the terminal table."""

    header: str
    values: tuple[str, ...]
    left: bool = False

    @cached_property
    def widest(self) -> Column:
        """The column with its widest value alone, which takes as much room."""
        from rich.cells import cell_len

        width = {value: max(map(cell_len, value.split("\n"))) for value in {*self.values}}
        return Column(self.header, (max(width, key=lambda value: width[value]),), self.left)


def print_table(tables: Tables, console: Console) -> None:
    """Prints the tables and what they say; a table that is too wide is split, and no number is ever cut."""
    from rich.text import Text

    for name, group in tables.groups.items():
        _print_group(name, group, console)
    for name, rows in tables.by_evaluation().items():
        alone = [row for row in rows if not row.result.groups]
        if alone:
            _print(plain(name), settings_text(alone[0].result), _columns(alone, console.width), console)
            _print_curve(name, tables.curves.get(name, ()), console)
    for line in tables.conclusions:
        console.print(Text(line))
    for line in tables.notes:
        console.print(Text(f"note: {line}", style="bold red" if INVALID in line else "yellow"))


def _print_group(name: str, group: Group, console: Console) -> None:
    """A group's own table; below that of an outermost one, all its tasks in one."""
    if not group.rows:
        return
    about = f"{group.about}; {settings_text(group.rows[0].result)}"
    _print(plain(name), about, _columns(group.rows, console.width), console)
    if group.members:
        _print(f"{plain(name)}, task by task", "", _columns(group.members, console.width, task=True), console)


def _print_curve(name: str, curve: Sequence[Evaluated], console: Console) -> None:
    if curve:
        shown = last_checkpoints(curve)
        about = curve_label(curve) + ("; last checkpoints" if len(shown) < len(curve) else "")
        _print(f"{plain(name)} by budget", about, _curve_columns(shown, console.width), console)


def _print(title: str, about: str, columns: Sequence[list[Column]], console: Console) -> None:
    from rich.text import Text

    console.print(Text(title, style="bold"), *([Text(f"({about})", style="dim")] if about else []))
    _print_columns(columns, console)
    console.print()


_Groups = list[list[tuple[str, Callable[[Evaluated], str]]]]


def _curve_columns(rows: Sequence[Evaluated], width: int) -> list[list[Column]]:
    """The columns of a budget curve."""
    groups: _Groups = [
        [*_key_columns(width)[:2], ("budget", lambda row: str(budget_of(row))), ("n", lambda row: str(row.summary.n))],
        [
            (f"{_headline(rows)}\n[95 %]", lambda row: quality(row.summary)),
            ("comple-\ntion", lambda row: number(row.summary.completion_rate)),
        ],
        [(outcome.replace("_", "\n"), _count(outcome)) for outcome in occurring(rows)],
    ]
    return _made(groups, rows)


def _columns(rows: Sequence[Evaluated], width: int, task: bool = False) -> list[list[Column]]:
    """The columns in groups that stay together where they can; the first group stands in every table."""
    of_task: list[tuple[str, Callable[[Evaluated], str]]] = (
        [("task", lambda row: plain(row.result.task))] if task else []
    )
    groups: _Groups = [
        [*of_task, *_key_columns(width)],
        [
            (f"{_headline(rows)}\n{_as_average(rows)}[95 %]", lambda row: quality(row.summary)),
            ("vs. baseline\n[95 %]", lambda row: difference_text(row.difference)),
            ("comple-\ntion", lambda row: number(row.summary.completion_rate)),
            ("accuracy\n(completed)\n[95 %]", lambda row: completed_quality(row.summary)),
        ],
        [
            *((f"pass@{k}\n[95 %]", _pass_text(k)) for k in asked_ks(rows) if k > 1),
            (
                f"{at_repeats('maj', rows)}\n[95 %]",
                lambda row: at_k_text(row.repeats.majority if row.repeats else None),
            ),
        ],
        [(outcome.replace("_", "\n"), _count(outcome)) for outcome in occurring(rows)],
        [
            ("tokens\nmed/p95", lambda row: tokens_text(row.summary)),
            ("reasoning\nabsent/open\n/closed", lambda row: reasoning_text(row.summary)),
            ("held-out\nNLL", lambda row: number(row.nll.held_out_nll if row.nll else None, 4)),
        ],
    ]
    return _made(groups, rows)


def _key_columns(width: int) -> list[tuple[str, Callable[[Evaluated], str]]]:
    longest = max(8, min(_LONGEST_NAME, width // 5)) if width < _UNBOUNDED else _UNBOUNDED
    return [
        ("cell", lambda row: _folded(plain(marked_cell(row.result)), longest)),
        ("step", lambda row: "base" if row.result.is_baseline else str(row.result.step)),
        ("n", lambda row: str(row.summary.n)),
    ]


def _as_average(rows: Sequence[Evaluated]) -> str:
    return f"= {at_repeats('avg', rows)}\n" if any(row.repeats for row in rows) else ""


def _pass_text(k: int) -> Callable[[Evaluated], str]:
    return lambda row: at_k_text(pass_at(row, k))


def _headline(rows: Sequence[Evaluated]) -> str:
    return "mean score\n(completed)" if rows[0].summary.by_score else "accuracy"


def _made(groups: _Groups, rows: Sequence[Evaluated]) -> list[list[Column]]:
    by_score = rows[0].summary.by_score
    made = [
        [Column(head, tuple(map(make, rows)), left=head in ("cell", "task")) for head, make in group]
        for group in groups
    ]
    return made[:1] + [[column for column in group if _worth(column, by_score)] for group in made[1:]]


def _folded(name: str, longest: int) -> str:
    """A long name on several lines, each of whole words; a single word may be longer."""
    lines = [""]
    for part in _PARTS.findall(name):
        if lines[-1] and len(lines[-1]) + len(part) > longest:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _count(outcome: str) -> Callable[[Evaluated], str]:
    return lambda row: str(row.summary.counts[outcome])


def _worth(column: Column, by_score: bool) -> bool:
    """Whether a column says anything: empty ones, and reasoning that nobody did, only take room."""
    if by_score and column.header.startswith("accuracy"):
        return False
    return bool(set(column.values) - {NOTHING, "-/-/-", "1.00/0.00/0.00"})


def _print_columns(groups: Sequence[list[Column]], console: Console) -> None:
    keys, rest = groups[0], [column for group in groups[1:] for column in group]
    if not all(_fits([*keys, column], console) for column in rest):
        return _print_list([*keys, *rest], console)
    block = list(keys)
    for group in groups[1:]:
        if not _fits([*block, *group], console) and len(block) > len(keys):
            console.print(_table(block), "")
            block = list(keys)
        for column in group:
            if not _fits([*block, column], console):
                console.print(_table(block), "")
                block = list(keys)
            block.append(column)
    console.print(_table(block))


def _print_list(columns: Sequence[Column], console: Console) -> None:
    """For a terminal too narrow for any table: one value a line."""
    from rich.text import Text

    for place in range(len(columns[0].values)):
        for column in columns:
            header, value = column.header.replace("-\n", "").replace("\n", " "), column.values[place].replace("\n", "")
            console.print(Text(f"{header}: {value}"))


def _fits(columns: Sequence[Column], console: Console) -> bool:
    from rich.measure import Measurement

    unbounded = console.options.update(width=10 * _UNBOUNDED)
    return Measurement.get(console, unbounded, _table([column.widest for column in columns])).maximum <= console.width


def _table(columns: Sequence[Column]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False, highlight=False)
    for column in columns:
        table.add_column(Text(column.header), justify="left" if column.left else "right", no_wrap=True)
    for values in zip(*(column.values for column in columns), strict=True):
        table.add_row(*(Text(value, style=_style(value)) for value in values))
    return table


def _style(value: str) -> Any:
    return "bold white on red" if value.startswith(INVALID) else ""
