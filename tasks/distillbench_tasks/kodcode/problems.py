"""KodCode: 500 problems of the light set, chosen by a fixed seed."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from distillbench_tasks.data import Doc, Row
from distillbench_tasks.data import load as load_data

#: How many problems the benchmark has, and what their choice depends on beside their ids.
SUBSET, SEED = 500, "kodcode-500-v1"
_IMPORT = re.compile(r"^from solution import (\((?:[^)]*)\)|.+)$", re.MULTILINE)
_DEFINED = re.compile(r"^(?:def|class) (?!test_)(\w+)", re.MULTILINE)


def adapt(row: Row) -> Doc:
    """One document: the Hub's columns, or those of the local copy."""
    return _of_copy(row) if "instruction" in row else _of_hub(row)


def _of_hub(row: Row) -> Doc:
    tested = row["test_info"] or []
    return {
        "id": row["question_id"],
        "question": row["question"],
        "entry": ", ".join(dict.fromkeys(function["function_name"] for function in tested)),
        "signature": "\n".join(dict.fromkeys(function["function_declaration"] for function in tested)),
        "solution": row["solution"],
        "tests": row["test"],
    }


def _of_copy(row: Row) -> Doc:
    about = row["metadata"]
    return {
        "id": f"{about['mode']}_{about['prompt_id']}",
        "question": row["instruction"],
        "entry": ", ".join(imported(row["test_code"]) or _DEFINED.findall(row["instruction"])),
        "signature": "",
        "solution": row["response"],
        "tests": row["test_code"],
    }


def imported(tests: str) -> list[str]:
    """The names that tests import from the solution; none where they import all, or do not import it."""
    names: dict[str, None] = {}
    for listed in _IMPORT.findall(tests):
        for part in listed.partition("#")[0].strip("() \n").split(","):
            name = part.strip().partition(" as ")[0].strip()
            if name.isidentifier():
                names[name] = None
    return list(names)


def load(**metadata: Any) -> dict[str, Any]:
    """The problems, for lm-eval's `custom_dataset`."""
    return load_data(metadata, adapt, choose)


def choose(docs: Any) -> list[int]:
    """The documents whose id has one of the 500 lowest hashes; the order of the source's rows has no part in it."""
    ids = list(docs["id"])
    ranked = sorted(range(len(ids)), key=lambda number: _rank(ids[number]))
    return sorted(ranked[:SUBSET], key=lambda number: ids[number])


def _rank(name: str) -> str:
    return hashlib.sha256(f"{SEED}\0{name}".encode()).hexdigest()
