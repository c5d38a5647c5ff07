"""Toy components: real stages in milliseconds, without torch. The folder TOY_CONTROL steers and records them.

Files that steer: `fail-<what>` (raise), `kill-<what>` (SIGKILL to itself), `sleep-<what>` (seconds), `errors` (sample
ids that the engine fails on), `salt` (makes a teacher and a trainer that are not deterministic).
Files that record: `<what>.log`, one line for each call.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from distillbench.errors import StageError
from distillbench.hookspecs import hookimpl
from distillbench.manager import BUILTIN_MODULES
from distillbench.plan.stage import Stage, unkeyed
from distillbench.protocols import Engine, Filter, Grader, Renderer, Student, Teacher, Trainer
from distillbench.records import (
    Checkpoint,
    Completion,
    Generation,
    Judgement,
    Message,
    Problem,
    Prompt,
    Rendered,
    Resources,
    RowCounts,
    Trace,
)
from distillbench.run import worker
from distillbench.store.store import Made
from distillbench_plugins.launchers.local import LocalHandle, LocalLauncher

CONTROL = "TOY_CONTROL"


def control(name: str) -> str | None:
    """What a steering file says; None when it is not there."""
    folder = os.environ.get(CONTROL)
    path = Path(folder) / name if folder else None
    return path.read_text() if path and path.exists() else None


def record(what: str, line: str) -> None:
    """Adds a line to a log."""
    if folder := os.environ.get(CONTROL):
        with (Path(folder) / f"{what}.log").open("a") as stream:
            stream.write(line + "\n")


def steer(what: str) -> None:
    """Does what the steering files say."""
    until = time.monotonic() + float(control(f"sleep-{what}") or 0)
    while time.monotonic() < until and control(f"sleep-{what}") is not None:
        time.sleep(0.02)  # a test may take the file away
    if (why := control(f"fail-{what}")) is not None:
        raise StageError(why)
    if control(f"kill-{what}") is not None:
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def holding_gpus(who):
    """Records which GPUs a process sees, when it begins and when it ends."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    record("gpus", f"begin {who}: {seen}")
    yield
    record("gpus", f"end {who}: {seen}")


@dataclass(frozen=True)
class TeacherOptions:
    """Options of the toy teacher.

    Attributes:
        n: Problems.
        task: Whose training problems; null for a teacher that names none.
        wrong: Problems that it gets wrong.
        bad: Traces, from the end, that hold a character which no text holds; all beyond the first such are empty.
        path: A file whose content is part of the key.
        odd: What it gives after them, by name: see `odd_traces`.
        ids: Of its first traces; the others have none.
    """

    n: int = 4
    task: str | None = "toy"
    wrong: int = 0
    bad: int = 0
    path: Path | None = None
    odd: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()


def odd_traces(trace):
    """What a teacher may give in place of a trace, by name."""
    problem = trace.problem
    message = problem.messages[0]
    return {
        "null": None,
        "dict": {"question": "?", "answer": "5"},
        "list": [trace],
        "no problem": replace(trace, problem=None),
        "no messages": replace(trace, problem=replace(problem, messages=())),
        "null messages": replace(trace, problem=replace(problem, messages=None)),
        "messages of dicts": replace(trace, problem=replace(problem, messages=({"role": "user", "content": "?"},))),
        "content in parts": replace(trace, problem=replace(problem, messages=(Message("user", [{"text": "?"}]),))),
        "null content": replace(trace, problem=replace(problem, messages=(message, Message("user", None)))),
        "role": replace(trace, problem=replace(problem, messages=(Message("human", "?"),))),
        "null gold": replace(trace, problem=replace(problem, gold=None)),
        "a number for a gold": replace(trace, problem=replace(problem, gold=5)),
        "null id": replace(trace, problem=replace(problem, problem_id=None)),
        "metadata": replace(trace, problem=replace(problem, metadata={"a": 1, 2: 3})),
        "null answer": replace(trace, answer=None),
        "answers": replace(trace, answer=["5", "6"]),
        "reasoning": replace(trace, reasoning={"text": "hm"}),
        "eos": replace(trace, finish_reason="eos"),
        "null reason": replace(trace, finish_reason=None),
        "tokens": replace(trace, n_tokens=float("nan")),
        "null source": replace(trace, source=None),
        "half a character": replace(trace, source="row \ud800"),
        "half an id": replace(trace, trace_id="row \ud800"),
    }


