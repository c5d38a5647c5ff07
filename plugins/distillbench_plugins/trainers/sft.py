"""The `sft` trainer: TRL's SFTTrainer on our own token ids and loss mask, with a LoRA adapter or all weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval

from distillbench.errors import StageError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Context, Overlong, Student, Trainer, TrainingJob
from distillbench.records import AdapterShape, Checkpoint, RowCounts, TrainingRow
from distillbench_plugins.trainers.held_out import PADDING, Chosen, held_out, labelled, n_held_out
from distillbench_plugins.trainers.recording import Recorder, callback


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

    def adapter_shape(self, student: Student) -> AdapterShape | None:
        """Of the options' rank, in the student's own target modules."""
        if self.options.method != "lora":
            return None
        targets = student.lora_targets()
        if isinstance(targets, str):  # a pattern of names could be any; room for all is room enough
            return AdapterShape(self.options.lora_rank)
        return AdapterShape(self.options.lora_rank, tuple(name.rpartition(".")[2] for name in targets))

    def train(self, job: TrainingJob, context: Context) -> Sequence[Checkpoint]:
        """Trains; returns the checkpoints in `job.output`, one folder `step-N` each."""
        import numpy as np

        steps = self._steps(len(job.rows))
        if empty := job.rows.without_loss():
            raise StageError(f"{len(empty)} rows carry no loss at all; the first comes from {empty[0]}")
        is_out = held_out(job.rows.problem_ids(), self.options.holdout)
        trained_on, kept_out = (np.flatnonzero(mask).tolist() for mask in (~is_out, is_out))
        recorder = Recorder(job.output, context.work / "trl", steps, Chosen(job.rows, kept_out))
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
        n_train = n_traces - n_held_out(n_traces, self.options.holdout)
        return max(1, math.ceil(n_train * self.options.epochs / self.options.batch_size))

    def _trl_trainer(self, job: TrainingJob, context: Context, recorder: Recorder, numbers: Sequence[int]) -> Any:
        import torch
        from datasets import Dataset
        from transformers import set_seed
        from trl import SFTTrainer

        if not numbers:
            raise StageError("no row is left to train on beside the held-out ones")
        on_gpu = torch.cuda.is_available()
        model = job.student.load_model(job.built, "cuda" if on_gpu else "cpu")
        tokenizer = job.student.load_tokenizer(job.built)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token  # labels come from our mask, so padding never hides an end token
        arguments = self._arguments(recorder, context.seed, next(model.parameters()).dtype, on_gpu)
        set_seed(context.seed)  # SFTTrainer draws the adapter's weights before it sets its own seed
        return SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict({"number": numbers}).with_transform(partial(_batch_of, job.rows)),
            processing_class=tokenizer,
            peft_config=self._lora(job.student) if self.options.method == "lora" else None,
            callbacks=[callback(recorder, context)],
        )

    def _lora(self, student: Student) -> Any:
        from peft import LoraConfig

        options = self.options
        return LoraConfig(
            r=options.lora_rank,
            lora_alpha=options.lora_alpha or options.lora_rank,
            lora_dropout=options.lora_dropout,
            target_modules=student.lora_targets(),
            task_type="CAUSAL_LM",
        )

    def _arguments(self, recorder: Recorder, seed: int, dtype: Any, on_gpu: bool) -> Any:
        import torch
        from trl import SFTConfig

        options = self.options
        micro = options.micro_batch_size or options.batch_size
        return SFTConfig(
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
            bf16=on_gpu and dtype == torch.bfloat16,
            use_cpu=not on_gpu,
            seed=seed,
            data_seed=seed,
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


def _checkpointing_name(config: type) -> str:
    """What transformers calls the option: `activation_checkpointing` in later 5.x, which warn of the old name."""
    known = {entry.name for entry in fields(config)}
    return "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"


def samples_seen(step: int, n_rows: int, batch_size: int) -> int:
    """Rows seen after `step` steps; the last batch of a pass over the rows may be a smaller one."""
    passes, rest = divmod(step, math.ceil(n_rows / batch_size))
    return passes * n_rows + rest * batch_size


def _batch_of(rows: Sequence[TrainingRow], asked: Mapping[str, Sequence[int]]) -> dict[str, list[list[int]]]:
    """Rows as TRL takes them, by their numbers."""
    found = [labelled(rows[number]) for number in asked["number"]]
    return {name: [row[name] for row in found] for name in PADDING}


@hookimpl
def distillbench_trainers() -> Iterable[type[Trainer]]:
    """The SFT trainer."""
    return [SftTrainer]
