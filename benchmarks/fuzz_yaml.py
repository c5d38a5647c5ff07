"""Mutated matrices and task files: `python benchmarks/fuzz_yaml.py [MATRICES [TASKS [SEED]]]`.

10,000 matrices and 2,000 tasks unless the command says another number.

Real examples (the quick start, the matrices of the docs, the shipped tasks) are changed as people and programs spoil
files: a value becomes an odd one, keys are lost, doubled, renamed, moved or added, and bytes are changed. Each is read,
resolved and planned in this process; nothing is trained. Whatever ends in an error that is no `DistillbenchError` is a
traceback that a user would see: it is printed with its file, kept in a folder, and the exit code is 1.
"""

from __future__ import annotations

import random
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz_mutations import mutated

from distillbench.catalog import Catalog
from distillbench.errors import DistillbenchError
from distillbench.manager import make_manager
from distillbench.matrix.resolve import load_matrix
from distillbench.plan.inspect import with_statuses
from distillbench.stages.planner import build_plan
from distillbench.store.store import Store
from distillbench.tasks.loader import LmEvalTasks

ROOT = Path(__file__).parents[1]
SEED = 20_261_201
_MOST_SECONDS = 60
_BLOCK = re.compile(r'^```yaml title="matrix.yaml"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
#: Matrices that use what the examples do not.
RICH = """
name: rich
keep: [full]
accept: [prefilled_tag]
max_cut: 0.1
launcher: {use: local}
defaults: {trainer: {max_steps: 20}, evaluation: {temperature: 0.6, top_p: 0.95}}
teachers: {concise: &c {use: synthetic, style: concise, n: 20}, verbose: {<<: *c, style: verbose}}
students: {tiny: {use: tiny-qwen3, sampling: {temperature: 0.5, max_tokens: 64}}}
renderers: {qwen3: {thinking: true}}
filters: {right: {use: correct_only}, fits: {use: max_tokens, limit: 256}}
trainers: {lora: {use: sft, max_steps: 80, checkpoint_every: 20}}
engines: {transformers: {}}
evaluations:
  coins: {max_tokens: 128, budgets: [32, 64], repeats: 2, seed: 3, stop: [END]}
  short: {benchmark: digits, limit: 5, subset: shuffled, grader_options: {}, metadata: {}}
  few: {benchmark: digits, problems: [1, 3, 5], steps: {every: 40}, num_fewshot: 2, system: S, presence_penalty: 1}
matrix:
  teacher: [concise, verbose]
  filters: [[fits], [right, fits]]
  trainer.learning_rate: [1e-4, 2e-4]
  filters.fits.limit: [100, 200]
  evaluations.coins.temperature: [0, 0.7]
  seed: [0, 1]
  exclude: [{teacher: verbose, seed: 1}]
  include: [{teacher: concise, seed: 9, name: mine, filters: [fits], filters.fits.limit: 7}]
"""
HOSTED = """
students: {m: {use: hosted, model: some}}
engines: {api: {base_url: "http://127.0.0.1:9/v1"}}
evaluations: {coins: {max_tokens: 100}, digits: {}}
"""
#: A small task with code of its own, which lm-eval can load without a network.
TASK = """
task: small
custom_dataset: !function rows.load
test_split: test
output_type: generate_until
doc_to_text: "{{question}} Put the answer in \\\\boxed{}."
doc_to_target: "{{answer}}"
num_fewshot: 0
generation_kwargs: {until: ["\\n\\n"], do_sample: false, max_gen_toks: 16, temperature: 0}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
repeats: 2
metadata: {version: 1.0, distillbench: {grader: math_boxed, grader_options: {}, docs: 6, licence: MIT}}
"""
ROWS = """
from datasets import Dataset
def load(**metadata):
    rows = [{"question": f"What is {number} + 1?", "answer": str(number + 1)} for number in range(6)]
    return {"test": Dataset.from_list(rows), "train": Dataset.from_list(rows)}
"""
OF_TASK = "task_paths: [tasks]\nstudents: {{tiny: {{use: tiny-qwen3}}}}\nevaluations: {{one: {{benchmark: '{}'}}}}\n"


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that ended in a traceback."""

    text: bytes
    error: str
    place: str


def examples() -> list[str]:
    """The matrices that are changed."""
    pages = [page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md"))]
    shown = [text for page in pages for text in _BLOCK.findall(page)]
    return [(ROOT / "examples/quickstart.yaml").read_text(encoding="utf-8"), RICH, HOSTED, *shown]


class Fuzz:
    """Reads, resolves and plans files in one folder.

    Args:
        folder: Where they are written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalog = Catalog(make_manager())
        self.store = Store(folder / "store")
        self.endings: Counter[str] = Counter()
        (folder / "rows.py").write_text(ROWS)
        (folder / "my_tasks").mkdir()  # which the docs name
        (folder / "my_tasks" / "sums.yaml").write_text("task: sums\n")

    def matrix(self, raw: bytes) -> Failure | None:
        """What becomes of a matrix file."""
        path = self.folder / "matrix.yaml"
        path.write_bytes(raw)
        return self._tried(raw, lambda: self._plan(path))

    def task(self, raw: bytes) -> Failure | None:
        """What becomes of a task file, in a matrix that names it."""
        folder = self.folder / "tasks"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "rows.py").write_text(ROWS)
        (folder / "task.yaml").write_bytes(raw)
        found = re.search(rb"task: *([\w.-]+)", raw)
        name = found[1].decode() if found else "small"
        path = self.folder / "of_task.yaml"
        path.write_text(OF_TASK.format(name))
        return self._tried(raw, lambda: self._load_task(path))

    def _plan(self, path: Path) -> Any:
        matrix = load_matrix(path, self.catalog)
        plan = build_plan(matrix.name, tuple(matrix.cells), self.catalog, matrix.tasks, lambda key: None)
        with_statuses(plan, self.store.lookup)
        return matrix

    def _load_task(self, path: Path) -> None:
        matrix = self._plan(path)
        (evaluation,) = matrix.cells[0].evaluations
        if (
            evaluation.task_path.parent == self.folder / "tasks"
            and b"custom_dataset" in evaluation.task_path.read_bytes()
        ):
            LmEvalTasks(matrix.tasks).problems(evaluation.ref, "test", 2)

    def _tried(self, raw: bytes, act: Callable[[], Any]) -> Failure | None:
        signal.signal(signal.SIGALRM, _too_slow)
        signal.alarm(_MOST_SECONDS)
        try:
            act()
        except DistillbenchError as error:
            str(error).encode("utf-8", "strict" if "\\ud" not in repr(str(error)) else "surrogatepass")
            self.endings["a mistake that is told"] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            frame = traceback.extract_tb(error.__traceback__)[-1]
            self.endings["a traceback"] += 1
            return Failure(
                raw, traceback.format_exc(), f"{type(error).__name__} in {Path(frame.filename).name}:{frame.name}"
            )
        else:
            self.endings["planned"] += 1
        finally:
            signal.alarm(0)
        return None


