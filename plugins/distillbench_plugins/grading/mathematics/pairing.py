"""What is asked of an answer: decided from the texts where that is possible, else what has to be compared."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from distillbench_plugins.grading.mathematics.bases import same_numeral, without_base
from distillbench_plugins.grading.mathematics.cases import told_apart
from distillbench_plugins.grading.mathematics.choices import is_chosen
from distillbench_plugins.grading.mathematics.exact import percent_pair, shortcut
from distillbench_plugins.grading.mathematics.normal import normalised
from distillbench_plugins.grading.mathematics.ranges import alike
from distillbench_plugins.grading.mathematics.relations import oriented, said, without_modulus
from distillbench_plugins.grading.mathematics.units import Measure, listed, measured

#: Longer answers are no value with a unit, and no list of values that anybody would count.
_LONGEST = 1_000
_remembered = lru_cache(4_096)(normalised)
#: What math-verify reads in front of a percent sign.
_PLAIN_PERCENT = re.compile(r"-?[0-9.,]+\\%")


@dataclass(frozen=True, slots=True)
class Asked:
    """What has to be compared.

    Attributes:
        golds: The gold answer, in the forms that it may have.
        answers: The values that the answer gives; one of them has to equal one of the gold answers.
        beside: Numbers that the answer says to be the same; none may clearly be another than the gold answer.
    """

    golds: tuple[str, ...]
    answers: tuple[str, ...]
    beside: tuple[str, ...] = ()


def asked(gold: str, answer: str) -> bool | Asked:
    """Whether an answer equals the gold answer, or what has to be compared to know."""
    gold, answer = _remembered(gold.strip()), _remembered(answer)
    if shortcut(gold, answer) is True:
        return True
    if len(gold) > _LONGEST or len(answer) > _LONGEST:
        return _undecided((gold,), (answer,), ())
    same = same_numeral(gold, answer)
    if same is not None:
        return same
    if is_chosen(gold, answer):
        return True
    gold, answer = alike(oriented(gold), answer if "mod" in gold else without_modulus(answer))
    found = said(gold, answer)
    if found is None:
        return False
    wanted = measured(without_base(gold), answer, is_gold=True)
    values = [measured(without_base(value), gold) for value in found.values]
    fitting = [value for value in values if not _is_other(value, wanted)]
    return _compared(wanted, fitting, found.beside) if fitting else False


def _is_other(value: Measure, wanted: Measure) -> bool:
    """Whether a value has another unit than the gold answer; a percentage is no length, and no angle."""
    kinds = listed(value.value)[1], listed(wanted.value)[1]
    is_percentage = value.value.endswith("\\%") and wanted.unit is not None
    return value.is_other(wanted) or is_percentage or (all(kinds) and kinds[0] != kinds[1])


def _compared(wanted: Measure, values: list[Measure], beside: tuple[str, ...]) -> bool | Asked:
    golds: dict[str, None] = {}
    answers = []
    for value in values:
        some, answer = percent_pair(listed(wanted.value)[0], listed(value.value)[0])
        golds |= dict.fromkeys(map(_as_fraction, some))
        answers.append(_as_fraction(answer))
    return _undecided(tuple(golds), tuple(answers), beside)


def _undecided(golds: tuple[str, ...], answers: tuple[str, ...], beside: tuple[str, ...]) -> bool | Asked:
    found = {shortcut(gold, answer) for gold in golds for answer in answers}
    if found == {False} or (True in found and not beside):
        return True in found
    return Asked(*told_apart(golds, answers), beside)


def _as_fraction(text: str) -> str:
    r"""`\frac{1}{2}\%` as a fraction, since math-verify reads a percent sign only behind a number."""
    if not text.endswith("\\%") or _PLAIN_PERCENT.fullmatch(text) or re.search(r"(?<=[^\s^{])[+-]", text):
        return text
    return f"\\frac{{{text[:-2]}}}{{100}}"
