"""What the tests of plugins and tasks share: a tiny student, pretrained once a session, and short makers of records."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from distillbench.protocols import Context, EngineSession, Renderer, Trainer, TrainingJob, TrainingRows
from distillbench.records import (
    Batch,
    Checkpoint,
    FinishReason,
    Generation,
    Message,
    Problem,
    Prompt,
    Request,
    Sample,
    Sampling,
    Trace,
)
from distillbench.stages.render import read_training_rows, write_training_rows
from distillbench.store.rendered import Cut
from distillbench.tasks.identity import TaskIndex
from distillbench.tasks.loader import LmEvalTasks
from distillbench.testing import TinyStudent as Tiny
from distillbench_plugins.engines.transformers import TransformersEngine, TransformersOptions
from distillbench_plugins.teachers.synthetic import SyntheticOptions, SyntheticTeacher
from distillbench_plugins.trainers.sft import SftOptions, SftTrainer

ROOT = Path(__file__).parents[2]
TASK_ROOT = Path(str(files("distillbench_tasks")))
#: Real data that lies beside the project, never in it.
DATA = ROOT.parent / "shared" / "data"


def beside(*parts: str) -> Path:
    """A file of real data beside the checkout; where it is not there, the test is skipped and a warning says so."""
    path = DATA.joinpath(*parts)
    if not path.exists():
        warnings.warn(f"NOT TESTED on real data: {path} is not there", stacklevel=2)
        pytest.skip(f"NOT TESTED on real data: {path} is not there")
    return path


@cache
def tasks() -> LmEvalTasks:
    """The built-in tasks, loaded by lm-eval's own TaskManager."""
    return LmEvalTasks(TaskIndex([TASK_ROOT]))


def coins_traces(n: int, style: str = "concise") -> list[Trace]:
    """Traces of the synthetic teacher."""
    teacher = SyntheticTeacher(SyntheticOptions(style=style, n=n))  # type: ignore[arg-type]
    return list(teacher.traces(Context(work=Path(), tasks=tasks()), start=0))


def sample_with(
    ids: Sequence[int], text: str, finish_reason: FinishReason | None, asked: Problem, sample_id: str = "p#0"
) -> Sample:
    """The first completion of a problem."""
    return Sample(
        sample_id=sample_id,
        problem=asked,
        repeat=0,
        prompt="",
        prefill="",
        seed=0,
        token_ids=np.array(ids, np.int32),
        text=text,
        finish_reason=finish_reason,
        error=None,
        n_tokens=len(ids),
        n_prompt_tokens=None,
        effective={},
    )


def sample_from(given: Generation) -> Sample:
    """A completion that an engine gave, as a cut looks at it."""
    assert given.error is None
    return sample_with(given.token_ids, given.text, given.finish_reason, problem(), given.sample_id)


def problem(question: str = "How many?", gold: str = "5", problem_id: str = "made/0") -> Problem:
    """A problem of one user message."""
    return Problem(
        problem_id, "made", (Message("user", question),), gold, {"doc": {"question": question, "answer": gold}}
    )


def trace(reasoning: str | None, answer: str, finish_reason: str = "stop", **more: Any) -> Trace:
    """A trace of a made-up problem."""
    asked = more.pop("problem", None) or problem()
    fields = {"n_tokens": None, "teacher": "made", "source": "made row 0"} | more
    return Trace(asked, reasoning, answer, finish_reason, **fields)  # type: ignore[arg-type]


def requests_for(
    tiny: Tiny, task: str = "coins", n: int = 8, sampling: Sampling | None = None, seed: int = 0
) -> list[Request]:
    """Requests for the first test problems of a task."""
    return [
        Request(
            sample_id=f"{one.problem_id}#0",
            prompt=tiny.renderer.prompt(one.messages),
            sampling=sampling or Sampling(max_tokens=48),
            stop_token_ids=tiny.renderer.stop_token_ids(),
            seed=seed + number,
        )
        for number, one in enumerate(tasks().problems(task, "test", n))
    ]


def request(
    ids: Sequence[int], sample_id: str = "made/0#0", seed: int = 0, stop: Sequence[int] = (2, 0), **sampling: Any
) -> Request:
    """A request of given token ids."""
    prompt = Prompt(np.array(ids, dtype=np.int32), "")
    return Request(sample_id, prompt, Sampling(**sampling), tuple(stop), seed)


