"""How a report's time grows with its cells: `python benchmarks/report_cells.py [CELLS ...]`, or 50 100 200.

A store is filled with small results of every stage of a matrix, and read and reported as after a run. Prints seconds,
and how much longer each takes than the one before beside how many more cells it has; a part whose time grows faster
than its cells by half is named, and the exit code is 1. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console

from distillbench.catalog import Catalog
from distillbench.manager import make_manager
from distillbench.matrix.resolve import load_matrix
from distillbench.plan.plan import Plan
from distillbench.plan.stage import Stage
from distillbench.report.collect import collect
from distillbench.report.tables import tables_of
from distillbench.report.writers.document import summary_json
from distillbench.report.writers.folder import write
from distillbench.report.writers.terminal import print_table
from distillbench.stages.grade import Grade
from distillbench.stages.planner import build_plan
from distillbench.stages.sample import Sample
from distillbench.stages.train import Train
from distillbench.store.rows import METRICS, SAMPLES, VERDICTS, write_rows
from distillbench.store.store import Made, Store

MATRIX = """
teachers: {{concise: {{use: synthetic, style: concise}}}}
students: {{tiny: {{use: tiny-qwen3}}}}
filters: {{right: {{use: correct_only}}}}
trainers: {{lora: {{use: sft, max_steps: 80, checkpoint_every: 20}}}}
evaluations: {{coins: {{}}, digits: {{}}}}
matrix: {{seed: [{seeds}]}}
"""
STEPS = (20, 40, 60, 80)
MOST_GROWTH = 1.5
#: What later stages and reports read of any of them.
FACTS: Mapping[str, Any] = {
    "kept": 100,
    "rejected": {"right: wrong": 3},
    "rows": 100,
    "checkpoints": [{"step": step, "path": str(step), "kind": "adapter", "samples_seen": step} for step in STEPS],
    "outcomes": {"correct": 12, "wrong": 8},
    "generated": 20,
    "seconds": 1.0,
}


def samples_and_verdicts() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Those of twenty problems."""
    named = [{"sample_id": f"p/{n}#0", "problem_id": f"p/{n}", "repeat": 0, "n_tokens": 30} for n in range(20)]
    given = {"gold": "7", "metadata": "{}", "prompt": "1+6?", "text": "7", "finish_reason": "stop"}
    said = {"detail": "", "extracted": "7", "scores": "{}", "reasoning_state": "closed", "ran_on": False}
    graded = [one | said | {"outcome": "correct" if n % 5 < 3 else "wrong"} for n, one in enumerate(named)]
    return [one | given for one in named], graded


def fill(store: Store, stage: Stage) -> None:
    """Gives a stage a result."""
    samples, verdicts = samples_and_verdicts()
    folder, names = store.work(stage), []
    if isinstance(stage, Sample):
        write_rows(folder / SAMPLES, samples)
        names.append(SAMPLES)
    elif isinstance(stage, Grade):
        write_rows(folder / VERDICTS, verdicts)
        names.append(VERDICTS)
    elif isinstance(stage, Train):
        lines = [json.dumps({"step": step, "train_loss": 1.0, "held_out_nll": 1.0}) for step in STEPS]
        (folder / METRICS).write_text("\n".join(lines))
        names.append(METRICS)
    store.finish(stage, Made(tuple(names), FACTS), 1.0, {})


def filled(n_cells: int, folder: Path) -> tuple[Store, Plan]:
    """A store with every result of a matrix, and its plan."""
    catalog, store, path = Catalog(make_manager()), Store(folder / "store"), folder / "matrix.yaml"
    path.write_text(MATRIX.format(seeds=", ".join(map(str, range(n_cells)))))
    matrix = load_matrix(path, catalog)
    while True:
        plan = build_plan(matrix.name, matrix.cells, catalog, matrix.tasks, store.facts)
        lacking = [stage for stage in plan.stages.values() if store.lookup(stage) is None]
        if not lacking:
            return store, plan
        for stage in lacking:
            fill(store, stage)


def timed(n_cells: int) -> dict[str, float]:
    """Seconds of every part of a report."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, plan = filled(n_cells, folder)
        times = [time.process_time()]
        results = collect(plan, store, "a benchmark")
        times.append(time.process_time())
        tables = tables_of(results)
        times.append(time.process_time())
        write(tables, folder / "report")
        times.append(time.process_time())
        print_table(tables, Console(file=io.StringIO(), width=140))
        summary_json(tables)
        times.append(time.process_time())
    print(f"{n_cells:>6} cells, {len(plan.stages):>6} stages, {len(tables.rows):>6} rows", end="", flush=True)
    seconds = [after - before for before, after in pairwise(times)]
    return dict(zip(("collect", "tables", "write", "print"), seconds, strict=True))


def main() -> None:
    """Prints seconds and growth."""
    sizes = sorted(map(int, sys.argv[1:])) or [50, 100, 200]
    earlier: dict[str, float] = {}
    failed = []
    for place, size in enumerate(sizes):
        found = timed(size)
        print("".join(f"  {part} {seconds:6.2f} s" for part, seconds in found.items()))
        more = size / sizes[place - 1]
        growth = {part: seconds / earlier[part] for part, seconds in found.items() if part in earlier}
        if growth:
            print(f"{more:>6.1f} times the cells:" + "".join(f"  {part} x{by:.2f}" for part, by in growth.items()))
        failed += [
            f"{part} grows {by:.1f} times to {size} cells" for part, by in growth.items() if by > MOST_GROWTH * more
        ]
        earlier = found
    sys.exit("\n".join(failed) or 0)


if __name__ == "__main__":
    main()
