"""Peak memory of what is done to rows, by how many there are: it must not grow with them.

Every step runs in a process of its own, on rows that a seed makes: lengths are lognormal about 3,000 tokens, which is
some 10 kB of text, or a tenth of that. What a step reads is made before, in another process.

Run: python benchmarks/memory.py [STEP ...] [--rows 10000 100000] [--short 736000] [--folder DIR]

Prints for each step and size: the memory that imports take; the peak above it, in all and without the pages of files
that are mapped (which the system takes back when it needs them); rows per second. A step passes when its peak at most
rows is within 10 % of that at fewest, and at most 500 MB above the imports. Exits 1 where one does not.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from distillbench.report.results import CheckpointResult

ROWS, SHORT = (10_000, 100_000), (736_000,)
#: Tokens of a row at the mean, the width of the logarithm, and characters of a token.
MEAN_TOKENS, SIGMA, CHARACTERS = 3000, 0.6, 3.4
MOST_GROWTH, MOST_MB = 1.1, 500
WORDS = "so let us check the sum again wait we have to compute x squared plus three times y over two".split()  # noqa: SIM905


@dataclass(frozen=True)
class Size:
    """How many rows, and how long."""

    n: int
    scale: float = 1.0


@dataclass(frozen=True)
class Step:
    """Something that is done to rows.

    Attributes:
        run: Does it, in a folder; gives the number of rows.
        imports: What it needs, whose memory is not its own.
        after: The step whose result it reads.
    """

    run: Callable[[Path, Size], int]
    imports: tuple[str, ...] = ()
    after: str | None = None


class Text:
    """Texts and token ids of any length, cut from a block so that making them takes no time."""

    def __init__(self, size: Size) -> None:
        self.rng = np.random.default_rng(0)
        self.block = " ".join(self.rng.choice(WORDS, 200_000))
        self.ids: NDArray[np.int32] = self.rng.integers(0, 150_000, 200_000).astype(np.int32)
        self.size = size

    def lengths(self) -> Iterator[int]:
        """The number of tokens of each row."""
        middle = np.log(MEAN_TOKENS * self.size.scale) - SIGMA**2 / 2
        for _ in range(self.size.n):
            yield int(np.clip(self.rng.lognormal(middle, SIGMA), 8, 40_000))

    def text(self, n_tokens: int) -> str:
        """A text of so many tokens."""
        n = int(n_tokens * CHARACTERS)
        start = int(self.rng.integers(0, len(self.block) - n))
        return self.block[start : start + n]

    def token_ids(self, n_tokens: int) -> NDArray[np.int32]:
        """So many token ids."""
        start = int(self.rng.integers(0, len(self.ids) - n_tokens))
        return self.ids[start : start + n_tokens]


# ---------------------------------------------------------------- the steps


def write_table(name: str) -> Callable[[Path, Size], int]:
    """Rows of a text and of token ids, written as they are made."""

    def run(folder: Path, size: Size) -> int:
        from distillbench.store.rows import IDS, TEXT, write_rows

        made = Text(size)
        rows = (
            {"id": f"p/{number}", "text": made.text(n), "ids": made.token_ids(n)}
            for number, n in enumerate(made.lengths())
        )
        return write_rows(folder / name, rows, {"id": TEXT, "text": TEXT, "ids": IDS})

    return run


def read_table(name: str) -> Callable[[Path, Size], int]:
    """Rows read one after the other."""

    def run(folder: Path, size: Size) -> int:
        from distillbench.store.rows import iterate

        return sum(len(row["ids"]) > 0 for row in iterate(folder / name))

    return run


def read_at_random(folder: Path, size: Size) -> int:
    """Every row of a mapped file once, in no order, as a trainer reads them."""
    from distillbench.store.mapped import MappedRows

    rows = MappedRows(folder / "rows.arrow", ("ids",))
    for number in np.random.default_rng(1).permutation(len(rows)):
        rows[int(number)]["ids"].sum()
    return len(rows)


REPORTED = [(cell, evaluation) for cell in ("base", "cell") for evaluation in ("math", "judged")]


def make_graded(folder: Path, size: Size) -> int:
    """Two checkpoints on two evaluations, one of verdicts and one of scores, as `sample` and `grade` leave them."""
    return sum(
        make_stage_files(folder / cell / evaluation, Size(size.n // len(REPORTED), size.scale), evaluation == "judged")
        for cell, evaluation in REPORTED
    )


def make_stage_files(folder: Path, size: Size, judged: bool) -> int:
    """The samples and the verdicts of one checkpoint on one evaluation."""
    from distillbench.store.rows import SAMPLES, VERDICTS, RowWriter

    folder.mkdir(parents=True)
    made = Text(size)
    with RowWriter(folder / SAMPLES) as samples, RowWriter(folder / VERDICTS) as graded:
        for number, n in enumerate(made.lengths()):
            same = {"sample_id": f"task/{number}#0", "problem_id": f"task/{number}", "repeat": 0, "n_tokens": n}
            doc = json.dumps({"doc": {"question": made.text(100), "answer": "7"}})
            asked = {"gold": "7", "metadata": doc, "prompt": made.text(120), "prefill": ""}
            given = {"token_ids": made.token_ids(n), "text": made.text(n), "finish_reason": "stop"}
            samples.append(same | asked | given)
            graded.append(same | made_verdict(made.rng, judged))
    return size.n


def made_verdict(rng: np.random.Generator, judged: bool) -> dict[str, object]:
    """What a grader may say of a sample."""
    outcome = str(rng.choice(["graded", "truncated"] if judged else ["correct", "wrong", "truncated", "no_answer"]))
    answer = str(rng.integers(0, 1000)) if outcome in ("correct", "wrong") else None
    scores = json.dumps({"score": float(rng.random()), "style": 1.0} if outcome == "graded" else {})
    said = {"outcome": outcome, "detail": "", "extracted": answer, "canonical": answer, "scores": scores}
    return said | {"reasoning_state": "closed", "ran_on": False, "sample_digest": "0" * 32}


def report(folder: Path, size: Size) -> int:
    """A whole report of stored samples: every number, and every file with its texts."""
    from distillbench.report.results import CellResult, Results
    from distillbench.report.tables import tables_of
    from distillbench.report.writers.folder import write

    made = tuple(checkpoint_of(folder, cell, evaluation) for cell, evaluation in REPORTED)
    write(tables_of(Results("memory", (CellResult("base"), CellResult("cell")), made)), folder / "report")
    return sum(len(one.scores) for one in made)


def checkpoint_of(folder: Path, cell: str, evaluation: str) -> CheckpointResult:
    """A checkpoint on an evaluation, from the files that its stages left."""
    from distillbench.report.results import CheckpointResult
    from distillbench.report.stored import StoredSamples
    from distillbench.store.rows import SAMPLES, VERDICTS

    files = folder / cell / evaluation
    stored = StoredSamples(files / VERDICTS, files / SAMPLES, is_cut=False)
    is_baseline = cell == "base"
    return CheckpointResult(
        cell=cell,
        step=0 if is_baseline else 100,
        evaluation=evaluation,
        task=evaluation,
        scores=stored.scores(),
        read=stored.read,
        is_baseline=is_baseline,
        baseline=None if is_baseline else "base",
    )


STORE = ("pyarrow.parquet", "distillbench.store.rows", "distillbench.store.mapped")
REPORT = ("distillbench.report.writers.folder", "distillbench.report.stored", "scipy.stats")
#: A stage is measured by a step of its name: its `run` makes a store in the folder, and runs the stage in it.
STEPS = {
    "write": Step(write_table("rows.parquet"), STORE),
    "read": Step(read_table("rows.parquet"), STORE, after="write"),
    "write-arrow": Step(write_table("rows.arrow"), STORE),
    "read-arrow": Step(read_table("rows.arrow"), STORE, after="write-arrow"),
    "read-random": Step(read_at_random, STORE, after="write-arrow"),
    "graded": Step(make_graded, STORE),
    "report": Step(report, (*STORE, *REPORT), after="graded"),
}


# ---------------------------------------------------------------- measuring


def memory() -> dict[str, int]:
    """This process's memory in kB, by the names that Linux has for it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if "kB" in value}


