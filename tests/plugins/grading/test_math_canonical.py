"""The form in which answers are counted for a majority: one for all that are found equal without math-verify."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from plugin_helpers import problem

from distillbench_plugins.benchmarks.math_boxed import MathBoxed, MathBoxedOptions
from distillbench_plugins.grading.mathematics.exact import canonical, shortcut
from distillbench_plugins.grading.mathematics.normal import normalised

FORMS = [
    *("3", "+3", "03", "3.0", "3.", "6/2", "\\frac{6}{2}", "\\frac62", "\\dfrac{6}{2}", "\\,3\\ ", "$3$", "\\(3\\)"),
    *("1,000", "1000", "1\\,000", "1{,}000", "1000.0", "1, 000"),
    *("x^2+1", "x^2 + 1", "1+x^2", "\\left(1,2\\right)", "(1,2)", "(1, 2)", "(2,1)"),
    *("30", "30^\\circ", "30°", "0.5", "1/2", "-1/2", "-\\frac{1}{2}", "0", "-0", "0.0", "", "\\text{yes}", "yes"),
    *("10\\%", "10", "10%", "12^{\\mathrm{th}}", "12", "1" * 400, "0" + "1" * 400, "1/0", "\\frac{1}{0}"),
]
number = st.one_of(
    st.integers(-2000, 2000).map(str),
    st.tuples(st.integers(-99, 99), st.integers(1, 99)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
    st.tuples(st.integers(-99, 99), st.integers(1, 99)).map(lambda pair: f"\\frac{{{pair[0]}}}{{{pair[1]}}}"),
    st.decimals(-99, 99, places=2).map(str),
    st.sampled_from(FORMS),
)


@given(number, number)
def test_two_answers_share_a_form_where_they_are_found_equal_and_only_there(one: str, other: str) -> None:
    first, second = normalised(one), normalised(other)
    assume(first.strip() and second.strip())
    assert (canonical("x", first) == canonical("x", second)) is (shortcut(first, second) is True)


@given(st.fractions(-9, 9, max_denominator=50))
def test_a_numbers_form_is_its_value(value: Fraction) -> None:
    assert canonical("x", f"{value.numerator}/{value.denominator}") == str(value)


@pytest.mark.parametrize(
    ("gold", "forms"),
    [
        ("42", ["42", "42.", "42.0", "84/2", "\\frac{84}{2}", "$42$", "\\,42"]),
        ("12,345", ["12345", "12,345", "12\\,345"]),
        ("10\\%", ["10\\%", "10%", "10"]),
        ("\\frac{1}{2}", ["0.5", "1/2", "\\frac12", "\\dfrac{1}{2}", "0.50"]),
        ("x+1", ["x+1", "x + 1", "\\displaystyle x+1"]),
    ],
)
def test_what_one_form_holds(gold: str, forms: list[str]) -> None:
    grader = MathBoxed(MathBoxedOptions())
    assert len({grader.canonical(form, problem(gold=gold)) for form in forms}) == 1
    assert grader.canonical("41", problem(gold=gold)) != grader.canonical(forms[0], problem(gold=gold))


def test_right_and_wrong_answers_are_read_alike() -> None:
    """Else right answers would find each other more easily than wrong ones, and a majority would come out too well."""
    grader = MathBoxed(MathBoxedOptions())
    assert grader.canonical("1+x^2", problem(gold="x^2+1")) != grader.canonical("x^2+1", problem(gold="x^2+1"))


@given(st.text(max_size=200))
def test_any_box_has_a_form(text: str) -> None:
    assert isinstance(MathBoxed(MathBoxedOptions()).canonical(text, problem(gold="3")), str)


@pytest.mark.parametrize("text", ["\\frac" * 20_000, " " * 100_000 + "x", "{" * 100_000, "1," * 50_000, "9" * 100_000])
def test_a_long_box_has_a_form_before_long(text: str) -> None:
    assert MathBoxed(MathBoxedOptions()).canonical(text, problem(gold="3")) is not None
