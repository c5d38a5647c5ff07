r"""The `math_boxed` grader against math-verify: `python benchmarks/grading_math.py [REPEATS]`.

Two parts, on real data from `../shared/data`:

- boxes: 5,000 different pairs of gold answer and box. The boxes are those of real outputs, AIME and MATH-500 answers
  set otherwise or with one digit changed, and, to fill up, real boxes of other problems. math-verify's side is
  `verify(parse(gold), parse(box))` as it comes; every verdict that differs is printed with why.
- long: the 300 longest outputs among 183 long chains of thought, whole and cut off halfway, as a token budget does.
  math-verify reads the raw text, as its users have it do; ours finds the box in the answer part first.

Seconds are the least of REPEATS runs (2), child processes included. Both sides have graded other answers before, since
a grading is held open for all stages; what it takes to get there is printed.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import psutil
from math_verify import parse, verify
from math_verify.errors import TimeoutException

from distillbench.protocols import Context
from distillbench.records import Judgement, Message, Problem
from distillbench_plugins.benchmarks.math_boxed import MathBoxed, MathBoxedOptions
from distillbench_plugins.grading.mathematics.bases import same_numeral
from distillbench_plugins.grading.mathematics.boxes import last_boxed
from distillbench_plugins.grading.mathematics.exact import percent_pair, shortcut
from distillbench_plugins.grading.mathematics.normal import RULES, normalised
from distillbench_plugins.grading.mathematics.relations import said
from distillbench_plugins.grading.mathematics.units import measured

DATA = Path(__file__).parents[2] / "shared" / "data"
N_PAIRS, N_LONG, N_WARM = 5_000, 300, 200
#: The first of the outputs are short.
N_SHORT = 500
#: What closes the reasoning in the outputs used here.
MARKS = ("</think>", "<|end_of_thought|>")

Pair = tuple[str, str]  # gold answer, and box or output


def rows(*parts: str) -> list[Any]:
    """A JSON-lines file's rows."""
    return [json.loads(line) for line in DATA.joinpath(*parts).read_text(encoding="utf-8").splitlines()]


def outputs() -> list[Pair]:
    """All real outputs with their gold answers, raw."""
    qwen = rows("outputs_math", "Qwen2.5-14B-Instruct_math500.jsonl")
    r1 = rows("traces", "thought_anchors_math_r1distill.jsonl")
    long = rows("outputs_longcot", "skyt1-14B_aime24.jsonl")
    return [
        *((str(row["answer"]), str(row["code"][0])) for row in qwen),
        *((str(row["gt_answer"]), str(row["trace"])) for row in r1),
        *((str(row["gt"]), str(row["code"][0])) for row in long),
    ]


def answer_part(output: str) -> str:
    """What follows the closed reasoning; the whole output where there is no reasoning."""
    for mark in MARKS:
        _, closed, answer = output.rpartition(mark)
        if closed:
            return answer
    return "" if "<think>" in output or "<|begin_of_thought|>" in output else output


def variants(gold: str) -> Iterator[str]:
    """A gold answer set otherwise, and with its last digit changed."""
    yield gold
    yield gold.replace("\\frac", "\\dfrac").replace(" ", "")
    yield gold.replace(",", ", ").replace("\\left(", "(").replace("\\right)", ")")
    yield gold + "."
    yield f"x = {gold}"
    place = next((place for place in range(len(gold) - 1, -1, -1) if gold[place] in "0123456789"), None)
    if place is not None:
        yield gold[:place] + str((int(gold[place]) + 1) % 10) + gold[place + 1 :]


def pairs() -> list[Pair]:
    """The 5,000 pairs, always the same; no pair twice."""
    real = [(gold, box) for gold, text in outputs() if (box := last_boxed(answer_part(text))) is not None]
    aime = [str(row["answer"]) for row in rows("aime_2022_2024", "aimo-validation-aime.jsonl")]
    aime += [str(row["reference_solution"]).split("#### ")[1] for row in rows("aime25", "aime25_promptcot.jsonl")]
    set_otherwise = [(gold, box) for gold in aime for box in (gold, gold.zfill(3), *variants(gold))]
    golds = [str(row["answer"]) for row in rows("math500", "math500.jsonl")]
    found = dict.fromkeys([*real, *set_otherwise, *((gold, box) for gold in golds for box in variants(gold))])
    draw = random.Random(0)
    while len(found) < N_PAIRS:
        found[draw.choice(golds), draw.choice(real)[1]] = None
    return list(found)[:N_PAIRS]


