"""Graders of code against evalplus: `python benchmarks/grading.py [humaneval|mbpp|published|load|math|lcb ...]`.

- humaneval: 164 reference solutions and 571 others made of them (wrong, crashing, looping, memory-eating), through
  `evalplus.evaluate` (as it comes: on two cores it uses one; and with `--parallel 2`) and through `code_evalplus` with
  two processes. Verdicts of base, and of base and plus, are compared one by one. The floor is the reference
  solutions' tests in one warm process without isolation.
- mbpp: the 378 reference solutions of MBPP+, the same way.
- published: real solutions of both sets, against the verdicts that evalplus' authors published with them.
- load: the humaneval solutions three times under two processes that do nothing but count; verdicts must not change.
- math, lcb: see grading_math.py and grading_lcb.py.

Seconds by the clock and of the processor, all processes included. Both sides have computed what the reference solutions
return before they are timed. Data lies in `../shared/data`. evalplus runs code without
isolation; these solutions are ours.
"""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil
from datasets import Dataset

from distillbench.protocols import Context
from distillbench.records import Judgement, Problem, Resources
from distillbench_plugins.benchmarks.code_evalplus import EvalPlus, EvalPlusOptions

DATA = Path(__file__).parents[2] / "shared" / "data"
FILES = {
    "humaneval": ("HUMANEVAL_OVERRIDE_PATH", DATA / "humaneval_plus" / "HumanEvalPlus.jsonl.gz"),
    "mbpp": ("MBPP_OVERRIDE_PATH", DATA / "mbpp_plus" / "MbppPlus.jsonl.gz"),
}
CORES = 2
Solution = tuple[str, str]  # problem id, code
Verdict = tuple[bool, bool]  # base passed; base and plus passed


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock and of the processor."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:7.1f} s wall {self.cpu:7.1f} s CPU"


class Meter:
    """The processor time of this process and of all it started; ask before they end what they started."""

    def __init__(self) -> None:
        self.begun, self.before = time.perf_counter(), self._cpu()

    def cost(self) -> Cost:
        """What it took since."""
        return Cost(time.perf_counter() - self.begun, self._cpu() - self.before)

    @staticmethod
    def _cpu() -> float:
        own = psutil.Process()
        every = [own, *own.children(recursive=True)]
        return sum(sum(process.cpu_times()[:4]) for process in every)


@cache
def rows(dataset: str) -> list[dict[str, Any]]:
    """The problems of a set, as evalplus' file has them."""
    with gzip.open(FILES[dataset][1]) as lines:
        return [json.loads(line) for line in lines]


@dataclass(frozen=True)
class Documents:
    """What a grader reads of an lm-eval task."""

    dataset: Dataset

    def test_docs(self) -> Dataset:
        """The documents."""
        return self.dataset


@cache
def documents(dataset: str) -> Documents:
    """The problems in the task's own columns."""
    kept = ("prompt", "entry_point", "canonical_solution")
    found = [
        {key: row[key] for key in kept}
        | {key: json.dumps(row[key]) for key in ("base_input", "plus_input")}
        | {"id": row["task_id"], "atol": float(row["atol"])}
        for row in rows(dataset)
    ]
    return Documents(Dataset.from_list(found))


def reference(row: dict[str, Any]) -> str:
    """The reference solution."""
    return str(row["prompt"] + row["canonical_solution"])


def mixed() -> list[Solution]:
    """Reference solutions of HumanEval+, and others made of them: 735 in all, no two alike."""
    found = []
    for number, row in enumerate(rows("humaneval")):
        name, right, f = row["task_id"], reference(row), row["entry_point"]
        found.append((name, right))
        found.append((name, f"def {f}(*given):\n    return given\n"))
        found.append((name, f"def {f}(*given):\n    return None\n"))
        found.append((name, f"def {f}(*given):\n    raise ValueError({number})\n"))
        if number < 60:
            found.append((name, f"def {f}(*given:\n    return {number}\n"))
        if number % 30 == 0:
            found.append((name, f"def {f}(*given):\n    while True:\n        pass\n"))
            found.append((name, f"def {f}(*given):\n    return [{number}] * 10**10\n"))
        if number % 24 == 0:
            found.append((name, f"def {f}(*given):\n    raise SystemExit({number})\n"))
    return found


