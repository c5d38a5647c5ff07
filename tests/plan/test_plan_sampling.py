"""What decides a completion is in the key of its stage, and nothing else is."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from core_bench import Toys
from core_factories import keys

from distillbench.catalog import Catalog
from distillbench.errors import MatrixError, Place
from distillbench.plan.plan import Plan
from distillbench.plan.sampling import effective_sampling, sampling_params
from distillbench.records import Choice, Evaluation, Membership, Sampling
from distillbench_plugins.students.hf import HfOptions

WARM = {"temperature": 0.7}


def plan_with(bench: Toys, evaluation: dict[str, Any], **changes: Any) -> Plan:
    return bench.plan({"evaluations": {"toy": evaluation}} | changes)


@pytest.mark.parametrize(
    "option",
    [
        {"temperature": 0.8},
        {"top_p": 0.9},
        {"top_k": 20},
        {"min_p": 0.1},
        {"seed": 1},
        {"max_tokens": 9},
        {"stop": ["END"]},
        {"repeats": 2},
    ],
    ids=str,
)
def test_whatever_decides_a_sampled_completion_is_in_the_key(bench: Toys, option: dict[str, Any]) -> None:
    one, other = plan_with(bench, WARM), plan_with(bench, WARM | option)
    assert not {*keys(one, "sample")} & {*keys(other, "sample")}
    assert keys(one, "train") == keys(other, "train")


@pytest.mark.parametrize("option", [{"top_p": 0.9}, {"top_k": 20}, {"min_p": 0.1}, {"seed": 1}], ids=str)
def test_what_decides_nothing_at_temperature_0_is_not(bench: Toys, option: dict[str, Any]) -> None:
    one, other = plan_with(bench, {"temperature": 0}), plan_with(bench, {"temperature": 0} | option)
    assert {*one.stages} == {*other.stages}
    drawn = [stage.asked.sampling for stage in other.stages.values() if stage.kind == "sample"]
    assert {*drawn} == {effective_sampling(Sampling(max_tokens=drawn[0].max_tokens))}  # so that results are the same


@pytest.mark.parametrize("option", [{"max_tokens": 9}, {"stop": ["END"]}, {"repeats": 2}], ids=str)
def test_what_decides_a_greedy_completion_is_in_the_key(bench: Toys, option: dict[str, Any]) -> None:
    one, other = plan_with(bench, {"temperature": 0}), plan_with(bench, {"temperature": 0} | option)
    assert not {*keys(one, "sample")} & {*keys(other, "sample")}


def test_a_students_sampling_samples_again_and_trains_nothing_again(bench: Toys) -> None:
    one = bench.plan()
    other = bench.plan({"students": {"small": {"sampling": {"temperature": 0.6}}}})
    assert keys(one, "train") == keys(other, "train")
    assert not {*keys(one, "sample")} & {*keys(other, "sample")}


@pytest.mark.parametrize(
    "added",
    [
        {"evaluations": {"more": {"benchmark": "toy", "max_tokens": 7}}},
        {"evaluations": {"stops": {"benchmark": "toy", "stop": ["END"]}}},
        {"teachers": {"other": {"use": "toy-teacher", "n": 3}}},
        {"students": {"large": {"use": "toy-student", "seed": 2, "sampling": WARM}}},
        {"matrix": {"seed": [0, 1]}},
    ],
    ids=str,
)
def test_what_is_added_changes_no_other_sample(bench: Toys, added: dict[str, Any]) -> None:
    one, other = plan_with(bench, WARM), plan_with(bench, WARM, **_beside(added))
    assert {*keys(one, "sample")} < {*keys(other, "sample")}
    assert {*one.stages} - {*keys(one, "check")} <= {*other.stages}


def _beside(added: dict[str, Any]) -> dict[str, Any]:
    if "evaluations" in added:
        return {"evaluations": {"toy": WARM} | added["evaluations"]}
    return added


def test_a_budget_is_graded_by_itself_from_the_same_samples(bench: Toys) -> None:
    one, other = plan_with(bench, {"max_tokens": 64}), plan_with(bench, {"max_tokens": 64, "budgets": [2, 5]})
    assert keys(one, "sample") == keys(other, "sample")
    assert {*one.stages} < {*other.stages}
    found = [graded for graded in other.graded["wise"] if graded.step == 1]
    assert [graded.budget for graded in found] == [None, 2, 5]
    assert len({graded.sample for graded in found}) == 1
    grades = [graded.grade for graded in found]
    assert len({stage.key for stage in grades}) == 3
    assert [stage.budget for stage in grades] == [None, 2, 5]
    assert {stage.process for stage in grades} == {found[0].sample.process}
    assert grades[1].label == "wise@1 on toy, cut at 2 tokens"


def test_budgets_where_no_token_ids_come_are_refused_before_anything_runs(bench: Toys) -> None:
    hosted = {"matrix": {"renderer": "hosted"}, "evaluations": {"toy": {"budgets": [2]}}}
    with pytest.raises(MatrixError) as caught:
        bench.plan(hosted)
    for told in ("evaluations.toy.budgets\n", "`budgets`", "renderer 'hosted'", "leave `budgets` out"):
        assert told in str(caught.value)


def test_a_stop_string_ends_the_answer_that_is_graded(bench: Toys) -> None:
    plan = plan_with(bench, {"stop": ["END"], "until": ["\n\n"]})
    grades = [stage for stage in plan.stages.values() if stage.kind == "grade"]
    assert {stage.until for stage in grades} == {("\n\n", "END")}


def test_a_server_that_has_the_model_needs_no_gpu_here(catalog: Catalog) -> None:
    student = catalog.kind("student")["hf"](HfOptions(model="somewhere/else", gpus=4))
    for name, gpus in {"vllm": 4, "transformers": 4, "api": 0}.items():
        engine = catalog.kind("engine")[name]
        assert engine(engine.Options()).resources(student).gpus == gpus


#: Another value for every field of an evaluation. What is in neither is a field that nobody has thought about.
DECIDES: dict[str, Any] = {
    "sampling": Sampling(max_tokens=9),
    "prefill": "think",
    "repeats": 2,
    "limit": 3,
    "subset": "shuffled",
    "sample_identity": "another task, or its metadata",
    "problems": (0, 1),
    "num_fewshot": 0,
    "system": "Be brief.",
}
DECIDES_NOTHING: dict[str, Any] = {
    "name": "other",
    "task": "other",  # these four are in the identity of what is sampled
    "task_path": Path("other.yaml"),
    "metadata": '{"a":1}',
    "output_type": "multiple_choice",
    "until": ("END",),
    "grade_identity": "other",
    "n_docs": 7,
    "grader": Choice("benchmark", "g", "other", None, "{}"),
    "origins": {"limit": Place(words="elsewhere")},
    "findings": (("a", "b"),),
    "budgets": (5,),
    "steps": "last",
    "place": Place("m.yaml", 7),
    "groups": (Membership("g", True, 2),),
}
SAMPLING = {
    "temperature": 0.9,
    "top_p": 0.9,
    "top_k": 20,
    "min_p": 0.1,
    "max_tokens": 9,
    "stop": ("END",),
    "seed": 1,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.5,
}
ASKED = Evaluation(
    name="e",
    task="t",
    task_path=Path("t.yaml"),
    sampling=Sampling(temperature=0.7),
    prefill="none",
    repeats=1,
    limit=2,
    subset="first",
    until=(),
    sample_identity="s",
    grade_identity="g",
    n_docs=None,
    grader=Choice("benchmark", "g", "g", None, "{}"),
)


@pytest.mark.parametrize("name", [one.name for one in fields(Evaluation)])
def test_every_field_of_an_evaluation_is_in_the_key_of_samples_or_decides_none(name: str) -> None:
    """The subset too: other problems' samples would be taken for these."""
    decides = name in DECIDES
    other = replace(ASKED, **{name: DECIDES[name] if decides else DECIDES_NOTHING[name]})
    assert getattr(other, name) != getattr(ASKED, name)
    assert (sampling_params(other) != sampling_params(ASKED)) == decides


@pytest.mark.parametrize("name", [one.name for one in fields(Sampling)])
def test_every_field_of_a_sampling_is_in_the_key_of_samples(name: str) -> None:
    drawn = replace(ASKED.sampling, **{name: SAMPLING[name]})
    assert sampling_params(replace(ASKED, sampling=drawn)) != sampling_params(ASKED)
