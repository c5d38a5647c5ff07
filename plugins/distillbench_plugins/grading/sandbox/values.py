"""Plain Python values as bytes and back. Reading never runs anything: hostile bytes give a value or a `ValueError`.

Equal values of equal types give equal bytes, sets and dicts in another order excepted. What Python compares as a plain
value is written as that one: a Counter as a dict, a numpy integer as an integer; only the outermost value then also
keeps the name of its type (`Foreign`). What it does not is written with what it yields, and is told apart wherever it
stands: an iterator, a deque, an array.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, UserList, UserString, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Rational
from operator import index
from typing import Any, cast

import msgpack

_TUPLE, _SET, _FROZENSET, _COMPLEX, _INTEGER, _FOREIGN, _DECIMAL, _FRACTION, _RANGE = range(9)
_PLAIN = frozenset({bool, int, float, str, bytes, list, dict, tuple, set, frozenset, complex, type(None), Decimal})
_PLAIN |= {Fraction, range}
_DEEPEST = 64
#: A value that equals another has as many elements, and may be written longer: 1 as 1.0, or as Fraction(1).
_TIMES_LONGER, _BYTES_LONGER, _MORE_ELEMENTS, _MORE_DIGIT_BYTES = 16, 1 << 16, 1 << 10, 1 << 12
#: Elements of one dict or set that may have the same hash.
_MOST_ALIKE = 16
#: What building and comparing hostile values may raise: they do not compare then.
DOES_NOT_COMPARE = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
#: How Python compares what is no plain value: as the nearest one, as itself alone (an iterator or not), as an array.
AS_VALUE, AS_ITERATOR, AS_NOTHING, AS_ARRAY = "value", "iterator", "nothing", "array"
#: Types that compare in a way of their own, by their names.
_REMADE: Mapping[str, Callable[[Any], Any]] = {"deque": deque, "Counter": Counter, "OrderedDict": OrderedDict}
#: Types of numpy's numbers, by their names; those that round are no nearer to a plain number.
_ROUNDED = frozenset({"float16", "float32", "complex64"})
_NUMBERS = frozenset({"bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))})
_NUMBERS |= {"float64", "complex128"} | _ROUNDED
#: How values of the types that msgpack has not are written: the extension's code, and bytes or a list of plain values.
_EXTENSIONS: Mapping[type, tuple[int, Callable[[Any], bytes | list[Any]]]] = {
    tuple: (_TUPLE, list),
    set: (_SET, list),
    frozenset: (_FROZENSET, list),
    int: (_INTEGER, lambda value: value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)),
    complex: (_COMPLEX, lambda value: [value.real, value.imag]),
    Decimal: (_DECIMAL, lambda value: str(value).encode()),
    Fraction: (_FRACTION, lambda value: [value.numerator, value.denominator]),
    range: (_RANGE, lambda value: [value.start, value.stop, value.step]),
}
#: An instance of a subclass as an instance of the builtin, without calling a method that the subclass may have changed.
_TO_BASE: Mapping[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    complex: complex.__pos__,
    str: str.__str__,
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    dict: lambda value: dict(dict.items(value)),
    list: lambda value: list(list.__iter__(value)),
    tuple: lambda value: tuple(tuple.__iter__(value)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    bytearray: bytes,
    memoryview: bytes,
    UserList: list,
    UserString: str,
    Integral: int,
    Rational: lambda value: Fraction(int(value.numerator), int(value.denominator)),
}


@dataclass(frozen=True, slots=True)
class Foreign:
    """A value whose type is not plain.

    Attributes:
        type_name: The type's name.
        value: The nearest plain value; an `Opaque` where there is none.
        likeness: How Python compares it: `AS_VALUE` and the others, or the name of its type where that has a way of its
            own (of numpy's numbers, and arrays of these, the name of the number's type).
    """

    type_name: str
    value: Any
    likeness: str = field(default=AS_VALUE, compare=False)

    def __hash__(self) -> int:
        return hash(self.type_name)


@dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """Something of which only the type's name is known. It equals nothing."""

    type_name: str


def pack(value: Any) -> bytes:
    """A value's bytes.

    Raises:
        ValueError: It holds itself, or is too deep or too large.
    """
    if type(value) not in _PLAIN:
        return cast(bytes, msgpack.packb(_foreign(type(value).__name__, *_nearest(value))))
    return _packed(value)


def _as_it_is(foreign: Foreign) -> Any:
    return foreign


