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
from collections.abc import Iterator
from pathlib import Path

from memory_steps import grading, reports, tables, training
from memory_steps.made import Size, Step

ROWS, SHORT = (10_000, 100_000), (736_000,)
MOST_GROWTH, MOST_MB = 1.1, 500
#: A stage is measured by a step of its name: its `run` makes a store in the folder, and runs the stage in it.
STEPS: dict[str, Step] = tables.STEPS | training.STEPS | grading.STEPS | reports.STEPS


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
    step.ready()
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