def _too_slow(*unused: object) -> None:
    raise TimeoutError(f"more than {_MOST_SECONDS} seconds")


def fuzz(folder: Path, matrices: int, tasks: int, seed: int) -> tuple[list[Failure], Counter[str]]:
    """Makes and tries mutated files.

    Args:
        folder: An empty folder to work in.
        matrices: How many matrices.
        tasks: How many task files.
        seed: Of the mutations.

    Returns:
        What ended in a traceback, and how all of them ended.
    """
    draw = random.Random(seed)
    each = Fuzz(folder)
    matrix_texts = examples()
    shipped = [path.read_text() for path in sorted((ROOT / "tasks/distillbench_tasks").rglob("*.yaml"))]
    found = [each.matrix(mutated(draw.choice(matrix_texts), draw)) for _ in range(matrices)]
    found += [each.task(mutated(TASK if draw.random() < 0.7 else draw.choice(shipped), draw)) for _ in range(tasks)]
    return [failure for failure in found if failure], each.endings


def main() -> int:
    """Prints how the files ended, and each kind of traceback once."""
    numbers = [int(word) for word in sys.argv[1:]]
    matrices, tasks, seed = (*numbers, *(10_000, 2_000, SEED)[len(numbers) :])
    with tempfile.TemporaryDirectory() as folder:
        failures, endings = fuzz(Path(folder), matrices, tasks, seed)
    kept = Path(tempfile.mkdtemp(prefix="fuzz_yaml-")) if failures else None
    for number, failure in enumerate(failures):
        assert kept
        (kept / f"{number}.yaml").write_bytes(failure.text)
        (kept / f"{number}.txt").write_text(failure.error, errors="replace")
    for place, count in Counter(failure.place for failure in failures).most_common():
        print(f"{count:>6}  {place}")
    print(
        f"seed {seed}: {matrices} matrices, {tasks} tasks: "
        + ", ".join(f"{count} {how}" for how, count in endings.items())
    )
    if kept:
        print(f"the files and their tracebacks are in {kept}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