def unpack(data: bytes, like: int | None = None, made: Callable[[Foreign], Any] = _as_it_is) -> Any:
    """The value that bytes hold.

    Args:
        data: What `pack` made, or anything else.
        like: How many bytes the expected value has, where there is one. What has far more bytes, elements or digits
            cannot equal it, and is refused before it is built.
        made: Makes what stands for a value whose type is not plain, wherever it stands.

    Raises:
        ValueError: They hold none, or one that is too large.
    """
    if like is not None and len(data) > _TIMES_LONGER * like + _BYTES_LONGER:
        raise ValueError(f"not a value: {len(data)} bytes where {like} are expected")
    return _Reader(like, made).read(data, 0)


def _packed(value: Any) -> bytes:
    try:
        data = msgpack.packb(
            value, default=_write_extension, strict_types=True, unicode_errors="surrogatepass", buf_size=256
        )
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"cannot be written: {error}") from error
    return cast(bytes, data)


def _write_extension(value: Any) -> Any:
    """What msgpack writes for a value that it has no type for."""
    if (known := _EXTENSIONS.get(type(value))) is not None:
        code, parts = known
        written = parts(value)
        return msgpack.ExtType(code, written if isinstance(written, bytes) else _packed(written))
    plain, likeness = (value, AS_NOTHING) if type(value) is Opaque else _nearest(value)
    if isinstance(plain, Opaque):
        return _foreign(plain.type_name, None, likeness)
    is_near = likeness in _NUMBERS - _ROUNDED and not isinstance(plain, list)
    if not (is_near or likeness == AS_VALUE):
        return _foreign(type(value).__name__, plain, likeness)
    has_own_form = type(plain) is int and -(1 << 63) <= plain < 1 << 64
    return plain if has_own_form or type(plain) not in _EXTENSIONS else _write_extension(plain)


def _foreign(name: str, plain: Any, likeness: str) -> msgpack.ExtType:
    return msgpack.ExtType(_FOREIGN, _packed([name, plain, likeness]))


def _nearest(value: Any) -> tuple[Any, str]:
    """The nearest plain value, and how the value compares. Its class is not asked where a builtin's method will do."""
    kind = type(value)
    if kind.__module__ == "numpy" and hasattr(value, "dtype"):
        return _nearest_of_numpy(value)
    if kind.__name__ in _REMADE and kind is _REMADE[kind.__name__]:
        return list(value) if kind is deque else dict(value), kind.__name__
    for base, as_base in _TO_BASE.items():
        if isinstance(value, base):
            return as_base(value), AS_VALUE
    return _nearest_of_collection(value)


def _nearest_of_collection(value: Any) -> tuple[Any, str]:
    """The same for what is neither numpy's nor derived from a builtin."""
    compares = cast(Any, type(value)).__eq__ is not object.__eq__
    if isinstance(value, Mapping) and compares:
        return dict(value), AS_VALUE
    if isinstance(value, Set) and compares and (found := _as_set(value)) is not None:
        return found, AS_VALUE
    if isinstance(value, Iterable):
        return list(value), AS_ITERATOR if isinstance(value, Iterator) else AS_NOTHING
    return Opaque(type(value).__name__), AS_NOTHING


def _nearest_of_numpy(value: Any) -> tuple[Any, str]:
    name, kind = str(value.dtype.name), value.dtype.kind
    as_number = {"b": bool, "i": int, "u": int, "f": float, "c": complex, "U": str, "S": bytes}
    if type(value).__name__ == "ndarray":
        return value.tolist(), name if name in _NUMBERS else AS_ARRAY if kind in "OSU" else AS_NOTHING
    if kind in as_number:
        return as_number[kind](value), name if name in _NUMBERS else AS_VALUE
    return Opaque(type(value).__name__), AS_NOTHING


def _as_set(value: Set[Any]) -> set[Any] | None:
    """What a view of a dict, say, equals; None where it holds what no set can hold, and so equals none."""
    try:
        return set(value)
    except TypeError:
        return None


def comparable(value: Any) -> Any:
    """What Python compares in a value's place; a `Foreign` that compares as its value is left as it is.

    Raises:
        ValueError: It cannot be made.
    """
    if not isinstance(value, Foreign) or value.likeness == AS_VALUE:
        return value
    if value.likeness in _REMADE:
        if type(value.value) is not (list if value.likeness == "deque" else dict):
            raise ValueError(f"a {value.likeness} of another form")
        return _REMADE[value.likeness](value.value)
    if value.likeness == AS_ARRAY or value.likeness in _NUMBERS:
        import numpy as np

        # texts as objects: an array of texts gives each as much memory as the longest
        array = np.array(value.value, object if value.likeness == AS_ARRAY else value.likeness)
        return array if value.type_name == "ndarray" else array[()]
    return Opaque(value.type_name)


