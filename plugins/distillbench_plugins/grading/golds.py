"""Gold answers that no answer can equal, because there is none, or because it is no text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from distillbench.records import Problem

#: What a template or JSON makes of nothing.
_NOTHING = frozenset({"", "None", "null", "nan", "NaN"})


def is_missing(problem: Problem) -> bool:
    """Whether there is no gold answer: a null or an empty field of the document, and no text that says `None`."""
    gold = problem.gold.strip()
    return not gold or (gold in _NOTHING and not any(value.strip() == gold for value in _texts(_doc(problem))))


def is_collection(problem: Problem) -> bool:
    """Whether the gold answer is a list or a mapping of the document, or a list of texts, where one text belongs.

    The closed interval `[1, 2]` reads like a list of numbers; so the document is asked.
    """
    gold = problem.gold.strip()
    if any(gold in (str(value), json.dumps(value)) for value in _collections(_doc(problem))):
        return True
    return gold.startswith(("[", "{")) and _holds_text(gold)


def _holds_text(gold: str) -> bool:
    try:
        found = json.loads(gold)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) or (isinstance(found, list) and any(isinstance(one, str) for one in found))


def _doc(problem: Problem) -> Any:
    return problem.metadata.get("doc", {})


def _values(value: Any) -> Iterator[Any]:
    """A document's values, at any depth."""
    yield value
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for one in inner:
        yield from _values(one)


def _texts(doc: Any) -> Iterator[str]:
    return (value for value in _values(doc) if isinstance(value, str))


def _collections(doc: Any) -> Iterator[Any]:
    return (value for value in _values(doc) if isinstance(value, list | tuple | dict) and value is not doc)