def long_outputs() -> list[Pair]:
    """The 300 longest of the long outputs, each whole and cut off halfway."""
    whole = outputs()[N_SHORT:]
    both = whole + [(gold, text[: len(text) // 2]) for gold, text in whole]
    return sorted(both, key=lambda pair: -len(pair[1]))[:N_LONG]


@dataclass(frozen=True, order=True)
class Cost:
    """What some work took.

    Attributes:
        cpu: Seconds of all cores, child processes included.
        wall: Seconds by the clock.
    """

    cpu: float
    wall: float

    @classmethod
    def so_far(cls) -> Cost:
        """What this process and its children, dead or alive, have taken up to now."""
        alive = (child.cpu_times() for child in psutil.Process().children())
        return cls(sum(os.times()[:4]) + sum(times.user + times.system for times in alive), time.perf_counter())

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.cpu - other.cpu, self.wall - other.wall)


def boxed(answer: str) -> str:
    """A box as math-verify likes it best."""
    return f"$\\boxed{{{answer}}}$"


def theirs(gold: str, text: str, **more: Any) -> bool:
    """math-verify's verdict, with its defaults."""
    read = {"raise_on_error": more["raise_on_error"]} if more else {}
    return bool(verify(parse(boxed(gold), **read), parse(text, **read), **more))


def their_run(asked: Sequence[Pair], extract: bool) -> tuple[Cost, list[bool]]:
    """What math-verify takes, and its verdicts."""
    for gold, box in warm_up():
        theirs(gold, boxed(box))
    begin = Cost.so_far()
    verdicts = [theirs(gold, text if extract else boxed(text)) for gold, text in asked]
    return Cost.so_far() - begin, verdicts


def our_run(asked: Sequence[Pair], extract: bool) -> tuple[Cost, list[Judgement | None]]:
    """What our grader takes, and its judgements; None where there is no complete answer."""
    grader = MathBoxed(MathBoxedOptions())
    with tempfile.TemporaryDirectory() as folder, grader.open(Context(Path(folder))) as grading:
        start = Cost.so_far()
        list(grading.judge_all((problem(gold), box) for gold, box in warm_up()))
        begin = Cost.so_far()
        answers = [grader.extract(answer_part(text), problem("")) if extract else text for _, text in asked]
        complete = [(problem(gold), box) for (gold, _), box in zip(asked, answers, strict=True) if box is not None]
        told = iter(list(grading.judge_all(complete)))
        found = [None if box is None else next(told) for box in answers]
        cost = Cost.so_far() - begin
    print(f"  (ours: {(begin - start).cpu:.2f} cpu-s before, to start and for {N_WARM} other answers)")
    return cost, found


def judged(complete: Sequence[tuple[Problem, str]]) -> list[Judgement]:
    """Our judgements of complete answers."""
    with tempfile.TemporaryDirectory() as folder, MathBoxed(MathBoxedOptions()).open(Context(Path(folder))) as grading:
        return list(grading.judge_all(complete))


def problem(gold: str) -> Problem:
    """A problem with this gold answer."""
    return Problem("", "math", (Message("user", ""),), gold)


def warm_up() -> list[Pair]:
    """Pairs that are in no part: gold answers of MATH's training problems, with one digit changed."""
    trained = json.loads((DATA / "math_train" / "math_train_subset.json").read_text(encoding="utf-8"))
    golds = dict.fromkeys(str(row["answer"]) for row in trained if "\\" in str(row["answer"]))
    return [(gold, list(variants(gold))[-1]) for gold in list(golds)[:N_WARM]]


def reason(gold: str, answer: str) -> str:
    """Why a verdict may differ: math-verify raises or runs out of time, or a rule applies; `none known` otherwise."""
    try:
        theirs(gold, boxed(answer), raise_on_error=True)
    except TimeoutException:
        return "math-verify ran out of time"
    except Exception as error:
        return f"math-verify raised {type(error).__name__}: {error}"
    applied = {rule.name for rule in RULES for text in (gold, answer) if rule.apply(text) != text}
    applied |= deliberate(normalised(gold), normalised(answer))
    return f"normalised by {', '.join(sorted(applied))}" if applied else "none known"


def deliberate(gold: str, answer: str) -> set[str]:
    """Which of our own rules have a say in two normalised texts: see the table in docs/benchmarks.md."""
    found = said(gold, answer)
    rules = {
        "percent_pair": percent_pair(gold, answer) != ((gold,), answer),
        "a numeral's base": same_numeral(gold, answer) is not None,
        "relations or the number of values": found is None or found.values != (answer,),
        "another unit": measured(answer, gold).is_other(measured(gold, answer, is_gold=True)),
        "small numbers": shortcut(gold, answer) is False,
    }
    return {name for name, applies in rules.items() if applies}


def show(title: str, n: int, costs: Sequence[Cost], wanted: float) -> None:
    """One part's figures."""
    their, our = costs
    print(f"{title}: {n} answers")
    for name, cost in (("math-verify", their), ("math_boxed", our)):
        print(f"  {name:<12} {cost.cpu:>8.2f} cpu-s {cost.wall:>8.2f} s {1e3 * cost.cpu / n:>8.3f} cpu-ms each")
    print(f"  ratio {their.cpu / our.cpu:.1f} in cpu-s ({wanted:g} wanted), {their.wall / our.wall:.1f} by the clock")


def compare(title: str, asked: Sequence[Pair], repeats: int, wanted: float, extract: bool) -> int:
    """Runs and prints one part; gives how many verdicts differ without a known reason."""
    our, judgements = min((our_run(asked, extract) for _ in range(repeats)), key=lambda run: run[0])
    their, verdicts = min((their_run(asked, extract) for _ in range(repeats)), key=lambda run: run[0])
    show(title, len(asked), (their, our), wanted)
    unknown = 0
    for (gold, text), theirs_said, judgement in zip(asked, verdicts, judgements, strict=True):
        right = None if judgement is None else judgement.correct
        if right is theirs_said or (judgement is None and not theirs_said):
            continue
        box = text if not extract else last_boxed(answer_part(text))
        why = "no box in the answer part" if box is None else reason(gold, box)
        if extract and why == "none known" and theirs(gold, boxed(box or "")) is right:
            why = "math-verify took something other than the box"
        unknown += why == "none known"
        error = "" if judgement is None else judgement.error or ""
        print(f"  gold {gold!r}, box {box!r}: math-verify {theirs_said}, ours {right} {error}({why})")
    print(f"  verdicts that differ for no known reason: {unknown}", flush=True)
    return unknown


def main() -> int:
    """Prints both parts; not 0 when a verdict differs for no known reason."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    logging.disable()  # math-verify tells of each time-out
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}; least of {repeats} runs")
    unknown = compare("boxes", pairs(), repeats, 2.5, extract=False)
    return unknown + compare("long", long_outputs(), repeats, 20, extract=True)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