class ToyTeacher(Teacher[TeacherOptions]):
    """Says numbers again: the training problems of the toy task, without loading it."""

    name = "toy-teacher"

    def inputs(self):
        return (self.options.path,) if self.options.path else ()

    def task(self):
        return self.options.task

    def traces(self, context, start):
        for number in range(start, self.options.n):
            steer("teacher")
            steer(f"teacher-{number}")
            record("teacher", str(number))
            yield self._trace(number)
        for name in self.options.odd[max(0, start - self.options.n) :]:
            yield odd_traces(self._trace(0))[name]

    def _trace(self, number):
        gold = str(100 + number)
        problem = Problem(f"toy/{gold}", "toy", (Message("user", f"Say {gold}"),), gold, {"doc": {}})
        answer = "0" if number < self.options.wrong else gold
        reasoning = "hm " * number + (control("salt") or "")
        if self.options.bad and number >= self.options.n - self.options.bad:
            reasoning, answer = ("", " ") if number > self.options.n - self.options.bad else ("\x0crac", gold)
        trace_id = self.options.ids[number] if number < len(self.options.ids) else ""
        return Trace(problem, reasoning, answer, "stop", None, self.name, f"toy {number}", trace_id)


@dataclass(frozen=True)
class StudentOptions:
    """Options of the toy student.

    Attributes:
        seed: Of its weights.
        threads: Speed only.
        gpus: What training and sampling it ask for.
    """

    seed: int = 0
    threads: int = field(default=1, metadata={"key": False})
    gpus: int = field(default=0, metadata={"key": False})


class ToyTokenizer:
    """One token for each character; token 0 ends a turn and has no text."""

    bos_token_id = pad_token_id = chat_template = None
    eos_token_id = 0
    added_tokens_decoder: ClassVar = {}

    def __call__(self, text, **options):
        return {"input_ids": self.encode(text)}

    def encode(self, text, **options):
        return [ord(character) for character in text]

    def convert_ids_to_tokens(self, token):
        return chr(token)

    def decode(self, ids, **options):
        return "".join(chr(int(token)) for token in ids if token)


class ToyStudent(Student[StudentOptions]):
    """A file of text that stands for weights."""

    name = "toy-student"
    builds = True

    def renderer(self):
        return "toy-renderer"

    def resources(self):
        return Resources(gpus=self.options.gpus)

    def build(self, folder, context):
        steer("student")
        record("student", str(self.options.seed))
        (folder / "model.safetensors").write_text(f"weights {self.options.seed}")

    def load_tokenizer(self, built):
        return ToyTokenizer()

    def load_model(self, built, device, weights=None):
        return ((weights or built) / "model.safetensors").read_text()


class ToyHubStudent(ToyStudent):
    """A student that is there already, so that no stage builds it."""

    name = "toy-hub-student"
    builds = False


@dataclass(frozen=True)
class RendererOptions:
    """Options of the toy renderer.

    Attributes:
        system: A line before every prompt.
        end_loss: False forgets that the end of a turn is to be learned.
    """

    system: str = ""
    end_loss: bool = True


class ToyRenderer(Renderer[RendererOptions]):
    """Characters; what follows `=` is the answer, token 0 ends the turn."""

    name = "toy-renderer"

    def stop_token_ids(self):
        return (0,)

    def reasoning_tags(self):
        return None

    def prompt(self, messages, prefill="auto"):
        steer(f"prompt-{prefill}")
        text = self.options.system + messages[-1].content
        return Prompt(np.array(self.tokenizer.encode(text), dtype=np.int32), "")

    def render(self, trace):
        record("rendered", trace.source)
        prompt = self.prompt(trace.problem.messages).input_ids
        response = np.array([*self.tokenizer.encode(f"{trace.reasoning or ''}={trace.answer}"), 0], dtype=np.int32)
        mask = np.repeat([False, True], [len(prompt), len(response)])
        mask[-1] = self.options.end_loss
        return Rendered(np.concatenate([prompt, response]), mask)

    def parse(self, token_ids, text, finish_reason, prefill):
        reasoning, closed, answer = text.partition("=")
        state = "closed" if closed else "open"
        return Completion(text, tuple(token_ids), finish_reason, prefill, reasoning, answer, state)


@dataclass(frozen=True)
class FilterOptions:
    """Options of the toy filter.

    Attributes:
        limit: The most characters of a reasoning.
    """

    limit: int = 1000


class ToyFilter(Filter[FilterOptions]):
    """Rejects long reasoning."""

    name = "toy-filter"

    def reason(self, trace, context):
        record("filter", trace.source)
        return None if len(trace.reasoning or "") <= self.options.limit else f"long: {len(trace.reasoning)}"


@dataclass(frozen=True)
class OddFilterOptions:
    """Options of the odd filter.

    Attributes:
        gives: What it gives: see `decide`.
    """

    gives: str = "whole"


