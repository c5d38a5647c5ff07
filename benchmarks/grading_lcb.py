"""The `code_livecodebench` grader against published verdicts: `python benchmarks/grading_lcb.py [--limit N]`.

All 880 o1-mini solutions of `../shared/data/outputs_lcb`, on the tests that are in `../shared/data/lcb_tests`: all
public tests, and of the hidden ones those that were seen in published logs. Both modes, each in a table; official is
the harness of that time (2024), whose verdicts these are:

- agree: the verdicts are the same.
- published wrong, ours right: the test that the solution fails is not there, or is, and then the solution is named.
- published right, ours wrong: each is named, with how many tests it passes before it fails, and how it fails.

The harness's own message of a failed solution tells the failing test's input; cut off where it is long.

What the differences are, by hand:

- 2878, 3226, 3454, 3607, 3616 (right, ours wrong): the hidden test that fails was taken from the log of another
  solution, which had changed its arguments before they were logged ([[]] with the result [3, 2, 5, 4]).
- abc315_b, abc349_a, abc359_b, abc365_b (wrong, ours right in process mode): they read `open(0)`, which the harness
  does not emulate.
- abc368_f, abc382_c (wrong, ours right in process mode), and nine whose failing test is not there: they print in a
  thread that they do not wait for. The interpreter waits at its end; the harness reads their output before. In official
  mode their verdict depends on how soon the thread ends.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from distillbench.records import Judgement
from distillbench_plugins.benchmarks.code_livecodebench import LiveCodeBench, LiveCodeBenchOptions, Mode, Solutions
from distillbench_plugins.grading.code import Attempt
from distillbench_plugins.grading.livecodebench import Cases, read_tests
from distillbench_plugins.grading.sandbox.sandbox import Sandbox
from distillbench_tasks.livecodebench.problems import adapt

DATA = Path(__file__).parents[2] / "shared" / "data"
MODES: tuple[Mode, ...] = ("process", "official")


@dataclass(frozen=True)
class Solution:
    """One published solution.

    Attributes:
        name: The problem's id.
        code: The code.
        tests: Those tests of the problem that are there.
        is_right: The published verdict.
        message: What the harness said of the failed test; empty for a solution that is right.
    """

    name: str
    code: str
    tests: Cases
    is_right: bool
    message: dict[str, Any]

    @property
    def has_failing_test(self) -> bool | None:
        """Whether the test that failed is there; None where the message does not tell it."""
        given = self.message.get("inputs")
        if given is None:
            return None
        if self.tests.fn_name:
            return any(_cut(str(arguments)) == given for arguments in self.tests.arguments())
        return any(_cut(one) == given for one in self.tests.inputs)


def _cut(text: str) -> str:
    """How the harness cuts long texts in its messages."""
    return text if len(text) <= 300 else f"{text[:150]}...(truncated) ...{text[-150:]}"


def solutions() -> Iterator[Solution]:
    """All published solutions whose problem has tests."""
    problems = {}
    for line in (DATA / "lcb_tests" / "lcb_joined.jsonl").read_text(encoding="utf-8").splitlines():
        doc = adapt(json.loads(line))
        if doc is not None and (doc["public_tests"], doc["private_tests"]) != ("[]", "[]"):
            problems[doc["id"]] = doc
    for row in json.loads((DATA / "outputs_lcb" / "o1_mini_eval_all.json").read_text(encoding="utf-8")):
        doc = problems.get(row["question_id"])
        if doc is not None:
            tests = read_tests(doc["fn_name"], doc["public_tests"], doc["private_tests"])
            message = json.loads(row["metadata"][0]) if row["metadata"] else {}
            yield Solution(row["question_id"], row["code_list"][0], tests, row["graded_list"][0], message)


def judge(published: Sequence[Solution], mode: Mode, slots: int) -> tuple[list[Judgement], float]:
    """Our judgements, and the seconds they took. What a load may have made late is run again, alone."""
    begun = time.perf_counter()
    with Sandbox(LiveCodeBench.preload) as sandbox, ThreadPoolExecutor(slots) as pool:
        ours = Solutions(sandbox, LiveCodeBenchOptions(mode=mode, harness="2024"))

        def attempt(one: Solution) -> Attempt:
            return ours.attempt(one.tests, one.code)

        attempts = list(pool.map(attempt, published))
        for number, found in enumerate(attempts):
            if found.suspect:
                attempts[number] = attempt(published[number])
    return [found.judgement for found in attempts], time.perf_counter() - begun


def kind_of(one: Solution, ours: Judgement) -> str:
    """The row of the table that a solution falls into."""
    if bool(ours.correct) == one.is_right:
        return "agree"
    if one.is_right:
        return "published right, ours wrong"
    there = {True: "is there", False: "is not there", None: "is not told"}[one.has_failing_test]
    return f"published wrong, ours right: the failing test {there}"


def show(published: Sequence[Solution], ours: Sequence[Judgement], mode: Mode, seconds: float) -> None:
    """Prints one mode's table, and every difference that missing tests do not explain."""
    counts = Counter(map(kind_of, published, ours))
    print(f"\n{mode}: {len(published)} solutions, {seconds:.0f} s")
    for kind, count in sorted(counts.items()):
        print(f"  {count:4}  {kind}")
    for one, judgement in zip(published, ours, strict=True):
        kind = kind_of(one, judgement)
        if kind != "agree" and not kind.endswith("not there"):
            passed, n_tests = (int(judgement.scores[name]) for name in ("tests_passed", "tests"))
            said = one.message.get("error") or one.message.get("error_message") or ""
            form = one.tests.fn_name or "stdin"
            verdict = f"{judgement.detail or 'right'} {passed}/{n_tests}"
            print(f"  {one.name} ({form}): {kind}; ours: {verdict}; theirs: {said[:120]}")


def compared(limit: int | None = None, slots: int | None = None) -> dict[Mode, tuple[list[Solution], list[Judgement]]]:
    """Judges the first published solutions in both modes, and prints what came of it."""
    published = list(solutions())[:limit]
    found = {}
    for mode in MODES:
        ours, seconds = judge(published, mode, slots or len(os.sched_getaffinity(0)))
        show(published, ours, mode, seconds)
        found[mode] = (published, ours)
    return found


def main(arguments: Sequence[str] = ()) -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--limit", type=int)
    parser.add_argument("--slots", type=int)
    options = parser.parse_args(arguments)
    compared(options.limit, options.slots)


if __name__ == "__main__":
    main(sys.argv[1:])