def ours(dataset: str, solutions: Sequence[Solution], work: Path, exact: bool) -> tuple[list[Judgement], Cost]:
    """Our verdicts, and what they took, the sandbox's start included."""
    entry_points = {row["task_id"]: row["entry_point"] for row in rows(dataset)}
    grader = EvalPlus(EvalPlusOptions(dataset, evalplus_exact=exact)).with_task(documents(dataset))  # type: ignore[arg-type]
    asked = [
        (Problem(name, dataset, (), "", {"doc": {"id": name, "entry_point": entry_points[name]}}), code)
        for name, code in solutions
    ]
    meter = Meter()
    with grader.open(Context(work, resources=Resources(cpus=CORES))) as grading:
        found = list(grading.judge_all(asked))
        cost = meter.cost()
    return found, cost


def theirs(dataset: str, solutions: Sequence[Solution], parallel: int | None) -> tuple[list[Verdict], Cost]:
    """The verdicts of evalplus, and what they took; by itself it uses half of the cores."""
    from evalplus.evaluate import evaluate

    warm(dataset)
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder) / "samples.jsonl"
        samples.write_text("".join(json.dumps({"task_id": name, "solution": code}) + "\n" for name, code in solutions))
        meter = Meter()
        with silence():
            evaluate(dataset, samples=str(samples), parallel=parallel)
        cost = meter.cost()
        said = json.loads(samples.with_name("samples_eval_results.json").read_text())["eval"]
    left = {name: iter(results) for name, results in said.items()}
    found = []
    for name, _ in solutions:
        result = next(left[name])
        base = result["base_status"] == "pass"
        found.append((base, base and result["plus_status"] == "pass"))
    return found, cost


@cache
def warm(dataset: str) -> None:
    """Has evalplus compute what the reference solutions return."""
    from evalplus import data
    from evalplus.evaluate import MBPP_OUTPUT_NOT_NONE_TASKS, get_groundtruth

    with silence():
        if dataset == "humaneval":
            get_groundtruth(data.get_human_eval_plus(), data.get_human_eval_plus_hash(), [])
        else:
            get_groundtruth(data.get_mbpp_plus(), data.get_mbpp_plus_hash(), MBPP_OUTPUT_NOT_NONE_TASKS)


@contextmanager
def silence() -> Iterator[None]:
    """Evalplus prints bars and tables."""
    with Path(os.devnull).open("w") as nothing:
        before = os.dup(1), os.dup(2)
        sys.stdout.flush()
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            os.dup2(before[0], 1)
            os.dup2(before[1], 2)


def floor(dataset: str) -> Cost:
    """The reference solutions' tests in this process, without isolation and without comparing anything."""
    from distillbench_plugins.grading.evalplus import Tests

    tests = [Tests(dataset, row) for row in documents(dataset).test_docs()]  # type: ignore[arg-type]
    meter = Meter()
    for one in tests:
        namespace: dict[str, Any] = {}
        exec(one.reference_code, namespace)
        function = namespace[one.entry_point]
        for section in one.inputs:
            for inputs in section:
                function(*inputs)
    return meter.cost()


def verdict(judgement: Judgement) -> Verdict:
    """A judgement in evalplus' words."""
    return judgement.scores.get("base") == 1, judgement.correct is True


