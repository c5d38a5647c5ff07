"""Expands axes, `exclude` and `include` into combinations, by the rules of GitHub Actions' `strategy.matrix`.

Pure functions over plain data. Source of the rules:
https://docs.github.com/actions/how-tos/write-workflows/choose-what-workflows-do/run-job-variations
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

#: Where a value came from: the axis's value or the include entry of this index.
Source = tuple[Literal["axis", "include"], int]


@dataclass(frozen=True, slots=True)
class Combination:
    """One combination of axis values.

    Attributes:
        values: The value of each key, axes in their order and then what `include` added.
        sources: Where each of these values came from.
    """

    values: dict[str, Any]
    sources: dict[str, Source]


@dataclass(frozen=True, slots=True)
class Expansion:
    """What a matrix expands to.

    Attributes:
        combinations: In the order of the axes, the last one fastest; then those that `include` made.
        idle_excludes: The indexes of `exclude` entries that match no combination.
    """

    combinations: list[Combination]
    idle_excludes: list[int]


def expand(
    axes: Mapping[str, Sequence[Any]],
    include: Sequence[Mapping[str, Any]] = (),
    exclude: Sequence[Mapping[str, Any]] = (),
) -> Expansion:
    """Makes the combinations of a matrix.

    The product of the axes loses what an `exclude` entry matches in every key it has. Then each `include` entry is
    added to every combination left of the product in which it changes no axis value (it may change what an earlier
    entry added); an entry that could be added to none becomes a combination of its own, which later entries leave
    alone. A matrix without axes has no product, only what `include` makes.

    Args:
        axes: The values of each axis.
        include: Keys to add, and combinations to make.
        exclude: Keys of combinations to remove.
    """
    product = _product(axes) if axes else []
    kept = [combination for combination in product if not any(_matches(entry, combination) for entry in exclude)]
    idle = [index for index, entry in enumerate(exclude) if not any(_matches(entry, each) for each in product)]
    made = []
    for index, entry in enumerate(include):
        fixed = {key: value for key, value in entry.items() if key in axes}
        hosts = [combination for combination in kept if _matches(fixed, combination)]
        for combination in hosts:
            _add(combination, entry, index, axes)
        if not hosts:
            made.append(Combination(dict(entry), dict.fromkeys(entry, ("include", index))))
    return Expansion(kept + made, idle)


def same(one: Any, other: Any) -> bool:
    """Whether two YAML values are the same: 1 is 1.0, and true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return bool(one == other)


def _product(axes: Mapping[str, Sequence[Any]]) -> list[Combination]:
    numbered = [list(enumerate(values)) for values in axes.values()]
    return [
        Combination(
            {key: value for key, (_, value) in zip(axes, picks, strict=True)},
            {key: ("axis", index) for key, (index, _) in zip(axes, picks, strict=True)},
        )
        for picks in itertools.product(*numbered)
    ]


def _matches(entry: Mapping[str, Any], combination: Combination) -> bool:
    values = combination.values
    return all(key in values and same(values[key], value) for key, value in entry.items())


def _add(combination: Combination, entry: Mapping[str, Any], index: int, axes: Mapping[str, Sequence[Any]]) -> None:
    for key, value in entry.items():
        if key not in axes:
            combination.values[key] = value
            combination.sources[key] = ("include", index)
