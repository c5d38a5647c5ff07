"""What a matrix asks for and cannot get: told with its place, all at once, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from core_bench import Toys
from core_factories import keys

from distillbench.errors import MatrixError

TASK = {
    "custom_dataset": "data.jsonl",
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "metric_list": [{"metric": "exact_match"}],
}


def task(folder: Path, name: str, **changes: Any) -> None:
    """Writes a task of a user's."""
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **TASK, **changes}))


@pytest.fixture
def teachers(bench: Toys, tmp_path: Path) -> Callable[[str | None], Path]:
    """The toy matrix with a filter that reads verdicts, and a teacher of a task, or of none."""
    settings: dict[str, dict[str, Any]] = {
        "unheard": {"grader": "no-such"},
        "odd": {"grader": "toy-grader", "grader_options": {"no_such": 1}},
        "twisted": {"grader": ["toy-grader"], "grader_options": 3},
        "lost": {"grader": "judge", "grader_options": {"rubric": "gone.txt", "model": "m"}},
    }
    for name, found in settings.items():
        task(tmp_path, name, metadata={"distillbench": found})

    def write(name: str | None) -> Path:
        changes = {
            "task_paths": ["."],
            "teachers": {"wise": {"task": name or "?"}},
            "filters": {"right": {"use": "correct_only"}},
        }
        path = bench.matrix(changes)
        path.write_text(path.read_text() if name else path.read_text().replace("task: '?'", "task: null"))
        return path

    return write


def line_of(path: Path, text: str) -> int:
    (found,) = [number for number, line in enumerate(path.read_text().splitlines(), 1) if line.strip() == text]
    return found


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (None, ("a filter (right) reads verdicts", "teacher 'wise', which names no task", "leave the filter out")),
        ("toi", ("a task that can be read, for teacher 'wise'", "no task is named 'toi'", "did you mean 'toy'?")),
        ("unheard", ("a task with a registered grader", "whose grader is 'no-such'", "unheard.yaml")),
        ("odd", ("odd.yaml: metadata.distillbench.grader_options.no_such", "an option of grader 'toy-grader'")),
        ("lost", ("lost.yaml: metadata.distillbench\n", "a file or folder that can be read", "gone.txt: No such")),
        ("twisted", ("twisted.yaml: metadata.distillbench.grader\n", "metadata.distillbench.grader_options\n")),
    ],
)
def test_a_teacher_whose_traces_cannot_be_verified(
    teachers: Callable[[str | None], Path], cli: Any, name: str | None, told: tuple[str, ...]
) -> None:
    path = teachers(name)
    ran = cli("plan", path)
    assert ran.code == 2
    assert all(fragment in ran.err for fragment in told), ran.err
    if name in (None, "toi", "unheard"):
        assert ran.err.startswith(f"toys.yaml:{line_of(path, 'wise:')}: teachers.wise\n")


def test_what_lies_in_a_file_of_the_grader_is_in_the_key_of_verdicts_on_traces(
    teachers: Callable[[str | None], Path], bench: Toys, tmp_path: Path
) -> None:
    path, found = teachers("lost"), set()
    for text in ("- right: it is", "- right: it is not", "- right: it is"):
        (tmp_path / "gone.txt").write_text(text)
        found.update(keys(bench.session.load(path).plan(), "verdict"))
    assert len(found) == 2


CIRCLE = "one -> three -> two -> one"
STUDENTS = "student: [small, served]"


@pytest.mark.parametrize("command", ["plan", "check", "run"])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("max_tokens: 100, budgets: [50]", ("t.yaml:4: evaluations.toy.budgets", "`budgets` only", "'hosted'")),
        ("benchmark: scored", ("t.yaml:4: evaluations.toy.benchmark", "(loglikelihood)", "no tokenizer")),
    ],
)
def test_a_served_student_has_no_tokens_to_cut_or_to_score(
    toys: Path, cli: Any, tmp_path: Path, command: str, options: str, told: tuple[str, ...]
) -> None:
    task(tmp_path, "scored", output_type="loglikelihood")
    path = tmp_path / "t.yaml"
    head = (
        "task_paths: [.]\nstudents: {m: {use: hosted, model: some}}\nengines: {api: {base_url: http://127.0.0.1:9}}\n"
    )
    path.write_text(f"{head}evaluations: {{toy: {{{options}}}}}\n")
    ran = cli(command, path)
    assert ran.code == 2
    assert all(fragment in ran.err for fragment in told), ran.err
    assert "1 mistake found" in ran.err


def test_eval_tells_mistakes_of_the_plan_at_its_options_and_leaves_a_benchmark_out(
    toys: Path, cli: Any, tmp_path: Path
) -> None:
    task(tmp_path, "scored", output_type="loglikelihood")
    asked = ["eval", "--model", "some", "--engine", "api", "--task-path", tmp_path, "--dry-run"]
    asked += ["--set", "engine.base_url=http://127.0.0.1:9/v1", "--benchmarks"]
    left_out = cli(*asked, "toy,scored")
    assert left_out.code == 1 and "not evaluated: scored: task 'scored', which scores given" in left_out.err
    alone = cli(*asked, "scored")
    assert alone.code == 2 and "--benchmarks: scored\n    wanted:" in alone.err
    cut = cli(*asked, "toy", "--set", "evaluation.budgets=[5]")
    assert cut.code == 2 and "--set: evaluation.budgets\n    wanted: `budgets` only" in cut.err


