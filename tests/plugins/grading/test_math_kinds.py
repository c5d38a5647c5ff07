"""Kinds of answers that math-verify gets wrong or fails on: pairs in `data/math_pairs.jsonl`, and many drawn."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from plugin_helpers import ROOT, problem

from distillbench.protocols import Context
from distillbench_plugins.benchmarks.math_boxed import MathBoxed, MathBoxedOptions
from distillbench_plugins.grading.mathematics import signs, words
from distillbench_plugins.grading.mathematics.bases import numeral, same_numeral
from distillbench_plugins.grading.mathematics.checker import MathChecker
from distillbench_plugins.grading.mathematics.exact import shortcut
from distillbench_plugins.grading.mathematics.normal import normalised
from distillbench_plugins.grading.mathematics.pairing import asked
from distillbench_plugins.grading.mathematics.relations import n_values, said
from distillbench_plugins.grading.mathematics.residues import is_tame, same_rational
from distillbench_plugins.grading.mathematics.units import measured, unit_of

PAIRS: list[dict[str, Any]] = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data")
    .joinpath("math_pairs.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()
]
KINDS = list(dict.fromkeys(row["kind"] for row in PAIRS))


@pytest.fixture(scope="module")
def checker() -> Iterator[MathChecker]:
    with MathChecker() as opened:
        yield opened


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_of_a_kind(kind: str, checker: MathChecker) -> None:
    rows = [row for row in PAIRS if row["kind"] == kind]
    assert {row["right"] for row in rows} == {True, False} or kind in ("ties",)
    found = checker.compare_all((row["gold"], row["answer"]) for row in rows)
    bad = [(row, said) for row, said in zip(rows, found, strict=True) if said is not row["right"]]
    assert bad == []


def power(base: Any, exponent: Any) -> Any:
    """Not evaluated, as math-verify reads it."""
    from sympy import Pow

    return Pow(base, exponent, evaluate=False)


@given(st.integers(2, 40), st.integers(1, 900), st.integers(1, 900), st.integers(-3, 3))
def test_powers_are_compared_exactly_whatever_their_size(base: int, one: int, other: int, off: int) -> None:
    from sympy import Add, Integer

    wanted = power(Integer(base), Integer(one * other))
    got = Add(power(power(Integer(base), Integer(one)), Integer(other)), Integer(off), evaluate=False)
    assert same_rational(wanted, got) is (off == 0)
    inverse = power(Integer(base), Integer(-one * other))
    assert same_rational(inverse, power(wanted, Integer(-1))) is True
    assert same_rational(inverse, wanted) is False


@settings(max_examples=30)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(4_000, 10**30), st.integers(0, 2))
def test_towers_are_compared_by_their_residues(base: int, inner: int, height: int, off: int) -> None:
    """b^(c^n) is (b^c)^(c^(n-1))."""
    from sympy import Integer

    wanted = power(Integer(base), power(Integer(inner), Integer(height)))
    got = power(Integer(base**inner), power(Integer(inner), Integer(height - 1 + off)))
    assert same_rational(wanted, got) is (off == 0)


@given(st.integers(2, 3_000), st.integers(0, 3))
def test_factorials_are_compared_exactly(number: int, off: int) -> None:
    from sympy import Integer, Mul, factorial

    wanted = factorial(Integer(number + 1), evaluate=False)
    got = Mul(Integer(number + 1 + off), factorial(Integer(number), evaluate=False), evaluate=False)
    assert same_rational(wanted, got) is (off == 0)


def test_what_is_a_tower() -> None:
    from sympy import E, Integer, exp, factorial, pi, sqrt

    ten = Integer(10)
    tame = [
        power(ten, power(ten, ten)),
        pi**5,
        exp(1000),
        sqrt(2),
        power(ten, Integer(-10_000)),
        factorial(Integer(50)),
    ]
    assert all(map(is_tame, tame))
    tower = power(ten, power(ten, power(ten, ten)))
    assert not any(map(is_tame, [tower, power(tower, Integer(-1)), tower + sqrt(2), exp(exp(exp(E + 50)))]))


@given(st.integers(1, 99_999), st.integers(1, 99_999), st.integers(5, 200))
def test_small_numbers_are_no_more_equal_than_large_ones(one: int, other: int, places: int) -> None:
    gold, answer = f"0.{'0' * places}{one:05d}", f"0.{'0' * places}{other:05d}"
    assert shortcut(gold, answer) is (one == other)
    assert shortcut(f"{one}\\times 10^{{-{places + 5}}}", answer) is (one == other)


@given(st.decimals(1, 10, places=3), st.integers(-40, 40), st.sampled_from(["e", "E", "\\times 10^", "\\cdot 10^"]))
def test_numbers_in_scientific_notation_have_their_value(factor: Any, exponent: int, mark: str) -> None:
    written = f"{factor}{mark}{{{exponent}}}" if "^" in mark else f"{factor}{mark}{exponent}"
    plain = f"{factor.scaleb(exponent):f}"
    assert shortcut(normalised(written), normalised(plain)) is True
    assert shortcut(normalised(plain), normalised(written)) is True
    assert shortcut(normalised(written), normalised(f"{factor.scaleb(exponent + 1):f}")) is False


NAMES = ["cm", "m", "km", "inches", "feet", "miles", "kg", "grams", "seconds", "minutes", "hours", "days", "dollars"]
NAMES += ["cents", "cm^2", "m^2", "square feet", "cubic meters", "cm^3", "mph", "km/h", "m/s", "m/s^2", "liters", "ml"]
NAMES += ["a.m.", "p.m.", "degrees", "radians", "million", "billion", "N", "J", "W", "Hz", "K", "mol"]


@pytest.mark.parametrize("one", NAMES)
def test_other_units_are_told_apart_however_they_are_set(one: str) -> None:
    for other in (name for name in NAMES if unit_of(name) != unit_of(one)):
        for form in ("7\\text{{ {} }}", "7~\\mathrm{{{}}}", "7 {}"):
            wanted, got = (measured(normalised(form.format(name))) for name in (one, other))
            assert wanted.value == got.value == "7"
            assert wanted.unit == unit_of(one)
            assert got.is_other(wanted)
        assert asked(f"7\\text{{ {one} }}", f"7\\text{{ {other} }}") is False
    assert asked(f"7\\text{{ {one} }}", "7") is asked("7", f"7\\text{{ {one} }}") is True


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cm", "centimeters"), ("cm^2", "square centimetres"), ("sq. ft", "ft^2"), ("km/h", "kilometers per hour"),
        ("mph", "miles per hour"), ("hrs", "hours"), ("in", "inches"), ("foot", "feet"), ("L", "litres"), ("cc", "mL"),
        ("a.m.", "AM"), ("cm2", "cm²"), ("cubic inches", "inches cubed"), ("m/s", "m s^{-1}"), ("Dollars", "dollars"),
    ],
)  # fmt: skip
def test_names_of_one_unit(one: str, other: str) -> None:
    assert unit_of(one) == unit_of(other) is not None or asked(f"7\\text{{ {one}}}", f"7\\text{{ {other}}}") is True


@pytest.mark.parametrize(
    "text", ["3+2m", "3x+2h", "2s", "2ab", "\\frac{37}{4}m", "x-3s", "5\\text{ or }6", "\\text{cm}"]
)
def test_letters_of_a_gold_answer_are_no_units(text: str) -> None:
    assert measured(text, "5", is_gold=True).value == text


UNEQUAL = ["\\neq", "\\ne", "\\geq", "\\ge", "\\leq", "\\le", "\\lt", "\\gt", "<", ">", "≠", "≤", "≥", "<=", ">=", "!="]
UNEQUAL += ["\\geqslant", "\\leqslant", "\\not="]


@pytest.mark.parametrize("sign", UNEQUAL)
@pytest.mark.parametrize(
    "gold", ["2", "-3", "\\frac{1}{2}", "2\\sqrt{3}", "x+1", "5\\text{ cm}", "50\\%", "x=2", "2^{5000}"]
)
def test_an_inequality_is_no_value(sign: str, gold: str) -> None:
    value = gold.removeprefix("x=")
    close = f"{sign} {value}" if value[0].isalpha() else f"{sign}{value}"
    for answer in (f"{sign} {value}", close, f"x {sign} {value}", f"{value} {sign} x"):
        assert asked(gold, answer) is False, answer


@given(st.integers(-99, 99), st.integers(2, 6))
def test_a_list_of_one_value_is_not_that_value(value: int, n: int) -> None:
    for between in (",", ", ", "; ", " \\text{ and } ", " or "):
        assert n_values(between.join([str(value)] * n)) == n
        assert said(str(value), between.join([str(value)] * n)) is None


DIGITS = st.text("0123456789", min_size=1, max_size=6).map(lambda digits: digits.lstrip("0") or "0")


@given(DIGITS, DIGITS, st.integers(2, 36), st.integers(2, 36))
def test_numerals_are_equal_in_digits_and_base(one: str, other: str, base: int, other_base: int) -> None:
    assume(all(int(digit) < base for digit in one) and all(int(digit) < other_base for digit in other))
    forms = ("{}_{{{}}}", "({})_{{{}}}", "{}_{{({})}}", "{} \\text{{ base }} {}", "{}_{{\\text{{base {}}}}}")
    for form in forms:
        wanted, got = forms[0].format(one, base), form.format(other, other_base)
        assert numeral(got) is not None, got
        assert same_numeral(wanted, got) is ((one, base) == (other, other_base))


@given(st.integers(-999, 999), st.sampled_from("xyzn"))
def test_raised_and_lowered_digits(number: int, letter: str) -> None:
    raised = str(number).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))
    assert signs.in_tex(letter + raised) == f"{letter}^{{{number}}}"
    lowered = str(abs(number)).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
    assert signs.in_tex(letter + lowered) == f"{letter}_{{{abs(number)}}}"


@given(st.text(max_size=60))
def test_any_text_has_its_signs_and_words_in_tex(text: str) -> None:
    once = normalised(text)
    assert normalised(once) == once
    assert isinstance(asked("\\frac{7}{13}", text), object)


@pytest.mark.parametrize(
    "text", ["pirate", "\\text{pi}", "infinitely", "\\mathrm{sin}", "logic", "expert", "\\sqrt{2}"]
)
def test_words_that_are_no_mathematics_stay(text: str) -> None:
    assert words.in_tex(text) == text


PARTS = [
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "sqrt",
    "^(",
    "\\text{",
    "√",
    "x",
    " ",
    "_",
    "~",
    "=",
    "<",
    "m",
    "\\frac",
    "1",
    "e5",
    ",",
]


@pytest.mark.parametrize("part", PARTS)
def test_no_answer_takes_long_before_it_reaches_a_process_that_can_be_killed(part: str) -> None:
    import time

    begin = time.process_time()
    for length in (990, 100_000):
        asked("\\frac{7}{13}", part * (length // len(part)))
        asked("\\frac{7}{13}", "1" + part * (length // len(part)) + "x")
    assert time.process_time() - begin < 60


def differences() -> list[tuple[str, str, bool, bool]]:
    """The rows of the table in the docs: gold answer, answer, math-verify's verdict, ours."""
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| (right|wrong|error) \| (right|wrong) \|", page, re.MULTILINE)
    return [(gold, answer, theirs == "right", ours == "right") for gold, answer, theirs, ours in rows]


def test_the_docs_name_our_differences_from_math_verify(tmp_path: Path, checker: MathChecker) -> None:
    rows = differences()
    assert len(rows) >= 25
    pairs = [(gold, answer) for gold, answer, _, _ in rows]
    assert list(checker.compare_all(pairs)) == [ours for *_, ours in rows]
    exact = MathBoxed(MathBoxedOptions(math_verify_exact=True))
    with exact.open(Context(tmp_path)) as grading:
        assert grading.facts["mode"] == "math_verify_exact"
        found = list(grading.judge_all((problem(gold=gold), answer) for gold, answer in pairs))
    assert [one.correct for one in found] == [theirs for *_, theirs, _ in rows]
    assert all(theirs is not ours for *_, theirs, ours in rows), "each row is a difference"
