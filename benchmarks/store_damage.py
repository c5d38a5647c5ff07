"""What a report says of a damaged store: `python benchmarks/store_damage.py [MUTATIONS] [RUN_EVERY] [FIRST]`.

A finished store, with a stage that a kill interrupted, is damaged in one place at a time: a bit is flipped, a file is
truncated, deleted, or swapped with another one, each file in turn. Then `report` (and for a part `status`, `plan`, `gc`
and a new `run`) must give the same numbers as before, or name what is missing: never another number, never a traceback.
Prints one line for each mutation that did otherwise, and the counts.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = ("flip", "truncate", "delete", "swap")
TOYS = Path(__file__).parents[1] / "tests" / "core" / "toys"

MATRIX = """
name: toys
teachers: {wise: {use: toy-teacher, n: 7, wrong: 1, bad: 1}}
students: {small: {use: toy-student}}
filters: {sure: {use: toy-verdict-filter}, short: {use: toy-filter, limit: 12}}
trainers: {fit: {use: toy-trainer}}
engines: {talk: {use: toy-engine}}
evaluations:
  toy: {repeats: 2, budgets: [2]}
LATEST
launcher: {use: toy-launcher}
matrix: {engine: talk, trainer.rate: [RATES]}
"""
#: What a kill interrupts, at its third sample, when the store is made; its journal stays.
LATE, INTERRUPTED = "  late: {benchmark: toy, limit: 4}", "kill-sample-toy-2#0"


@dataclass(frozen=True, slots=True)
class Mutation:
    """One damage.

    Attributes:
        kind: One of `KINDS`.
        file: Which file, below the store.
        seed: Decides where, and with which other file.
    """

    kind: str
    file: str
    seed: int

    def apply(self, store: Path) -> str:
        """Damages a store; returns what was done, in words."""
        chance, path = random.Random(f"{self.kind} {self.file} {self.seed}"), store / self.file
        content = path.read_bytes()
        if self.kind == "flip" and content:
            place, bit = chance.randrange(len(content)), chance.randrange(8)
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            path.write_bytes(bytes(changed))
            return f"bit {bit} of byte {place}"
        if self.kind == "truncate":
            length = chance.randrange(len(content)) if content else 0
            path.write_bytes(content[:length])
            return f"to {length} of {len(content)} bytes"
        if self.kind == "swap":
            return f"with {_swap(path, _other(path, store, chance), store)}"
        path.unlink()
        return "gone"


def _other(path: Path, store: Path, chance: random.Random) -> Path:
    """Another file: mostly one of the same name, whose content would be taken for this one's."""
    every = [other for other in _files(store) if other != path]
    alike = [other for other in every if other.name == path.name and other.read_bytes() != path.read_bytes()]
    return chance.choice(alike if alike and chance.random() < 0.8 else every)


def _swap(path: Path, other: Path, store: Path) -> str:
    ours, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(ours)
    return str(other.relative_to(store))


def _files(store: Path) -> list[Path]:
    return sorted(path for path in store.rglob("*") if path.is_file())


