"""Teachers that are models: whom they ask, what of it is in keys, and what happens where some answers are missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_server import chat, refusal, serve
from core_bench import Control, Toys
from core_factories import keys

from distillbench.errors import MatrixError, StageError
from distillbench.records import Message, Problem, Trace
from distillbench.stages.questions import asked_problems, distinct
from distillbench.store.kept import Whole

OWN = {"use": "self", "task": "toy", "n": 4, "temperature": 0}


def teachers(**more: Any) -> dict[str, Any]:
    """The toy matrix with the teacher `own`, which asks."""
    return {"teachers": {"own": OWN | more}, "matrix": {"engine": "talk", "teacher": ["own"]}}


def of_wise(**more: Any) -> dict[str, Any]:
    """The same, on the problems of the toy teacher: toy/100 to toy/103."""
    changes = teachers(**{"teacher": "wise", "task": None, "n": None} | more)
    return changes | {"teachers": changes["teachers"] | {"wise": {"use": "toy-teacher"}}}


def asked(toys: Toys, changes: dict[str, Any]) -> list[Any]:
    """What the teachers' stages have, as (problem, reasoning, answer)."""
    plan = toys.plan(changes)
    return [
        [
            (one.problem.problem_id, one.reasoning, one.answer, one.finish_reason)
            for one in Whole(toys.session.store, stage)
        ]
        for stage in plan.stages.values()
        if stage.kind == "traces"
    ]


def test_the_untouched_student_answers_and_is_trained_on_its_answers(bench: Toys, control: Control) -> None:
    summary = bench.run(teachers())
    assert set(summary.endings.values()) == {"done"}
    [traces] = asked(bench, teachers())
    assert traces == [(f"toy/{n}", "u", str(100 + n if n % 2 == 0 else -1), "stop") for n in range(4)]
    assert "0 4" in control.log("train")
    control.log("asked")
    assert set(bench.run(teachers()).endings.values()) == {"reused"} and control.log("asked") == []


def test_a_checkpoint_of_a_cell_answers_by_its_name(bench: Toys, control: Control) -> None:
    changes = {
        "teachers": {"wise": {"use": "toy-teacher"}, "next": OWN | {"cell": "wise@last"}},
        "matrix": {"engine": "talk", "teacher": ["wise", "next"]},
    }
    plan = bench.plan(changes)
    [sample] = [one for one in plan.stages.values() if one.kind == "sample" and one.evaluation is None]
    assert (sample.train.label, sample.step) == ("wise", max(sample.train.steps))
    assert set(bench.run(changes).endings.values()) == {"done"}
    losses = {one["cell"]: one["held_out_nll"] for one in bench.load(changes).report().rows()}
    assert len(plan.of_cell("next")) < len(plan.stages) - 3 and losses["next"] is not None
    assert [one.label for one in plan.of_cell("next") if one.kind == "train"] == ["next"], "wise has its own"
    assert {row[1] for row in asked(bench, changes)[1]} == {"5"}, "the toy says what its weights are"
    named = json.loads(json.dumps(changes).replace("wise", "first"))
    assert set(bench.run(named).endings.values()) == {"reused"}, "a cell's name decides nothing"


def test_a_cell_whose_steps_depend_on_its_rows_is_asked_once_these_are_there(bench: Toys) -> None:
    changes = {
        "teachers": {"wise": {"use": "toy-teacher"}, "next": OWN | {"cell": "wise@last"}},
        "trainers": {"fit": {"steps": []}},
        "matrix": {"engine": "talk", "teacher": ["wise", "next"]},
    }
    plan = bench.plan(changes)
    assert plan.open_cells == {"wise", "next"}
    assert [one.kind for one in plan.of_cell("next")] == ["student", "render"], "the rows of wise, on which it hangs"
    summary = bench.run(changes)
    assert not summary.plan.open_cells and set(summary.endings.values()) == {"done"}
    assert {row["cell"] for row in bench.load(changes).report().rows()} == {"wise", "next", "base-small"}


def test_only_a_cell_brings_what_it_asks_and_none_of_its_evaluations(bench: Toys) -> None:
    changes = {
        "teachers": {"wise": {"use": "toy-teacher"}, "next": OWN | {"cell": "wise@last"}},
        "matrix": {"engine": "talk", "teacher": ["wise", "next"]},
    }
    stages = bench.plan(changes, only=("next",)).stages.values()
    assert [one.label for one in stages if one.kind == "train"] == ["wise", "next"]
    assert [one.label for one in stages if one.label.startswith("wise@")] == ["wise@2 for teacher next"]


