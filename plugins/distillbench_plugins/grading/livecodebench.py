"""LiveCodeBench's tests: how they are encoded, what solutions find imported, and when a result is right."""

from __future__ import annotations

import base64
import binascii
import json
import pickletools
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from distillbench.errors import GraderError
from distillbench_plugins.grading.sandbox.values import DOES_NOT_COMPARE, Foreign, comparable

#: The modules whose names the official harness puts before every solution, in its order: later ones win.
MODULES = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
    *("itertools", "functools", "operator", "io", "sys", "json"),
)
_STARS = "".join(f"from {name} import *\n" for name in (*MODULES, "builtins", "typing"))
_NAMES = "".join(f"import {name}\n" for name in MODULES)
PREAMBLE = f"{_STARS}{_NAMES}sys.setrecursionlimit(50000)\n"
#: The most that a problem's private tests may unpack to.
_MOST_BYTES = 1 << 30
_TEXT = frozenset({"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"})
_AROUND_TEXT = frozenset({"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "STOP"})


@dataclass(frozen=True, slots=True)
class Cases:
    """A problem's tests.

    Attributes:
        fn_name: The function that is called; empty for programs that read standard input.
        inputs: Standard input, or one argument as JSON on each line.
        expected: What is to be written, or returned, as JSON.
    """

    fn_name: str
    inputs: tuple[str, ...]
    expected: tuple[str, ...]

    def arguments(self) -> list[list[Any]]:
        """The arguments of each call.

        Raises:
            GraderError: They cannot be read.
        """
        return [[_json(line, "an argument") for line in given.split("\n")] for given in self.inputs]

    def results(self) -> list[Any]:
        """What each call is to return.

        Raises:
            GraderError: They cannot be read.
        """
        return [_json(wanted, "a result") for wanted in self.expected]


def read_tests(fn_name: str, public: str, private: str) -> Cases:
    """A problem's tests: the public ones, then the private ones.

    Args:
        fn_name: See `Cases`.
        public: JSON: a list of `{input, output, testtype}`.
        private: The same, or LiveCodeBench's encoding of it: base64 of zlib of a pickled text.

    Raises:
        GraderError: They cannot be read, or there are none.
    """
    found = [test for part in (public, private) for test in _read(part)]
    if not found:
        raise GraderError("the problem has no tests")
    try:
        return Cases(fn_name, tuple(str(one["input"]) for one in found), tuple(str(one["output"]) for one in found))
    except (KeyError, TypeError) as error:
        raise GraderError(f"a test has no input or no output: {error}") from error


def _read(text: str) -> Iterable[Any]:
    """A list of tests in either form."""
    if not text.strip():
        return ()
    tests = _json(text if text.lstrip().startswith(("[", "{")) else _decoded(text), "the tests")
    if not isinstance(tests, list):
        raise GraderError(f"wanted a list of tests, got {type(tests).__name__}")
    return tests


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GraderError(f"{what} cannot be read: {error}") from error


def _decoded(text: str) -> str:
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(text, validate=True), _MOST_BYTES)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise GraderError(f"private tests are neither JSON nor LiveCodeBench's encoding: {error}") from error
    if not unpacker.eof:
        raise GraderError(f"private tests are cut off, or unpack to more than {_MOST_BYTES} bytes")
    return _pickled_text(data)


def _pickled_text(data: bytes) -> str:
    """The one text that a pickle holds. The pickle is read, never run: with anything else in it, it is refused."""
    texts = []
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in _TEXT:
                texts.append(str(argument))
            elif opcode.name not in _AROUND_TEXT:
                raise GraderError(f"private tests: wanted a pickled text, got a pickle with {opcode.name}")
    except ValueError as error:
        raise GraderError(f"private tests hold no pickle: {error}") from error
    if len(texts) != 1:
        raise GraderError(f"private tests: wanted one pickled text, got {len(texts)}")
    return texts[0]


def official_code(answer: str) -> str | None:
    """The code of an answer by the official rule: what stands between the last two lines that hold a fence.

    Source: LiveCodeBench, `lcb_runner/utils/extraction_utils.py` (`extract_code`).
    """
    lines = answer.split("\n")
    fences = [number for number, line in enumerate(lines) if "```" in line]
    code = "\n".join(lines[fences[-2] + 1 : fences[-1]]) if len(fences) > 1 else ""
    return code if code.strip() else None


def same_value(result: Any, expected: Any) -> bool:
    """Whether a returned value is right: a tuple counts as a list, and then plain equality decides.

    Args:
        result: Plain, or what stands for a value that is not (see `values`).
        expected: From JSON.
    """
    try:
        result = comparable(result)
        result = result.value if isinstance(result, Foreign) else result
        return bool((list(result) if isinstance(result, tuple) else result) == expected)
    except DOES_NOT_COMPARE:
        return False
