"""Words for counts, times and numbers that the terminal shows while a run goes on."""

from __future__ import annotations

from collections.abc import Mapping

from distillbench.outcomes import CORRECT, ERRORS, GRADED, OUTCOMES


def duration(seconds: float) -> str:
    """Seconds as a person says them: `48 s`, `12 min`, `3 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def counted(done: int, total: int | None) -> str:
    """How much is done: `12/60`, or `12` where nothing says of how much."""
    return f"{done:,}/{total:,}" if total else f"{done:,}"


def numbers(outcomes: Mapping[str, int], repeats: int = 1) -> str:
    """What the outcomes of a checkpoint say: its accuracy with interval and n, and how many of each.

    Args:
        outcomes: How many samples have each.
        repeats: Samples of one problem. Those of one problem are alike, so that no interval is given here for more than
            one: the report has it.
    """
    from distillbench.report.statistics.intervals import wilson

    known = [outcome for outcome in OUTCOMES if outcomes.get(outcome)]
    counts = ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in known)
    n_scored = sum(outcomes[outcome] for outcome in known if outcome not in ERRORS)
    if not n_scored or GRADED in known:
        return counts
    n_correct = outcomes.get(CORRECT, 0)
    interval = wilson(n_correct, n_scored) if repeats == 1 else None
    bounds = f" [{interval.low:.3f}, {interval.high:.3f}]" if interval else ""
    return f"accuracy {n_correct / n_scored:.3f}{bounds}, n = {n_scored}: {counts}"
