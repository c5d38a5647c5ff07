"""What can be said of two parsed answers before math-verify compares them: numbers, exactly, part by part."""

from __future__ import annotations

from typing import Any

from distillbench_plugins.grading.mathematics.residues import is_tame, same_rational

#: Of the larger value: far more than rounding at one point.
_CLEAR = 1e-5
#: Of the larger of two decimals below one, and of a decimal and what it is rounded from; math-verify rounds both to six
#: places, whatever their size.
_DECIMALS, _ROUNDED = 5e-6, 1e-4
#: Below this, a value may be nothing but the error of an evaluation.
_NOISE = 1e-25
_DIGITS = 20


class TooLargeError(ValueError):
    """A number that nobody can compute."""


def judged(gold: Any, answer: Any) -> bool | None:
    """Whether two expressions are equal; None where that is for math-verify to say.

    Raises:
        TooLargeError: The gold answer is a number too large to compute, and not shown to be the answer or another one.
    """
    from sympy import Eq, Interval, MatrixBase, Tuple
    from sympy.sets import FiniteSet

    if isinstance(gold, Tuple) and isinstance(answer, Tuple):
        return _by_parts(gold.args, answer.args)
    if isinstance(gold, Interval) and isinstance(answer, Interval):
        return False if _by_parts(gold.args[:2], answer.args[:2]) is False else None
    if isinstance(gold, MatrixBase) and isinstance(answer, MatrixBase):
        return _by_parts(gold.flat(), answer.flat()) if gold.shape == answer.shape else None
    if isinstance(gold, FiniteSet) and isinstance(answer, FiniteSet | Tuple):
        return _by_elements(_elements(gold), _elements(answer))
    if isinstance(gold, Eq) and (right := _assigned(gold, answer)) is not None:
        return judged(gold.rhs, right)
    return _numbers(gold, answer)


def _assigned(gold: Any, answer: Any) -> Any:
    """What an answer says that the left side of an equation is; None where it says something else."""
    from sympy import Eq, Expr

    if isinstance(answer, Eq):
        return answer.rhs if gold.lhs == answer.lhs else None
    return answer if gold.lhs.is_Symbol and isinstance(answer, Expr) else None


def _by_parts(golds: Any, answers: Any) -> bool | None:
    if len(golds) != len(answers):
        return None
    found = [judged(*pair) for pair in zip(golds, answers, strict=True)]
    return False if False in found else None if None in found else True


def _elements(collection: Any) -> list[Any]:
    """The elements as they were written, equal ones too."""
    return list(getattr(collection, "_unsorted_args", collection.args))


def _by_elements(golds: list[Any], answers: list[Any]) -> bool | None:
    """Whether each element has its own equal: -2, -2 is no other list than -2, -2 where it is no set."""
    if len(golds) != len(answers):
        return None
    for gold in golds:
        found = [judged(gold, answer) for answer in answers]
        if True in found:
            del answers[found.index(True)]
        else:
            return None if None in found else False
    return True


def _numbers(gold: Any, answer: Any) -> bool | None:
    from sympy import Expr, Float, Symbol, UnevaluatedExpr

    for one in (gold, answer):  # math-verify compares names as texts, and percentages in a way of its own
        if not isinstance(one, Expr) or isinstance(one, Symbol) or one.is_Matrix or one.has(UnevaluatedExpr):
            return None
    if not (gold.free_symbols or answer.free_symbols or gold.has(Float) or answer.has(Float)):
        found = same_rational(gold, answer)
        if found is not None:
            return found
    if not is_tame(answer):
        if is_tame(gold):
            return False
        raise TooLargeError("the gold answer and the answer are too large to compute")
    if not is_tame(gold):
        raise TooLargeError("the gold answer is too large to compute")
    return False if differ_clearly(gold, answer) else None


def differ_clearly(gold: Any, answer: Any, tolerance: float | None = None) -> bool:
    """Whether two expressions differ by far more than rounding at one point; False where that does not show it.

    It saves math-verify's attempts to simplify the difference to nothing, most of the time that a wrong answer takes.

    Args:
        gold: The gold answer.
        answer: The answer.
        tolerance: What counts as rounding, as a share of the larger value; None for what the numbers' forms allow.
    """
    from sympy import Float

    names = sorted({symbol.name for symbol in gold.free_symbols | answer.free_symbols})
    try:
        wanted, got = (one.subs(_point(one, names)).evalf(_DIGITS) for one in (gold, answer))
        if not all(part.is_number and part.is_finite for part in (wanted, got)):
            are_real = bool(wanted.is_extended_real and got.is_extended_real)  # 1/0, as in 5:00, is not
            return are_real and {wanted.is_infinite, got.is_infinite} == {True, False}
        scale, apart = max(abs(wanted), abs(got)), abs(wanted - got)
        if tolerance is None:
            tolerance = _tolerance(scale, gold.has(Float), answer.has(Float))
        return bool(scale > _NOISE) and bool(apart > tolerance * scale)
    except (ArithmeticError, AttributeError, NotImplementedError, RecursionError, TypeError, ValueError):
        return False  # has no value there that can be had by plain evaluation


def _tolerance(scale: Any, *are_decimal: bool) -> float:
    if scale >= 1 or not any(are_decimal):
        return _CLEAR
    return _DECIMALS if all(are_decimal) else _ROUNDED


def _point(expression: Any, names: list[str]) -> dict[Any, Any]:
    """A value for each symbol: positive, so that roots and logarithms are real, and nothing special."""
    from sympy import Rational

    return {symbol: Rational(7 * names.index(symbol.name) + 8, 11) for symbol in expression.free_symbols}
