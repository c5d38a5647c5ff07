"""Problems of HumanEval+ and MBPP+ as the sandbox runs them, and evalplus' rules for what a right result is."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from distillbench_plugins.grading.sandbox.runners.functions import DIGEST, LENGTH, RAISED, VALUE, digest_of
from distillbench_plugins.grading.sandbox.values import (
    DOES_NOT_COMPARE,
    Foreign,
    Opaque,
    comparable,
    holds_nan,
    pack,
    unpack,
)

Dataset = Literal["humaneval", "mbpp"]
#: The least time of a test in seconds, its factor over the reference, and the most of all tests together.
#: Source: `evalplus/config.py` and `evalplus.eval.untrusted_check`, 0.3.1.
_LEAST_SECONDS, _TIME_FACTOR, _MOST_SECONDS = 1.0, 4.0, 60.0
_FLOAT_ATOL, _RTOL = 1e-6, 1e-7
#: Stands where equal bytes would prove nothing, so that a result is always read and compared.
_NEVER_EQUAL = b"?"
#: A longer result is told as its digest, so that megabytes are neither sent nor held.
LONGEST, WHOLE = 1 << 12, 1 << 24
#: Bumped when what is kept of a reference changes.
_FORMAT = 5


@dataclass(frozen=True, slots=True)
class Reference:
    """What the reference solution returns on one section (the base or the plus tests).

    Attributes:
        told: What is told of what it returned (see `runners.functions`), in the order of the tests; of a result of more
            than `LONGEST` bytes its digest.
        seconds: The processor time of each test.
        has_nan: For each result, whether it holds a NaN: then equal bytes are no equal values.
        is_floats: For each result, whether it is a float, or a list or tuple of nothing else.
    """

    told: tuple[bytes, ...]
    seconds: tuple[float, ...]
    has_nan: tuple[bool, ...]
    is_floats: tuple[bool, ...]


def reference(results: Sequence[bytes], seconds: Sequence[float]) -> Reference:
    """Looks once at what the reference solution returned, told whole."""
    values = [_plain(_compared(result)) if result[:1] == VALUE else None for result in results]
    told = [digest_of(one[1:]) if one[:1] == VALUE and len(one) > LONGEST + 1 else one for one in results]
    return Reference(tuple(told), tuple(seconds), tuple(map(holds_nan, values)), tuple(map(_is_floats, values)))


class Tests:
    """The base and plus tests of one problem. Inputs are read only when they are asked for.

    Args:
        dataset: Which of the two sets.
        row: The problem's document.
    """

    def __init__(self, dataset: Dataset, row: Mapping[str, Any]) -> None:
        self.dataset = dataset
        self.entry_point: str = row["entry_point"]
        self.atol = float(row["atol"])
        self.reference_code: str = row["prompt"] + row["canonical_solution"]
        self._name, self._texts = str(row["id"]), (str(row["base_input"]), str(row["plus_input"]))

    @cached_property
    def inputs(self) -> tuple[list[Any], ...]:
        """The arguments of each test, of the base and of the plus tests."""
        return tuple(_inputs(self.dataset, self._name, text) for text in self._texts)

    @property
    def output(self) -> str:
        """What becomes of a result before it is told; see `runners.functions.OUTPUTS`."""
        if self.dataset == "humaneval":
            return "value"
        from evalplus.eval import _special_oracle as oracle

        if self.entry_point in oracle.MBPP_OUTPUT_SET_EQ_TASKS:
            return "set"
        return "not_none" if self.entry_point in oracle.MBPP_OUTPUT_NOT_NONE_TASKS else "value"

    @property
    def digest(self) -> str:
        """Of all that decides the reference's results."""
        facts = [_FORMAT, sys.version, self.dataset, self._name, self.entry_point, self.reference_code, *self._texts]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def message(self, seconds: Sequence[Sequence[float]], timed: bool = False, longest: int = WHOLE) -> bytes:
        """What the runner is sent after the nonce; see `runners.functions.run_functions`."""
        sections = [
            {"inputs": inputs, "seconds": list(limits)} for inputs, limits in zip(self.inputs, seconds, strict=True)
        ]
        return pack({"output": self.output, "timed": timed, "longest": longest, "sections": sections})


def _inputs(dataset: Dataset, name: str, text: str) -> list[Any]:
    found: list[Any] = json.loads(text) or []
    if dataset == "mbpp":
        from evalplus.data.mbpp import mbpp_deserialize_inputs

        return list(mbpp_deserialize_inputs(name, found))
    return found


def time_limits(reference: Reference) -> list[float]:
    """The processor time that each test of a section may take, in seconds."""
    return [max(_LEAST_SECONDS, _TIME_FACTOR * seconds) for seconds in reference.seconds]


def total_seconds(limits: Sequence[float]) -> float:
    """The processor time that all tests of a section may take together."""
    return min(_MOST_SECONDS, sum(limits)) + 2


class TooLongError(Exception):
    """A result that was told as its digest has to be seen whole."""


