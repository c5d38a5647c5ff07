"""The sft trainer after `kill -9` at many moments: the same bytes as a run that nobody disturbed."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import signal
import time
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from plugin_helpers import Tiny, coins_traces, metrics
from plugin_killed_training import EVERY, STEPS, train_here

from distillbench.records import Trace


@dataclass(frozen=True)
class Workshop:
    """Starts training processes, forked from a server that has imported torch and TRL already."""

    tiny: Tiny
    traces: list[Trace]
    context: Any

    def start(self, output: Path, moment: str = "never", step: int = 0, method: str = "lora") -> BaseProcess:
        process = self.context.Process(target=train_here, args=(self.tiny, self.traces, output, moment, step, method))
        process.start()
        return process

    def run(self, output: Path, *arguments: Any) -> int:
        process = self.start(output, *arguments)
        process.join(120)
        assert process.exitcode is not None, "the training hangs"
        if process.exitcode > 0:
            print(output.with_name(f"{output.name}-log").read_text())
        return int(process.exitcode)


@pytest.fixture(scope="module")
def workshop(tiny: Tiny) -> Workshop:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trl", "trl.trainer.sft_trainer", "peft", "plugin_killed_training"])
    picklable = replace(tiny, tokenizer=None, renderer=type(tiny.renderer)(tiny.renderer.options))
    return Workshop(picklable, coins_traces(44), context)


def result(output: Path) -> dict[str, str]:
    """Every file by its digest; of adapter_config.json only the length, because it lists a set in no fixed order."""
    return {
        path.relative_to(output).as_posix(): (
            str(path.stat().st_size)
            if path.name == "adapter_config.json"
            else hashlib.sha256(path.read_bytes()).hexdigest()
        )
        for path in sorted(output.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def undisturbed(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What a run leaves that nobody kills, for both methods."""
    found = {}
    for method in ("lora", "full"):
        output = tmp_path_factory.mktemp("undisturbed") / method
        assert workshop.run(output, "never", 0, method) == 0
        assert [row["step"] for row in metrics(output)] == [3, 6, 9]
        found[method] = result(output)
    return found


def steps_made(output: Path) -> list[int]:
    return [int(line) for line in output.with_name(f"{output.name}-made").read_text().split()]


MOMENTS = [
    ("at a step", 2),
    ("at a step", 5),
    ("at a step", 9),
    ("in TRL's save, after the weights", 3),
    ("in TRL's save, after the weights", 6),
    ("in TRL's save, before its state", 6),
    ("after TRL's save, before our copy", 6),
    ("in the middle of our copy", 6),
    ("before the copy gets its name", 6),
    ("after our copy, before the metrics", 6),
    ("in the middle of the metrics", 6),
    ("after the metrics, before our mark", 3),
    ("after the metrics, before our mark", 9),
]


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "step"), MOMENTS)
def test_a_kill_changes_nothing(
    workshop: Workshop, undisturbed: dict[str, dict[str, str]], tmp_path: Path, moment: str, step: int
) -> None:
    output = tmp_path / "out"
    assert workshop.run(output, moment, step) == -signal.SIGKILL
    assert steps_made(output)[-1] == step, "it was killed where the test says"
    assert workshop.run(output) == 0
    assert result(output) == undisturbed["lora"]
    complete = (step - 1) // EVERY * EVERY  # what was complete when it was killed is not made again
    assert steps_made(output) == [*range(1, step + 1), *range(complete + 1, STEPS + 1)]


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "step"), [("at a step", 5), ("after TRL's save, before our copy", 6)])
def test_a_kill_changes_nothing_in_full_training(
    workshop: Workshop, undisturbed: dict[str, dict[str, str]], tmp_path: Path, moment: str, step: int
) -> None:
    output = tmp_path / "out"
    assert workshop.run(output, moment, step, "full") == -signal.SIGKILL
    assert workshop.run(output, "never", 0, "full") == 0
    assert result(output) == undisturbed["full"]
    assert steps_made(output)[-1] == STEPS


@pytest.mark.slow
def test_kills_again_and_again_change_nothing(
    workshop: Workshop, undisturbed: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    """From outside, at moments that nobody chose."""
    started = time.monotonic()
    assert workshop.run(tmp_path / "timed") == 0
    whole = time.monotonic() - started
    output = tmp_path / "out"
    rng = random.Random(7)
    endings = []
    while not endings or (endings[-1] != 0 and len(endings) < 8):
        process = workshop.start(output)
        process.join(rng.uniform(0.1, 0.6) * whole)
        process.kill()  # does nothing where the process has ended by itself in the meantime
        process.join()
        endings.append(process.exitcode)
    assert workshop.run(output) == 0
    assert endings[0] == -signal.SIGKILL
    assert set(endings) <= {-signal.SIGKILL, 0}
    assert result(output) == undisturbed["lora"]


@pytest.mark.slow
def test_a_finished_run_gives_the_same_without_training_again(
    workshop: Workshop, undisturbed: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    assert workshop.run(output) == 0
    assert workshop.run(output) == 0
    assert result(output) == undisturbed["lora"]
    assert steps_made(output) == list(range(1, STEPS + 1))