SERVED = """
students: {m: {use: hosted, model: some}}
engines: {api: {base_url: http://127.0.0.1:9}, transformers: {}}
evaluations: {digits: {limit: 1}}
"""
TRAINED = """
teachers: {t: {use: synthetic, task: coins}}
trainers: {lora: {use: sft, max_steps: 5}}
"""


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    ("more", "places"),
    [
        ("matrix: {engine: api}", ()),
        ("matrix: {engine: [transformers, api]}", ("3: engines.transformers",)),
        ("renderers: {plain: {}}\nmatrix: {engine: api}", ("5: renderers.plain",)),
        ("renderers: {plain: {}}\nmatrix: {engine: transformers}", ("3: engines.transformers", "5: renderers.plain")),
        (TRAINED + "matrix: {engine: api}", ("2: students.m",)),
    ],
)
def test_what_looks_for_files_of_a_served_model_is_refused(
    cli: Any, tmp_path: Path, command: str, more: str, places: tuple[str, ...]
) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(SERVED + more)
    if not places:
        assert cli("plan", path).code == 0
        return
    ran = cli(command, path)
    assert ran.code == 2
    assert tuple(line.removeprefix("t.yaml:") for line in ran.err.splitlines() if line.startswith("t.yaml")) == places
    assert not (tmp_path / "store" / "reports").exists()


def test_every_mistake_of_the_plan_comes_at_once_and_once_with_those_of_the_file(
    teachers: Callable[[str | None], Path], cli: Any
) -> None:
    path = teachers(None)
    text = path.read_text()
    text = text.replace(
        "  toy: {}\n", "  short: {benchmark: toy, limit: 2}\n  toy:\n    budgets: [4]\n    steps: [1, 3]\n"
    )
    text = text.replace("  small:\n", "  served: {use: hosted, model: some}\n  small:\n")
    path.write_text(text.replace("matrix:\n", f"matrix:\n  {STUDENTS}\n  seed: [0, 1]\n"))
    of_plan = [
        (line_of(path, "wise:"), "teachers.wise", "teacher 'wise', which names no task"),
        (line_of(path, "talk:"), "engines.talk", "engine 'talk'"),
        (
            line_of(path, "budgets: [4]"),
            "evaluations.toy.budgets",
            "renderer 'hosted', which has no tokenizer",
        ),
        *[(line_of(path, "steps: [1, 3]"), "evaluations.toy.steps: evaluation 'toy'", "3")] * 4,
        (line_of(path, STUDENTS), "matrix.student[1]", "renderer 'hosted', with which a server makes the tokens"),
    ]
    assert _told(cli("plan", path)) == of_plan
    path.write_text(path.read_text().replace("name: toys", "nmae: toys").replace("limit: 2", "limit: 0"))
    limit = line_of(path, "short: {benchmark: toy, limit: 0}")
    of_file = [(1, "nmae", "'nmae'"), (limit, "evaluations.short.limit", "0")]
    assert _told(cli("run", path)) == sorted(of_file + of_plan)


def _told(ran: Any) -> list[tuple[int, str, str]]:
    """The line, the keys and what came of each mistake."""
    assert ran.code == 2
    lines = ran.err.splitlines()
    places = [line.removeprefix("toys.yaml:").partition(": ") for line in lines if line.startswith("toys.yaml:")]
    got = [line.partition(": ")[2].strip() for line in lines if line.startswith("    got:")]
    assert len(places) == len(got) and lines[-1] == f"{len(got)} mistakes found", ran.err
    return [(int(line), keys, came) for (line, _, keys), came in zip(places, got, strict=True)]


def test_cells_that_need_each_other_are_told_once_with_all_other_mistakes(
    bench: Toys, matrix: Callable[..., Path]
) -> None:
    asks = {"one": "three", "two": "one", "three": "two", "after": "two"}
    own = {"use": "self", "task": "toy"}
    changes = {
        "teachers": {"wise": {"use": "toy-teacher"}} | {name: own | {"cell": f"{asks[name]}@last"} for name in asks},
        "evaluations": {"toy": {"steps": [9]}},
        "matrix": {"engine": "talk", "teacher": ["wise", *asks]},
    }
    changes["teachers"]["after"]["n"] = 3
    with pytest.raises(MatrixError) as caught:
        bench.plan(changes)
    line = line_of(matrix(changes), "cell: three@last")
    told = [(mistake.got, str(mistake.place).partition(": ")[0]) for mistake in caught.value.mistakes]
    steps = line_of(matrix(changes), "- 9") - 1
    assert told == [(CIRCLE, f"toys.yaml:{line}"), ("9", f"toys.yaml:{steps}")]