class ToyOddFilter(Filter[OddFilterOptions]):
    """Decides on the whole set at once, well or not."""

    name = "toy-odd-filter"

    def decide(self, traces, context):
        if self.options.gives == "nothing":
            return None
        if self.options.gives == "unread":
            return iter([None])
        n = sum(1 for _ in traces)
        return iter(
            {
                "whole": [None] * n,
                "few": [None] * (n - 1),
                "none": [],
                "many": [None] * (n + 1),
                "number": [5] * n,
                "half": ["a \ud800"] * n,
            }[self.options.gives]
        )


class ToyRowFilter(ToyFilter):
    """Rejects rows that are long as the student sees them."""

    name = "toy-row-filter"
    reads = frozenset({"length"})

    def reason(self, trace, context):
        length = trace.measures["length"]["n_tokens"]
        return None if length <= self.options.limit else f"long: {length}"


class ToyVerdictFilter(ToyFilter):
    """Rejects traces that are not right."""

    name = "toy-verdict-filter"
    reads = frozenset({"verdict"})

    def reason(self, trace, context):
        return None if trace.measures["verdict"]["outcome"] == "correct" else "not right"


@dataclass(frozen=True)
class AskingOptions:
    """Options of the toy filter that asks.

    Attributes:
        judge: The engine that it asks.
    """

    judge: str | None = field(default=None, metadata={"component": "engine"})


class ToyAskingFilter(Filter[AskingOptions]):
    """Rejects what its judge does: everything, where that has a word."""

    name = "toy-asking-filter"

    def reason(self, trace, context):
        words = context.components["judge"].options.words
        record("judge", words)
        return f"judged: {words}" if words else None


@dataclass(frozen=True)
class TrainerOptions:
    """Options of the toy trainer.

    Attributes:
        steps: Where checkpoints are left; empty to leave one for each two traces.
        kind: What a checkpoint holds.
        rate: A learning rate.
        micro: Memory only.
    """

    steps: tuple[int, ...] = (1, 2)
    kind: Literal["adapter", "full"] = "adapter"
    rate: float = 0.1
    micro: int = field(default=0, metadata={"key": False})


