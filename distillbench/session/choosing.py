"""Which cells of a matrix are meant by a name."""

from __future__ import annotations

import difflib
import fnmatch
import itertools
import re
from collections.abc import Collection, Iterable, Sequence

from distillbench.errors import DistillbenchError
from distillbench.records import Cell

_MOST_NAMES = 40
_LEAST_ALIKE = 0.75
_NUMBERS = re.compile(r"[0-9][0-9.,_]*(?:[eE][-+]?[0-9]+)?")


def choose_cells(cells: Sequence[Cell], only: Sequence[str]) -> tuple[Cell, ...]:
    """The cells whose names match, with the baselines they are compared with.

    Raises:
        DistillbenchError: A name matches nothing.
    """
    if not only:
        return tuple(cells)
    names = [cell.name for cell in cells]
    chosen: set[str] = set()
    for pattern in only:
        matching = set(fnmatch.filter(names, pattern)) | ({pattern} & set(names))
        if not matching:
            raise DistillbenchError(f"--only {pattern!r} matches no cell; {cells_there_are(pattern, names)}")
        chosen |= matching
    setups = {cell.setup for cell in cells if cell.name in chosen}
    return tuple(cell for cell in cells if cell.name in chosen or (cell.is_baseline and cell.setup in setups))


def cells_there_are(wanted: str, names: Iterable[str]) -> str:
    """What to say where no cell has a name: the one that was mistyped, and the names there are.

    A name with another number, or another of the values that cells have, is no mistyped one: who asks for `seed=3`
    where there are 0, 1 and 2 did not mean 2.
    """
    there = sorted(set(names))
    values = {part for name in there for part in name.split(",")}
    meant = next((name for name in there if _is_mistyped(wanted, name, values)), None)
    shown = ", ".join(there[:_MOST_NAMES])
    more = f", and {len(there) - _MOST_NAMES:,} more: `distillbench show MATRIX` lists all"
    hint = f"did you mean {meant!r}? " if meant else ""
    return f"{hint}one of: {shown}{more if len(there) > _MOST_NAMES else ''}"


def _is_mistyped(wanted: str, name: str, values: Collection[str]) -> bool:
    """Whether a name differs in nothing but letters of parts that no cell has."""
    pairs = list(itertools.zip_longest(wanted.split(","), name.split(","), fillvalue=""))
    return all(
        own not in values
        and _NUMBERS.findall(own) == _NUMBERS.findall(other)
        and difflib.SequenceMatcher(None, own, other).ratio() >= _LEAST_ALIKE
        for own, other in pairs
        if own != other
    )
