"""The expansion of axes, against GitHub's documentation and against its rules stated once more."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from distillbench.matrix.expand import expand, same

Row = dict[str, Any]


def values(axes: dict[str, list[Any]], include: list[Row] | None = None, exclude: list[Row] | None = None) -> list[Row]:
    return [combination.values for combination in expand(axes, include or [], exclude or []).combinations]


def test_githubs_documented_include_example() -> None:
    include = [
        {"color": "green"},
        {"color": "pink", "animal": "cat"},
        {"fruit": "apple", "shape": "circle"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]
    assert values({"fruit": ["apple", "pear"], "animal": ["cat", "dog"]}, include) == [
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]


def test_githubs_documented_expanding_example() -> None:
    axes: dict[str, list[Any]] = {"os": ["windows-latest", "ubuntu-latest"], "node": [14, 16]}
    found = values(axes, [{"os": "windows-latest", "node": 16, "npm": 6}])
    assert len(found) == 4
    assert [row for row in found if "npm" in row] == [{"os": "windows-latest", "node": 16, "npm": 6}]


def test_githubs_documented_adding_example() -> None:
    axes: dict[str, list[Any]] = {"os": ["macos-latest", "windows-latest", "ubuntu-latest"], "version": [12, 14, 16]}
    found = values(axes, [{"os": "windows-latest", "version": 17}])
    assert len(found) == 10
    assert found[-1] == {"os": "windows-latest", "version": 17}


def test_githubs_documented_exclude_example() -> None:
    axes: dict[str, list[Any]] = {
        "os": ["macos-latest", "windows-latest"],
        "version": [12, 14, 16],
        "environment": ["staging", "production"],
    }
    exclude = [
        {"os": "macos-latest", "version": 12, "environment": "production"},
        {"os": "windows-latest", "version": 16},
    ]
    assert len(values(axes, exclude=exclude)) == 12 - 3


def test_include_alone_makes_the_combinations() -> None:
    assert values({}, [{"site": "a"}, {"site": "b"}]) == [{"site": "a"}, {"site": "b"}]


def test_include_may_bring_back_what_exclude_removed() -> None:
    assert values({"a": [1, 2]}, [{"a": 1}], [{"a": 1}]) == [{"a": 2}, {"a": 1}]


def test_an_idle_exclude_is_named() -> None:
    assert expand({"a": [1, 2]}, exclude=[{"a": 1}, {"a": 3}, {"b": 1}]).idle_excludes == [1, 2]


def test_sources_say_which_axis_value_or_entry_gave_a_value() -> None:
    found = expand({"a": [1, 2]}, [{"b": 5}, {"a": 2, "b": 6}, {"a": 9}]).combinations
    assert [combination.sources for combination in found] == [
        {"a": ("axis", 0), "b": ("include", 0)},
        {"a": ("axis", 1), "b": ("include", 1)},
        {"a": ("include", 2)},
    ]


def test_true_is_not_one_and_one_is_one_point_zero() -> None:
    assert not same(1, True)
    assert same(1, 1.0)
    assert same([1, [2]], [1.0, [2]])
    assert not same([0], [False])
    assert same({"a": [1]}, {"a": [1]})
    assert not same({"a": 1}, {"b": 1})
    assert values({"a": [True, 1]}, exclude=[{"a": 1}]) == [{"a": True}]


KEYS = st.sampled_from("abcd")
VALUES = st.integers(0, 2)
AXES = st.dictionaries(KEYS, st.lists(VALUES, min_size=1, max_size=3, unique=True), max_size=3)
ENTRIES = st.lists(st.dictionaries(KEYS, VALUES, min_size=1, max_size=3), max_size=4)


def by_the_book(axes: dict[str, list[int]], include: list[Row], exclude: list[Row]) -> list[Row]:
    """GitHub's rules, one combination at a time, over sets of pairs."""
    originals = (
        [frozenset(zip(axes, picks, strict=True)) for picks in itertools.product(*axes.values())] if axes else []
    )
    originals = [each for each in originals if not any(frozenset(entry.items()) <= each for entry in exclude)]

    def overwrites(entry: Row, original: frozenset[tuple[str, int]]) -> bool:
        return any(key == other and value != entry[key] for key in entry for other, value in original)

    rows = []
    for original in originals:
        row = dict(original)
        for entry in include:
            if not overwrites(entry, original):
                row |= entry
        rows.append(row)
    return rows + [entry for entry in include if all(overwrites(entry, original) for original in originals)]


@given(AXES, ENTRIES, ENTRIES)
def test_it_expands_by_the_book(axes: dict[str, list[int]], include: list[Row], exclude: list[Row]) -> None:
    assert values(axes, include, exclude) == by_the_book(axes, include, exclude)


@given(AXES, ENTRIES, ENTRIES)
def test_the_order_of_axes_changes_the_order_only(
    axes: dict[str, list[int]], include: list[Row], exclude: list[Row]
) -> None:
    backwards = dict(reversed(axes.items()))
    found, other = values(axes, include, exclude), values(backwards, include, exclude)
    assert sorted(map(sorted, (row.items() for row in found))) == sorted(map(sorted, (row.items() for row in other)))


@given(AXES, ENTRIES, ENTRIES)
def test_an_exclude_is_idle_exactly_when_leaving_it_out_changes_nothing_alone(
    axes: dict[str, list[int]], include: list[Row], exclude: list[Row]
) -> None:
    idle = expand(axes, include, exclude).idle_excludes
    for index, entry in enumerate(exclude):
        assert (values(axes) == values(axes, exclude=[entry])) == (index in idle)


@given(AXES, ENTRIES, ENTRIES)
def test_every_value_has_a_source_that_holds_it(
    axes: dict[str, list[int]], include: list[Row], exclude: list[Row]
) -> None:
    for combination in expand(axes, include, exclude).combinations:
        for key, value in combination.values.items():
            kind, index = combination.sources[key]
            assert value == (axes[key][index] if kind == "axis" else include[index][key])


def test_the_arguments_are_left_alone() -> None:
    axes, include = {"a": [1]}, [{"b": 2}, {"a": 3}]
    expand(axes, include).combinations[1].values["z"] = 1
    assert (axes, include) == ({"a": [1]}, [{"b": 2}, {"a": 3}])