def against_evalplus(dataset: str, solutions: Sequence[Solution], is_all_reference: bool) -> None:
    """Ours, theirs and the floor, in one run."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        ours(dataset, [(row["task_id"], reference(row)) for row in rows(dataset)], work, True)
        first, cost = ours(dataset, solutions, work, True)
        said, their_cost = theirs(dataset, solutions, None)
        on_both = theirs(dataset, solutions, CORES)[1]
        second, again = ours(dataset, solutions, work, True)
        references = [(row["task_id"], reference(row)) for row in rows(dataset)]
        least = Cost(min(cost.wall, again.wall), min(cost.cpu, again.cpu))
        on_references = least if is_all_reference else ours(dataset, references, work, True)[1]
    floors = [floor(dataset) for _ in range(2)]
    lowest = min(one.cpu for one in floors)
    print(f"{dataset}: {len(solutions)} solutions")
    print(f"  {'ours':<20} {least}   {dict(Counter(one.detail or 'right' for one in first))}")
    for title, other in (("evalplus as it comes", their_cost), (f"evalplus --parallel {CORES}", on_both)):
        ratios = f"{other.wall / least.wall:5.1f} x wall {other.cpu / least.cpu:5.1f} x CPU"
        print(f"  {title:<20} {other}  {ratios}")
    print(f"  reference solutions: ours {on_references}")
    print(f"  floor of these: {lowest:.1f} s CPU; ours is {on_references.cpu / lowest:.2f} times as much")
    for (name, code), mine, again_mine, their in zip(solutions, first, second, said, strict=True):
        if verdict(mine) != their or verdict(mine) != verdict(again_mine):
            print(f"  differs: {name}: ours {verdict(mine)}, {verdict(again_mine)} ({mine.detail}), evalplus {their}")
            print(f"    {code[-80:]!r}")


def published() -> None:
    """Real solutions with the verdicts that were published with them."""
    for dataset in FILES:
        file = DATA / "outputs_evalplus" / f"Meta-Llama-3-8B-Instruct_{dataset}_eval_results.json"
        said = {name: found[0] for name, found in json.loads(file.read_text())["eval"].items()}
        solutions = [(name, found["solution"]) for name, found in said.items()]
        with tempfile.TemporaryDirectory() as folder:
            found, cost = ours(dataset, solutions, Path(folder), True)
        print(f"{dataset}: {len(found)} published verdicts; ours took {cost}, reference results included")
        for (name, _), mine in zip(solutions, found, strict=True):
            base = said[name]["base_status"] == "pass"
            if verdict(mine) != (base, base and said[name]["plus_status"] == "pass"):
                print(f"  differs: {name}: ours {mine.scores} {mine.detail}, published {said[name]['base_status']}, "
                      f"{said[name]['plus_status']}")  # fmt: skip


def count_for_ever() -> None:
    """A processor hog."""
    number = 0
    while True:
        number += 1


def under_load() -> None:
    """The same verdicts three times, while both cores are busy with something else."""
    solutions = mixed()
    with tempfile.TemporaryDirectory() as folder:
        quiet, _ = ours("humaneval", solutions, Path(folder), True)
        hogs = [multiprocessing.get_context("spawn").Process(target=count_for_ever, daemon=True) for _ in range(CORES)]
        for hog in hogs:
            hog.start()
        try:
            runs = [ours("humaneval", solutions, Path(folder), True) for _ in range(3)]
        finally:
            for hog in hogs:
                hog.kill()
    for number, (found, cost) in enumerate(runs):
        changed = [name for (name, _), one, other in zip(solutions, quiet, found, strict=True)
                   if (one.correct, one.detail) != (other.correct, other.detail)]  # fmt: skip
        print(f"under load, run {number + 1}: {cost}; verdicts or details that differ from the quiet run: {changed}")


def math() -> None:
    """See grading_math.py."""
    import grading_math

    grading_math.main()


def lcb() -> None:
    """See grading_lcb.py."""
    import grading_lcb

    grading_lcb.main()


def mbpp() -> None:
    """The reference solutions of MBPP+."""
    against_evalplus("mbpp", [(row["task_id"], reference(row)) for row in rows("mbpp")], True)


PARTS: dict[str, Callable[[], None]] = {
    "humaneval": lambda: against_evalplus("humaneval", mixed(), False),
    "mbpp": mbpp,
    "published": published,
    "load": under_load,
    "math": math,
    "lcb": lcb,
}


def main() -> None:
    """Runs the parts that are named, or all."""
    wanted = sys.argv[1:] or list(PARTS)
    sys.argv = sys.argv[:1]
    with tempfile.TemporaryDirectory() as cache_folder:
        os.environ["XDG_CACHE_HOME"] = cache_folder  # evalplus writes there, and reads all of these when it is imported
        os.environ |= {variable: str(path) for variable, path in FILES.values()}
        run(wanted)


def run(wanted: Sequence[str]) -> None:
    """Runs some parts."""
    for name in wanted:
        print(f"load average {os.getloadavg()[0]:.1f}")
        PARTS[name]()


if __name__ == "__main__":
    main()