def test_cells_that_ask_each_other_are_told_with_their_names(bench: Toys) -> None:
    changes = {
        "teachers": {"a": OWN | {"cell": "b@last"}, "b": OWN | {"cell": "a@last"}},
        "matrix": {"engine": "talk", "teacher": ["a", "b"]},
    }
    with pytest.raises(MatrixError) as caught:
        bench.plan(changes)
    [mistake] = caught.value.mistakes
    assert "a -> b -> a" in str(mistake) and mistake.place.line > 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"cell": "wize@last"}, "did you mean 'wise'"),
        ({"cell": "wise@7"}, "there are: wise@"),
        ({"cell": "wise"}, "say which: wise@last"),
        ({"cell": "wise@last", "student": "small"}, "exclude each other"),
        ({"engine": "talk"}, "belong to `student`"),
        ({"task": None}, "problems are wanted"),
        ({"teacher": "wise", "path": "toys.yaml"}, "come from one place"),
        ({"student": "tall"}, "a student: an entry of `students`"),
        ({"path": "nothing.jsonl"}, "a file or folder that can be read"),
        ({"path": "."}, "a file of problems"),
        ({"teacher": "own"}, "components that do not need themselves"),
    ],
)
def test_what_cannot_be_asked_is_a_mistake_with_its_line(bench: Toys, more: dict[str, Any], said: str) -> None:
    changes = {
        "teachers": {"wise": {"use": "toy-teacher"}, "own": OWN | more},
        "matrix": {"engine": "talk", "teacher": ["wise", "own"]},
    }
    with pytest.raises(MatrixError) as caught:
        bench.plan(changes)
    assert all(one.place.line > 0 for one in caught.value.mistakes)
    assert said in str(caught.value)


def test_problems_of_a_reading_teacher_and_of_a_file(bench: Toys, tmp_path: Path) -> None:
    rows = [
        {"question": "Say 8", "gold": "8"},
        {"messages": [{"role": "user", "content": "Say 6"}], "problem_id": "six"},
    ]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    changes = {
        "teachers": {
            "wise": {"use": "toy-teacher", "n": 3},
            "again": OWN | {"teacher": "wise", "n": None},
            "own": OWN | {"path": "problems.jsonl", "n": 2, "task": None},
        },
        "matrix": {"engine": "talk", "teacher": ["again", "own"]},
    }
    assert set(bench.run(changes).endings.values()) == {"done"}
    found = asked(bench, changes)
    assert [[row[0] for row in rows] for rows in found] == [
        ["toy/100", "toy/101", "toy/102"], ["toy/100", "toy/101", "toy/102"], ["problems/0", "six"],
    ]  # fmt: skip
    before = keys(bench.plan(changes), "traces")
    (tmp_path / "problems.jsonl").write_text(json.dumps({"question": "Say 4"}) + "\n" + json.dumps(rows[1]))
    after = keys(bench.plan(changes), "traces")
    assert len(set(before) - set(after)) == 1, "what the file says is in the key"


def test_answers_to_another_teacher_s_problems_are_verified_by_its_task_s_grader(bench: Toys, control: Control) -> None:
    summary = bench.run(of_wise() | {"filters": {"right": {"use": "toy-verdict-filter"}}})
    assert not summary.reasons and "0 2" in control.log("train"), "the toy answers even numbers right"


def test_two_problems_of_one_id_are_told() -> None:
    one = Trace(Problem("p", "", (Message("user", "?"),), ""), None, "4", "stop", None, "t", "s")
    other = replace(one, problem=replace(one.problem, messages=(Message("user", "!"),)))
    assert [found.problem_id for found in distinct([one, one])] == ["p"]
    with pytest.raises(StageError, match="two problems have the id 'p', and ask different things"):
        list(distinct([one, other]))


def test_another_student_is_asked_with_its_own_renderer_and_engine(bench: Toys) -> None:
    changes = teachers(student="tall", engine="shout") | {
        "students": {"small": {"use": "toy-student"}, "tall": {"use": "toy-student", "seed": 3}},
        "engines": {"talk": {"use": "toy-engine"}, "shout": {"use": "toy-engine", "words": "HO"}},
    }
    changes["matrix"] = {"engine": "talk", "teacher": ["own"], "student": ["small"]}
    assert set(bench.run(changes).endings.values()) == {"done"}
    [traces] = asked(bench, changes)
    assert {row[1] for row in traces} == {"HOu"}


