"""Plain values as bytes: nothing is lost, nothing is run, and hostile bytes give a value or a ValueError."""

from __future__ import annotations

import contextlib
import math
from array import array
from collections import Counter, OrderedDict, UserList, UserString, defaultdict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillbench_plugins.grading.sandbox.values import Foreign, Opaque, comparable, holds_nan, pack, unpack

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
        ([Point(1, 2), {1: {2: 3}.keys()}], [(1, 2), {1: {2}}]),
        ([bytearray(b"a"), UserList([1]), UserString("b")], [b"a", [1], "b"]),
    ],
)
def test_what_is_no_plain_value_becomes_the_nearest_one(value: Any, found: Any) -> None:
    came = unpack(pack(value))
    if isinstance(value, np.generic) and not isinstance(value, float):
        came = Foreign(found.type_name, came.value)  # numpy's names of its types vary with its version
    assert came == found
    assert not isinstance(came.value if isinstance(came, Foreign) else came, Liar)


def test_what_only_iterates_equals_no_list_wherever_it_stands() -> None:
    kinds = (iter, reversed, deque, np.array, partial(map, int), partial(array, "i"))
    for make in (*kinds, lambda held: (one for one in held), lambda held: dict(enumerate(held)).values()):
        for around in (lambda one: one, lambda one: [one], lambda one: (1, [one]), lambda one: {1: one}):
            came = unpack(pack(around(make([1, 2]))), made=comparable)
            assert isinstance(make([1, 2]), np.ndarray) or came != around([1, 2])
            assert pack(around(make([1, 2]))) != pack(around([1, 2]))
    assert unpack(pack([deque([1])]), made=comparable) == [deque([1])]
    assert unpack(pack([iter([1])]), made=comparable) != unpack(pack([iter([1])]), made=comparable)


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


def forged(code: int, inner: bytes) -> bytes:
    """An extension as no honest `pack` writes it."""
    return msgpack.packb(msgpack.ExtType(code, inner))


def integer(n_bytes: int) -> bytes:
    return forged(3, b"\x01" * n_bytes)


SEVENS = 2**61 - 1  # the hash of a number is its remainder
#: Bytes of what no honest value of 100 bytes equals, and that cost far more than they are long.
COSTLY = {
    "lists in a list": b"\xdd" + (60_000).to_bytes(4, "big") + b"\x90" * 60_000,
    "announced and not there": b"\xdd\x00\xff\xff\xff" * 1000,
    "a list in a list": b"\x91" * 60_000,
    "dicts": b"\xdd" + (60_000).to_bytes(4, "big") + b"\x80" * 60_000,
    "a fraction that is not reduced": forged(7, b"\x92" + integer(20_000) + integer(20_001)),
    "a fraction of a fraction": forged(7, b"\x92" + forged(7, b"\x92\x01\x02") + b"\x01"),
    "an integer": integer(60_000),
    "a decimal": forged(6, b"9" * 60_000),
    "a range": forged(8, b"\x93\x00" + integer(30) + b"\x01"),
    "a range of a range": forged(8, b"\x93\x00\xce\xff\xff\xff\xff\x01"),
    "a set of equal hashes": forged(1, msgpack.packb([0])[:0] + b"\xdc" + (800).to_bytes(2, "big")
                                    + b"".join(pack(SEVENS * number) for number in range(800))),
    "keys of equal hashes": b"\xde" + (400).to_bytes(2, "big")
                            + b"".join(pack(SEVENS * number) + b"\x01" for number in range(400)),
    "far longer": b"\xda\xff\xff" + b"x" * 0xFFFF + b"x" * 5000,
}  # fmt: skip


@pytest.mark.parametrize("name", COSTLY)
def test_what_is_far_larger_than_expected_is_refused_before_it_is_built(name: str) -> None:
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(ValueError, match="not a value"):
        unpack(COSTLY[name], like=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20


@pytest.mark.parametrize(
    ("likeness", "value"),
    [
        ("array", ["x" * 30_000] + [""] * 900),
        ("OrderedDict", [[SEVENS * number, 1] for number in range(300)]),
        ("Counter", [SEVENS * number for number in range(300)]),
        ("deque", {1: 2}),
        ("Counter", range(1000)),
        ("float64", ["1" * 100] * 500),
        ("uint8", [10**300]),
        ("no such likeness", [1]),
    ],
)
def test_a_forged_likeness_costs_no_more_than_the_value(likeness: str, value: Any) -> None:
    import tracemalloc

    data = forged(5, pack(["ndarray", value, likeness]))
    tracemalloc.start()
    with contextlib.suppress(ValueError):
        unpack(data, like=100, made=comparable)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20


@given(VALUES)
def test_what_is_as_large_as_expected_is_read(value: Any) -> None:
    data = pack(value)
    assert unpack(data, like=len(data)) == value


@given(st.lists(st.integers(0, 100), max_size=200), st.sampled_from([float, Fraction, Decimal, complex]))
def test_equal_values_that_are_written_longer_are_read(numbers: list[int], kind: Any) -> None:
    assert unpack(pack([kind(one) for one in numbers]), like=len(pack(numbers))) == numbers
    assert unpack(pack({kind(one) for one in numbers}), like=len(pack(numbers))) == set(numbers)


HOSTILE = st.recursive(
    st.sampled_from([Decimal("sNaN"), Decimal("NaN"), Decimal("1E+999999"), 10**400, -(10**400), complex("nan"),
                     math.nan, math.inf, "\ud800", b"\xff", range(10**9), Fraction(10**300, 7), True, 10**4000, ""]),
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=3).map(tuple)
    | st.dictionaries(st.sampled_from([1, 1.5, "\udfff", (1, 2), None, 10**400]), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip
EXPECTED: tuple[Any, ...] = (1, 0.5, [1.0, 2.0], (1.0, 2.0), [[1.0], [2.0]], "x", {"a": 0.5}, None, {1, 2}, 10**400)


@given(HOSTILE)
def test_no_value_makes_a_comparison_raise(value: Any) -> None:
    """With every rule that compares: plain equality, tolerances, the oracles of evalplus, LiveCodeBench's."""
    from distillbench_plugins.benchmarks.code_livecodebench import _is_right
    from distillbench_plugins.grading.evalplus import Expected, Reference, Tests
    from distillbench_plugins.grading.sandbox.runners.functions import LENGTH, VALUE

    said = VALUE + pack(value)
    for entry_point, dataset in (
        ("f", "humaneval"),
        ("find_zero", "humaneval"),
        ("sum_div", "mbpp"),
        ("surface_Area", "mbpp"),
    ):
        row = {"entry_point": entry_point, "atol": 1e-6, "prompt": "", "canonical_solution": "", "id": "a"}
        tests = Tests(dataset, row | {"base_input": "[[[1, 2], 3]]", "plus_input": "[]"})  # type: ignore[arg-type]
        for wanted in EXPECTED:
            told = VALUE + pack(wanted)
            references = (Reference((told,), (0.1,), (True,), (True,)), Reference((), (), (), ()))
            expected = Expected(tests, references, False, lambda told=told: [told])  # type: ignore[misc]
            assert list(expected.check(0, LENGTH.pack(len(said)) + said)) in ([""], ["wrong_answer"])
    for wanted in EXPECTED[:3]:
        assert _is_right(said, wanted) in (True, False)
