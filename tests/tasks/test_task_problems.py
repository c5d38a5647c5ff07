"""coins and digits: answers by an independent reading of the question, splits, ranges, reproducibility."""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillbench_plugins.students.tiny_qwen3.corpus import documents, tokenizer_texts
from distillbench_tasks.coins import problems as coins
from distillbench_tasks.digits import problems as digits
from distillbench_tasks.splits import TEST_SHARE, is_test, stream

MODULES = {"coins": coins, "digits": digits}
SEEDS = st.integers(min_value=0, max_value=2**64)
_COINS = re.compile(r"(\w+) has (\d) coins\. (.+)\. How many\?")
_DIGITS = re.compile(r"Digits: (\d(?:, \d)*)\. Which is the (largest|smallest|first|last)\?")


def solve_coins(question: str) -> list[int]:
    """How many coins there are after each day, read from the question's text alone; the start comes first."""
    found = _COINS.fullmatch(question)
    assert found, question
    counts = [int(found[2])]
    for change in found[3].split(", "):
        day, op, n = re.fullmatch(r"(\w{3}) (add|take) (\d)", change).groups()
        assert day == ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat"][len(counts) - 1]
        assert int(n) > 0
        counts.append(counts[-1] + {"add": 1, "take": -1}[op] * int(n))
    return counts


def solve_digits(question: str) -> int:
    """The digit asked for, read from the question's text alone."""
    found = _DIGITS.fullmatch(question)
    assert found, question
    listed = [int(digit) for digit in found[1].split(", ")]
    assert 3 <= len(listed) <= 5
    ordered = sorted(listed)
    return {"largest": ordered[-1], "smallest": ordered[0], "first": listed[0], "last": listed[-1]}[found[2]]


@given(SEEDS)
def test_coins_answer_is_right_and_every_count_is_one_digit(seed: int) -> None:
    doc = coins.draw(random.Random(seed))
    counts = solve_coins(doc["question"])
    assert doc["answer"] == str(counts[-1])
    assert all(0 <= count <= 9 for count in counts)
    assert 2 <= len(counts) <= 7
    assert doc["start"] == counts[0]
    assert len(doc["steps"]) == len(counts) - 1


@given(SEEDS)
def test_coins_sums_are_true_and_end_in_the_answer(seed: int) -> None:
    doc = coins.draw(random.Random(seed))
    before = doc["start"]
    for (day, line, after), step in zip(coins.sums(doc), doc["steps"], strict=True):
        left, sign, right, result = re.fullmatch(r"(\d)([+-])(\d)=(\d)", line).groups()
        assert day == step["day"]
        assert int(left) == before
        assert int(left) + {"+": 1, "-": -1}[sign] * int(right) == int(result) == after
        before = after
    assert str(before) == doc["answer"]


@given(SEEDS)
def test_digits_answer_is_right(seed: int) -> None:
    doc = digits.draw(random.Random(seed))
    assert doc["answer"] == str(solve_digits(doc["question"]))


@pytest.mark.parametrize("name", MODULES)
def test_splits_are_disjoint_distinct_and_complete(name: str) -> None:
    module = MODULES[name]
    splits = {split: dataset["question"] for split, dataset in module.load().items()}
    assert {split: len(questions) for split, questions in splits.items()} == {
        "train": module.N_TRAIN,
        "test": module.N_TEST,
    }
    assert not set(splits["train"]) & set(splits["test"])
    for questions in splits.values():
        assert len(set(questions)) == len(questions)


@pytest.mark.parametrize("name", MODULES)
def test_streams_of_any_seed_keep_to_their_split(name: str) -> None:
    draw = MODULES[name].draw
    held = set(MODULES[name].load()["test"]["question"])
    for seed in (0, 1, 1000, 2000):
        assert not held & {doc["question"] for doc in islice(stream(draw, name, "train", seed), 3000)}
    shares = Counter(is_test(draw(random.Random(seed))["question"]) for seed in range(4000))
    assert 0.15 < shares[True] / 4000 < 0.25, f"one question in {TEST_SHARE} is a test question"


@pytest.mark.parametrize("name", MODULES)
def test_every_kind_of_problem_is_there(name: str) -> None:
    docs = MODULES[name].load()["test"]
    if name == "coins":
        assert set(map(len, docs["steps"])) == {1, 2, 3, 4, 5, 6}
        assert {step["op"] for steps in docs["steps"] for step in steps} == {"add", "take"}
    else:
        assert set(map(len, docs["digits"])) == {3, 4, 5}
        assert set(docs["which"]) == {"largest", "smallest", "first", "last"}
    assert set(docs["answer"]) == set("0123456789")
    assert max(Counter(docs["answer"]).values()) < len(docs) / 3, "always the same answer would score too well"


def digest(name: str) -> str:
    """What the problems of both splits are, in one number."""
    text = "\n".join(
        f"{split} {question} {answer}"
        for split, dataset in MODULES[name].load().items()
        for question, answer in zip(dataset["question"], dataset["answer"], strict=True)
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(("name", "expected"), [("coins", "1b208aa1e9198e1e"), ("digits", "966124df87a62d76")])
def test_problems_are_those_of_version_1(name: str, expected: str) -> None:
    """Other problems under the same version would make published numbers incomparable: raise `version` in the YAML."""
    assert digest(name) == expected


def test_problems_do_not_depend_on_the_process() -> None:
    code = "import test_task_problems as t; print(*(t.digest(name) for name in t.MODULES))"
    folders = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = os.environ | {"PYTHONPATH": folders, "PYTHONHASHSEED": "12345"}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert printed.stdout.split() == [digest(name) for name in MODULES]


def questions_in(text: str) -> list[str]:
    """The questions of both tasks that stand in a text."""
    return [found[0] for pattern in (_COINS, _DIGITS) for found in pattern.finditer(text)]


def test_the_tiny_student_is_pretrained_on_no_test_problem() -> None:
    seen: list[Any] = []
    for seed in (0, 1):
        for document in islice(documents(seed), 1500):
            seen += questions_in(document.prompt)
    assert len(seen) > 2000
    assert not [question for question in seen if is_test(question)]
    learned = [question for text in islice(tokenizer_texts(0), 1500) for question in questions_in(text)]
    assert len(learned) > 1000
    assert not [question for question in learned if is_test(question)]


def test_documents_repeat_by_seed_and_differ_between_seeds() -> None:
    first, again, other = (list(islice(documents(seed), 50)) for seed in (3, 3, 4))
    assert first == again
    assert first != other
