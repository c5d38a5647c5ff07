"""AIME 2022 to 2024 and AIME 2025."""

from __future__ import annotations

import re
from typing import Any

from distillbench_tasks.data import Doc, Row
from distillbench_tasks.data import load as load_data

_CONTEST = re.compile(r"/(\d{4})_AIME_(I{1,2})_Problems/Problem_(\d+)")
#: The chat marks around a problem in the local copy of AIME 2025, and the instruction after it.
_PROMPT = re.compile(r"<\|im_start\|>user\n(.*?)\nPlease reason step by step.*", re.DOTALL)
_SOLUTION = re.compile(r"#### (.+)\s*$")
#: Every answer is a whole number; one is given in degrees.
_ANSWER = re.compile(r"(\d+)(\^\\circ)?")


def adapt(row: Row) -> Doc:
    """One document of AIME 2022 to 2024: the Hub's columns, or those of the local copy."""
    problem = row["problem"] if "problem" in row else row["question"]
    contest = _CONTEST.search(row["url"])
    name = "-".join(contest.groups()) if contest else str(row["id"])
    return {"id": name, "problem": problem, "answer": whole(row["answer"]), "url": row["url"]}


def adapt_2025(row: Row) -> Doc:
    """One document of AIME 2025: the Hub's columns, or those of the local copy."""
    if "reference_solution" not in row:
        return {"id": f"2025-{row['id']}", "problem": row["problem"], "answer": whole(row["answer"]), "url": ""}
    problem, answer = _PROMPT.match(row["prompt"]), _SOLUTION.search(row["reference_solution"])
    if problem is None or answer is None:
        raise ValueError("wanted a prompt with chat marks and a solution that ends in `#### ANSWER`")
    return {"id": f"2025-{row['idx']}", "problem": problem[1], "answer": whole(answer[1]), "url": ""}


def whole(answer: Any) -> str:
    """An answer without its degree sign, its zeros in front kept.

    Raises:
        ValueError: It is no whole number.
    """
    found = _ANSWER.fullmatch(str(answer).strip())
    if found is None:
        raise ValueError(f"wanted a whole number as the answer, got {answer!r}")
    return found[1]


def load(**metadata: Any) -> dict[str, Any]:
    """The problems of 2022 to 2024, for lm-eval's `custom_dataset`."""
    return load_data(metadata, adapt)


def load_2024(**metadata: Any) -> dict[str, Any]:
    """The problems of 2024."""
    return load_data(metadata, adapt, choose_2024)


def load_2025(**metadata: Any) -> dict[str, Any]:
    """The problems of 2025."""
    return load_data(metadata, adapt_2025)


def choose_2024(docs: Any) -> list[int]:
    """The problems whose address says 2024."""
    return [number for number, url in enumerate(docs["url"]) if "/2024_AIME_" in url]
