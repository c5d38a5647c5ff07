"""From cells to stages: what is shared, what enters which key, what has to run again and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from core_bench import Heard, Toys
from core_factories import Numbered, keys, kinds, stage, states

from distillbench.errors import PluginError
from distillbench.plan.estimate import Past, estimate
from distillbench.plan.inspect import with_statuses
from distillbench.plan.plan import Finished, Plan, Status
from distillbench.plan.sampling import sampling_params
from distillbench.plan.stage import Stage, identity
from distillbench.records import Resources
from distillbench.run.runner import Runner
from distillbench.stages.planner import build_plan
from distillbench.stages.sample import Sample

TRAINED, BASE = "wise", "base-small"


def changed_kinds(one: Plan, other: Plan, cell: str = TRAINED) -> set[str]:
    """The kinds of the stages of a cell whose keys are not the same in two plans; checks leave no result."""
    kinds_there_are = {stage.kind for plan in (one, other) for stage in plan.stages.values()} - {"check"}
    return {kind for kind in kinds_there_are if keys(one, kind, cell) != keys(other, kind, cell)}


def test_the_stages_of_a_cell_and_of_its_baseline(bench: Toys) -> None:
    plan = bench.plan()
    assert kinds(plan, TRAINED) == [
        "student",
        "traces",
        "curate",
        "render",
        "check",
        "train",
        "sample",
        "grade",
        "sample",
        "grade",
    ]
    assert kinds(plan, BASE) == ["student", "sample", "grade"]
    assert keys(plan, "student", BASE) == keys(plan, "student", TRAINED)
    assert len(plan.stages) == 12


def test_every_stage_comes_after_those_it_needs(bench: Toys) -> None:
    plan = bench.plan(
        {"matrix": {"seed": [0, 1], "teacher.n": [4, 6]}, "filters": {"sure": {"use": "toy-verdict-filter"}}}
    )
    seen: set[str] = set()
    for key, one in plan.stages.items():
        assert {need.key for need in one.waits_for} <= seen
        assert all(plan.stages[need.key] == need for need in one.needs)
        seen.add(key)
    assert set().union(*plan.cell_stages.values()) == seen


def test_two_cells_that_need_the_same_get_the_same_stage(bench: Toys) -> None:
    plan = bench.plan({"matrix": {"seed": [0, 1], "trainer.rate": [0.1, 0.2]}})
    assert len([name for name in plan.cell_stages if name != BASE]) == 4
    assert Counter(stage.kind for stage in plan.stages.values()) == {
        "student": 1,
        "traces": 1,
        "check": 1,
        "curate": 1,
        "render": 1,
        "train": 4,
        "sample": 9,
        "grade": 9,
    }


#: A change of the matrix and the kinds of stages of the trained cell, then of the baseline, that get another key.
CHANGES: dict[str, tuple[dict[str, Any], str, str]] = {
    "token budget": ({"evaluations": {"toy": {"max_tokens": 8}}}, "sample grade", "sample grade"),
    "temperature": ({"evaluations": {"toy": {"temperature": 0.7}}}, "sample grade", "sample grade"),
    "prefill": ({"evaluations": {"toy": {"prefill": "think"}}}, "sample grade", "sample grade"),
    "repeats": ({"evaluations": {"toy": {"repeats": 2}}}, "sample grade", "sample grade"),
    "limit": ({"evaluations": {"toy": {"limit": 3}}}, "sample grade", "sample grade"),
    "subset without a limit": ({"evaluations": {"toy": {"subset": "shuffled"}}}, "", ""),
    "until": ({"evaluations": {"toy": {"until": ["!"]}}}, "grade", "grade"),
    "grader options": ({"evaluations": {"toy": {"grader_options": {"strict": False}}}}, "grade", "grade"),
    "grader": ({"evaluations": {"toy": {"grader": "lm_eval"}}}, "grade", "grade"),
    "name of an evaluation": ({"evaluations": {"toy": None, "other": {"benchmark": "toy"}}}, "", ""),
    "trainer option": ({"trainers": {"fit": {"rate": 0.2}}}, "train sample grade", ""),
    "checkpoints": ({"trainers": {"fit": {"steps": [1, 3]}}}, "train sample grade", ""),
    "trainer option for memory": ({"trainers": {"fit": {"micro": 4}}}, "", ""),
    "name of a trainer": ({"trainers": {"fit": None, "other": {"use": "toy-trainer"}}}, "", ""),
    "seed": ({"matrix": {"seed": 1}}, "train sample grade", ""),
    "engine option": ({"engines": {"talk": {"words": "so "}}}, "sample grade", "sample grade"),
    "engine option for speed": ({"engines": {"talk": {"batch_size": 2}}}, "", ""),
    "student option": (
        {"students": {"small": {"seed": 1}}},
        "student render train sample grade",
        "student sample grade",
    ),
    "student option for speed": ({"students": {"small": {"threads": 2}}}, "", ""),
    "renderer option": (
        {"renderers": {"plain": {"use": "toy-renderer", "system": "Hi. "}}, "matrix": {"renderer": "plain"}},
        "render train sample grade",
        "sample grade",
    ),
    "teacher option": ({"teachers": {"wise": {"n": 6}}}, "traces curate render train sample grade", ""),
    "filter": ({"filters": {"short": {"use": "toy-filter"}}}, "curate render train sample grade", ""),
    "filter that reads verdicts": (
        {"filters": {"sure": {"use": "toy-verdict-filter"}}},
        "verdict curate render train sample grade",
        "",
    ),
    "launcher": ({"launcher": {"use": "local", "cpus": 1}}, "", ""),
    "name of the matrix": ({"name": "other"}, "", ""),
    "keep": ({"keep": ["full"]}, "", ""),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_enters_which_key(bench: Toys, change: str) -> None:
    changes, trained, base = CHANGES[change]
    plan = bench.plan()
    other = bench.plan(changes)
    assert changed_kinds(plan, other) == set(trained.split())
    assert changed_kinds(plan, other, BASE) == set(base.split())


def test_an_evaluation_changes_nothing_of_another(bench: Toys) -> None:
    both = {"evaluations": {"long": {"benchmark": "toy", "max_tokens": 99}}}
    plan = bench.plan(both)
    other = bench.plan({"evaluations": {"long": {"benchmark": "toy", "max_tokens": 98}}})
    alone = bench.plan()
    assert len(set(keys(plan, "sample")) & set(keys(other, "sample"))) == 3
    assert set(keys(alone, "sample")) == set(keys(plan, "sample")) & set(keys(other, "sample"))
    assert changed_kinds(plan, other) == {"sample", "grade"}


FILTERED = {"filters": {"short": {"use": "toy-filter", "limit": 5}, "row": {"use": "toy-row-filter"}}}


@pytest.mark.parametrize(
    ("changes", "affected"),
    [
        ({"filters": {"short": {"limit": 6}}}, "curate render train sample grade"),
        ({"matrix": {"filters": [["row", "short"]]}}, "curate render train sample grade"),
        ({"students": {"small": {"seed": 1}}}, "student length curate render train sample grade"),
        (
            {"renderers": {"plain": {"use": "toy-renderer", "system": "Hi"}}, "matrix": {"renderer": "plain"}},
            "length curate render train sample grade",
        ),
    ],
    ids=["option", "order", "student", "renderer"],
)
def test_what_enters_the_key_of_curated_traces(bench: Toys, changes: dict[str, Any], affected: str) -> None:
    """A filter that measures rows as the student sees them depends on student and renderer; others do not."""
    plan = bench.plan(FILTERED)
    sections = {name: {**FILTERED.get(name, {}), **changes.get(name, {})} for name in {*FILTERED, *changes}}
    if "filters" in changes:
        sections["filters"] = {**FILTERED["filters"], "short": {"use": "toy-filter", **changes["filters"]["short"]}}
    assert changed_kinds(plan, bench.plan(sections)) == set(affected.split())


@pytest.mark.parametrize(
    ("component", "attribute", "affected", "also_base"),
    [
        ("ToyTeacher", "version", "traces curate render train sample grade", ""),
        ("ToyStudent", "version", "student render train sample grade", "student sample grade"),
        ("ToyRenderer", "version", "render train sample grade", "sample grade"),
        ("ToyRenderer", "parser_version", "grade", "grade"),
        ("ToyTrainer", "version", "train sample grade", ""),
        ("ToyEngine", "version", "sample grade", "sample grade"),
        ("ToyBenchmark", "version", "grade", "grade"),
    ],
)
def test_a_component_that_means_something_else_now(
    bench: Toys, monkeypatch: pytest.MonkeyPatch, component: str, attribute: str, affected: str, also_base: str
) -> None:
    import distillbench_toys

    plan = bench.plan()
    monkeypatch.setattr(getattr(distillbench_toys, component), attribute, 2)
    other = bench.plan()
    assert changed_kinds(plan, other) == set(affected.split())
    assert changed_kinds(plan, other, BASE) == set(also_base.split())


@pytest.mark.parametrize(("attribute", "value"), [("version", 2), ("packages", ("pyyaml",))])
def test_a_grader_that_means_something_else_now_verifies_traces_again(
    bench: Toys, monkeypatch: pytest.MonkeyPatch, attribute: str, value: Any
) -> None:
    """Otherwise `correct_only` would train on the verdicts of an older grader."""
    import distillbench_toys

    changes = {"filters": {"sure": {"use": "toy-verdict-filter"}}}
    plan = bench.plan(changes)
    monkeypatch.setattr(distillbench_toys.ToyBenchmark, attribute, value)
    assert changed_kinds(plan, bench.plan(changes)) == {"verdict", "curate", "render", "train", "sample", "grade"}


def test_a_teachers_file_enters_by_content_and_not_by_place(bench: Toys, tmp_path: Path) -> None:
    for name, text in (("one", "same"), ("two", "same"), ("three", "other text")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "traces.txt").write_text(text)
    one, two, three = (bench.plan({"teachers": {"wise": {"path": f"{n}/traces.txt"}}}) for n in ("one", "two", "three"))
    assert changed_kinds(one, two) == set()
    assert changed_kinds(one, three) == {"traces", "curate", "render", "train", "sample", "grade"}


@pytest.mark.parametrize(
    ("old", "new", "affected"),
    [
        ('"{{question}}"', '"Now: {{question}}"', "traces curate render train sample grade"),
        ("version: 1", "version: 2", "grade"),
        ("metric: exact_match", "metric: bleu", "grade"),
        ("max_gen_toks: 16", "max_gen_toks: 17", "sample grade"),
    ],
    ids=["prompt", "version", "metric", "budget"],
)
def test_a_change_of_the_task(
    bench: Toys, toys: Path, tmp_path: Path, old: str, new: str, affected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    text = (
        (toys / "toy_tasks" / "toy.yaml")
        .read_text()
        .replace("toy_problems", "problems")
        .replace("task: toy", "task: mine")
    )
    (tasks / "problems.py").write_text((toys / "toy_tasks" / "toy_problems.py").read_text())
    changes = {
        "task_paths": ["tasks"],
        "evaluations": {"toy": {"benchmark": "mine"}},
        "teachers": {"wise": {"task": "mine"}},
    }
    (tasks / "mine.yaml").write_text(text)
    plan = bench.plan(changes)
    assert old in text
    (tasks / "mine.yaml").write_text(text.replace(old, new))
    assert changed_kinds(plan, bench.plan(changes)) == set(affected.split())


def test_verdicts_are_made_only_where_a_filter_reads_them(bench: Toys) -> None:
    plan = bench.plan(
        {
            "filters": {"sure": {"use": "toy-verdict-filter"}, "short": {"use": "toy-filter"}},
            "matrix": {"filters": [["sure", "short"], ["short"]]},
        }
    )
    verified = {name: keys(plan, "verdict", name) for name in plan.cell_stages}
    assert [bool(found) for found in verified.values()] == [True, False, False]
    (with_verdicts, without) = (keys(plan, "curate", name)[0] for name in list(verified)[:2])
    assert [need.kind for need in plan.stages[with_verdicts].needs] == ["traces", "verdict"]
    assert [need.kind for need in plan.stages[without].needs] == ["traces"]


def test_a_student_that_is_there_already_is_not_built(bench: Toys) -> None:
    plan = bench.plan({"students": {"small": {"use": "toy-hub-student"}}})
    assert keys(plan, "student") == []
    assert all("built" not in one.inputs() for one in plan.stages.values())
    hub, built = (bench.plan({"students": {"small": {"use": f"toy-{name}student"}}}) for name in ("hub-", ""))
    assert not set(keys(hub, "sample")) & set(keys(built, "sample"))


def test_all_samples_of_a_base_model_are_one_process(bench: Toys) -> None:
    plan = bench.plan({"matrix": {"seed": [0, 1]}, "evaluations": {"long": {"benchmark": "toy", "max_tokens": 99}}})
    assert len(keys(plan, "sample")) == 10
    assert len({plan.stages[key].process for key in keys(plan, "sample")}) == 1
    two = bench.plan({"students": {"large": {"use": "toy-student", "seed": 5}}})
    assert len({two.stages[key].process for key in keys(two, "sample")}) == 2
    assert len({two.stages[key].process for key in keys(two, "train")}) == 2


COUNTED = {"trainers": {"fit": {"steps": []}}}


def test_a_cell_whose_checkpoints_depend_on_its_traces_stays_open(bench: Toys) -> None:
    loaded = bench.load(COUNTED)
    plan = loaded.make_plan()
    assert plan.open_cells == {TRAINED}
    assert kinds(plan, TRAINED) == ["student", "traces", "curate", "render", "check", "train"]
    (render,) = keys(plan, "render")
    told = {render: {"rows": 6, "tokens": 60, "loss_tokens": 6}}
    closed = build_plan("toys", loaded.cells, bench.session.catalog, loaded.tasks, lambda one: told.get(one.key))
    assert not closed.open_cells
    assert kinds(closed, TRAINED) == [*kinds(plan, TRAINED), *("sample", "grade") * 3]
    assert keys(plan, "train") == keys(closed, "train")


def test_a_measure_that_nothing_makes_is_told_with_the_filter(bench: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = bench.session.catalog.kind("filter")["toy-filter"]
    monkeypatch.setattr(kind, "reads", frozenset({"lenght"}))
    with pytest.raises(PluginError, match="reads 'lenght', which nothing measures; did you mean 'length'"):
        bench.plan({"filters": {"short": {"use": "toy-filter"}}})


def test_a_kind_of_stage_is_one_class_and_a_line_where_it_is_wanted(bench: Toys) -> None:
    from distillbench_toys import Greeting

    plan = bench.plan()
    (traces,) = (one for one in plan.stages.values() if one.kind == "traces")
    greeting = Greeting(label="of a test", traces=traces, words="hello")
    assert greeting.inputs() == {"traces": (traces,)}
    assert Greeting(traces=traces, words="hello", loud=True).key == greeting.key
    assert Greeting(traces=traces, words="goodbye").key != greeting.key
    plan = Plan("toys", (), {traces.key: traces, greeting.key: greeting}, {}, {})
    made = Runner(
        lambda: plan,
        bench.session.store,
        bench.session.catalog.build(bench.load().matrix.launcher),
        Heard(),
    ).run(with_statuses(plan, bench.session.store.lookup))
    assert made.endings == {traces.key: "done", greeting.key: "done"}
    assert bench.session.store.facts(greeting) == {"greeted": 4}
    assert bench.session.store.file(greeting, "greeting.txt").read_text() == "hello 4"
    assert {kind for kind, _ in bench.session.store.results()} == {"traces", "greeting"}


def test_a_plan_does_not_depend_on_the_order_of_the_file(bench: Toys) -> None:
    plan = bench.plan({"evaluations": {"toy": {"max_tokens": 9, "repeats": 2}}})
    other = bench.plan({"evaluations": {"toy": {"repeats": 2, "max_tokens": 9}}})
    assert set(plan.stages) == set(other.stages)


def test_a_field_of_which_nothing_says_what_decides_a_result_is_refused() -> None:
    with pytest.raises(TypeError, match="holds object"):
        identity(object())


def test_the_key_holds_the_kind_every_field_and_the_inputs_by_role() -> None:
    class Two(Numbered):
        kind = "numbered"
        other: Stage | None = None

    one = stage(1, "train")
    found = [stage(1), stage(2), one, stage(1, "traces", one), stage(1, "traces", stage(2, "train")), Two(number=1)]
    found += [Two(number=1, other=one), Two(number=1, earlier=(one,)), Two(number=1, other=one, earlier=(one,))]
    assert len({each.key for each in found}) == len(found)
    assert replace(one, label="told otherwise", group="g", resources=Resources(9)).key == one.key
    one.__class__.version += 1
    try:
        assert replace(one).key != one.key
    finally:
        one.__class__.version -= 1


def test_sampling_params_leave_out_names_graders_and_stop_strings(bench: Toys) -> None:
    (evaluation,) = bench.load().cells[0].evaluations
    same = replace(evaluation, name="other", until=("x",), grade_identity="g", n_docs=None, subset="shuffled")
    assert sampling_params(same) == sampling_params(evaluation)
    assert sampling_params(replace(evaluation, sample_identity="s")) != sampling_params(evaluation)


class Known:
    """What a store knows of the stages of a plan, made up."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.finished = {
            key: Finished(f"digest of {key}", {need.key: f"digest of {need.key}" for need in one.needs})
            for key, one in plan.stages.items()
        }

    def look(self) -> Plan:
        return with_statuses(self.plan, lambda one: self.finished.get(one.key))

    def change(self, key: str, **changes: Any) -> None:
        self.finished[key] = replace(self.finished[key], **changes)


