"""Real `distillbench run` processes: Ctrl-C, kills, and two of them on one store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from core_bench import Control
from core_factories import merged

from distillbench.store.store import Store

pytestmark = pytest.mark.slow

SPAWNED = {
    "launcher": {"use": "local"},
    "students": {"small": {"use": "toy-hub-student"}},
    "trainers": {"fit": {"steps": [1]}},
    "evaluations": {"toy": {"limit": 2}},
}


def listen_to_ctrl_c() -> None:
    """As in a terminal; whoever runs the tests in the background has told their children to ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Process:
    """A run under way in a process group of its own, as a terminal gives it one."""

    def __init__(self, sites: Sequence[Path], store: Path, matrix: Path, err: Path) -> None:
        self.err = err
        code = "from distillbench.cli.main import main; main()"
        with err.open("w") as stream:
            self.popen = subprocess.Popen(
                [sys.executable, "-c", code, "--store", str(store), "-v", "run", str(matrix)],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sites))},
                stdout=subprocess.DEVNULL,
                stderr=stream,
                start_new_session=True,
                preexec_fn=listen_to_ctrl_c,  # noqa: PLW1509 - no threads are started here
            )

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Returns once a text was said."""
        until = time.monotonic() + seconds
        while text not in self.err.read_text():
            assert time.monotonic() < until and self.popen.poll() is None, self.err.read_text()
            time.sleep(0.02)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.popen.pid).children(recursive=True)

    def interrupt(self) -> int:
        """Ctrl-C: the terminal sends it to the whole group."""
        os.killpg(self.popen.pid, signal.SIGINT)
        return self.popen.wait(30)


@pytest.fixture
def start(
    toy_site: Path, control: Control, matrix: Callable[..., Path], tmp_path: Path
) -> Iterator[Callable[[], Process]]:
    """Starts a run of a small matrix; ends what a failing test leaves."""
    started: list[Process] = []
    path = matrix(SPAWNED)

    def run(path: Path = path, *sites: Path) -> Process:
        store, err = tmp_path / "store", tmp_path / f"err{len(started)}"
        started.append(Process([toy_site, *sites], store, path, err))
        return started[-1]

    yield run
    for one in started:
        if one.popen.poll() is None:
            os.killpg(one.popen.pid, signal.SIGKILL)
            one.popen.wait()


def gone(processes: list[psutil.Process], seconds: float = 10) -> bool:
    """Whether processes end in time; one that has ended and waits for a lazy init to reap it counts."""
    until = time.monotonic() + seconds
    while left := [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]:
        if time.monotonic() > until:
            return False
        psutil.wait_procs(left, timeout=0.05)
    return True


def test_ctrl_c_ends_every_worker_and_the_next_run_goes_on(
    start: Callable[[], Process], control: Control, tmp_path: Path
) -> None:
    control.set("sleep-train", "100")
    process = start()
    process.wait_for("train wise: started")
    time.sleep(0.2)
    family = process.family()
    assert family
    begun = time.monotonic()
    assert process.interrupt() == 130
    assert time.monotonic() - begun < 8
    assert gone(family, 1), "a worker has outlived its runner"
    said = process.err.read_text()
    assert "interrupted: what was finished is kept; run the same command to go on" in said
    assert "Traceback" not in said
    store = Store(tmp_path / "store")
    assert {unfinished["state"] for unfinished in store.overview()["unfinished"]} == {"stopped"}
    assert store.overview()["finished"]["curate"]["stages"] == 1
    control.unset("sleep-train")
    control.log("teacher")
    again = start()
    assert again.popen.wait(60) == 0
    assert control.log("teacher") == [] and control.log("train") == ["0 4"]
    assert store.overview()["unfinished"] == []


@pytest.mark.parametrize("moment", [0.0, 0.1, 0.3])
def test_ctrl_c_while_workers_start_is_as_quiet(start: Callable[[], Process], control: Control, moment: float) -> None:
    control.set("sleep-teacher", "100")
    process = start()
    process.wait_for("cells, ")
    time.sleep(moment)
    family = process.family()
    assert process.interrupt() == 130
    assert gone(family, 2)
    assert "Traceback" not in process.err.read_text()


def test_workers_end_when_their_runner_is_killed(
    start: Callable[[], Process], control: Control, tmp_path: Path
) -> None:
    control.set("sleep-train", "100")
    process = start()
    process.wait_for("train wise: started")
    family = process.family()
    assert family
    process.popen.kill()
    process.popen.wait(10)
    assert gone(family), "an orphan holds its locks"
    control.unset("sleep-train")
    again = start()
    assert again.popen.wait(60) == 0, again.err.read_text()


SPAWNING = """
import subprocess, sys
from distillbench.hookspecs import hookimpl
from distillbench_toys import ToyTrainer


