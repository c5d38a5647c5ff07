"""Which GPUs are handed out to whom. No driver is needed for that: `CUDA_VISIBLE_DEVICES` names them."""

from __future__ import annotations

from typing import Any

import pytest
from core_bench import Control, Toys
from core_factories import merged

from distillbench.cli.main import invoke

ONE_EACH: dict[str, Any] = {
    "students": {"small": {"use": "toy-hub-student", "gpus": 1}},
    "evaluations": {"toy": {"limit": 1}},
    "launcher": {"use": "local"},
    "matrix": {"engine": "talk", "seed": [0, 1]},
}


@pytest.fixture
def visible(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """What this process, and so the launcher, may use."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", request.param)
    return str(request.param)


def held_at_once(lines: list[str]) -> list[dict[str, str]]:
    """Who holds which GPUs, after every time that one was given or taken back."""
    held: dict[str, str] = {}
    found = []
    for line in lines:
        event, _, rest = line.partition(" ")
        who, _, gpus = rest.partition(": ")
        held = held | {who: gpus} if event == "begin" else {name: one for name, one in held.items() if name != who}
        found.append(held)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("visible", ["3,5"], indirect=True)
def test_two_jobs_never_see_the_same_gpu(bench: Toys, control: Control, visible: str) -> None:
    control.set("sleep-train-0", "1")
    assert set(bench.run(ONE_EACH).endings.values()) == {"done"}
    held = held_at_once(control.log("gpus"))
    assert {gpus for one in held for gpus in one.values()} == {"3", "5"}, "as they are named, one each"
    assert all(len(set(one.values())) == len(one) for one in held)
    assert held[-1] == {}


@pytest.mark.slow
@pytest.mark.parametrize("visible", ["7"], indirect=True)
def test_with_one_gpu_an_idle_session_gives_it_back(bench: Toys, control: Control, visible: str) -> None:
    assert set(bench.run(ONE_EACH).endings.values()) == {"done"}
    held = held_at_once(control.log("gpus"))
    assert max(map(len, held)) == 1 and {gpus for one in held for gpus in one.values()} == {"7"}
    assert [next(iter(one)) for one in held if one] == ["session", "train 0", "train 1", "session"]


@pytest.mark.slow
@pytest.mark.parametrize("visible", ["2"], indirect=True)
def test_a_gpu_of_a_job_that_was_killed_is_handed_out_again(bench: Toys, control: Control, visible: str) -> None:
    control.set("kill-train-0")
    summary = bench.run(ONE_EACH)
    ended = {stage.label: summary.endings[key] for key, stage in summary.plan.stages.items() if stage.kind == "train"}
    assert ended == {"seed=0": "failed", "seed=1": "done"}


@pytest.mark.slow
@pytest.mark.parametrize("visible", ["0,1"], indirect=True)
def test_what_asks_for_no_gpu_sees_none(bench: Toys, control: Control, visible: str) -> None:
    changes = merged(ONE_EACH, {"students": {"small": {"gpus": 0}}, "matrix": {"engine": "talk", "seed": [0]}})
    assert set(bench.run(changes).endings.values()) == {"done"}
    assert {line.partition(": ")[2] for line in control.log("gpus")} == {""}


@pytest.mark.parametrize("visible", ["", "0", "GPU-8f6a"], indirect=True)
def test_too_few_are_refused_before_anything_runs(
    bench: Toys, control: Control, visible: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bench.matrix(merged(ONE_EACH, {"students": {"small": {"gpus": 2}}}))
    assert invoke(["--store", str(bench.session.store.root), "run", str(path)]) == 2
    said = capsys.readouterr().err
    assert "ask for a GPU that is not there; nothing has run" in said and "CUDA_VISIBLE_DEVICES" in said
    assert f"launcher 'local' has {1 if visible else 'none'} here" in said
    assert control.log("teacher") == []