class Watch:
    """The most memory that is not a file's, looked at every 20 ms."""

    def __init__(self) -> None:
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.02):
            self.peak = max(self.peak, memory()["RssAnon"])


def measure(name: str, folder: Path, size: Size) -> dict[str, float]:
    """Runs a step in this process."""
    step = STEPS[name]
    for module in step.imports:
        importlib.import_module(module)
    before, begin = memory(), time.perf_counter()
    with Watch() as watch:
        n = step.run(folder, size)
    return {
        "rows": n,
        "seconds": time.perf_counter() - begin,
        "imports": before["VmRSS"] / 1024,
        "peak": memory()["VmHWM"] / 1024,
        "own": (before["VmRSS"] - before["RssAnon"] + max(watch.peak, before["RssAnon"])) / 1024,
    }


def measured(name: str, folder: Path, size: Size) -> dict[str, float]:
    """What `measure` finds in a process of its own."""
    command = [sys.executable, __file__, "--one", name, str(size.n), str(size.scale), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} of {size.n} rows failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def prepared(name: str | None, folder: Path, size: Size, made: set[str]) -> None:
    """Makes what a step reads, unless it is there."""
    if name is not None and name not in made:
        prepared(STEPS[name].after, folder, size, made)
        measured(name, folder, size)
        made.add(name)


