"""The built-in benchmarks in lm-eval's own command line: the same verdicts as ours on the same completions.

The problems are our own; each is answered in every way that matters, and nothing is prefilled.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import yaml
from data_problems import COPIES, HUB, MATH500, TASK_ROOT, counted, kodcode, tasks_of, write_copies

from distillbench.catalog import Catalog
from distillbench.errors import Place
from distillbench.manager import make_manager
from distillbench.options import Given, resolve_options
from distillbench.outcomes import CORRECT, GRADER_ERROR, decide_all
from distillbench.protocols import Context, Grader
from distillbench.records import Completion, TaskRef
from distillbench.tasks.data import DATA_ROOT
from distillbench_plugins.renderers.reasoning import split_reasoning

SCRIPT = Path(__file__).with_name("scripted_lm_eval.py")
#: A right answer to each problem of our own, by task.
RIGHT: Mapping[str, list[str]] = {
    "math500": [f"\\boxed{{{row['answer']}}}" for row in MATH500],
    "aime": ["\\boxed{25}", "\\boxed{4}"],
    "humaneval_plus": ["def double(x):\n    return 2 * x", 'def join(parts, by="-"):\n    return by.join(parts)'],
    "mbpp_plus": ["def double(x):\n    return 2 * x", 'def join(parts, by="-"):\n    return by.join(parts)'],
    "livecodebench": [
        "a, b = map(int, input().split())\nprint(a + b)",
        "class Solution:\n    def twice(self, s, n):\n        return s * n",
        "class Solution:\n    def flags(self, xs):\n        return [x == 1 for x in xs]",
    ],
    "kodcode": [str(kodcode(number)["response"]) for number in range(4)],
    "codeforces": ["print(2 * int(input()))", "print(1, 2)"],
}
GRADERS = Catalog(make_manager()).kind("benchmark")
WRONG = {"math500": "\\boxed{-77}", "aime": "\\boxed{0}"}


def completions(task: str) -> Iterator[str]:
    """One completion for each problem: right, wrong and unfinished in turn, with and without reasoning."""
    for right, shape in zip(RIGHT[task], cycle(range(7)), strict=False):
        answer, wrong = _written(task, right), _written(task, WRONG.get(task, "raise SystemExit(3)"))
        yield (
            answer,
            f"<think>\nFirst {wrong}\n</think>\n\n{answer}",
            f"<think>\n{answer}\n</think>\n\n{wrong}",
            f"<think>\n{answer}",
            "I do not know.",
            f"{wrong}\n\nNo: {answer}",
            "",
        )[shape]


def _written(task: str, answer: str) -> str:
    return answer if task in WRONG else f"```python\n{answer}\n```"


def is_graded(task: str) -> bool:
    """Whether the grader that the task names is registered."""
    return tasks_of(None).index.find(task).settings["grader"] in GRADERS


def grader_of(task: str) -> Grader:
    """The grader that the task names, with the task's options."""
    settings = tasks_of(None).index.find(task).settings
    component = GRADERS[settings["grader"]]
    layer = {name: Given(value, Place("yaml")) for name, value in settings.get("grader_options", {}).items()}
    built: Any = component(resolve_options(component.Options, [layer], Place("yaml"), task).options)
    return built


def ours(task: str, root: Path, said: Mapping[str, str], work: Path) -> list[float]:
    """What our own pipeline says of the same completions."""
    tasks, grader = tasks_of(root), grader_of(task)
    if grader.needs_task:
        grader = grader.with_task(tasks.load(counted(task)))
    pairs = []
    for problem in tasks.problems(counted(task), "test"):
        text = said[problem.messages[0].content]
        reasoning, answer, state = split_reasoning(text)
        pairs.append((Completion(text, (), "stop", "", reasoning, answer, state), problem))
    with grader.open(Context(work=work, tasks=tasks)) as grading:
        verdicts = list(decide_all(pairs, grader, grading))
    return [math.nan if one.outcome == GRADER_ERROR else float(one.outcome == CORRECT) for one in verdicts]