@pytest.fixture
def known(bench: Toys) -> Known:
    """The toy plan, all done."""
    return Known(bench.load().make_plan())


def test_nothing_is_done_in_an_empty_store(bench: Toys) -> None:
    plan = bench.plan()
    assert {status.state for status in plan.statuses.values()} == {"todo"}
    assert {status.reason for status in plan.statuses.values()} == {"not run yet"}
    assert plan.pending() == list(plan.stages.values())


def test_everything_is_done(known: Known) -> None:
    plan = known.look()
    assert {status.state for status in plan.statuses.values()} == {"done"}
    assert plan.pending() == []


def test_an_input_that_changed_makes_its_reader_stale_and_those_after_it_wait(known: Known) -> None:
    (curate,) = keys(known.plan, "curate")
    known.change(curate, digest="another")
    plan = known.look()
    (render,), (train,) = keys(plan, "render"), keys(plan, "train")
    assert plan.statuses[render].state == "stale" and plan.statuses[train].state == "waits"
    assert plan.statuses[render].reason == "curate wise by no filter changed since"
    assert states(plan)["sample"] == states(plan)["grade"] == {"waits", "done"}
    assert all(plan.statuses[key].state == "done" for key in plan.cell_stages[BASE])


def test_a_result_that_is_gone_makes_those_after_it_wait(known: Known) -> None:
    (traces,) = keys(known.plan, "traces")
    del known.finished[traces]
    plan = known.look()
    assert plan.statuses[traces].state == "todo"
    (curate,) = keys(plan, "curate")
    assert plan.statuses[curate].reason == "reused if traces wise comes out as before"
    assert {plan.statuses[key].state for key in keys(plan, "train")} == {"waits"}