def show(name: str, size: Size, found: dict[str, float]) -> None:
    """One line of the table."""
    print(
        f"{name:12} {size.n:>8,} rows  imports {found['imports']:5.0f} MB  peak {found['peak']:5.0f} MB  "
        f"above {found['peak'] - found['imports']:5.0f} MB  without mapped files {found['own']:5.0f} MB  "
        f"{found['rows'] / found['seconds']:8,.0f} rows/s",
        flush=True,
    )


def verdicts(name: str, found: dict[Size, dict[str, float]]) -> Iterator[str]:
    """What a step fails by."""
    long = [one["own"] for size, one in sorted(found.items(), key=lambda item: item[0].n) if size.scale == 1]
    if len(long) > 1:
        print(f"{name:12} peak at most rows / at fewest: {long[-1] / long[0]:.3f}", flush=True)
        if long[-1] > MOST_GROWTH * long[0]:
            yield f"{name}: its peak grows from {long[0]:.0f} to {long[-1]:.0f} MB"
    for size, one in found.items():
        if one["own"] - one["imports"] > MOST_MB:
            yield f"{name}: {one['own'] - one['imports']:.0f} MB above its imports at {size.n:,} rows"


def main() -> None:
    """Measures the steps that are asked for."""
    if sys.argv[1:2] == ["--one"]:
        name, n, scale, folder = sys.argv[2:]
        print(json.dumps(measure(name, Path(folder), Size(int(n), float(scale)))))
        return
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)}; all where none is named")
    asked.add_argument("--rows", nargs="*", type=int, default=ROWS)
    asked.add_argument("--short", nargs="*", type=int, default=SHORT, help="rows of a tenth of the length")
    asked.add_argument("--folder", type=Path, help="where the rows are made: some 4 GB for 100,000")
    given = asked.parse_args()
    if unknown := {*given.steps} - STEPS.keys():
        asked.error(f"no step {', '.join(sorted(unknown))}; there are {', '.join(STEPS)}")
    sizes = [*(Size(n) for n in given.rows), *(Size(n, 0.1) for n in given.short)]
    found: dict[str, dict[Size, dict[str, float]]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            made: set[str] = set()
            for name in given.steps or STEPS:
                prepared(STEPS[name].after, Path(folder), size, made)
                one = measured(name, Path(folder), size)
                made.add(name)
                found.setdefault(name, {})[size] = one
                show(name, size, one)
    failed = [why for name, by_size in found.items() for why in verdicts(name, by_size)]
    sys.exit("\n".join(failed) or 0)


if __name__ == "__main__":
    main()