def test_problems_without_an_answer_stop_what_follows_until_the_next_run_fills_them(
    bench: Toys, control: Control
) -> None:
    changes = of_wise()
    control.set("errors", "toy/101#0 toy/103#0")
    summary = bench.run(changes)
    [why] = [why for why in summary.reasons.values() if "no answer yet" in why]
    assert "2 of 4 problems have no answer yet: the toy engine was told to fail" in why and "unanswered: drop" in why
    assert summary.count("blocked") > 0 and control.log("train") == []
    control.log("asked")
    control.unset("errors")
    assert not bench.run(changes).reasons
    assert [line for line in control.log("asked") if "toy/10" in line] == ["toy/101#0 base", "toy/103#0 base"]
    assert len(asked(bench, changes)[1]) == 4


def test_unanswered_problems_may_be_left_out_and_are_asked_again_in_the_next_run(bench: Toys, control: Control) -> None:
    control.set("errors", "toy/101#0")
    changes = of_wise(unanswered="drop")
    summary = bench.run(changes)
    assert summary.count("holes") == 2 and not summary.reasons
    assert [row[0] for row in asked(bench, changes)[1]] == ["toy/100", "toy/102", "toy/103"]
    assert "0 3" in control.log("train")
    control.unset("errors")
    assert not bench.run(changes).count("holes")
    assert "0 4" in control.log("train"), "it is trained anew on all of them"


def test_an_asking_that_is_killed_goes_on_where_it_was(bench: Toys, control: Control) -> None:
    control.set("kill-sample-toy-102#0")
    assert bench.run(of_wise()).reasons
    control.log("asked")
    control.unset("kill-sample-toy-102#0")
    assert not bench.run(of_wise()).reasons
    assert [line for line in control.log("asked") if "toy/10" in line][:2] == ["toy/102#0 base", "toy/103#0 base"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[1]", "no object"),
        ("{", "one JSON object"),
        ('{"answer": "4"}', "no `question`"),
        ('{"question": 4}', "`question` is no text"),
        ('{"question": " "}', "`question` is no text"),
        ('{"messages": []}', "no list of messages"),
        ('{"messages": [{"role": "human", "content": "?"}]}', "no list of messages"),
        ('{"question": "?", "gold": 4}', "`gold` is no text"),
        ('{"question": "?", "problem_id": "a"}', "is line 1's too"),
        ('{"question": "caf\udce9"}', "in UTF-8"),
        ('{"question": "half \\ud800"}', "of whole characters"),
    ],
)
def test_a_line_that_is_no_problem_is_told_with_its_number(bench: Toys, tmp_path: Path, line: str, said: str) -> None:
    from distillbench.records import Questions, Sampling

    path = tmp_path / "problems.jsonl"
    path.write_text('{"question": "?", "problem_id": "a"}\n' + line, "utf-8", "surrogateescape")
    with pytest.raises(StageError) as caught:
        asked_problems(Questions(Sampling(), path=path), None, bench.session)  # type: ignore[arg-type]
    assert said in str(caught.value) and f"{path}:2: " in str(caught.value)


def test_a_folder_is_no_file_of_problems(bench: Toys, tmp_path: Path) -> None:
    from distillbench.records import Questions, Sampling

    with pytest.raises(StageError, match="got: a folder"):
        asked_problems(Questions(Sampling(), path=tmp_path), None, bench.session)  # type: ignore[arg-type]


def test_what_is_asked_decides_the_key_and_a_subset_of_evaluations_does_not(bench: Toys) -> None:
    def key(**more: Any) -> set[str]:
        stages = bench.plan(teachers(**more)).stages.values()
        return {one.key for one in stages if one.kind == "sample" and one.evaluation is None}

    changes = ({"n": 3}, {"temperature": 0.5}, {"max_tokens": 9}, {"split": "test"}, {"sampling_seed": 1})
    found = [key(), *(key(**more) for more in changes)]
    assert len(set().union(*found)) == 5, "a seed decides nothing at temperature 0"
    small = {one.key for one in bench.plan(teachers(), limit=1).stages.values() if one.kind == "sample"}
    assert key() <= small


def test_a_hosted_model_is_asked_and_only_what_its_server_refused_is_asked_again(bench: Toys, control: Control) -> None:
    with serve() as server:
        changes = {
            "teachers": {
                "wise": {"use": "toy-teacher"},
                "big": {"use": "self", "student": "hosted", "engine": "remote", "teacher": "wise", "temperature": 0},
            },
            "students": {"small": {"use": "toy-student"}, "hosted": {"use": "hosted", "model": "m"}},
            "engines": {
                "talk": {"use": "toy-engine"},
                "remote": {"use": "api", "base_url": server.base_url, "retries": 0, "api_key_env": None},
            },
            "matrix": {"engine": "talk", "teacher": ["big"], "student": ["small"]},
        }
        server.behave = lambda sent: chat(f"<think>hm</think>{sent.asked[-3:]}")
        server.script["Say 102"] = [refusal(500, "overloaded")]
        summary = bench.run(changes)
        assert any("1 of 4 problems have no answer yet" in why for why in summary.reasons.values())
        server.script.clear()
        before = len(server.asked)
        assert not bench.run(changes).reasons
        assert [sent.asked for sent in server.asked[before:]] == ["Say 102"]
        assert asked(bench, changes)[1] == [(f"toy/{n}", "hm", str(n), "stop") for n in range(100, 104)]
        assert "0 4" in control.log("train")