class ToyTrainer(Trainer[TrainerOptions]):
    """Writes files that say what they were trained on."""

    name = "toy-trainer"

    def checkpoint_steps(self, counts):
        if self.options.steps:
            return self.options.steps
        return None if counts is None else tuple(range(1, counts.rows // 2 + 1))

    def train(self, job, context):
        with holding_gpus(f"train {context.seed}"):
            steer(f"train-{context.seed}")
            steer("train")
        found = []
        rows = b"".join(row.input_ids.tobytes() for row in job.rows)
        about = f"{hashlib.sha256(rows).hexdigest()} {self.options.rate} {context.seed} {control('salt') or ''}"
        for step in self.checkpoint_steps(RowCounts(len(job.rows), 0, 0)):
            folder = job.output / f"step-{step}"
            folder.mkdir(exist_ok=True)
            (folder / "model.safetensors").write_text(f"{about} {step}")
            found.append(Checkpoint(folder, self.options.kind, step, step))
        losses = [{"step": one.step, "train_loss": 1 / one.step, "held_out_nll": 2 / one.step} for one in found]
        (job.output / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in losses))
        record("train", f"{context.seed} {len(job.rows)}")
        return found


class ToyReadyTrainer(ToyTrainer):
    """Has checkpoints without traces."""

    name = "toy-ready-trainer"
    needs_traces = False


class Greeting(Stage):
    """A kind of stage that a plugin could bring: everything about it stands here."""

    kind = "greeting"

    traces: Stage
    words: str
    loud: bool = unkeyed(default=False)

    def run(self, bench, progress):
        n_traces = (bench.store.facts(self.traces) or {})["traces"]
        (bench.store.work(self) / "greeting.txt").write_text(f"{self.words} {n_traces}")
        return Made(("greeting.txt",), {"greeted": n_traces})


@dataclass(frozen=True)
class EngineOptions:
    """Options of the toy engine.

    Attributes:
        words: Before each answer.
        batch_size: Speed only.
        cpus: What it asks of the machine.
    """

    words: str = ""
    batch_size: int = field(default=8, metadata={"key": False})
    cpus: int = field(default=1, metadata={"key": False})


class ToyEngine(Engine[EngineOptions]):
    """Answers every other question right: those with an even number."""

    name = "toy-engine"

    def resources(self, student):
        return replace(student.resources(), cpus=self.options.cpus)

    @contextmanager
    def open(self, student, built, checkpoints, context):
        record("sessions", str(built))
        with holding_gpus("session"):
            yield ToySession(self.options.words)


class ToySession:
    """Generates one sample after the other."""

    def __init__(self, words):
        self.words = words
        device = control("device")
        self.facts = {"engine": "toy"} | ({"device": device} if device else {})

    def prepare(self, checkpoint):
        weights(checkpoint)
        if str(checkpoint.step) == control("break-checkpoint"):
            raise IndexError("layer 9")
        return {"kind": checkpoint.kind}

    def first_token_logprobs(self, prompts, checkpoint):
        changed = checkpoint is not None and str(checkpoint.step) != control("no-op")
        first = float("nan") if control("nan") else -1.0
        return [{0: first, 1: -2.0 if changed else -3.0} for _ in prompts]

    def generate(self, batches):
        for batch in batches:
            for request in batch.requests:
                if request.sample_id not in batch.skip:
                    yield batch.key, self.answer(request, batch.checkpoint)

    def answer(self, request, checkpoint):
        steer("sample")
        steer(f"sample-{request.sample_id.replace('/', '-')}")
        record("asked", f"{request.sample_id} {'base' if checkpoint is None else checkpoint.step}")
        if request.sample_id in (control("errors") or "").split():
            return Generation(request.sample_id, error="the toy engine was told to fail")
        if request.sample_id == control("odd"):
            return Generation(request.sample_id, (10**20,), "half a character: \ud83d", "stop")
        number = int("".join(filter(str.isdigit, ToyTokenizer().decode(request.prompt.input_ids))))
        text = f"{self.words}{weights(checkpoint)[:1]}={number if number % 2 == 0 else -1}"
        return Generation(request.sample_id, (*map(ord, text), 0), text, "stop")

    def loglikelihood(self, batch):
        for request in batch.requests:
            found = [(-float(len(one)), False) for one in request.continuations]
            yield Generation(request.sample_id, text=json.dumps(found), finish_reason="stop")


def weights(checkpoint):
    """What a toy checkpoint holds."""
    return "untouched" if checkpoint is None else (checkpoint.path / "model.safetensors").read_text()


@dataclass(frozen=True)
class BenchmarkOptions:
    """Options of the toy grader.

    Attributes:
        strict: Whether a wrong answer counts as wrong.
        judge: An engine that it is opened with.
    """

    strict: bool = True
    judge: str | None = field(default=None, metadata={"component": "engine"})


class ToyBenchmark(Grader[BenchmarkOptions]):
    """Compares texts."""

    name = "toy-grader"

    def open(self, context):
        record("grader", ",".join(one.options.words for one in context.components.values()))
        return super().open(context)

    def extract(self, answer, problem):
        return answer or None

    def judge(self, problem, extracted):
        steer("judge")
        steer(f"judge-{problem.problem_id.replace('/', '-')}")
        record("judged", problem.problem_id)
        right = extracted == problem.gold or not self.options.strict
        return Judgement(right, "" if right else "wrong_answer")


class ToyLauncher(LocalLauncher):
    """As `local`, with workers forked from a server that has imported what they need: 0.1 s each, not a second."""

    name = "toy-launcher"

    def start(self, job, resources):
        multiprocessing.set_forkserver_preload(["lm_eval.tasks", "pyarrow.parquet", *BUILTIN_MODULES])
        return ToyHandle(replace(job, environment={CONTROL: os.environ.get(CONTROL, "")}))


class ToyHandle(LocalHandle):
    """A worker process of its own, as all others: it can be killed, and holds its locks by itself."""

    def __init__(self, job):
        context = multiprocessing.get_context("forkserver")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=worker.main, args=(job, theirs), name=job.stages[0].label)
        self._process.start()
        theirs.close()
        self._give_back = None


@hookimpl
def distillbench_teachers():
    return [ToyTeacher]


@hookimpl
def distillbench_students():
    return [ToyStudent, ToyHubStudent]


@hookimpl
def distillbench_renderers():
    return [ToyRenderer]


@hookimpl
def distillbench_filters():
    return [ToyFilter, ToyOddFilter, ToyRowFilter, ToyVerdictFilter, ToyAskingFilter]


@hookimpl
def distillbench_trainers():
    return [ToyTrainer, ToyReadyTrainer]


@hookimpl
def distillbench_engines():
    return [ToyEngine]


@hookimpl
def distillbench_launchers():
    return [ToyLauncher]


@hookimpl
def distillbench_benchmarks():
    return [ToyBenchmark]


@hookimpl
def distillbench_task_roots():
    return [Path(__file__).parent / "toy_tasks"]
