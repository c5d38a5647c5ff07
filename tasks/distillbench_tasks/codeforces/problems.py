"""Codeforces: programs that read standard input, judged by a checker or by the one right output."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from distillbench_tasks.data import Doc, Row
from distillbench_tasks.data import load as load_data

#: What the local copy puts after a statement; the tags would tell the method.
_TAIL = re.compile(r"\n+Tags:\n.*\n+Time Limit: (\d+) ms\nMemory Limit: (\d+) MB\s*$")
_MANY = re.compile(
    r"\bany (of them|one of them|valid|suitable|correct|such|possible|optimal|answer|order)\b"
    r"|\b(print|output|find|report|display|return) any\b"
    r"|\b(multiple|several|many|more than one)( \w+){0,2} (answers?|solutions?|outputs?|ways)\b",
    re.IGNORECASE,
)


def adapt(row: Row) -> Doc:
    """One document: the Hub's columns, or those of the local copy."""
    return _of_copy(row) if "problem" in row else _of_hub(row)


def _of_hub(row: Row) -> Doc:
    is_usable = row["input_mode"] == "stdio" and not row["interaction_format"] and row["official_tests_complete"]
    tests = (row["official_tests"] or []) if is_usable else []
    return _doc(row["id"], row["title"], _statement(row), row["time_limit"], row["memory_limit"], tests) | {
        "checker": row["generated_checker"] or ""
    }


def _of_copy(row: Row) -> Doc:
    found = _TAIL.search(row["problem"])
    if found is None:
        raise ValueError("wanted a problem that ends in its tags and limits")
    statement = row["problem"][: found.start()].strip()
    name = hashlib.sha256(row["problem"].encode()).hexdigest()[:12]
    limits = int(found[1]) / 1000, float(found[2])
    return _doc(name, "", statement, *limits, row["tests"]) | {"checker": ""}


def _doc(name: str, title: str, statement: str, seconds: float, megabytes: float, tests: Any) -> Doc:
    return {
        "id": name,
        "title": title,
        "statement": statement,
        "time_limit": float(seconds or 2.0),
        "memory_limit": float(megabytes or 256.0),
        "many_answers": has_many_answers(statement),
        "tests": json.dumps([{"input": test["input"], "output": test["output"]} for test in tests]),
    }


def _statement(row: Row) -> str:
    parts = [row["description"]]
    parts += [
        f"{title}:\n{row[key]}" for title, key in (("Input", "input_format"), ("Output", "output_format")) if row[key]
    ]
    for example in row["examples"] or ():
        parts.append(f"Example input:\n{example['input'].strip()}\n\nExample output:\n{example['output'].strip()}")
    if row["note"]:
        parts.append(f"Note:\n{row['note']}")
    return "\n\n".join(part.strip() for part in parts)


def has_many_answers(statement: str) -> bool:
    """Whether a statement speaks of more than one right output; by its words, so that it may be wrong either way."""
    return bool(_MANY.search(statement))


def load(**metadata: Any) -> dict[str, Any]:
    """The problems, for lm-eval's `custom_dataset`."""
    return load_data(metadata, adapt, choose)


def choose(docs: Any) -> list[int]:
    """The problems that have tests here: all of them, read from standard input, without interaction."""
    return [number for number, tests in enumerate(docs["tests"]) if tests != "[]"]