def test_holes_are_to_be_filled_and_their_grades_wait(known: Known) -> None:
    sample = keys(known.plan, "sample", BASE)[0]
    known.change(sample, holes=3)
    plan = known.look()
    assert plan.statuses[sample].state == "holes"
    assert plan.statuses[sample].reason == "3 samples failed and will be tried again"
    assert plan.statuses[keys(plan, "grade", BASE)[0]].state == "waits"
    assert len(plan.pending()) == 2


def test_checkpoints_that_were_deleted_are_missed_only_when_something_needs_them(known: Known) -> None:
    (train,) = keys(known.plan, "train")
    known.change(train, freed=True)
    assert known.look().pending() == []
    first = keys(known.plan, "sample", TRAINED)[0]
    del known.finished[first]
    plan = known.look()
    assert plan.statuses[train].state == "todo"
    assert plan.statuses[train].reason.startswith(
        "its checkpoints were deleted after evaluation, and wise@1 on toy needs"
    )


def test_what_was_sampled_before_a_training_that_runs_again_is_compared_with_it(known: Known) -> None:
    """Training need not give the same weights again: samples of the old ones must not stand beside the new ones."""
    (train,) = keys(known.plan, "train")
    known.change(train, freed=True)
    first, second = keys(known.plan, "sample", TRAINED)
    del known.finished[first]
    plan = known.look()
    assert plan.statuses[second].state == "waits"
    assert plan.statuses[second].reason == "reused if train wise comes out as before"
    grade = next(key for key in keys(plan, "grade") if plan.stages[key].needs[0].key == second)
    assert plan.statuses[grade].state == "waits"
    assert all(plan.statuses[key].state == "done" for key in plan.cell_stages[BASE])