class _Reader:
    """Reads one value.

    Args:
        like: See `unpack`.
        made: See `unpack`.
    """

    def __init__(self, like: int | None, made: Callable[[Foreign], Any]) -> None:
        self._made = made
        self._is_bounded = like is not None
        self._left = 0 if like is None else like + _MORE_ELEMENTS  # an element has a byte at least
        self._most_digit_bytes = 0 if like is None else like + _MORE_DIGIT_BYTES

    def read(self, data: bytes, depth: int) -> Any:
        """The value, and how deep in extensions it stands: too many would overflow the interpreter's own stack."""
        if depth > _DEEPEST:
            raise ValueError(f"not a value: more than {_DEEPEST} tuples or sets in one another")
        most: dict[str, Any] = {}
        if self._is_bounded:
            most = {"list_hook": self._counted, "object_pairs_hook": self._dict}
            most |= dict.fromkeys(("max_array_len", "max_map_len"), self._left)
        try:
            return msgpack.unpackb(
                data,
                ext_hook=lambda code, inner: self._extension(code, inner, depth + 1),
                strict_map_key=False,
                unicode_errors="surrogatepass",
                **most,
            )
        except DOES_NOT_COMPARE as error:
            raise ValueError(f"not a value: {type(error).__name__}: {error}") from error

    def _counted(self, items: list[Any]) -> list[Any]:
        self._left -= len(items) + 1
        if self._left < 0:
            raise ValueError("more elements than could be right")
        return items

    def _dict(self, pairs: list[Any]) -> dict[Any, Any]:
        self._counted(pairs)
        self._hashable([key for key, _ in pairs])
        return dict(pairs)

    def _hashable(self, items: list[Any]) -> None:
        """Refuses what would take the square of its length to put into a dict or set."""
        if self._is_bounded and len(items) > _MOST_ALIKE:
            alike = max(Counter(map(hash, items)).values())
            if alike > _MOST_ALIKE:
                raise ValueError(f"{alike} elements have the same hash")

    def _digits(self, n_bytes: int) -> None:
        if self._is_bounded and n_bytes > self._most_digit_bytes:
            raise ValueError("more digits than could be right")

    def _extension(self, code: int, data: bytes, depth: int) -> Any:
        if code in (_INTEGER, _DECIMAL):
            self._digits(len(data))
            return int.from_bytes(data, "little", signed=True) if code == _INTEGER else Decimal(data.decode())
        found = self.read(data, depth)
        if code in _FROM_LIST and isinstance(found, list):
            return self._from_list(code, found)
        if code == _FOREIGN and isinstance(found, list) and len(found) == 3 and isinstance(found[0], str):
            name, value, likeness = found
            is_opaque = value is None and likeness == AS_NOTHING
            return Opaque(name) if is_opaque else self._made(Foreign(name, value, str(likeness)))
        raise ValueError(f"no extension {code} of this form")

    def _from_list(self, code: int, parts: list[Any]) -> Any:
        if code in (_SET, _FROZENSET):
            self._hashable(parts)
        if code == _FRACTION and self._is_bounded and max(map(_n_bytes, parts)) > _MORE_DIGIT_BYTES:
            raise ValueError("a fraction of too many digits")  # it is reduced when it is made, in quadratic time
        made = _FROM_LIST[code](parts)
        if code == _RANGE and self._is_bounded and len(made) > self._left:
            raise ValueError("a range of more elements than could be right")
        return made


#: Values made of a list of others; what the list holds wrongly is a TypeError or a ValueError of the type itself.
_FROM_LIST: Mapping[int, Callable[[list[Any]], Any]] = {
    _TUPLE: tuple,
    _SET: set,
    _FROZENSET: frozenset,
    _COMPLEX: lambda parts: complex(*map(float, parts)),
    _FRACTION: lambda parts: Fraction(*map(index, parts)),
    _RANGE: lambda parts: range(*parts),
}


def _n_bytes(number: Any) -> int:
    return index(number).bit_length() // 8


def holds_nan(value: Any) -> bool:
    """Whether a plain value holds something that does not equal itself, so that equal bytes prove nothing."""
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, dict):
        return any(holds_nan(one) for item in value.items() for one in item)
    if isinstance(value, list | tuple | set | frozenset | deque):
        return any(map(holds_nan, value))
    if isinstance(value, Opaque | Foreign) or type(value).__module__ == "numpy":
        return True
    return bool(value != value)  # noqa: PLR0124 - complex numbers and decimals may
