"""What an evaluation asks of whom: steps, problems, examples, the system turn, penalties; keys, plans and reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from core_bench import Toys
from core_factories import keys
from hypothesis import given
from hypothesis import strategies as st

from distillbench.errors import MatrixError, TaskError
from distillbench.matrix.problems import places_of
from distillbench.plan.plan import Plan
from distillbench.plan.sampling import sampling_params
from distillbench.records import Every, Sampling
from distillbench.report.collect import collect
from distillbench.report.evaluated import build_rows
from distillbench.report.statements import notes
from distillbench.stages.steps import chosen_steps
from distillbench.store.rows import SAMPLES, read_rows

TRAINED, BASE = "wise", "base-small"


def asked(**options: Any) -> dict[str, Any]:
    return {"evaluations": {"toy": options}}


def steps_of(plan: Plan, cell: str = TRAINED, evaluation: str = "toy") -> list[int]:
    return [graded.step for graded in plan.graded[cell] if graded.evaluation.name == evaluation]


LONG = {"trainers": {"fit": {"steps": [50, 100, 150, 200]}}}


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        ("all", [50, 100, 150, 200]),
        ("none", []),
        ("last", [200]),
        ({"every": 100}, [100, 200]),
        ({"every": 50}, [50, 100, 150, 200]),
        ([150], [150]),
        ([200, 50], [50, 200]),
    ],
)
def test_steps_choose_checkpoints_and_never_the_untouched_student(bench: Toys, steps: Any, wanted: list[int]) -> None:
    plan, whole = bench.plan(LONG | asked(steps=steps)), bench.plan(LONG)
    assert steps_of(plan) == wanted
    assert steps_of(plan, BASE) == [0]
    for kind in ("train", "sample", "grade"):
        assert set(keys(plan, kind)) <= set(keys(whole, kind)), "which steps are asked is in no key"
    assert keys(plan, "train") == keys(whole, "train")


@given(st.sets(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 20))
def test_every_and_last_choose_among_what_is_there(steps: set[int], every: int) -> None:
    class Asked:
        def __init__(self, how: Any) -> None:
            self.steps = how

    ordered = sorted(steps)
    assert chosen_steps(Asked(Every(every)), ordered) == tuple(one for one in ordered if one % every == 0)  # type: ignore[arg-type]
    assert chosen_steps(Asked("last"), ordered[::-1]) == (max(steps),)  # type: ignore[arg-type]


def test_each_evaluation_chooses_for_itself_and_axes_may(bench: Toys) -> None:
    both = LONG | {"evaluations": {"toy": {"steps": "last"}, "long": {"benchmark": "toy", "max_tokens": 9}}}
    plan = bench.plan(both)
    assert steps_of(plan) == [200]
    assert steps_of(plan, evaluation="long") == [50, 100, 150, 200]
    axis = bench.plan(LONG | {"matrix": {"evaluation.steps": ["none", [[100]][0]], "engine": "talk"}})
    assert sorted(map(len, axis.graded.values())) == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([100, 175], "got:    175"),
        ({"every": 60}, "{every: 60}, which divides none of them"),
        ([0], "got:    0"),
    ],
)
def test_a_step_that_is_not_there_is_a_mistake_of_the_plan(bench: Toys, steps: Any, words: str) -> None:
    with pytest.raises(MatrixError) as caught:
        bench.plan(LONG | asked(steps=steps))
    assert words in str(caught.value)
    assert "cell 'wise' has checkpoints: 50, 100, 150, 200" in str(caught.value)
    assert "evaluations.toy.steps" in str(caught.value)


def test_steps_that_are_known_later_are_a_mistake_then(bench: Toys) -> None:
    open_steps = {"trainers": {"fit": {"steps": []}}}
    plan = bench.plan(open_steps | asked(steps=[77]))
    assert plan.open_cells == {TRAINED}
    with pytest.raises(MatrixError, match="77"):
        bench.run(open_steps | asked(steps=[77]))
    summary = bench.run(open_steps | asked(steps="last"))
    assert summary.count("failed") == 0
    assert len(steps_of(summary.plan)) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": "lst"}, "did you mean 'last'?"),
        ({"steps": {"evry": 5}}, "a mapping with the keys every"),
        ({"steps": {"every": 5, "from": 3}}, "a mapping with the keys every"),
        ({"steps": {"every": 0}}, "a mapping with the keys every"),
        ({"steps": [-1]}, "a list of whole numbers >= 0"),
        ({"steps": []}, "steps: none"),
        ({"steps": 200}, "a list of whole numbers"),
        ({"problems": []}, "leave it out to ask all"),
        ({"problems": ["toy/6"]}, "it has 6: toy/0 .. toy/5"),
        ({"problems": [2, 17]}, "toy/17"),
        ({"problems": ["tpy/3"]}, "did you mean 'toy/3'?"),
        ({"problems": ["toy/three"]}, "ids of problems of task 'toy', such as toy/0"),
        ({"problems": [-1]}, "whole numbers >= 0"),
        ({"problems": [True]}, "whole numbers >= 0"),
        ({"num_fewshot": -1}, "a whole number >= 0"),
        ({"system": 3}, "a string"),
        ({"repetition_penalty": 0}, "a number > 0"),
        ({"presence_penalty": 3}, "<= 2"),
    ],
)
def test_mistakes_are_told_in_words(bench: Toys, options: dict[str, Any], words: str) -> None:
    with pytest.raises(MatrixError) as caught:
        bench.plan(asked(**options))
    assert words in str(caught.value)


def test_problems_are_a_set_and_one_of_several_forms(bench: Toys) -> None:
    one = bench.load(asked(problems=[4, "toy/1", "1", 4])).cells[0].evaluations[0]
    other = bench.load(asked(problems=[1, 4])).cells[0].evaluations[0]
    assert one.problems == other.problems == (1, 4)
    assert sampling_params(one) == sampling_params(other)


def test_problems_that_are_known_only_to_the_task_are_told_by_it(bench: Toys) -> None:
    found = places_of(["toy/99"], "toy", None, "here")
    assert found == (99,)
    loaded = bench.load(asked(problems=[1, 4]))
    from dataclasses import replace

    from distillbench.tasks.loader import LmEvalTasks

    tasks, evaluation = LmEvalTasks(loaded.tasks), loaded.cells[0].evaluations[0]
    assert [problem.problem_id for problem in tasks.evaluation_problems(evaluation)] == ["toy/1", "toy/4"]
    first = replace(evaluation, limit=1)
    assert [problem.problem_id for problem in tasks.evaluation_problems(first)] == ["toy/1"]
    with pytest.raises(TaskError, match=r"no problem toy/99; it has 6: toy/0 \.\. toy/5"):
        tasks.evaluation_problems(replace(evaluation, problems=(1, 99)))


#: What asks otherwise, and what is sampled anew for it.
ASKING: dict[str, dict[str, Any]] = {
    "problems": {"problems": [1]},
    "num_fewshot": {"num_fewshot": 2},
    "system": {"system": "Be brief."},
    "repetition_penalty": {"repetition_penalty": 1.1},
    "presence_penalty": {"presence_penalty": 1.5},
}


@pytest.mark.parametrize("name", ASKING)
def test_what_asks_otherwise_samples_anew_and_trains_nothing(bench: Toys, name: str) -> None:
    plan, other = bench.plan(), bench.plan(asked(**ASKING[name]))
    for cell in (TRAINED, BASE):
        assert not set(keys(plan, "sample", cell)) & set(keys(other, "sample", cell))
    for kind in ("student", "traces", "curate", "train"):
        assert keys(plan, kind) == keys(other, kind)
    axis = bench.plan({"matrix": {"engine": "talk", f"evaluation.{name}": [ASKING[name][name]]}})
    if name != "problems":  # a list is the values of an axis
        assert keys(axis, "sample") == keys(other, "sample")


@pytest.mark.parametrize(
    "neutral",
    [{"num_fewshot": 0}, {"system": ""}, {"repetition_penalty": 1}, {"presence_penalty": 0}, {"problems": None}],
    ids=str,
)
def test_what_asks_for_nothing_keeps_the_keys_that_were_stored(bench: Toys, neutral: dict[str, Any]) -> None:
    evaluation = bench.load(asked(**neutral)).cells[0].evaluations[0]
    assert sampling_params(evaluation) == sampling_params(bench.load().cells[0].evaluations[0])
    assert set(json.loads(sampling_params(evaluation))) == {"task", "sampling", "prefill", "repeats", "limit", "subset"}


def test_penalties_count_in_greedy_decoding() -> None:
    from distillbench.plan.sampling import effective_sampling

    cold = Sampling(top_k=7, seed=3, repetition_penalty=1.2, presence_penalty=0.5)
    assert effective_sampling(cold) == Sampling(repetition_penalty=1.2, presence_penalty=0.5)


def test_a_preflight_looks_at_nothing_that_checkpoints_are_not_asked(bench: Toys) -> None:
    plan = bench.plan(asked(steps="none"))
    assert plan.pairings[TRAINED].evaluations == ()
    assert [one.name for one in plan.pairings[BASE].evaluations] == ["toy"]


def test_a_run_asks_what_was_chosen_and_pairs_it(bench: Toys) -> None:
    changes = asked(problems=[1, 4], system="Be brief.", num_fewshot=2, steps="last", max_tokens=40)
    changes["accept"] = ["lost_text"]  # the toy renderer asks the last message alone
    summary = bench.run(changes)
    assert not summary.reasons
    store, plan = bench.session.store, bench.plan(changes)
    for key in keys(plan, "sample"):
        rows = read_rows(store.folder(plan.stages[key]) / SAMPLES)
        assert [row["problem_id"] for row in rows] == ["toy/1", "toy/4"]
        for row in rows:
            messages = json.loads(row["messages"])
            assert messages[0] == ["system", "Be brief."]
            assert [role for role, _ in messages[1:]] == ["user", "assistant"] * 2 + ["user"]
            own = messages[-1][1]
            assert all(own != text for role, text in messages[1:-1] if role == "user")
    results = collect(plan, store, "test")
    rows = build_rows(results)
    assert [(row.result.cell, row.result.step) for row in rows] == [(BASE, 0), (TRAINED, 2)]
    assert rows[1].difference is not None and rows[1].difference.n_pairs == 2
    assert rows[0].result.subset == "2 named problems (1, 4)"
    assert {key: rows[0].result.settings[key] for key in ("num_fewshot", "system")} == {
        "num_fewshot": 2,
        "system": "Be brief.",
    }
    assert any("a subset, 2 named problems (1, 4)" in line for line in notes(rows, results))


LEAKY = """
task: leaky
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: exact_match}}]
"""


def test_examples_from_the_only_split_never_hold_the_problem_itself(tmp_path: Path) -> None:
    """lm-eval draws from the test split then, and leaves the problem out only where the split is named."""
    from distillbench.records import TaskRef
    from distillbench.tasks.identity import TaskIndex
    from distillbench.tasks.loader import LmEvalTasks

    file = tmp_path / "test.jsonl"
    file.write_text("".join(f'{{"question": "Q{n}", "answer": "{n}"}}\n' for n in range(6)))
    (tmp_path / "leaky.yaml").write_text(LEAKY.format(file=file))
    tasks = LmEvalTasks(TaskIndex([tmp_path]))
    for problem in tasks.problems(TaskRef("leaky", num_fewshot=4), "test"):
        texts = [message.content for message in problem.messages]
        assert len(texts) == 9
        assert texts.count(texts[-1]) == 1