class Spawning(ToyTrainer):
    \"""Trains with a helper process, as accelerate and vLLM do.\"""

    name = "spawning"

    def train(self, job, context):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)  # a helper of a trainer"])
        return super().train(job, context)


@hookimpl
def distillbench_trainers():
    return [Spawning]
"""


@pytest.fixture
def start_spawning(
    start: Callable[..., Process], install_plugin: Callable[..., Path], matrix: Callable[..., Path], tmp_path: Path
) -> Callable[[], Process]:
    """As `start`, with a trainer that has a process of its own."""
    site = install_plugin(tmp_path / "more", "spawning", {"spawning_plugin": SPAWNING}, {"spawning": "spawning_plugin"})
    path = matrix(merged(SPAWNED, {"trainers": {"fit": {"use": "spawning"}}}), "spawning.yaml")
    return lambda: start(path, site)


def helpers(process: Process) -> list[psutil.Process]:
    """The processes that trainers have started."""
    return [one for one in process.family() if "a helper of a trainer" in " ".join(one.cmdline())]


@pytest.mark.parametrize("who", ["runner", "worker", "both"])
def test_what_a_worker_has_started_ends_with_it(
    start_spawning: Callable[[], Process], control: Control, who: str
) -> None:
    control.set("sleep-train", "100")
    process = start_spawning()
    process.wait_for("train wise: started")
    until = time.monotonic() + 30
    while not (found := helpers(process)):
        assert time.monotonic() < until
        time.sleep(0.05)
    (helper,) = found
    worker, family = helper.parent(), process.family()
    assert worker is not None
    if who != "runner":
        worker.send_signal(signal.SIGKILL)
    if who != "worker":
        process.popen.kill()
    assert gone([helper], 20), "it would hold its GPU"
    control.unset("sleep-train")
    process.popen.wait(60)
    assert gone(family, 20)


def test_two_runs_on_one_store_share_the_work(start: Callable[[], Process], control: Control) -> None:
    control.set("sleep-teacher", "100")
    one = start()
    one.wait_for("traces wise: started")
    other = start()
    other.wait_for("traces wise: another process is running it; waiting for its result")
    control.unset("sleep-teacher")
    assert (one.popen.wait(90), other.popen.wait(90)) == (0, 0)
    assert control.log("teacher") == ["0", "1", "2", "3"]
    assert control.log("train") == ["0 4"]
    assert sorted(control.log("asked")) == ["toy/0#0 1", "toy/0#0 base", "toy/1#0 1", "toy/1#0 base"]


def test_a_run_that_waits_takes_over_when_the_other_one_dies(start: Callable[[], Process], control: Control) -> None:
    control.set("sleep-teacher", "100")
    one = start()
    one.wait_for("traces wise: started")
    other = start()
    other.wait_for("another process is running it")
    control.unset("sleep-teacher")
    one.popen.kill()
    assert other.popen.wait(60) == 0
    assert control.log("teacher") == ["0", "1", "2", "3"]


def test_a_worker_killed_from_outside_is_a_failure_and_not_the_end(
    start: Callable[[], Process], control: Control
) -> None:
    control.set("sleep-train", "100")
    process = start()
    process.wait_for("train wise: started")
    time.sleep(0.2)
    (worker,) = [one for one in process.family() if any("/logs/train-" in file.path for file in one.open_files())]
    worker.send_signal(signal.SIGKILL)
    assert process.popen.wait(60) == 1
    said = process.err.read_text()
    assert "FAILED: train wise\n    its process ended with exit code -9; what it printed: " in said
    assert "sample base-small@0 on toy: done" in said


def test_a_sleeping_engine_loses_no_sample_to_ctrl_c(start: Callable[[], Process], control: Control) -> None:
    control.set("sleep-sample-toy-1#0", "100")
    process = start()
    process.wait_for("sample base-small@0 on toy: started")
    until = time.monotonic() + 30
    while not (control.folder / "asked.log").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    assert process.interrupt() == 130
    control.unset("sleep-sample-toy-1#0")
    assert control.log("asked") == ["toy/0#0 base"]
    assert start().popen.wait(60) == 0
    assert control.log("asked") == ["toy/1#0 base", "toy/0#0 1", "toy/1#0 1"]


def test_the_module_runs_as_a_command(run_python: Callable[..., Any]) -> None:
    assert run_python("-m", "distillbench", "--version").out.startswith("distillbench, version ")
