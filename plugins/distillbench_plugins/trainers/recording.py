"""What an `sft` training leaves: checkpoints, and the rows of metrics.jsonl."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distillbench.errors import DamagedError
from distillbench.protocols import Context
from distillbench.records import TrainingRow
from distillbench.sealed import read_sealed, write_sealed
from distillbench_plugins.trainers.held_out import held_out_nll

METRICS = "metrics.jsonl"
#: Written into a TRL checkpoint once it and everything that belongs to it is there.
COMPLETE = "distillbench-complete"

#: How often a training says its loss.
_LOGS = 100


@dataclass
class Recorder:
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


def callback(recorder: Recorder, context: Context) -> Any:
    """Tells TRL when to save, and the recorder when it has. Made here, because its base class needs transformers."""
    from transformers import TrainerCallback

    log_every = max(1, recorder.steps[-1] // _LOGS)

    class Callback(TrainerCallback):  # type: ignore[misc]
        """Logs a hundred times a training, for whoever looks; a checkpoint's loss is the mean since the one before."""

        last: dict[str, float]
        note, n_logged, n_summed, summed = "steps", 0, 0, 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.n_logged = state.global_step

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            context.progress(state.global_step, recorder.steps[-1], self.note)
            control.should_save = state.global_step in recorder.steps
            control.should_log = control.should_save or state.global_step % log_every == 0

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
            if "loss" not in logs:  # the end of the training
                return
            n = state.global_step - self.n_logged
            self.n_logged, self.n_summed, self.summed = (
                state.global_step,
                self.n_summed + n,
                self.summed + n * logs["loss"],
            )
            self.last = {name: float(logs[name]) for name in ("grad_norm", "learning_rate") if name in logs}
            self.note = f"steps, loss {logs['loss']:.3f}"

        def on_save(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
            recorder.record(state.global_step, model, {"train_loss": self.summed / self.n_summed, **self.last})
            self.n_summed, self.summed = 0, 0.0

    return Callback()