def test_the_estimate_counts_what_is_left(bench: Toys, known: Known) -> None:
    left = estimate(bench.plan({"evaluations": {"toy": {"repeats": 2, "max_tokens": 10}}}), lambda kind: [])
    assert left.stages == {
        "student": 1,
        "traces": 1,
        "curate": 1,
        "render": 1,
        "check": 1,
        "train": 1,
        "sample": 3,
        "grade": 3,
    }
    assert (left.samples, left.most_tokens) == (3 * 6 * 2, 3 * 6 * 2 * 10)
    assert left.seconds is None
    assert set(left.unknown_kinds) == set(left.stages)
    key = keys(known.plan, "sample", BASE)[0]
    del known.finished[key]
    own = known.plan.stages[key].pace().alike
    past = {"sample": [Past(9600, seconds, own) for seconds in (100.0, 5000.0, 300.0)], "grade": []}
    left = estimate(known.look(), past.__getitem__)
    assert (left.stages, left.samples, left.most_tokens) == ({"sample": 1, "grade": 1}, 6, 96)
    assert left.seconds == pytest.approx(3.0), "a hundredth of the median's work"
    assert left.unknown_kinds == ("grade",)


def alike(plan: Plan, work: float = 1.0) -> Callable[[str], list[Past]]:
    """A history in which every stage of a plan ran once, for ten seconds."""
    return lambda kind: [Past(work, 10.0, one.pace().alike) for one in plan.stages.values() if one.kind == kind]