class Expected:
    """Compares what a solution returned with what the reference did, as evalplus does.

    Equal bytes are equal values, so that nearly all results are compared without being read.

    Args:
        tests: The problem.
        references: Of the base and of the plus tests.
        exact: Whether to keep evalplus' known bugs.
        whole: Gives what the reference returned on each test, told whole. A result of more than `WHOLE` bytes is known
            by its digest even there: an equal one that is written otherwise counts as wrong.
    """

    def __init__(
        self, tests: Tests, references: Sequence[Reference], exact: bool, whole: Callable[[], Sequence[bytes]]
    ) -> None:
        self.tests = tests
        self.exact = exact
        self.n_base, self.n_tests = len(references[0].told), sum(len(one.told) for one in references)
        self._whole = whole
        self._atols = [atol for one in references for atol in _tolerances(tests.atol, one.is_floats)]
        messages = [
            self._message(told, nan) for one in references for told, nan in zip(one.told, one.has_nan, strict=True)
        ]
        self.stream = b"".join(messages)
        self._starts = [0]
        for message in messages:
            self._starts.append(self._starts[-1] + len(message))

    def _message(self, told: bytes, has_nan: bool) -> bytes:
        """What the runner says when a solution returns the same."""
        if has_nan or (self.exact and self.tests.entry_point == "find_zero"):
            told = _NEVER_EQUAL + told[1:]
        return LENGTH.pack(len(told)) + told

    def check(self, number: int, said: bytes) -> Iterator[str]:
        """Compares what was said of some tests.

        Args:
            number: The first of them.
            said: Lengths and results, one after the other.

        Yields:
            For each of them the empty string when it is right, otherwise why not.

        Raises:
            TooLongError: What was told as its digest differs in that, which says nothing: equal values may be written
                differently.
        """
        begin = self._starts[number]
        if self.stream.startswith(said, begin):
            end = bisect_right(self._starts, begin + len(said)) - 1
            yield from [""] * (end - number)
            return
        place = 0
        while place < len(said) and number < self.n_tests:
            start = place + LENGTH.size
            place = start + LENGTH.unpack_from(said, place)[0]
            yield self._why_not(number, said[start:place])
            number += 1

    def _why_not(self, number: int, said: bytes) -> str:
        if said[:1] == DIGEST:
            raise TooLongError
        if said[:1] == RAISED:
            return "memory_limit" if said[1:] == b"MemoryError" else "runtime_error"
        expected = self._whole()[number]
        if expected[:1] == DIGEST:
            return "wrong_answer"
        try:
            right = self._is_right(number, _compared(said, like=len(expected)), _compared(expected))
        except DOES_NOT_COMPARE:
            right = False
        return "" if right else "wrong_answer"

    def _inputs_of(self, number: int) -> list[Any]:
        section, place = (0, number) if number < self.n_base else (1, number - self.n_base)
        inputs: list[Any] = self.tests.inputs[section][place]
        return inputs

    def _is_right(self, number: int, out: Any, expected: Any) -> bool:
        import numpy as np

        same_type = type(out) is type(expected) and _type_name(out) == _type_name(expected)
        out, expected = _plain(out), _plain(expected)
        is_humaneval_32 = self.tests.dataset == "humaneval" and self.tests.entry_point == "find_zero"
        if is_humaneval_32:
            return not self.exact and abs(_polynomial(self._inputs_of(number)[0], out)) <= self.tests.atol
        with np.errstate(all="ignore"):  # a result may be a number of numpy's
            if bool(out == expected) or (self.tests.dataset == "mbpp" and self._oracle_says_right(number, out)):
                return True
            atol = self._atols[number]
            if atol == 0 or not same_type:
                return False
            if isinstance(expected, list | tuple) and len(out) != len(expected):
                return False
            return bool(np.allclose(out, expected, rtol=_RTOL, atol=atol))

    def _oracle_says_right(self, number: int, out: Any) -> bool:
        """The rules for problems with more than one right answer. Source: `evalplus.eval.unsafe_execute`, 0.3.1."""
        from evalplus.eval import _special_oracle as oracle

        name, inputs = self.tests.entry_point, self._inputs_of(number)
        if name == "are_equivalent":
            return True
        if name == "sum_div":
            return bool(out == 0)
        if name == "surface_Area":
            return bool(abs(out - oracle._surface_Area(*inputs)) <= self.tests.atol)
        return name == "digit_distance_nums" and bool(out == oracle._digit_distance_nums(*inputs))


def _tolerances(atol: float, is_floats: Sequence[bool]) -> Iterator[float]:
    """The absolute tolerance of each test; as in evalplus, the first expected float makes it 1e-6 from there on."""
    for is_float in is_floats:
        if atol == 0 and is_float:
            atol = _FLOAT_ATOL
        yield atol


def _is_floats(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(one, float) for one in value)
    return isinstance(value, float)


def _compared(told: bytes, like: int | None = None) -> Any:
    """What evalplus would compare: a value as Python compares it. One that only iterates equals nothing."""
    return unpack(told[1:], like, comparable)


def _type_name(value: Any) -> str:
    return value.type_name if isinstance(value, Foreign | Opaque) else type(value).__name__


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Foreign) else value


def _polynomial(coefficients: Sequence[float], x: float) -> float:
    """The polynomial whose zero HumanEval/32 asks for."""
    return sum(coefficient * math.pow(x, power) for power, coefficient in enumerate(coefficients))
