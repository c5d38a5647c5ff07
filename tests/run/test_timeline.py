"""When things run, from the log of a run: untouched students first, checkpoints as they come, one engine a student."""

from __future__ import annotations

from typing import Any

import pytest
from core_bench import Control, Toys
from core_factories import merged

from distillbench.events import Closed, Ended, Event, Finished, Opened, Started
from distillbench.session import Report
from distillbench.store.runs import runs_of

TWO = {
    "students": {"small": {"use": "toy-student"}, "large": {"use": "toy-student", "seed": 2}},
    "matrix": {"engine": "talk", "student": ["small", "large"], "seed": [0, 1]},
}
OPEN = {"trainers": {"fit": {"steps": []}}}


def run(bench: Toys, changes: dict[str, Any]) -> tuple[Report, list[Event]]:
    """Runs a matrix as a user does; the events are those of the log in the store."""
    report = bench.load(changes).run(on_event=lambda event: None)
    (log,) = runs_of(bench.session.store)
    assert not log.is_alive
    return report, list(log.events())


def place(events: list[Event], kind: type[Event], name: str) -> int:
    """Where in the log something happened to a stage."""
    (found,) = [n for n, event in enumerate(events) if isinstance(event, kind) and event.stage.name == name]
    return found


@pytest.mark.parametrize("more", [{}, OPEN], ids=["steps", "epochs"])
def test_unequal_trainings_of_two_students(bench: Toys, control: Control, more: dict[str, Any]) -> None:
    control.set("sleep-train-1", "6")
    report, events = run(bench, merged(TWO, more))
    assert report.exit_code == 0 and isinstance(events[-1], Finished)
    opened = [event.student for event in events if isinstance(event, Opened)]
    assert sorted(opened) == ["large", "small"] == sorted(set(opened)), "one engine for each student"
    assert len([event for event in events if isinstance(event, Closed)]) == 2
    for student in ("small", "large"):
        quick, slow = f"{student},seed=0", f"{student},seed=1"
        samples = [event for event in events if isinstance(event, Started) and event.stage.step is not None]
        first = next(one for one in samples if student in one.stage.label and one.stage.benchmark)
        assert first.stage.label == f"base-{student}@0 on toy"
        ended = place(events, Ended, f"train {quick}")
        assert ended < place(events, Started, f"sample {quick}@1 on toy")
        assert place(events, Ended, f"grade {quick}@2 on toy") < place(events, Ended, f"train {slow}"), "no waiting"


def test_on_one_core_the_untouched_student_is_first_and_nothing_starves(bench: Toys, control: Control) -> None:
    changes = {"launcher": {"use": "toy-launcher", "cpus": 1}, "matrix": {"engine": "talk", "seed": [0, 1]}}
    report, events = run(bench, changes)
    assert report.exit_code == 0
    untouched = place(events, Ended, "sample base-small@0 on toy")
    assert untouched < min(place(events, Started, f"train seed={seed}") for seed in (0, 1))
    assert len([event for event in events if isinstance(event, Opened)]) == 1, "an idle session keeps no core"


def test_rows_that_do_not_fit_are_refused_before_anything_is_trained(bench: Toys, control: Control) -> None:
    forgetful = {"renderers": {"plain": {"use": "toy-renderer", "end_loss": False}}}
    report, events = run(bench, forgetful | {"matrix": {"renderer": "plain", "engine": "talk"}})
    assert report.exit_code == 1
    (failed,) = [event for event in events if isinstance(event, Ended) and event.ending == "failed"]
    assert failed.stage.kind == "check" and "end_without_loss" in failed.why
    assert control.log("train") == []