def test_without_training_or_sampling_alike_no_time_is_told(bench: Toys) -> None:
    plan = bench.plan()
    assert estimate(plan, alike(plan)).seconds is not None
    for missing in ("train", "sample"):
        without = estimate(plan, lambda kind: [] if kind == missing else alike(plan)(kind))  # noqa: B023
        assert without.seconds is None and without.unknown_kinds == (missing,)
    without = estimate(plan, lambda kind: [] if kind == "curate" else alike(plan)(kind))
    assert without.seconds is not None and without.unknown_kinds == ("curate",)


def test_times_are_of_the_same_student_and_of_whole_benchmarks(bench: Toys) -> None:
    plan, other = bench.plan(), bench.plan({"students": {"small": {"seed": 1}}})
    assert estimate(other, alike(plan)).seconds is None
    assert set(estimate(other, alike(plan)).unknown_kinds) == {"student", "train", "sample"}
    cut = bench.plan(limit=2)
    assert set(estimate(plan, alike(cut)).unknown_kinds) == {"sample", "grade"}, "a run under --limit tells nothing"
    assert "sample" in estimate(cut, alike(plan)).unknown_kinds


@pytest.mark.parametrize("factor", [2, 7])
def test_times_grow_with_steps_and_with_tokens(bench: Toys, factor: int) -> None:
    def seconds(kind: str, changes: dict[str, Any]) -> float:
        plan = bench.plan(changes)
        past = {one.kind: [Past(20.0, 10.0, one.pace().alike)] for one in plan.stages.values()}
        only = [key for key, one in plan.stages.items() if one.kind == kind]
        statuses = {key: Status("todo" if key in only else "done") for key in plan.stages}
        found = estimate(replace(plan, statuses=statuses), past.__getitem__).seconds
        assert found is not None
        return found

    steps = [seconds("train", {"trainers": {"fit": {"steps": [n]}}}) for n in (10, 10 * factor)]
    tokens = [seconds("sample", {"evaluations": {"toy": {"max_tokens": n}}}) for n in (16, 16 * factor)]
    repeats = [seconds("sample", {"evaluations": {"toy": {"repeats": n}}}) for n in (1, factor)]
    assert [round(more / less, 6) for less, more in (steps, tokens, repeats)] == [factor] * 3


