"""Components that components need: what they ask of the machine, graders that have them, and who names them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from core_bench import Control, Toys

from distillbench.errors import MatrixError

JUDGE = {"engines": {"talk": {"use": "toy-engine"}, "judge": {"use": "toy-engine", "cpus": 3}}}
FILTER = {"fair": {"use": "toy-asking-filter", "judge": "judge"}}
TASK = """\
include: {toy}
task: judged
metadata:
  version: 1
  distillbench: {{grader: toy-grader, grader_options: {{judge: {judge}}}, docs: 6}}
"""


def cpus(toys: Toys, changes: dict[str, Any]) -> dict[str, int]:
    """What the stages of each kind ask for, at most."""
    found: dict[str, int] = {}
    for stage in toys.plan(changes).stages.values():
        found[stage.kind] = max(found.get(stage.kind, 0), stage.resources.cpus)
    return found


def test_a_stage_asks_for_what_the_components_ask_for_that_its_components_need(bench: Toys) -> None:
    plain = cpus(bench, {})
    judged = cpus(bench, JUDGE | {"filters": FILTER})
    assert set(plain.values()) == {1}
    assert judged == plain | {"curate": 3}
    graded = cpus(bench, JUDGE | {"evaluations": {"toy": {"grader_options": {"judge": "judge"}}}})
    assert graded == plain | {"grade": 3}


def test_what_a_teacher_asks_is_asked_for_where_it_is_sampled_and_not_where_answers_become_traces(bench: Toys) -> None:
    changes = JUDGE | {
        "teachers": {"own": {"use": "self", "task": "toy", "student": "small", "engine": "judge"}},
        "matrix": {"engine": "talk", "teacher": ["own"], "student": ["small"]},
    }
    stages = bench.plan(changes).stages.values()
    assert {one.resources.cpus for one in stages if one.kind == "sample" and one.evaluation is None} == {3}
    assert {one.resources.cpus for one in stages if one.kind != "sample"} == {1}


def test_a_grader_is_opened_with_what_it_needs_and_another_judge_grades_again(bench: Toys, control: Control) -> None:
    def judged(**judge: Any) -> dict[str, Any]:
        engines = {"talk": {"use": "toy-engine"}, "judge": {"use": "toy-engine", **judge}}
        return {"engines": engines, "evaluations": {"toy": {"grader_options": {"judge": "judge"}}}}

    assert not bench.run(judged(words="mild")).reasons
    assert set(control.log("grader")) == {"mild"}
    again = bench.run(judged(words="strict"))
    assert set(control.log("grader")) == {"strict"}
    ended = {(stage.kind, again.endings[key]) for key, stage in again.plan.stages.items()}
    assert ("sample", "reused") in ended and ("grade", "done") in ended and ("grade", "reused") not in ended


def test_the_judge_of_a_task_s_grader_judges_traces_too(
    bench: Toys, control: Control, toys: Path, tmp_path: Path
) -> None:
    def write(judge: str) -> None:
        folder = tmp_path / "tasks"
        folder.mkdir(exist_ok=True)
        (folder / "judged.yaml").write_text(TASK.format(toy=toys / "toy_tasks" / "toy.yaml", judge=judge))

    changes = {
        "task_paths": ["tasks"],
        "teachers": {"wise": {"use": "toy-teacher", "task": "judged"}},
        "filters": {"right": {"use": "toy-verdict-filter"}},
    }
    write("toy-engine")
    assert not bench.run(changes).reasons
    plan = bench.plan(changes)
    [verdict] = [stage for stage in plan.stages.values() if stage.kind == "verdict"]
    assert verdict.grader.components["judge"].component == "toy-engine"
    write("toy-engin")
    with pytest.raises(MatrixError) as caught:
        bench.plan(changes)
    [mistake] = caught.value.mistakes
    assert "judged.yaml" in str(mistake) and "did you mean 'toy-engine'" in str(mistake)


def test_plan_and_show_name_what_is_needed_and_who_is_asked(cli: Any, matrix: Any, toys: Path) -> None:
    changes = JUDGE | {
        "filters": FILTER,
        "evaluations": {"toy": {"grader_options": {"judge": "judge"}}},
        "teachers": {
            "wise": {"use": "toy-teacher"},
            "next": {"use": "self", "task": "toy", "cell": "wise@last"},
            "own": {"use": "self", "task": "toy"},
            "other": {"use": "self", "task": "toy", "student": "small"},
        },
        "matrix": {"engine": "talk", "student": ["small"], "teacher": ["wise", "next", "own", "other"]},
    }
    path = matrix(changes)
    done = cli("plan", path)
    assert done.code == 0, done.err
    table = done.out
    for told in ("fair (judge", "asks wise@last", "asks the", "asks student small"):
        assert told in " ".join(table.split()), told
    stages = cli("plan", path, "--json").json["stages"]
    assert {one["resources"]["cpus"] for one in stages if one["kind"] == "curate"} == {3}
    found = cli("show", path, "other", "--json").json["choices"]
    assert found["filters.fair.judge"]["label"] == "judge" and found["filters.fair.judge"]["options"]["cpus"] == 3
    assert found["evaluations.toy.grader.judge"]["component"] == "toy-engine"
    assert found["teacher.student"]["label"] == "small" and found["teacher.renderer"]["label"] == "toy-renderer"
    assert "filters.fair.judge.cpus" in cli("show", path, "wise").out
    options = {one["name"]: one["type"] for one in cli("plugins", "toy-asking-filter", "--json").json[0]["options"]}
    assert options == {"judge": "the name of an engine or null"}


def test_what_goes_with_a_student_that_is_asked_has_the_options_of_its_entry_and_of_defaults(bench: Toys) -> None:
    changes = {
        "students": {"small": {"use": "toy-student"}},
        "renderers": {"toy-renderer": {"system": "hush "}},
        "teachers": {"own": {"use": "self", "task": "toy", "student": "small", "engine": "talk"}},
        "defaults": {"renderer": {"end_loss": True}},
        "matrix": {"engine": "talk", "teacher": ["own"], "student": ["small"], "renderer": ["toy-renderer"]},
    }
    stages = bench.plan(changes).stages.values()
    [sample] = [one for one in stages if one.kind == "sample" and one.evaluation is None]
    assert sample.renderer.options.system == "hush "
    assert json.loads(sample.renderer.identity)["options"]["system"] == "hush "
