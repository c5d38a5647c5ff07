"""LiveCodeBench, release v5: problems of programming contests by date."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from typing import Any

from distillbench.errors import TaskError
from distillbench_tasks.data import Doc, Row
from distillbench_tasks.data import load as load_data

_METHOD = re.compile(r"^ {4}def (\w+)\(", re.MULTILINE)
_TEXT_RESULT = re.compile(r"->\s*str\s*:")


def adapt(row: Row) -> Doc | None:
    """One document: the Hub's columns, or those of the local copy, which also has problems of later releases."""
    if not row.get("in_release_v5", True):
        return None
    return {
        "id": row["question_id"],
        "title": row["question_title"],
        "content": row["question_content"],
        "platform": row["platform"],
        "date": str(row["contest_date"])[:10],
        "difficulty": row["difficulty"],
        "starter_code": row["starter_code"],
    } | (_tests_of_copy(row) if "hidden_tests_seen" in row else _tests_of_hub(row))


def _tests_of_hub(row: Row) -> Doc:
    """The tests as LiveCodeBench encodes them: the grader decodes them, in a worker and only where it needs them."""
    return {
        "fn_name": json.loads(row["metadata"] or "{}").get("func_name") or "",
        "public_tests": row["public_test_cases"],
        "private_tests": row["private_test_cases"],
    }


def _tests_of_copy(row: Row) -> Doc:
    """The tests of the local copy, in LiveCodeBench's own form. Its hidden ones were printed by Python, not as JSON."""
    method = _METHOD.search(row["starter_code"])
    seen = [(test["inputs"], test["expected"]) for test in row["hidden_tests_seen"] or ()]
    if method is None:
        hidden = [{"input": given, "output": wanted, "testtype": "stdin"} for given, wanted in seen]
    else:
        gives_text = bool(_TEXT_RESULT.search(row["starter_code"]))
        hidden = [found for given, wanted in seen if (found := _functional(given, wanted, gives_text))]
    return {
        "fn_name": method[1] if method else "",
        "public_tests": json.dumps(row["public_tests"] or []),
        "private_tests": json.dumps(hidden),
    }


def _functional(given: str, wanted: str, gives_text: bool) -> Doc | None:
    """A test of a method: one argument as JSON on each line. None for the two whose arguments hold `inf`."""
    try:
        arguments = [json.dumps(argument) for argument in _printed(given)]
        result = json.dumps(wanted if gives_text else _printed(wanted))
    except (ValueError, SyntaxError):
        return None
    return {"input": "\n".join(arguments), "output": result, "testtype": "functional"}


def _printed(text: str) -> Any:
    """A value from JSON or from what Python prints of it."""
    try:
        return json.loads(text)
    except ValueError:
        return ast.literal_eval(text)


def load(**metadata: Any) -> dict[str, Any]:
    """The problems of the window, for lm-eval's `custom_dataset`."""
    first, last = window(metadata)
    return load_data(metadata, adapt, partial(choose, first=first, last=last))


def window(metadata: Mapping[str, Any]) -> tuple[str, str]:
    """The first and the last day of the window, both in it; open ends where there is none.

    Raises:
        TaskError: It is no pair of dates in order.
    """
    given = metadata.get("window")
    if given is None:
        return "", "9999"
    days = [_day(entry) for entry in given] if isinstance(given, Sequence) and not isinstance(given, str) else []
    if len(days) != 2 or "" in days or days[0] > days[1]:
        raise TaskError(f"metadata.window: wanted two dates in order, such as [2024-08-01, 2025-02-01], got {given!r}")
    return days[0], days[1]


def choose(docs: Any, first: str, last: str) -> list[int]:
    """The problems of a window."""
    return [number for number, day in enumerate(docs["date"]) if first <= day <= last]


def _day(entry: Any) -> str:
    """A date in ISO form; empty when it is none."""
    try:
        return date.fromisoformat(str(entry)).isoformat()
    except ValueError:
        return ""
