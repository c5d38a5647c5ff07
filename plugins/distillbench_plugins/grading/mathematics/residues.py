r"""Whether two rational numbers are equal, however large: `2^{4950}` and `4^{2475}` by their residues.

Equal numbers have equal residues, so that unequal ones settle it. Three primes of 61 bits make it as good as certain
that equal ones do too: an answer would have to differ from the gold answer by a multiple of all three. They are safe
primes, so that exponents are not found equal because they share small factors.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any

_PRIMES = (2305844984522338703, 2594075385365412779, 2882305786208494043)
#: Numbers up to this many bits are computed.
_BITS = 4_096
#: The largest number whose factorial is computed.
_FACTORIAL = 1_000_000
#: An exponent, and what a factorial is taken of, with more bits than this is a tower that nothing computes.
_TAME, _TAME_FACTORIAL = 300.0, 60.0


def same_rational(one: Any, other: Any) -> bool | None:
    """Whether two expressions are the same rational number; None where they are none, or take too long."""
    for prime in _PRIMES:
        residues = _residue(one, prime), _residue(other, prime)
        if None in residues:
            return None
        if residues[0] != residues[1]:
            return False
    return True


def is_tame(expression: Any) -> bool:
    """Whether an expression may be computed as a floating-point number."""
    return _magnitude(expression) is not None


def _magnitude(expression: Any) -> float | None:
    """At most the logarithm to base 2 of an expression, or of its inverse; None for a tower."""
    inner = [_magnitude(part) for part in expression.args]
    known = [part for part in inner if part is not None]
    if len(known) < len(inner):
        return None
    if not known:
        return _leaf_magnitude(expression)
    name = expression.func.__name__
    if expression.is_Pow and len(known) == 2:
        return max(known[0], 1.0) * 2.0 ** known[1] if known[1] <= _TAME else None
    if name in ("exp", "cosh", "sinh") or "factorial" in name or name in ("gamma", "binomial"):
        most = max(known)
        return (most + 2) * 2.0**most if most <= _TAME_FACTORIAL else None
    return sum(known) if expression.is_Mul else max(known) + math.log2(len(known))


def _leaf_magnitude(leaf: Any) -> float:
    if leaf.is_Rational:
        return math.log2(max(abs(int(leaf.p)), int(leaf.q), 1))
    if leaf.is_Float:
        _, _, exponent, bits = leaf._mpf_
        return float(abs(exponent) + bits)
    return 3.0


def _residue(expression: Any, modulus: int) -> int | None:
    """A number modulo another; None where it is no rational number, or has no residue, or takes too long."""
    if expression.is_Rational:
        return _divided(expression.p, expression.q, modulus)
    if expression.is_Add or expression.is_Mul:
        return _combined(expression, modulus)
    if expression.is_Pow:
        base, exponent = expression.args
        return _power(base, exponent, modulus)
    if expression.func.__name__ == "factorial":
        number = exact(expression.args[0])
        if number is None or number.denominator != 1 or not 0 <= number <= _FACTORIAL:
            return None
        return _factorial(int(number), modulus)
    return None


def _combined(expression: Any, modulus: int) -> int | None:
    found = 0 if expression.is_Add else 1
    for part in expression.args:
        residue = _residue(part, modulus)
        if residue is None:
            return None
        found = (found + residue if expression.is_Add else found * residue) % modulus
    return found


def _divided(above: int, below: int, modulus: int) -> int | None:
    return above * pow(below, -1, modulus) % modulus if math.gcd(below, modulus) == 1 else None


@lru_cache(256)
def _factorial(number: int, modulus: int) -> int:
    found = 1 % modulus
    for factor in range(2, number + 1):
        found = found * factor % modulus
    return found


def _power(base: Any, exponent: Any, modulus: int) -> int | None:
    residue, power = _residue(base, modulus), exact(exponent)
    if residue is None or (power is not None and power.denominator != 1):
        root = exact(base) if residue is not None and power is not None else None
        value = _root(root, power) if root is not None and power is not None else None
        return None if value is None else _divided(value.numerator, value.denominator, modulus)
    if power is not None:
        if power < 0 and math.gcd(residue, modulus) != 1:
            return None
        return pow(residue, int(power), modulus)
    return _tower(residue, exponent, modulus)


def _tower(residue: int, exponent: Any, modulus: int) -> int | None:
    """A power whose exponent is too large to compute: by Euler's theorem, in the form that any base may have."""
    if not _is_natural(exponent):
        return None
    period = _totient(modulus)
    inner = _residue(exponent, period)
    return None if inner is None else pow(residue, inner + period, modulus)


def _is_natural(expression: Any) -> bool:
    """Whether a number too large to compute is certainly a natural one: made of such, less what can be computed."""
    if expression.is_Integer:
        return bool(expression > 0)
    if expression.is_Add:
        computed = [exact(part) for part in expression.args]
        is_whole = all(part is None or part.denominator == 1 for part in computed)
        rest = [part for part, value in zip(expression.args, computed, strict=True) if value is None]
        return is_whole and bool(rest) and all(map(_is_natural, rest))
    is_made = expression.is_Mul or expression.is_Pow or expression.func.__name__ == "factorial"
    return is_made and all(map(_is_natural, expression.args))


@lru_cache(1_024)
def _totient(modulus: int) -> int:
    from sympy import totient

    return int(totient(modulus))


def exact(expression: Any) -> Fraction | None:
    """A rational number that is not too large to compute; None for any other."""
    if expression.is_Rational:
        value = Fraction(int(expression.p), int(expression.q))
        return value if _size(value) <= _BITS else None
    parts = [exact(part) for part in expression.args]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or not parts:
        return None
    if expression.is_Pow:
        return _exact_power(*known)
    if expression.func.__name__ == "factorial":
        return Fraction(math.factorial(int(known[0]))) if known[0].denominator == 1 and 0 <= known[0] <= 500 else None
    if not (expression.is_Add or expression.is_Mul):
        return None
    value = sum(known, Fraction()) if expression.is_Add else math.prod(known, start=Fraction(1))
    return value if _size(value) <= _BITS else None


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        return _root(base, exponent)
    if _size(base) * abs(exponent) > _BITS or (base == 0 and exponent <= 0):
        return None
    return base ** int(exponent)


def _root(base: Fraction, exponent: Fraction) -> Fraction | None:
    """A rational root of a positive number; None where it is not rational."""
    from sympy import integer_nthroot

    degree = exponent.denominator
    if base <= 0 or degree > _BITS or _size(base) * abs(exponent) > _BITS:
        return None
    above, is_above = integer_nthroot(base.numerator, degree)
    below, is_below = integer_nthroot(base.denominator, degree)
    return Fraction(int(above), int(below)) ** exponent.numerator if is_above and is_below else None


def _size(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())
