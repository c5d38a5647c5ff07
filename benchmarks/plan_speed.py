"""How long 10,000 cells take to resolve and to plan: `python benchmarks/plan_speed.py [CELLS]`.

Prints seconds (minimum of three runs, one process) and the limits that the project sets itself: 3 s and 15 s.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distillbench.catalog import Catalog
from distillbench.manager import make_manager
from distillbench.matrix.resolve import load_matrix
from distillbench.plan.inspect import with_statuses
from distillbench.stages.planner import build_plan
from distillbench.store.store import Store

MATRIX = """
teachers:
  concise: {{use: synthetic, style: concise}}
  verbose: {{use: synthetic, style: verbose}}
students: {{tiny: {{use: tiny-qwen3}}}}
filters: {{right: {{use: correct_only}}, fits: {{use: max_tokens, limit: 256}}}}
trainers: {{lora: {{use: sft, max_steps: 80, checkpoint_every: 20}}}}
evaluations: {{coins: {{}}, digits: {{}}}}
matrix:
  teacher: [concise, verbose]
  trainer.learning_rate: [{rates}]
  trainer.lora_rank: [8, 16, 32, 64, 128]
  seed: [{seeds}]
"""


def minimum(run: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    """The least wall time of several runs, in seconds, and what the last one returned."""
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        found = run()
        taken.append(time.perf_counter() - begin)
    return min(taken), found


def main() -> None:
    """Prints the two times."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    n_seeds = max(1, wanted // 100)
    rates = ", ".join(f"{step}e-5" for step in range(1, 11))
    catalog = Catalog(make_manager())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "matrix.yaml"
        path.write_text(MATRIX.format(rates=rates, seeds=", ".join(map(str, range(n_seeds)))))
        resolve_seconds, matrix = minimum(lambda: load_matrix(path, catalog))
        store = Store(Path(folder) / "store")

        def plan() -> Any:
            made = build_plan(matrix.name, matrix.cells, catalog, matrix.tasks, lambda key: None)
            return with_statuses(made, store.lookup)

        plan_seconds, made = minimum(plan)
    print(f"cells    {len(matrix.cells):>8}")
    print(f"stages   {len(made.stages):>8}")
    print(f"resolve  {resolve_seconds:>8.2f} s   limit  3 s   ratio {resolve_seconds / 3:.2f}")
    print(f"plan     {plan_seconds:>8.2f} s   limit 15 s   ratio {plan_seconds / 15:.2f}")


if __name__ == "__main__":
    main()