def generate(
    tiny: Tiny, requests: Sequence[Request], checkpoint: Any = None, batch_size: int = 64, skip: Iterable[str] = ()
) -> dict[str, Generation]:
    """What a fresh session of the engine gives, by sample id."""
    engine = TransformersEngine(TransformersOptions(batch_size=batch_size))
    with engine.open(tiny.student, tiny.built, [], Context(work=tiny.built)) as session:
        found = asked(session, requests, checkpoint, skip)
    by_id = {one.sample_id: one for one in found}
    assert len(by_id) == len(found), "a request was answered twice"
    return by_id


def asked(
    session: EngineSession, requests: Sequence[Request], checkpoint: Any = None, skip: Iterable[str] = ()
) -> list[Generation]:
    """What an open session gives for the requests of one stage."""
    return [one for _, one in session.generate([Batch("stage", checkpoint, requests, frozenset(skip))])]


def train(tiny: Tiny, traces: Sequence[Trace], output: Path, seed: int = 0, **options: Any) -> list[Checkpoint]:
    """Trains the tiny student; TRL's own folder lies beside the output."""
    output.mkdir(parents=True, exist_ok=True)
    trainer = SftTrainer(SftOptions(**options))
    rows = training_rows(tiny.renderer, traces, trainer, output.with_name(f"{output.name}-rows.arrow"))
    job = TrainingJob(tiny.student, tiny.built, tiny.renderer, rows, output)
    context = Context(work=output.with_name(f"{output.name}-work"), seed=seed)
    return list(trainer.train(job, context))


def training_rows(renderer: Renderer, traces: Sequence[Trace], trainer: Trainer, path: Path) -> TrainingRows:
    """What a trainer is given of traces, in a file beside its output."""
    cut = Cut(trainer.max_length(), trainer.overlong())
    return read_training_rows(path, write_training_rows(path, renderer, traces, cut), cut)


def metrics(output: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl."""
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


@dataclass(frozen=True)
class Run:
    """A finished training."""

    traces: list[Trace]
    options: dict[str, Any]
    output: Path
    checkpoints: list[Checkpoint]


def _run(tiny: Tiny, name: str, traces: list[Trace], **options: Any) -> Run:
    """Trains beside the tiny student, once a session."""
    output = tiny.built.with_name(name)
    with FileLock(f"{output}.lock"):
        checkpoints = train(tiny, traces, output, **options)  # another worker's finished run is only loaded again
    return Run(traces, options, output, checkpoints)


@cache
def lora_run(tiny: Tiny) -> Run:
    """12 steps of an adapter on concise traces."""
    return _run(
        tiny, "lora-run", coins_traces(120), lora_rank=8, learning_rate=5e-3, batch_size=16, max_steps=12,
        checkpoint_every=4, max_length=256, holdout=0.1,
    )  # fmt: skip


@cache
def full_run(tiny: Tiny) -> Run:
    """20 steps of all weights on verbose traces: long outputs, some of them cut by a budget of 96 tokens."""
    return _run(
        tiny, "full-run", coins_traces(240, "verbose"), method="full", learning_rate=3e-3, batch_size=16, max_steps=20,
        checkpoint_every=20, max_length=400, holdout=0.1,
    )  # fmt: skip


def made(tiny: Tiny, folder: Path, **config: Any) -> Path:
    """An adapter that peft itself makes and writes, with weights drawn at random (`spread`: how far)."""
    options = {"target_modules": ["q_proj", "v_proj"], **config}
    return made_on(tiny.student.load_model(tiny.built, "cpu"), folder, **options)


def made_on(model: Any, folder: Path, *, spread: float = 0.05, **config: Any) -> Path:
    """As `made`, for any model, which is changed."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    adapted = get_peft_model(model, LoraConfig(**{"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", **config}))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if weight.requires_grad and "magnitude" not in name:
                weight.add_(torch.randn_like(weight) * spread)
    adapted.save_pretrained(folder)
    return folder


def diverged(tiny: Tiny, folder: Path) -> Path:
    """A full model of which one weight is NaN, as a training that diverged leaves it."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny.built, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
