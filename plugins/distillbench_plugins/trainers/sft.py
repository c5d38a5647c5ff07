"""The `sft` trainer: TRL's SFTTrainer on our own token ids and loss mask, with a LoRA adapter or all weights."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval

from distillbench.errors import DamagedError, StageError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Context, Overlong, Trainer, TrainingJob
from distillbench.records import Checkpoint, RowCounts, TrainingRow
from distillbench.sealed import read_sealed, write_sealed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METRICS = "metrics.jsonl"
#: Written into a TRL checkpoint once it and everything that belongs to it is there.
COMPLETE = "distillbench-complete"


@dataclass(frozen=True)
class SftOptions:
    """Options of the `sft` trainer.

    Attributes:
        method: `lora` trains an adapter, `full` all weights.
        lora_rank: Rank of the adapter.
        lora_alpha: Its scale is alpha / rank; None for alpha = rank.
        lora_dropout: Dropout in front of the adapter.
        learning_rate: Peak learning rate.
        schedule: Learning-rate schedule after the warm-up.
        warmup_steps: Steps of linear warm-up.
        weight_decay: AdamW's.
        betas: AdamW's.
        max_grad_norm: Gradients are clipped to this norm.
        batch_size: Rows of one optimizer step.
        micro_batch_size: Rows of one forward pass; affects memory only. 0 for the whole batch.
        epochs: Passes over the kept traces, unless `max_steps` is given.
        max_steps: Optimizer steps; None to count them from the traces.
        checkpoint_every: Steps between checkpoints; the last step always leaves one.
        max_length: The most tokens of a row.
        overlong: What a longer row does: `error` stops the stage, `truncate` cuts the row's end, `drop` leaves it out.
        holdout: Share of the rows kept out of training, whose negative log-likelihood is measured at each checkpoint.
        gradient_checkpointing: Saves memory for time.
    """

    method: Literal["lora", "full"] = "lora"
    lora_rank: Annotated[int, Gt(0)] = 32
    lora_alpha: Annotated[float, Gt(0)] | None = None
    lora_dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    learning_rate: Annotated[float, Gt(0)] = 2e-4
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: Annotated[int, Ge(0)] = 0
    weight_decay: Annotated[float, Ge(0)] = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    max_grad_norm: Annotated[float, Gt(0)] = 1.0
    batch_size: Annotated[int, Gt(0)] = 32
    micro_batch_size: Annotated[int, Ge(0)] = field(default=0, metadata={"key": False})
    epochs: Annotated[float, Gt(0)] = 1.0
    max_steps: Annotated[int, Gt(0)] | None = None
    checkpoint_every: Annotated[int, Gt(0)] = 100
    max_length: Annotated[int, Gt(0)] = 4096
    overlong: Overlong = "error"
    holdout: Annotated[float, Interval(ge=0, lt=1)] = 0.02
    gradient_checkpointing: bool = field(default=False, metadata={"key": False})

    def __post_init__(self) -> None:
        """Checks options against each other."""
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(f"micro_batch_size {self.micro_batch_size} does not divide batch_size {self.batch_size}")


class SftTrainer(Trainer[SftOptions]):
    """Supervised fine-tuning with TRL's SFTTrainer and peft.

    Rows are the renderer's token ids; TRL neither tokenizes nor truncates. Every checkpoint measures the held-out rows.
    After a kill it goes on from the last complete checkpoint, with optimizer and random state: the result is the same.
    """

    name = "sft"

    def max_length(self) -> int:
        """The option of that name."""
        return self.options.max_length

    def overlong(self) -> Overlong:
        """The option of that name."""
        return self.options.overlong

    def checkpoint_steps(self, counts: RowCounts | None) -> tuple[int, ...] | None:
        """Every `checkpoint_every` steps, and the last; None while the number of rows decides and is not known."""
        total = self._total_steps(None if counts is None else counts.rows)
        if total is None:
            return None
        every = self.options.checkpoint_every
        return tuple(dict.fromkeys([*range(every, total + 1, every), total]))

    def train(self, job: TrainingJob, context: Context) -> Sequence[Checkpoint]:
        """Trains; returns the checkpoints in `job.output`, one folder `step-N` each."""
        import numpy as np

        steps = self._steps(len(job.rows))
        if empty := job.rows.without_loss():
            raise StageError(f"{len(empty)} rows carry no loss at all; the first comes from {empty[0]}")
        is_out = held_out(job.rows.problem_ids(), self.options.holdout)
        trained_on, kept_out = (np.flatnonzero(mask).tolist() for mask in (~is_out, is_out))
        recorder = _Recorder(job.output, context.work / "trl", steps, Chosen(job.rows, kept_out))
        last = recorder.resume()
        if recorder.last_step < steps[-1]:  # TRL would make one step more
            self._trl_trainer(job, context, recorder, trained_on).train(resume_from_checkpoint=last)
        kind: Literal["adapter", "full"] = "adapter" if self.options.method == "lora" else "full"
        seen = [samples_seen(step, len(trained_on), self.options.batch_size) for step in steps]
        return [Checkpoint(job.output / f"step-{step}", kind, step, n) for step, n in zip(steps, seen, strict=True)]

    def _steps(self, n_rows: int) -> tuple[int, ...]:
        found = self.checkpoint_steps(RowCounts(n_rows, 0, 0))
        assert found is not None  # noqa: S101 - the number of rows is known
        return found

    def _total_steps(self, n_traces: int | None) -> int | None:
        if self.options.max_steps is not None:
            return self.options.max_steps
        if n_traces is None:
            return None
        n_train = n_traces - _n_held_out(n_traces, self.options.holdout)
        return max(1, math.ceil(n_train * self.options.epochs / self.options.batch_size))

    def _trl_trainer(self, job: TrainingJob, context: Context, recorder: _Recorder, numbers: Sequence[int]) -> Any:
        import torch
        from datasets import Dataset
        from peft import LoraConfig
        from transformers import set_seed
        from trl import SFTConfig, SFTTrainer

        if not numbers:
            raise StageError("no row is left to train on beside the held-out ones")
        on_gpu = torch.cuda.is_available()
        model = job.student.load_model(job.built, "cuda" if on_gpu else "cpu")
        tokenizer = job.student.load_tokenizer(job.built)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token  # labels come from our mask, so padding never hides an end token
        options = self.options
        lora = LoraConfig(
            r=options.lora_rank,
            lora_alpha=options.lora_alpha or options.lora_rank,
            lora_dropout=options.lora_dropout,
            target_modules=job.student.lora_targets(),
            task_type="CAUSAL_LM",
        )
        micro = options.micro_batch_size or options.batch_size
        arguments = SFTConfig(
            output_dir=str(recorder.scratch),
            max_steps=recorder.steps[-1],
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=options.batch_size // micro,
            learning_rate=options.learning_rate,
            lr_scheduler_type=options.schedule,
            warmup_steps=options.warmup_steps,
            weight_decay=options.weight_decay,
            adam_beta1=options.betas[0],
            adam_beta2=options.betas[1],
            max_grad_norm=options.max_grad_norm,
            bf16=on_gpu and next(model.parameters()).dtype == torch.bfloat16,
            use_cpu=not on_gpu,
            seed=context.seed,
            data_seed=context.seed,
            max_length=None,
            packing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,  # rows come from their numbers
            save_strategy="no",  # the recorder asks for checkpoints, so that steps are those that were promised
            eval_strategy="no",
            logging_strategy="no",
            save_total_limit=2,
            report_to="none",
            disable_tqdm=True,
            **{_checkpointing_name(SFTConfig): options.gradient_checkpointing},
        )
        set_seed(context.seed)  # SFTTrainer draws the adapter's weights before it sets its own seed
        return SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict({"number": numbers}).with_transform(partial(_batch_of, job.rows)),
            processing_class=tokenizer,
            peft_config=lora if options.method == "lora" else None,
            callbacks=[_callback(recorder, context)],
        )


def _checkpointing_name(config: type) -> str:
    """What transformers calls the option: `activation_checkpointing` in later 5.x, which warn of the old name."""
    known = {entry.name for entry in fields(config)}
    return "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"


@dataclass
class _Recorder:
    """Keeps what training leaves: checkpoints, and the rows of metrics.jsonl.

    Attributes:
        output: Where they go.
        scratch: TRL's own folder.
        steps: The steps that leave a checkpoint.
        held_out: Rows that are not trained on.
        last_step: The last step that is complete, as `resume` found it.
    """

    output: Path
    scratch: Path
    steps: tuple[int, ...]
    held_out: Sequence[TrainingRow]
    last_step: int = 0
    _rows: list[dict[str, Any]] = field(default_factory=list)

    def resume(self) -> str | None:
        """The last complete TRL checkpoint, after everything that came later is removed; None to start anew."""
        found = {int(path.name.rpartition("-")[2]): path for path in self.scratch.glob("checkpoint-*")}
        rows = {step: kept for step, path in found.items() if (kept := _rows_of(path)) is not None}
        last = max(rows, default=0)
        for step, path in found.items():
            if step not in rows:
                shutil.rmtree(path)
        for path in self.output.glob("step-*"):
            if int(path.name.removeprefix("step-")) > last:
                shutil.rmtree(path)
        self._rows = rows.get(last, [])
        self._write_metrics()
        self.last_step = last
        return str(found[last]) if last else None

    def record(self, step: int, model: Any, loss: dict[str, float]) -> None:
        """Keeps the checkpoint of a step, with its training loss and held-out negative log-likelihood."""
        trl = self.scratch / f"checkpoint-{step}"
        partial = self.output / f".step-{step}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for path in trl.iterdir():
            if path.suffix in {".safetensors", ".json", ".jinja"} and not path.name.startswith("trainer_state"):
                shutil.copy2(path, partial / path.name)
        shutil.rmtree(self.output / f"step-{step}", ignore_errors=True)
        partial.rename(self.output / f"step-{step}")
        self._rows.append({"step": step} | loss | held_out_nll(model, self.held_out))
        self._write_metrics()
        write_sealed(trl / COMPLETE, {"rows": self._rows}, trl.name)

    def _write_metrics(self) -> None:
        partial = self.output / f".{METRICS}"
        # Sorted, because rows that an interrupted training left come back so: the file must not tell that it was.
        partial.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in self._rows))
        partial.replace(self.output / METRICS)


def _rows_of(checkpoint: Path) -> list[dict[str, Any]] | None:
    """The rows of metrics.jsonl up to a TRL checkpoint; None where that is not complete, or damaged."""
    try:
        return list(read_sealed(checkpoint / COMPLETE, checkpoint.name)["rows"])
    except (FileNotFoundError, DamagedError):
        return None


def _callback(recorder: _Recorder, context: Context) -> Any:
    """Tells TRL when to save, and the recorder when it has. Made here, because its base class needs transformers."""
    from transformers import TrainerCallback

    class Callback(TrainerCallback):  # type: ignore[misc]
        loss: dict[str, float]

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            context.progress(state.global_step, recorder.steps[-1], "steps")
            control.should_log = control.should_save = state.global_step in recorder.steps

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
            names = {"loss": "train_loss", "grad_norm": "grad_norm", "learning_rate": "learning_rate"}
            self.loss = {ours: float(logs[theirs]) for theirs, ours in names.items() if theirs in logs}

        def on_save(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
            recorder.record(state.global_step, model, self.loss)

    return Callback()


class Chosen(Sequence[TrainingRow]):
    """Some rows of others.

    Args:
        rows: The others.
        numbers: Which.
    """

    def __init__(self, rows: Sequence[TrainingRow], numbers: Sequence[int]) -> None:
        self._rows = rows
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self._rows[int(place)] for place in self._numbers[number]]
        return self._rows[int(self._numbers[number])]


def held_out(problem_ids: Sequence[str], share: float) -> NDArray[np.bool_]:
    """Which rows are kept out of training, decided by their problems' ids: all rows of a problem go together.

    Args:
        problem_ids: Of each row.
        share: The share of rows to keep out; a little more when several rows share a problem.
    """
    import numpy as np

    digests = np.array([_place(one) for one in problem_ids], np.uint64)
    n_out = _n_held_out(len(digests), share)
    return np.isin(digests, digests[np.argsort(digests, kind="stable")[:n_out]])


def _place(problem_id: str) -> int:
    """Where a problem stands in the order in which problems are kept out."""
    return int.from_bytes(hashlib.sha256(problem_id.encode()).digest()[:8], "big")


def _n_held_out(n_traces: int, share: float) -> int:
    return min(n_traces - 1, max(1, round(n_traces * share))) if share > 0 else 0


def samples_seen(step: int, n_rows: int, batch_size: int) -> int:
    """Rows seen after `step` steps; the last batch of a pass over the rows may be a smaller one."""
    passes, rest = divmod(step, math.ceil(n_rows / batch_size))
    return passes * n_rows + rest * batch_size


def held_out_nll(model: Any, rows: Sequence[TrainingRow], batch_size: int = 16) -> dict[str, float]:
    """The mean negative log-likelihood of the loss-carrying tokens, in nats per token, and their number.

    Args:
        model: In any mode; it is put back into it.
        rows: Rendered rows, R of them.
        batch_size: Rows of one forward pass.
    """
    import torch
    from torch.nn.functional import cross_entropy

    if not rows:
        return {}
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            batch = [_labelled(row) for row in rows[start : start + batch_size]]
            input_ids, labels, mask = (_right_padded(batch, key, fill) for key, fill in _PADDING.items())
            logits = model(
                input_ids=input_ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False
            ).logits
            targets = labels[:, 1:].to(logits.device)  # B x T-1
            summed = cross_entropy(logits[:, :-1].float().flatten(0, 1), targets.flatten(), reduction="sum")
            total += float(summed)
            count += int((targets != -100).sum())
    model.train(was_training)
    return {"held_out_nll": total / count, "held_out_tokens": count}


_PADDING = {"input_ids": 0, "labels": -100, "attention_mask": 0}


def _batch_of(rows: Sequence[TrainingRow], asked: Mapping[str, Sequence[int]]) -> dict[str, list[list[int]]]:
    """Rows as TRL takes them, by their numbers."""
    found = [_labelled(rows[number]) for number in asked["number"]]
    return {name: [row[name] for row in found] for name in _PADDING}


def _labelled(row: TrainingRow) -> dict[str, list[int]]:
    """A row as TRL takes it: labels are the ids where there is loss, -100 elsewhere."""
    ids = row.input_ids.tolist()
    labels = [token if loss else -100 for token, loss in zip(ids, row.loss_mask.tolist(), strict=True)]
    return {"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)}


def _right_padded(batch: Sequence[dict[str, list[int]]], key: str, fill: int) -> Any:
    import torch

    longest = max(len(row[key]) for row in batch)
    return torch.tensor([row[key] + [fill] * (longest - len(row[key])) for row in batch])


@hookimpl
def distillbench_trainers() -> Iterable[type[Trainer]]:
    """The SFT trainer."""
    return [SftTrainer]
