"""A training that ends itself at a chosen moment. A module of its own, because other processes import it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plugin_helpers import Tiny, training_rows

from distillbench.protocols import Context, TrainingJob
from distillbench.records import Trace
from distillbench_plugins.trainers.recording import COMPLETE, METRICS
from distillbench_plugins.trainers.sft import SftOptions, SftTrainer

STEPS, EVERY = 9, 3
#: Dropout, so that the random state matters; a rest in the last batch of a pass, so that the data's place does.
OPTIONS: dict[str, Any] = {
    "lora_rank": 4, "lora_dropout": 0.1, "learning_rate": 5e-3, "warmup_steps": 2, "batch_size": 8,
    "max_steps": STEPS, "checkpoint_every": EVERY, "max_length": 256, "holdout": 0.1,
}  # fmt: skip


def kill_here(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, is_time: Callable[..., bool]) -> None:
    """Kills this process just before a call, the first time that `is_time` says so."""
    original = getattr(owner, name)

    def guarded(*arguments: Any, **named: Any) -> Any:
        if is_time(*arguments):
            kill_here()
        return original(*arguments, **named)

    setattr(owner, name, guarded)


def at_checkpoint(step: int) -> Callable[..., bool]:
    """Whether a path among the arguments belongs to the checkpoint of a step."""
    return lambda *arguments: any(f"/checkpoint-{step}/" in f"{one}/" for one in arguments)


def arm(moment: str, step: int) -> None:
    """Sets the trap of a moment inside the process that trains."""
    import shutil

    import torch

    from distillbench_plugins.trainers import recording

    if moment == "in TRL's save, after the weights":
        before(torch, "save", lambda content, path, *_: at_checkpoint(step)(path))
    elif moment == "in TRL's save, before its state":
        from transformers import TrainerState

        before(TrainerState, "save_to_json", lambda state, path: at_checkpoint(step)(path))
    elif moment == "after TRL's save, before our copy":
        before(recording.Recorder, "record", lambda recorder, at, *_: at == step)
    elif moment == "in the middle of our copy":
        before(shutil, "copy2", lambda source, target: at_checkpoint(step)(source) and "token" in str(source))
    elif moment == "before the copy gets its name":
        before(Path, "rename", lambda path, target: path.name == f".step-{step}")
    elif moment == "after our copy, before the metrics":
        calls = iter(range(1, 100))
        before(recording, "held_out_nll", lambda *_: next(calls) * EVERY == step)
    elif moment == "in the middle of the metrics":
        before(
            Path,
            "replace",
            lambda path, target: target.name == METRICS and path.read_text().count("\n") == step // EVERY,
        )
    elif moment == "after the metrics, before our mark":
        before(recording, "write_sealed", lambda path, *_: path.name == COMPLETE and at_checkpoint(step)(path.parent))
    else:
        assert moment in ("at a step", "never")


def train_here(tiny: Tiny, traces: list[Trace], output: Path, moment: str, step: int, method: str) -> None:
    """Trains in this process, which a trap may end; the steps it makes are written down."""
    import torch

    log = os.open(output.with_name(f"{output.name}-log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
    arm(moment, step)
    made = output.with_name(f"{output.name}-made")

    def progress(done: int, total: int | None, note: str) -> None:
        with made.open("a") as steps:
            steps.write(f"{done}\n")
        if moment == "at a step" and done == step:
            kill_here()

    output.mkdir(exist_ok=True)
    renderer = tiny.renderer.bind(tiny.student.load_tokenizer(tiny.built))
    trainer = SftTrainer(SftOptions(**OPTIONS | {"method": method}))
    rows = training_rows(renderer, traces, trainer, output.with_name(f"{output.name}-rows.arrow"))
    job = TrainingJob(tiny.student, tiny.built, renderer, rows, output)
    context = Context(work=output.with_name(f"{output.name}-work"), seed=5, progress=progress)
    checkpoints = trainer.train(job, context)
    assert [one.step for one in checkpoints] == [3, 6, 9]