def test_an_answer_that_ends_within_its_reasoning_is_no_trace(bench: Toys) -> None:
    """A row would close its reasoning, which the model did not do."""
    with serve() as server:
        server.behave = lambda sent: chat("<think>hm" if "101" in sent.asked else "<think>hm</think>so")
        changes = of_wise(student="far") | {
            "students": {"small": {"use": "toy-student"}, "far": {"use": "hosted", "model": "m"}},
            "engines": {"talk": {"use": "toy-engine"}, "api": {"base_url": server.base_url}},
        }
        changes["matrix"] = {"engine": "talk", "teacher": ["own"], "student": ["small"]}
        assert not bench.run(changes).reasons
    [traces] = [rows for rows in asked(bench, changes) if rows[0][1] == "hm"]
    assert [row[0] for row in traces] == ["toy/100", "toy/102", "toy/103"]
    plan = bench.plan(changes)
    facts = [bench.session.store.facts(stage) for stage in plan.stages.values() if stage.kind == "traces"]
    assert {"unusable: open reasoning": 1} in [one["rejected"] for one in facts if one]


def test_a_checkpoint_that_only_a_teacher_has_asked_stays_for_its_own_evaluation(bench: Toys) -> None:
    changes = {
        "teachers": {"wise": {"use": "toy-teacher"}, "next": OWN | {"cell": "wise@last"}},
        "trainers": {"fit": {"use": "toy-trainer", "kind": "full"}},
        "matrix": {"engine": "talk", "teacher": ["wise", "next"]},
    }
    assert not bench.run(changes, only=("next",)).reasons
    again = bench.run(changes)
    ended = {stage.label: again.endings[key] for key, stage in again.plan.stages.items() if stage.kind == "train"}
    assert ended == {"wise": "reused", "next": "reused"}


def test_only_a_cell_at_the_end_of_a_chain_of_cells_plans_each_as_the_steps_before_it_are_known(bench: Toys) -> None:
    changes = {
        "teachers": {
            "wise": {"use": "toy-teacher"},
            "next": OWN | {"cell": "wise@last"},
            "third": OWN | {"cell": "next@last", "teacher": "next", "task": None, "n": None},
        },
        "trainers": {"fit": {"use": "toy-trainer", "steps": []}},
        "matrix": {"engine": "talk", "teacher": ["wise", "next", "third"]},
    }
    assert bench.plan(changes, only=("third",)).open_cells == {"third"}
    summary = bench.run(changes, only=("third",))
    assert not summary.reasons and not summary.plan.open_cells
    assert [one.label for one in summary.plan.stages.values() if one.kind == "train"] == ["wise", "next", "third"]
    whole = bench.run(changes)
    assert not whole.reasons
    trained = [whole.endings[key] for key, stage in whole.plan.stages.items() if stage.kind == "train"]
    assert trained == ["reused"] * 3
    missing = json.loads(json.dumps(changes).replace("next@last", "next@9"))
    with pytest.raises(MatrixError, match="there are: next@1, next@2, next@last"):
        bench.plan(missing)


def test_checkpoints_that_need_no_traces_are_asked_before_anything_else_of_their_student_is_sampled(
    bench: Toys, control: Control
) -> None:
    """They are made in the session of their student, which is given the rest when the training on the answers ends."""
    changes = {
        "teachers": {"next": OWN | {"cell": "ready@last"}},
        "trainers": {"fit": {"use": "toy-trainer"}, "ready": {"use": "toy-ready-trainer", "rate": 0.3}},
        "matrix": {"engine": "talk", "teacher": ["next"], "trainer": ["fit"], "include": [{"trainer": "ready"}]},
    }
    summary = bench.run(changes)
    assert not summary.reasons and set(summary.endings.values()) == {"done"}
    assert set(summary.endings) == set(summary.plan.stages)
    assert "0 4" in control.log("train")


def test_a_model_that_answers_for_a_teacher_is_asked_in_the_session_in_which_it_is_evaluated(
    bench: Toys, control: Control
) -> None:
    summary = bench.run(teachers())
    assert not summary.reasons and set(summary.endings) == set(summary.plan.stages)
    assert len(control.log("sessions")) == 1
