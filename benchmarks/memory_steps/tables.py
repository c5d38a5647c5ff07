"""Plain tables, written and read as stages do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from memory_steps.made import Size, Step, Text


def write_table(name: str) -> Callable[[Path, Size], int]:
    """Rows of a text and of token ids, written as they are made."""

    def run(folder: Path, size: Size) -> int:
        from distillbench.store.columns import IDS, TEXT
        from distillbench.store.rows import write_rows

        made = Text(size)
        rows = (
            {"id": f"p/{number}", "text": made.text(n), "ids": made.token_ids(n)}
            for number, n in enumerate(made.lengths())
        )
        return write_rows(folder / name, rows, {"id": TEXT, "text": TEXT, "ids": IDS})

    return run


def read_table(name: str) -> Callable[[Path, Size], int]:
    """Rows read one after the other."""

    def run(folder: Path, size: Size) -> int:
        from distillbench.store.rows import iterate

        return sum(len(row["ids"]) > 0 for row in iterate(folder / name))

    return run


def read_at_random(folder: Path, size: Size) -> int:
    """Every row of a mapped file once, in no order, as a trainer reads them."""
    from distillbench.store.mapped import MappedRows

    rows = MappedRows(folder / "rows.arrow", ("ids",))
    for number in np.random.default_rng(1).permutation(len(rows)):
        rows[int(number)]["ids"].sum()
    return len(rows)


#: What every step on a store's tables needs.
STORE = ("pyarrow.parquet", "distillbench.store.rows", "distillbench.store.mapped")
STEPS = {
    "write": Step(write_table("rows.parquet"), STORE),
    "read": Step(read_table("rows.parquet"), STORE, after="write"),
    "write-arrow": Step(write_table("rows.arrow"), STORE),
    "read-arrow": Step(read_table("rows.arrow"), STORE, after="write-arrow"),
    "read-random": Step(read_at_random, STORE, after="write-arrow"),
}