def mutations(store: Path, n: int) -> Iterator[Mutation]:
    """So many mutations of a store: every kind of every file, then the same at other places."""
    files = [path.relative_to(store).as_posix() for path in _files(store)]
    pairs = [(kind, file) for file in files for kind in KINDS]
    random.Random(0).shuffle(pairs)
    for number in range(n):
        kind, file = pairs[number % len(pairs)]
        yield Mutation(kind, file, number // len(pairs))


@dataclass(frozen=True, slots=True)
class Said:
    """What a command line left."""

    code: int | None
    out: str
    err: str

    @property
    def has_traceback(self) -> bool:
        """Whether it ended in an error that nobody had foreseen."""
        return self.code is None or "Traceback" in self.err + self.out


@dataclass(frozen=True)
class Bench:
    """A store to damage, and what reports say of it while it is whole.

    Attributes:
        folder: Of the matrix, the whole store (`store`), and copies of it.
        reported: The report of the whole store.
        finished: The report after the interrupted stage has run too.
    """

    folder: Path
    reported: Mapping[str, Any]
    finished: Mapping[str, Any]

    def try_one(self, mutation: Mutation, runs: bool) -> list[str]:
        """Damages a copy of the store and looks; returns what is wrong, in words."""
        store = self.folder / "damaged"
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(self.folder / "store", store)
        done = mutation.apply(store)
        wrong = [f"report: {why}" for why in self._reports(store, self.reported, may_miss=True)]
        if runs:
            for command in (["status"], ["plan", self.matrix], ["gc", "--dry-run"]):
                if (said := invoke(store, *command)).has_traceback:
                    wrong.append(f"{command[0]}: traceback: {said.err[-2000:]}")
            wrong += [f"run: {why}" for why in self._runs(store)]
        return [f"{mutation.kind} {mutation.file} ({done}): {why}" for why in wrong]

    @property
    def matrix(self) -> str:
        """The matrix file."""
        return str(self.folder / "toys.yaml")

    def _reports(self, store: Path, before: Mapping[str, Any], may_miss: bool) -> Iterator[str]:
        said = invoke(store, "report", self.matrix, "--json")
        if said.has_traceback:
            yield f"traceback: {said.err[-2000:]}"
        elif said.code != 0:
            if not (may_miss and str(store) in said.err):
                yield f"refused without saying where: {said.err[-500:]}"
        else:
            yield from differences(before, json.loads(said.out), may_miss)

    def _runs(self, store: Path) -> Iterator[str]:
        """A new run makes again what is damaged, and then nothing is missing."""
        said = invoke(store, "-q", "run", self.matrix, "--json")
        if said.has_traceback:
            yield f"traceback: {said.err[-2000:]}"
        elif said.code == 2 and "store.json" in said.err:
            return  # it does not say any more that it is a store
        elif said.code != 0:
            yield f"exit code {said.code}: {said.err[-500:]}"
        else:
            yield from differences(self.finished, json.loads(said.out), may_miss=False)
            yield from (f"then report: {why}" for why in self._reports(store, self.finished, may_miss=False))


def differences(before: Mapping[str, Any], after: Mapping[str, Any], may_miss: bool) -> Iterator[str]:
    """What a report says otherwise than one of the same store when it was whole.

    Args:
        before: Of the whole store.
        after: Of the damaged one.
        may_miss: Whether something may be missing that is named as missing.
    """
    named = {cell["name"]: bool(cell["missing"]) for cell in after["cells"]} if may_miss else {}
    any_named = any(named.values())
    for part in ("rows", "budgets"):
        ours, theirs = _by_name(before[part]), _by_name(after[part])
        yield from (f"{part}: {name} was not there before" for name in theirs.keys() - ours.keys())
        yield from (
            f"{part}: {name} is not there, and nothing says so"
            for name in ours.keys() - theirs.keys()
            if not named.get(name[0])
        )
        for name in ours.keys() & theirs.keys():
            yield from (
                f"{part}: {name}: {column} is {theirs[name][column]!r}, was {value!r}"
                for column, value in ours[name].items()
                if theirs[name][column] != value and not (any_named and _is_left_out(column, theirs[name]))
            )
    yield from _cell_differences(before, after, may_miss)


def _is_left_out(column: str, row: Mapping[str, Any]) -> bool:
    """Whether a column says nothing where it said something before."""
    of_difference = column.startswith("difference") or column in ("n_pairs", "n_dropped")
    return row[column] in (None, "") or (of_difference and row["difference"] is None)


def _cell_differences(before: Mapping[str, Any], after: Mapping[str, Any], may_miss: bool) -> Iterator[str]:
    cells = {cell["name"]: cell for cell in after["cells"]}
    for cell in before["cells"]:
        found = cells[cell["name"]]
        is_named = may_miss and bool(found["missing"])
        if found["nll"] != cell["nll"] and not (is_named and found["nll"] == []):
            yield f"{cell['name']}: losses are {found['nll']}, were {cell['nll']}"
        if found["traces"] != cell["traces"] and not (
            is_named and (found["traces"] is None or found["traces"].items() <= cell["traces"].items())
        ):
            yield f"{cell['name']}: traces are {found['traces']}, were {cell['traces']}"
        unknown = [line for line in found["preflight"] if line not in cell["preflight"]]
        if any("not on record" not in line for line in unknown):
            yield f"{cell['name']}: preflight says {unknown}"
        if not may_miss and found["missing"] != cell["missing"]:
            yield f"{cell['name']}: {found['missing']} is missing"


def _by_name(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    return {tuple(row.get(name) for name in ("cell", "step", "evaluation", "budget")): row for row in rows}


def invoke(store: Path, *arguments: str) -> Said:
    """Runs a command line in this process."""
    from distillbench.cli.main import invoke as run

    out, err = io.StringIO(), io.StringIO()
    code: int | None = None
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = run(["--store", str(store), *arguments])
        except Exception:  # what this looks for
            traceback.print_exc()
    return Said(code, out.getvalue(), err.getvalue())


def make_bench(folder: Path, rates: str = "0.1, 0.2") -> Bench:
    """Runs the toys, and interrupts them; the toy plugin must be installed, and TOY_CONTROL name a folder.

    Args:
        folder: Where to; empty.
        rates: One cell for each.
    """
    matrix, store, control = str(folder / "toys.yaml"), folder / "store", Path(os.environ["TOY_CONTROL"])
    Path(matrix).write_text(MATRIX.replace("RATES", rates).replace("LATEST", ""), encoding="utf-8")
    if (whole := invoke(store, "run", matrix)).code != 0:
        raise RuntimeError(f"the run does not end well: {whole.err}")
    Path(matrix).write_text(MATRIX.replace("RATES", rates).replace("LATEST", LATE), encoding="utf-8")
    (control / INTERRUPTED).touch()
    interrupted = invoke(store, "run", matrix)
    (control / INTERRUPTED).unlink()
    if interrupted.code != 1:
        raise RuntimeError(f"nothing was interrupted: {interrupted.err}")
    reported = json.loads(invoke(store, "report", matrix, "--json").out)
    shutil.copytree(store, folder / "finished")
    if (again := invoke(folder / "finished", "-q", "run", matrix, "--json")).code != 0:
        raise RuntimeError(f"the run does not end well: {again.err}")
    return Bench(folder, reported, json.loads(again.out))


def install_toys(folder: Path) -> None:
    """Makes the toy plugin of the tests an installed distribution of this process and its workers."""
    about = folder / "distillbench_toys-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: distillbench-toys\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[distillbench]\ntoys = distillbench_toys\n")
    shutil.copytree(TOYS, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    sys.path.insert(0, str(folder))


def main() -> None:
    """Prints what went wrong, and the counts."""
    n, run_every, first = (int(given) for given in (*sys.argv[1:], *("1461", "10", "0")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        install_toys(folder / "site")
        (folder / "control").mkdir()
        os.environ["TOY_CONTROL"] = str(folder / "control")
        begin, bench = time.perf_counter(), make_bench(folder)
        print(f"a store of {len(_files(folder / 'store'))} files in {time.perf_counter() - begin:.0f} s", flush=True)
        counts: Counter[str] = Counter()
        for number, mutation in list(enumerate(mutations(folder / "store", n)))[first:]:
            runs = number % run_every == 0
            wrong = bench.try_one(mutation, runs)
            counts.update([mutation.kind, "run again" if runs else "", *(["wrong"] if wrong else [])])
            counts["tracebacks"] += any("traceback" in why for why in wrong)
            for why in wrong:
                print(why, flush=True)
            if number % 100 == 99:
                print(f"{number + 1} of {n}", flush=True)
        del counts[""]
    print(f"{n - first} mutations in {time.perf_counter() - begin:.0f} s: {dict(counts)}")
    sys.exit(1 if counts["wrong"] else 0)


if __name__ == "__main__":
    main()