def own_tasks(folder: Path) -> None:
    """A YAML for each benchmark that includes the built-in one and says how many problems of our own there are."""
    for task in RIGHT:
        n = COPIES[task][2]
        metadata = tasks_of(None).index.find(task).config["metadata"]
        changed = metadata | {"data": metadata["data"] | {"rows": n, "file_rows": n}}
        (path,) = TASK_ROOT.rglob(f"{task}.yaml")
        text = yaml.safe_dump({"include": str(path), "task": f"own_{task}", "metadata": changed})
        (folder / f"own_{task}.yaml").write_text(text)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One run of lm-eval's command line over all tasks: the data, what was said to each prompt, and the results."""
    base = tmp_path_factory.mktemp("stock")
    root = write_copies(base / "data")
    own_tasks(base)
    said: dict[str, dict[str, str]] = {}
    for task in filter(is_graded, RIGHT):
        prompts = [problem.messages[0].content for problem in tasks_of(root).problems(counted(task), "test")]
        said[task] = dict(zip(prompts, completions(task), strict=True))
    merged = {prompt: text for task in said.values() for prompt, text in task.items()}
    assert len(merged) == sum(map(len, said.values())), "no prompt is asked by two tasks"
    (base / "said.json").write_text(json.dumps(merged), encoding="utf-8")
    command = [
        *(sys.executable, str(SCRIPT), str(base / "said.json"), "--model", "scripted"),
        *("--tasks", ",".join(f"own_{task}" for task in said), "--include_path", str(base)),
        *("--output_path", str(base / "out"), "--log_samples"),
    ]
    environment = os.environ | {DATA_ROOT: str(root), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, cwd=base, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    (results,) = (base / "out").rglob("results_*.json")
    return root, said, json.loads(results.read_text())["results"], base / "out"


@pytest.mark.slow
@pytest.mark.parametrize("task", RIGHT)
def test_every_verdict_and_the_accuracy_are_the_stock_commands(stock: Any, task: str, tmp_path: Path) -> None:
    root, said, results, output = stock
    if task not in said:
        pytest.skip(f"no plugin registers the grader of {task}")
    metric = "exact_match" if task in WRONG else "pass@1"
    (samples,) = output.rglob(f"samples_own_{task}_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    assert [row["resps"][0][0] for row in sorted(rows, key=lambda row: row["doc_id"])] == list(said[task].values())
    theirs = [row[metric] for row in sorted(rows, key=lambda row: row["doc_id"])]
    mine = ours(task, root, said[task], tmp_path)
    assert not any(math.isnan(score) for score in mine), "no grader fails on problems of our own"
    assert mine == theirs
    assert results[f"own_{task}"][f"{metric},none"] == pytest.approx(sum(mine) / len(mine))
    assert mine[0] == 1.0, "the first answer is right"
    assert len(mine) < 3 or mine[2] == 0.0, "a draft is no answer"


@pytest.mark.slow
def test_our_names_go_before_those_of_lm_eval(tmp_path: Path) -> None:
    """lm-eval has a `humaneval_plus` and an `aime24` of its own; `--include_path` goes over them."""
    code = (
        "import sys; from lm_eval.tasks import TaskManager\n"
        "index = TaskManager(include_path=sys.argv[1])._index\n"
        "print(*(index[name].yaml_path for name in sys.argv[2:]), sep='\\n')"
    )
    names = ["humaneval_plus", "mbpp_plus", "aime24", "aime25"]
    done = subprocess.run(
        [sys.executable, "-c", code, str(TASK_ROOT), *names], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split() == [str(next(TASK_ROOT.rglob(f"{name}.yaml"))) for name in names]


def test_metadata_on_the_stock_command_line_reaches_the_data(tmp_path: Path) -> None:
    """`--metadata` replaces a key as a whole; a window and a data root are keys of their own."""
    from lm_eval.tasks import TaskManager

    root = write_copies(tmp_path)
    spec = tasks_of(root).index.find(TaskRef("livecodebench"))
    block = spec.config["metadata"]["data"] | {"rows": COPIES["livecodebench"][2]}
    given = {"window": ["2025-01-01", "2025-12-31"], "data_root": str(root), "data": block}
    manager = TaskManager(include_path=str(TASK_ROOT), include_defaults=False, metadata=given)
    loaded = manager.load("livecodebench")["tasks"]["livecodebench"]
    assert [doc["id"] for doc in loaded.test_docs()] == ["own_3"]


def test_every_benchmark_is_in_the_comparison() -> None:
    assert set(RIGHT) == set(COPIES) - {"aime25"} and set(HUB) < set(COPIES)