@pytest.mark.parametrize(("limit", "samples"), [(4, 12), (100, 18)])
def test_the_estimate_knows_limits(bench: Toys, limit: int, samples: int) -> None:
    assert estimate(bench.plan({"evaluations": {"toy": {"limit": limit}}}), lambda kind: []).samples == samples


@pytest.mark.parametrize(
    ("asked", "samples"),
    [({}, 6), ({"limit": 1}, 3), ({"limit": 9}, 6), ({"repeats": 4}, 24)],
)
def test_the_estimate_counts_the_problems_that_are_named(bench: Toys, asked: dict[str, int], samples: int) -> None:
    named = bench.plan({"evaluations": {"toy": {"problems": [0, 2], **asked}}})
    assert estimate(named, lambda kind: []).samples == samples
    assert "sample" in estimate(named, alike(bench.plan())).unknown_kinds, "a whole benchmark tells nothing of a part"


def test_the_estimate_says_when_a_task_does_not_tell_its_size(bench: Toys, known: Known) -> None:
    key = keys(known.plan, "sample", BASE)[0]
    sample = known.plan.stages[key]
    assert isinstance(sample, Sample)
    stages = {**known.plan.stages, key: replace(sample, asked=replace(sample.asked, n_docs=None))}
    known.plan = replace(known.plan, stages=stages)
    del known.finished[key]
    left = estimate(known.look(), alike(known.plan))
    assert (left.samples, left.most_tokens) == (None, None)
    assert estimate(replace(known.look(), stages={}), lambda kind: []).samples == 0


def test_a_plan_of_nothing_has_no_estimate() -> None:
    plan = with_statuses(Plan("m", (), {stage().key: stage()}, {}, {}), lambda one: Finished("d", {}))
    left = estimate(plan, lambda kind: [])
    assert (left.stages, left.samples, left.seconds) == ({}, 0, None)
