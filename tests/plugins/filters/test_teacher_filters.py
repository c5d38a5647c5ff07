"""The synthetic teacher and the filters."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from plugin_helpers import Tiny, coins_traces, tasks, trace

from distillbench.errors import StageError
from distillbench.outcomes import CORRECT, decide
from distillbench.preflight.rows import with_lengths
from distillbench.protocols import Context, NoOptions
from distillbench_plugins.benchmarks.math_boxed import MathBoxed, MathBoxedOptions
from distillbench_plugins.filters.correct_only import CorrectOnly
from distillbench_plugins.filters.max_tokens import MaxTokens, MaxTokensOptions
from distillbench_plugins.teachers.synthetic import SyntheticOptions, SyntheticTeacher
from distillbench_tasks.coins.problems import N_TRAIN


@pytest.mark.parametrize("style", ["concise", "verbose"])
def test_every_trace_is_right_by_the_grader(style: str, tiny: Tiny) -> None:
    traces = coins_traces(400, style)
    assert len({one.problem.problem_id for one in traces}) == 400
    for one in traces:
        row = tiny.renderer.render(one)
        ids = row.input_ids[row.loss_mask].tolist()
        completion = tiny.renderer.parse(ids, tiny.tokenizer.decode(ids[:-1]), "stop", "")
        assert decide(completion, one.problem, MathBoxed(MathBoxedOptions())).outcome == CORRECT
        assert (one.finish_reason, one.teacher) == ("stop", f"synthetic-{style}")


def test_traces_are_of_training_problems_in_order() -> None:
    traces = coins_traces(50)
    assert [one.problem for one in traces] == tasks().problems("coins", "train", 50)
    held = {one.messages[0].content for one in tasks().problems("coins", "test")}
    assert not held & {one.problem.messages[0].content for one in coins_traces(N_TRAIN)}
    assert traces[7].source == "coins train problem 7"
    assert coins_traces(50) == traces


def test_styles_solve_the_same_problems_at_different_length(tiny: Tiny) -> None:
    concise, verbose = coins_traces(200), coins_traces(200, "verbose")
    assert [one.problem for one in concise] == [one.problem for one in verbose]
    assert [one.answer for one in concise] == [one.answer for one in verbose]
    for short, long in zip(concise, verbose, strict=True):
        steps = re.findall(r"\d[+-]\d=\d", short.reasoning or "")
        assert len(steps) == len(short.problem.metadata["doc"]["steps"])
        assert re.findall(r"\d[+-]\d=\d", long.reasoning or "") == [step for step in steps for _ in range(2)]
        assert (long.reasoning or "").count("Wait") == len(steps)
    lengths = [sum(len(tiny.renderer.render(one).input_ids) for one in traces) for traces in (concise, verbose)]
    assert lengths[1] > 1.8 * lengths[0]


def make(context: Context, **options: object) -> list[object]:
    return list(SyntheticTeacher(SyntheticOptions(**options)).traces(context, start=0))  # type: ignore[arg-type]


def test_more_problems_than_there_are_is_a_clear_error() -> None:
    context = Context(work=Path(), tasks=tasks())
    assert len(make(context, n=N_TRAIN)) == N_TRAIN
    with pytest.raises(StageError, match=rf"'coins' has {N_TRAIN} training problems; .* n is {N_TRAIN + 1}"):
        make(context, n=N_TRAIN + 1)


def test_a_task_it_cannot_solve_is_a_clear_error() -> None:
    with pytest.raises(StageError, match=r"'digits'.*start.*steps"):
        make(Context(work=Path(), tasks=tasks()), task="digits", n=3)


def test_it_needs_the_tasks() -> None:
    with pytest.raises(ValueError, match="tasks"):
        make(Context(work=Path()), n=3)


def test_its_task_is_where_its_grader_comes_from() -> None:
    assert SyntheticTeacher(SyntheticOptions()).task() == "coins"


HERE = Context(work=Path())


def test_correct_only() -> None:
    outcomes = ("correct", "wrong", "no_answer", "grader_error")
    traces = [replace(trace(None, one), measures={"verdict": {"outcome": one}}) for one in outcomes]
    component = CorrectOnly(NoOptions())
    wanted = [None, "not correct", "not correct", "the grader failed on it"]
    assert list(component.decide(traces, HERE)) == wanted
    assert component.reads == {"verdict"}


def test_max_tokens_counts_what_the_student_sees(tiny: Tiny) -> None:
    traces = list(with_lengths(coins_traces(60, "verbose"), tiny.renderer))
    lengths = [len(tiny.renderer.render(one).input_ids) for one in traces]
    limit = sorted(lengths)[30]
    reasons = list(MaxTokens(MaxTokensOptions(limit=limit)).decide(traces, HERE))
    assert [reason is None for reason in reasons] == [length <= limit for length in lengths]
    assert {None, *reasons} == {None} | {
        f"too long: {length} tokens, limit {limit}" for length in lengths if length > limit
    }
    assert 0 < sum(reason is None for reason in reasons) < 60
    exact, below = (
        next(MaxTokens(MaxTokensOptions(limit=lengths[0] + more)).decide(traces[:1], HERE)) for more in (0, -1)
    )
    assert exact is None
    assert below == f"too long: {lengths[0]} tokens, limit {lengths[0] - 1}"


def test_max_tokens_leaves_what_cannot_be_rendered_to_the_preflight() -> None:
    component = MaxTokens(MaxTokensOptions(limit=5))
    assert component.reads == {"length"}
    unknown = replace(trace(None, "5"), measures={"length": {"n_tokens": None, "error": "no such role"}})
    assert component.reason(unknown, HERE) is None
