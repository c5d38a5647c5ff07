"""Plain Python values as bytes and back. Reading never runs anything: hostile bytes give a value or a `ValueError`.

Equal values of equal types give equal bytes, sets and dicts in another order excepted. What is no plain value is
written as the nearest one: a Counter as a dict, a numpy integer as an integer, an iterator as what it yields. Only
the outermost value then also keeps the name of its type (`Foreign`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
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
}


@dataclass(frozen=True, slots=True)
class Foreign:
    """A value whose type is not plain.

    Attributes:
        type_name: The type's name.
        value: The nearest plain value; an `Opaque` where there is none.
    """

    type_name: str
    value: Any


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
        name = type(value).__name__
        return cast(bytes, msgpack.packb(msgpack.ExtType(_FOREIGN, _packed([name, _plain(value)]))))
    return _packed(value)


def unpack(data: bytes, like: int | None = None) -> Any:
    """The value that bytes hold.

    Args:
        data: What `pack` made, or anything else.
        like: How many bytes the expected value has, where there is one. What has far more bytes, elements or digits
            cannot equal it, and is refused before it is built.

    Raises:
        ValueError: They hold none, or one that is too large.
    """
    if like is not None and len(data) > _TIMES_LONGER * like + _BYTES_LONGER:
        raise ValueError(f"not a value: {len(data)} bytes where {like} are expected")
    return _Reader(like).read(data, 0)


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
    plain = _plain(value)
    return msgpack.ExtType(_FOREIGN, _packed([plain.type_name, None])) if isinstance(plain, Opaque) else plain


def _plain(value: Any) -> Any:
    """The nearest plain value. Methods of the value's own class are not called where a builtin's will do."""
    for base, as_base in _TO_BASE.items():
        if isinstance(value, base):
            return as_base(value)
    if type(value).__module__ == "numpy":
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Set):
        return set(value)
    if isinstance(value, Iterable):
        return list(value)
    return Opaque(type(value).__name__)


class _Reader:
    """Reads one value.

    Args:
        like: See `unpack`.
    """

    def __init__(self, like: int | None) -> None:
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
        if code == _FOREIGN and isinstance(found, list) and len(found) == 2 and isinstance(found[0], str):
            return Opaque(found[0]) if found[1] is None else Foreign(found[0], found[1])
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
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(holds_nan, value))
    return isinstance(value, Opaque) or bool(value != value)  # noqa: PLR0124 - complex numbers and decimals may
