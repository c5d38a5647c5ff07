"""How completions are drawn: what a student, a task's YAML, an entry and an axis say, and which of them counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from distillbench.matrix.evaluation_options import SAMPLING_OPTIONS
from distillbench.matrix.resolve import Matrix
from distillbench.options import fields_of
from distillbench.records import Cell, Evaluation, Sampling

Load = Callable[..., Matrix]

WARM = "{temperature: 0.6, top_p: 0.95, top_k: 20}"


def text(student: str = "{}", evaluations: str = "rolls: {benchmark: dice}", more: str = "") -> str:
    return f"students:\n  tiny: {student}\nevaluations:\n  {evaluations}\n{more}"


def base(matrix: Matrix, name: str = "base-tiny") -> Cell:
    (cell,) = [cell for cell in matrix.cells if cell.name == name]
    return cell


def only(matrix: Matrix) -> Evaluation:
    (evaluation,) = base(matrix).evaluations
    return evaluation


def test_every_sampling_option_is_one_of_an_evaluation_and_of_a_sampling() -> None:
    from distillbench.matrix.evaluation_options import EvaluationOptions

    assert set(SAMPLING_OPTIONS) <= set(fields_of(EvaluationOptions))
    assert set(fields_of(Sampling)) | {"repeats"} == set(SAMPLING_OPTIONS)


def test_a_student_says_how_it_is_sampled(load: Load) -> None:
    found = only(load(text("{hidden: 64, sampling: {top_p: 0.5, max_tokens: 900, stop: [END], seed: 7, repeats: 2}}")))
    assert found.sampling == Sampling(0.6, 0.5, 20, 0.05, 900, ("END",), 7)  # temperature, top_k, min_p: the task's
    assert found.repeats == 2
    assert str(found.origins["top_p"]) == "matrix.yaml:2: students.tiny.sampling.top_p"
    assert str(found.origins["top_k"]) == "task dice.yaml"


def test_sampling_is_no_option_of_the_student_and_trains_nothing_again(load: Load) -> None:
    with_it, without = (base(load(text(student))).student for student in ("{sampling: {top_k: 5}}", "{}"))
    assert with_it == without
    assert with_it.options == without.options


#: What the matrix says beside a student's `top_k: 5` and the task's 20, and what counts.
LAYERS: dict[str, tuple[dict[str, str], int, str]] = {
    "the student over the task": ({}, 5, "students.tiny.sampling.top_k"),
    "the student over defaults": ({"more": "defaults: {evaluation: {top_k: 9}}"}, 5, "students.tiny.sampling.top_k"),
    "the entry over the student": (
        {"evaluations": "rolls: {benchmark: dice, top_k: 3}"},
        3,
        "evaluations.rolls.top_k",
    ),
    "an axis over the student": ({"more": "matrix: {evaluation.top_k: 4}"}, 4, "matrix.evaluation.top_k"),
}


@pytest.mark.parametrize("case", LAYERS)
def test_where_a_sampling_option_comes_from(load: Load, case: str) -> None:
    more, value, origin = LAYERS[case]
    found = only(load(text("{sampling: {top_k: 5}}", **more)))
    assert found.sampling.top_k == value
    assert str(found.origins["top_k"]).endswith(f": {origin}")


def test_the_command_line_outweighs_a_student(load: Load) -> None:
    assert only(load(text("{sampling: {max_tokens: 5}}"), limit=3)).limit == 3


def test_what_decides_nothing_says_so(load: Load) -> None:
    greedy = only(load(text(f"{{sampling: {WARM}}}", "rolls: {benchmark: dice, temperature: 0}")))
    assert greedy.sampling.top_k == 20
    assert str(greedy.origins["top_k"]) == "matrix.yaml:2: students.tiny.sampling.top_k (no effect at temperature 0)"
    assert str(greedy.origins["min_p"]) == "task dice.yaml (no effect at temperature 0)"
    assert str(greedy.origins["seed"]) == "default"
    warm = only(load(text(f"{{sampling: {WARM}}}")))
    assert str(warm.origins["top_k"]) == "matrix.yaml:2: students.tiny.sampling.top_k"


def test_students_are_sampled_each_in_its_own_way(load: Load) -> None:
    more = "  cold: {use: tiny}\n  warm: {use: tiny, sampling: {temperature: 0.9}}"
    matrix = load(text(f"{{sampling: {WARM}}}\n{more}", "coins: {}"))
    found = {cell.name: cell.evaluations[0].sampling.temperature for cell in matrix.cells}
    assert found == {"base-tiny": 0.6, "base-cold": 0.0, "base-warm": 0.9}


def test_cells_of_one_student_and_two_samplings_are_no_duplicates(load: Load) -> None:
    students = "{}\n  warm: {use: tiny, sampling: {temperature: 0.9}}"
    recipe = "teachers:\n  concise: {use: synthetic}\ntrainers:\n  lora: {use: sft}\n"
    matrix = load(text(students, "coins: {}", recipe))
    assert [cell.name for cell in matrix.cells] == ["tiny", "warm", "base-tiny", "base-warm"]
    assert matrix.cells[0].student.identity == matrix.cells[1].student.identity


@pytest.mark.parametrize(
    ("options", "finds"),
    [("", True), ("temperature: 0", False), ("temperature: 0.7", False), ("top_p: 0.9", True)],
)
def test_a_task_that_says_greedy_and_a_temperature_is_greedy_and_told(load: Load, options: str, finds: bool) -> None:
    found = only(load(text(evaluations=f"coins: {{{options}}}")))
    assert found.sampling.temperature == (0.7 if "0.7" in options else 0)
    assert [name for name, _ in found.findings] == ["greedy_with_temperature"] * finds
    if finds:
        assert found.findings[0][1].endswith(
            "coins.yaml: generation_kwargs has `do_sample: false` and `temperature: 0.7`; sampled greedily"
        )


def test_stop_and_seed_in_a_tasks_yaml(load: Load) -> None:
    found = only(load(text(evaluations="stops: {}")))
    assert (found.sampling.stop, found.sampling.seed, found.until) == (("END",), 3, ("A",))


@pytest.mark.parametrize("option", ["temperature: [0, 0.7]", "stop: [[], [END]]", "seed: [0, 1]", "repeats: [1, 4]"])
def test_every_sampling_option_can_be_an_axis(load: Load, option: str) -> None:
    matrix = load(text(evaluations="coins: {temperature: 0.5}", more=f"matrix: {{evaluation.{option}}}"))
    assert len({(cell.evaluations[0].sampling, cell.evaluations[0].repeats) for cell in matrix.cells}) == 2
