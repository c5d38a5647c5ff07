"""Plain values as bytes: nothing is lost, nothing is run, and hostile bytes give a value or a ValueError."""

from __future__ import annotations

import contextlib
import math
from collections import Counter, OrderedDict, defaultdict, namedtuple
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillbench_plugins.grading.sandbox.values import Foreign, Opaque, holds_nan, pack, unpack

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.complex_numbers(allow_nan=False) | st.fractions() | st.decimals(allow_nan=False)
)  # fmt: skip
HASHABLE = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3)
)
VALUES = st.recursive(
    SCALARS | st.sets(HASHABLE, max_size=3) | st.builds(range, st.integers(-9, 9), st.integers(-9, 9)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(HASHABLE, inner, max_size=3)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    found = unpack(pack(value))
    assert found == value and type(found) is type(value)


@given(VALUES)
def test_equal_values_of_one_making_have_equal_bytes(value: Any) -> None:
    assert pack(unpack(pack(value))) == pack(value) or _has_unordered(value)


def _has_unordered(value: Any) -> bool:
    return "{" in repr(value) or "frozenset" in repr(value)


@given(st.binary(max_size=200))
def test_hostile_bytes_give_a_value_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        unpack(data)


Point = namedtuple("Point", "x y")


class Liar(int):
    """Equals everything."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (Counter("aab"), Foreign("Counter", {"a": 2, "b": 1})),
        (OrderedDict(a=1), Foreign("OrderedDict", {"a": 1})),
        (defaultdict(list, a=[1]), Foreign("defaultdict", {"a": [1]})),
        (Point(1, 2), Foreign("Point", (1, 2))),
        (np.int64(5), Foreign("int64", 5)),
        (np.float64(0.5), Foreign("float64", 0.5)),
        (np.bool_(True), Foreign("bool_", True)),
        (np.arange(3), Foreign("ndarray", [0, 1, 2])),
        ({1: 2}.keys(), Foreign("dict_keys", {1})),
        (map(abs, [-1]), Foreign("map", [1])),
        (Liar(3), Foreign("Liar", 3)),
        ([np.int64(1), (Liar(2),)], [1, (2,)]),
    ],
)
def test_what_is_no_plain_value_becomes_the_nearest_one(value: Any, found: Any) -> None:
    came = unpack(pack(value))
    if isinstance(value, np.generic) and not isinstance(value, float):
        came = Foreign(found.type_name, came.value)  # numpy's names of its types vary with its version
    assert came == found
    assert not isinstance(came.value if isinstance(came, Foreign) else came, Liar)


def test_what_has_no_plain_value_equals_nothing() -> None:
    class Always:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None

    found = unpack(pack([Always()]))
    assert isinstance(found[0], Opaque) and found != [1] and found != unpack(pack([Always()]))
    outer = unpack(pack(Always()))
    assert outer.type_name == "Always" and outer.value != 1


def test_what_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="cannot be written"):
        pack(loop)
    deep: Any = []
    for _ in range(100_000):
        deep = (deep,)
    with pytest.raises(ValueError, match="cannot be written"):
        pack(deep)
    del deep


def test_deep_hostile_bytes_are_refused() -> None:
    data = b"\x90"
    for _ in range(3000):
        data = msgpack.packb(msgpack.ExtType(0, b"\x91" + data))
    for hostile in (data, b"\x91" * 1_000_000):
        with pytest.raises(ValueError, match="not a value"):
            unpack(hostile)


def test_nan_is_found_wherever_it_is() -> None:
    nan = math.nan
    for value in (nan, [nan], (1, {2: [nan]}), {nan}, complex(nan, 0), Decimal("NaN"), [Opaque("x")]):
        assert holds_nan(value)
    for value in (1.0, [], "nan", {1: (2, 3.5)}, None, Fraction(1, 2)):
        assert not holds_nan(value)
