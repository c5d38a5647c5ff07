"""What a run shows while it goes on: piped lines, and bars in a terminal."""

from __future__ import annotations

import io
import re

from rich.console import Console

from distillbench.cli.progress import Display
from distillbench.events import About, Ended, Event, Graded, Planned, Progressed, Sampled, Started

TRAIN = About("t", "train", "wise")
LONG = "the rows do not fit\n    wanted: this\n    got: that"


def shown(evaluations: int, *events: Event) -> str:
    """What the progress says of events, to a file."""
    out = io.StringIO()
    stages = tuple(About(str(number), "sample", f"{number} on math", "math", "math") for number in range(evaluations))
    with Display(Console(file=out, width=200), 0) as display:
        display(Planned(matrix="m", cells={}, stages=stages, done=0, n_stages=len(stages), n_cells=1, grows=False))
        for event in events:
            display(event)
    return out.getvalue()


def test_a_benchmark_is_summed_up_once_all_its_samples_have_outcomes() -> None:
    one, other = (About(str(number), "sample", f"{number} on math", "math", "math") for number in range(2))
    sampled = [
        Sampled(stage=one, done=0, total=2, tokens=0),
        Sampled(stage=one, done=2, total=2, tokens=30),
        Graded(stage=one, outcomes={"correct": 1}),
    ]
    assert "math: " not in shown(2, *sampled)
    rest = [
        Sampled(stage=other, done=2, total=2, tokens=10),
        Graded(stage=other, outcomes={"wrong": 2}, is_whole=True),
        Graded(stage=one, outcomes={"correct": 1, "truncated": 1}, is_whole=True),
    ]
    lines = shown(2, *sampled, *rest).splitlines()
    assert "0 on math: accuracy 0.500 [0.095, 0.905], n = 2: 1 correct, 1 truncated" in lines
    (line,) = [line for line in lines if line.startswith("math: ")]
    assert line.startswith("math: 4/4, ") and ", 1 correct, 2 wrong, 1 truncated, sampled in 0 s" in line


def said(*events: Event, terminal: bool = False, verbosity: int = 0) -> str:
    """What is printed of events."""
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=terminal, color_system=None)
    with Display(console, verbosity) as display:
        for event in events:
            display(event)
        display._bars.refresh()  # which a thread does ten times a second
    return out.getvalue()


def test_a_long_reason_is_said_once_and_its_log_for_each() -> None:
    failed = [
        Ended(stage=About(str(n), "train", f"seed={n}"), ending="failed", why=f"{LONG}\n    log: {n}.log")
        for n in range(3)
    ]
    text = said(*failed)
    assert text.count("the rows do not fit") == 1 and text.count("FAILED: train seed=") == 3
    assert text.count("for the same reason as train seed=0") == 2 and "log: 2.log" in text
    short = [Ended(stage=About(str(n), "train", f"seed={n}"), ending="failed", why="no luck") for n in range(2)]
    assert said(*short).count("no luck") == 2


def test_a_bar_has_no_count_before_there_is_one_and_shows_the_loss() -> None:
    begun = said(Started(stage=TRAIN), terminal=True)
    assert "train wise" in begun and not re.search(r"[0-9]/|/[?]", begun)
    step = Progressed(stage=TRAIN, done=3, total=80, note="steps, loss 0.123")
    text = said(Started(stage=TRAIN), step, terminal=True)
    assert "3/80" in text and "loss 0.123" in text


def test_quiet_says_failures_alone() -> None:
    events = [
        Planned(matrix="m", cells={}, stages=(TRAIN,), done=0, n_stages=1, n_cells=1, grows=False),
        Started(stage=TRAIN),
        Ended(stage=TRAIN, ending="done", seconds=1.0),
    ]
    assert said(*events, verbosity=-1) == ""
    assert said(*events) == "1 cells, 1 stages: 0 done, 1 to do\ntrain wise: done in 1.0 s (0 stages left)\n"
    assert "FAILED: train wise\n    no" in said(Ended(stage=TRAIN, ending="failed", why="no"), verbosity=-1)
