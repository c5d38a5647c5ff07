"""A table of a report as data: what it says, and nothing of how it looks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        header: What its values are.
        values: One for each row, as words.
        is_foreign: The values are labels or texts from users and models, which a writer must not take for markup.
        asides: What stands in brackets behind each value, and is foreign too; empty strings where nothing does.
    """

    header: str
    values: tuple[str, ...]
    is_foreign: bool = False
    asides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        title: What it is about.
        columns: Of equal length; the first names the rows.
        about: What a reader must know of it; empty where that is nothing.
        level: 2 for a part of the report, 3 for a part of that; 0 where it goes on with the table before it.
    """

    title: str
    columns: tuple[Column, ...]
    about: str = ""
    level: int = 2
