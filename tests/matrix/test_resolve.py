"""From a matrix file to cells: precedence, origins, names, baselines, identities."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distillbench.catalog import Catalog
from distillbench.errors import DEFAULT, MatrixError, Place, PluginError
from distillbench.matrix.expand import same
from distillbench.matrix.names import distinguish, join
from distillbench.matrix.resolve import Matrix, load_matrix
from distillbench.records import Cell

Load = Callable[..., Matrix]

QUICKSTART = """\
name: quickstart
keep: [full]
defaults:
  trainer: {max_steps: 100}
  evaluation: {max_tokens: 128}
teachers:
  concise: {use: synthetic, style: concise}
  verbose: {use: synthetic, style: verbose}
students:
  tiny: {hidden: 64}
filters:
  fits: {max_tokens: 99}
trainers:
  lora: {use: sft, method: lora}
evaluations:
  coins: {repeats: 2}
matrix:
  teacher: [concise, verbose]
  filters: [[correct_only, fits]]
  trainer: lora
  seed: [0, 1]
  trainer.learning_rate:
  - 1e-4
  - 2e-4
"""


def names(matrix: Matrix) -> list[str]:
    return [cell.name for cell in matrix.cells]


def named(matrix: Matrix, name: str) -> Cell:
    (cell,) = [cell for cell in matrix.cells if cell.name == name]
    return cell


def test_the_quickstart(load: Load) -> None:
    matrix = load(QUICKSTART)
    assert matrix.name == "quickstart"
    assert matrix.keep == frozenset({"full"})
    assert (matrix.launcher.component, matrix.launcher.kind) == ("local", "launcher")
    assert names(matrix) == [
        "concise,seed=0,learning_rate=1e-4",
        "concise,seed=0,learning_rate=2e-4",
        "concise,seed=1,learning_rate=1e-4",
        "concise,seed=1,learning_rate=2e-4",
        "verbose,seed=0,learning_rate=1e-4",
        "verbose,seed=0,learning_rate=2e-4",
        "verbose,seed=1,learning_rate=1e-4",
        "verbose,seed=1,learning_rate=2e-4",
        "base-tiny",
    ]
    cell = matrix.cells[1]
    assert cell.teacher and cell.trainer
    assert (cell.teacher.label, cell.teacher.component, cell.teacher.options.style) == (
        "concise",
        "synthetic",
        "concise",
    )
    assert [choice.label for choice in cell.filters] == ["correct_only", "fits"]
    assert (cell.renderer.label, cell.engine.label, cell.seed) == ("qwen3", "transformers", 0)
    assert cell.axes == {
        "teacher": "concise",
        "filters": ["correct_only", "fits"],
        "trainer": "lora",
        "seed": 0,
        "trainer.learning_rate": 2e-4,
        "student": "tiny",
        "engine": "transformers",
    }
    baseline = matrix.cells[-1]
    assert baseline.is_baseline and baseline.teacher is None and baseline.filters == () and baseline.seed == 0
    assert baseline.evaluations == cell.evaluations


def test_options_come_from_the_nearest_place_and_say_which(load: Load) -> None:
    trainer = load(QUICKSTART).cells[1].trainer
    assert trainer
    assert (trainer.options.method, trainer.options.max_steps, trainer.options.learning_rate) == ("lora", 100, 2e-4)
    assert {name: str(origin) for name, origin in trainer.origins.items()} == {
        "method": "matrix.yaml:14: trainers.lora.method",
        "learning_rate": "matrix.yaml:24: matrix.trainer.learning_rate",
        "max_steps": "matrix.yaml:4: defaults.trainer.max_steps",
        "rank": "default",
        "targets": "default",
        "packing": "default",
    }


def test_every_step_of_precedence(load: Load) -> None:
    text = QUICKSTART.replace("method: lora}", "method: lora, max_steps: 200}")
    assert {cell.trainer.options.max_steps for cell in load(text).cells if cell.trainer} == {200}
    text = text.replace("  seed: [0, 1]", "  seed: [0, 1]\n  trainer.max_steps: 300")
    assert {cell.trainer.options.max_steps for cell in load(text).cells if cell.trainer} == {300}
    text = QUICKSTART + "  include:\n  - {teacher: concise, seed: 1, trainer.max_steps: 400}\n"
    found = [
        (cell.axes["teacher"], cell.seed, cell.trainer.options.max_steps) for cell in load(text).cells if cell.trainer
    ]
    assert [steps for _, _, steps in found] == [100, 100, 400, 400, 100, 100, 100, 100]
    included = load(text).cells[2].trainer
    assert included and str(included.origins["max_steps"]) == "matrix.yaml:26: matrix.include[0].trainer.max_steps"


def test_an_evaluations_options_come_from_the_task_first(load: Load) -> None:
    (coins,) = load(QUICKSTART).cells[0].evaluations
    assert coins.sampling.temperature == 0.0  # do_sample: false makes the task's 0.7 greedy
    assert coins.sampling.max_tokens == 128
    assert coins.until == ("\n\n",)
    assert (coins.repeats, coins.n_docs, coins.task) == (2, 500, "coins")
    assert (coins.grader.component, coins.grader.options.strict, coins.grader.options.digits) == ("math_boxed", True, 6)
    assert coins.grader.kind == "benchmark"
    assert str(coins.origins["temperature"]) == "task coins.yaml"
    assert str(coins.origins["max_tokens"]) == "matrix.yaml:5: defaults.evaluation.max_tokens"
    assert str(coins.origins["repeats"]) == "matrix.yaml:16: evaluations.coins.repeats"
    assert str(coins.origins["grader"]) == "task coins.yaml"
    assert str(coins.origins["top_p"]) == "default"
    assert coins.grader.origins == {"strict": Place(words="task coins.yaml"), "digits": DEFAULT}


def test_a_task_that_samples(load: Load) -> None:
    text = QUICKSTART.replace("coins: {repeats: 2}", "rolls: {benchmark: dice, top_p: 1}")
    (rolls,) = load(text).cells[0].evaluations
    assert (rolls.name, rolls.task, rolls.repeats, rolls.until) == ("rolls", "dice", 4, ("STOP", "END"))
    sampling = rolls.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.6, 1.0, 20, 0.05)
    assert (rolls.grader.component, str(rolls.origins["grader"]), rolls.n_docs) == ("lm_eval", "default", None)


def test_grader_options_go_over_the_tasks_and_another_grader_drops_them(load: Load) -> None:
    text = QUICKSTART.replace("{repeats: 2}", "{grader_options: {digits: 3}}")
    grader = load(text).cells[0].evaluations[0].grader
    assert (grader.options.strict, grader.options.digits) == (True, 3)
    assert str(grader.origins["digits"]) == "matrix.yaml:16: evaluations.coins.grader_options.digits"
    other = load(QUICKSTART.replace("{repeats: 2}", "{grader: lm_eval}")).cells[0].evaluations[0]
    assert other.grader.component == "lm_eval"
    assert str(other.origins["grader"]) == "matrix.yaml:16: evaluations.coins.grader"


def test_evaluation_axes_and_their_baselines(load: Load) -> None:
    text = QUICKSTART.replace("  seed: [0, 1]\n", "").replace("  - 2e-4\n", "")
    text = text.replace("  coins: {repeats: 2}", "  coins: {repeats: 2}\n  dice: {}")
    matrix = load(text + "  evaluation.max_tokens: [64, 128]\n  evaluations.dice.temperature: [0.6, 1]\n")
    assert names(matrix)[:5] == [
        "concise,max_tokens=64,temperature=0.6",
        "concise,max_tokens=64,temperature=1",
        "concise,max_tokens=128,temperature=0.6",
        "concise,max_tokens=128,temperature=1",
        "verbose,max_tokens=64,temperature=0.6",
    ]
    assert names(matrix)[8:] == [
        "base-tiny,max_tokens=64,temperature=0.6",
        "base-tiny,max_tokens=64,temperature=1",
        "base-tiny,max_tokens=128,temperature=0.6",
        "base-tiny,max_tokens=128,temperature=1",
    ]
    coins, dice = matrix.cells[1].evaluations
    assert (coins.sampling.temperature, coins.sampling.max_tokens) == (0.0, 64)
    assert (dice.sampling.temperature, dice.sampling.max_tokens) == (1.0, 64)
    first, second = matrix.cells[0].trainer, matrix.cells[1].trainer
    assert first is second  # an evaluation's axis leaves the trained part alone


def test_what_names_one_evaluation_outweighs_what_names_all(load: Load) -> None:
    one, every = "  evaluations.coins.max_tokens: 7\n", "  evaluation.max_tokens: 9\n"
    for axes in (one + every, every + one):
        matrix = load(QUICKSTART.replace("{repeats: 2}", "{repeats: 2}\n  dice: {}") + axes)
        assert [each.sampling.max_tokens for each in matrix.cells[0].evaluations] == [7, 9]


def test_filter_options_reach_the_filter_they_name(load: Load) -> None:
    matrix = load(QUICKSTART.replace("  seed: [0, 1]", "  filters.fits.max_tokens: [50, 60]"))
    assert "concise,max_tokens=50,learning_rate=1e-4" in names(matrix)
    assert {cell.filters[1].options.max_tokens for cell in matrix.cells if cell.filters} == {50, 60}


def test_chains_of_filters(load: Load) -> None:
    text = QUICKSTART.replace("[[correct_only, fits]]", "[[], [fits], [correct_only, fits]]").replace("[0, 1]", "0")
    matrix = load(text.replace("  - 2e-4\n", "").replace("teacher: [concise, verbose]", "teacher: concise"))
    assert names(matrix) == ["nofilter", "fits", "correct_only+fits", "base-tiny"]
    assert [choice.label for choice in load(QUICKSTART.replace("[[correct_only, fits]]", "fits")).cells[0].filters] == [
        "fits"
    ]


def test_axes_left_out(load: Load) -> None:
    text = """\
teachers: {a: {use: synthetic}, b: {use: synthetic, n: 3}}
students: {tiny: {}}
filters: {fits: {}, correct_only: {}}
trainers: {sft: {}, replay: {}}
evaluations: {coins: {}}
"""
    matrix = load(text)
    assert names(matrix) == ["a,sft", "a,replay", "b,sft", "b,replay", "base-tiny"]
    cell = matrix.cells[0]
    assert (cell.seed, cell.engine.label, cell.renderer.label) == (0, "transformers", "qwen3")
    assert [choice.label for choice in cell.filters] == ["fits", "correct_only"]
    assert matrix.name == "matrix"
    assert matrix.keep == frozenset()
    without = load(text.replace("filters: {fits: {}, correct_only: {}}\n", ""))
    assert without.cells[0].filters == ()


def test_a_registered_component_needs_no_entry(load: Load) -> None:
    matrix = load(
        "evaluations: {coins: }\nmatrix: {teacher: synthetic, student: tiny, trainer: sft, renderer: plain}\n"
    )
    assert names(matrix) == ["synthetic", "base-tiny"]
    assert matrix.cells[0].renderer.label == "plain"


def test_a_renderers_entry_counts_for_the_students_own_choice(load: Load) -> None:
    matrix = load(QUICKSTART + "renderers: {qwen3: {thinking: false}}\n")
    assert matrix.cells[0].renderer.options.thinking is False


def test_include_alone_makes_the_cells(load: Load) -> None:
    text = QUICKSTART[: QUICKSTART.index("matrix:")] + "matrix:\n  include:\n"
    matrix = load(text + "  - {teacher: concise, seed: 3}\n  - {teacher: verbose, name: mine, trainer.max_steps: 5}\n")
    assert names(matrix) == ["concise,seed=3", "mine", "base-tiny"]
    assert matrix.cells[1].trainer and matrix.cells[1].trainer.options.max_steps == 5
    assert [choice.label for choice in matrix.cells[1].filters] == ["fits"]


def test_an_include_entry_is_filled_in_from_axes_of_one_value(load: Load) -> None:
    text = QUICKSTART.replace("seed: [0, 1]", "seed: 7")
    matrix = load(text + "  include: [{teacher: synthetic}]\n")
    cell = named(matrix, "synthetic")
    assert (cell.seed, cell.trainer and cell.trainer.label, cell.student.label) == (7, "lora", "tiny")
    assert cell.trainer and str(cell.trainer.origins["learning_rate"]) == "default"  # several values: its own


def test_exclude(load: Load) -> None:
    matrix = load(QUICKSTART + "  exclude:\n  - {teacher: verbose, seed: 1}\n  - {trainer.learning_rate: 0.0002}\n")
    assert names(matrix) == ["concise,seed=0", "concise,seed=1", "verbose,seed=0", "base-tiny"]


def test_baselines_are_told_apart_by_what_differs(load: Load) -> None:
    text = QUICKSTART.replace("seed: [0, 1]", "seed: 0").replace("  - 2e-4\n", "")
    text = text.replace("  tiny: {hidden: 64}", "  tiny: {hidden: 64}\n  other: {use: tiny}")
    assert names(load(text + "  student: [tiny, other]\n"))[-2:] == ["base-tiny", "base-other"]
    matrix = load(text + "  student: [tiny, other]\n  renderer: [qwen3, plain]\n  engine: [transformers]\n")
    assert names(matrix)[-4:] == ["base-tiny,qwen3", "base-tiny,plain", "base-other,qwen3", "base-other,plain"]
    matrix = load(text + "  student: tiny\n  student.hidden: [32, 48]\n  engine: [transformers, vllm]\n")
    assert names(matrix)[-4:] == [
        "base-tiny,hidden=32,transformers",
        "base-tiny,hidden=32,vllm",
        "base-tiny,hidden=48,transformers",
        "base-tiny,hidden=48,vllm",
    ]


def test_a_matrix_of_baselines_only(load: Load) -> None:
    matrix = load("students: {tiny: {}, big: {use: tiny, hidden: 999}}\nevaluations: {coins: {}}\n")
    assert names(matrix) == ["base-tiny", "base-big"]
    assert all(cell.is_baseline and cell.teacher is None for cell in matrix.cells)


def test_one_option_name_on_two_kinds_is_told_apart_by_its_whole_key(load: Load) -> None:
    text = QUICKSTART.replace("  seed: [0, 1]", "  evaluation.max_tokens: [10, 20]\n  filters.fits.max_tokens: [1, 2]")
    assert load(text).cells[0].name == ("concise,evaluation.max_tokens=10,filters.fits.max_tokens=1,learning_rate=1e-4")


def test_a_renderer_from_one_include_entry_is_in_every_name(load: Load) -> None:
    text = QUICKSTART.replace("  - 2e-4\n", "").replace("[0, 1]", "0")
    matrix = load(text + "  include: [{teacher: verbose, renderer: plain}]\n")
    assert names(matrix) == ["concise,qwen3", "verbose,plain", "base-tiny,qwen3", "base-tiny,plain"]


def test_limit_and_fast_override_the_file(load: Load) -> None:
    text = QUICKSTART.replace("repeats: 2", "limit: 7, subset: shuffled")
    (plain,) = load(text).cells[0].evaluations
    (limited,) = load(text, limit=3).cells[0].evaluations
    (fast,) = load(QUICKSTART, fast=True).cells[0].evaluations
    (both,) = load(QUICKSTART, fast=True, limit=3).cells[0].evaluations
    assert [(each.limit, each.subset) for each in (plain, limited, fast, both)] == [
        (7, "shuffled"),
        (3, "first"),
        (100, "shuffled"),
        (3, "first"),
    ]
    assert (str(limited.origins["limit"]), str(fast.origins["subset"])) == ("--limit", "--fast")
    with pytest.raises(MatrixError, match="--limit"):
        load(text, limit=0)


def test_the_identity_holds_what_counts_and_nothing_else(load: Load, tmp_path: Path) -> None:
    traces = tmp_path / "traces.jsonl"
    traces.write_text("one\n")
    text = QUICKSTART.replace(
        "  concise: {use: synthetic, style: concise}", "  concise: {use: recorded, path: traces.jsonl}"
    )
    cell = load(text).cells[0]
    assert cell.teacher
    identity = json.loads(cell.teacher.identity)
    assert cell.teacher.options.path == traces
    assert (identity["component"], identity["version"], identity["options"]) == ("recorded", 1, {"column": "text"})
    assert [name for name, _ in identity["inputs"]] == ["traces.jsonl"]
    assert str(tmp_path) not in cell.teacher.identity
    traces.write_text("two, longer\n")
    changed = load(text).cells[0].teacher
    assert changed and changed.identity != cell.teacher.identity
    student = json.loads(cell.student.identity)
    assert student["options"] == {"hidden": 64}  # `device` only affects speed
    assert list(student["packages"]) == ["pyyaml"]
    moved = load(text.replace("hidden: 64", "hidden: 64, device: cuda")).cells[0].student
    assert (moved.identity, moved.options.device) == (cell.student.identity, "cuda")
    trainer = cell.trainer
    assert trainer and json.loads(trainer.identity)["version"] == 3


def test_order_and_spelling_leave_identities_alone(load: Load) -> None:
    other = """\
evaluations: {coins: {repeats: 2}}
trainers: {lora: {method: lora, use: sft}}
filters: {fits: {max_tokens: 0x63}}
students: {tiny: {hidden: +64}}
teachers: {verbose: {style: verbose, use: synthetic}, concise: {style: concise, use: synthetic}}
matrix: {seed: [1, 0], trainer.learning_rate: [0.0002, 0.0001], trainer: lora, filters: [[correct_only, fits]]}
defaults: {evaluation: {max_tokens: 128}, trainer: {max_steps: 100}}
"""
    assert identities(load(QUICKSTART)) == identities(load(other))


def identities(matrix: Matrix) -> set[tuple[Any, ...]]:
    return {
        (
            *(
                part and part.identity
                for part in (cell.teacher, cell.student, cell.renderer, cell.trainer, cell.engine)
            ),
            tuple(choice.identity for choice in cell.filters),
            cell.seed,
            tuple((each.sample_identity, each.grader.identity, each.sampling) for each in cell.evaluations),
        )
        for cell in matrix.cells
    }


def test_plugins_may_change_the_cells(load: Load, plugin: Any) -> None:
    plugin.modify = lambda cells: cells.__delitem__(slice(0, 3))
    assert len(load(QUICKSTART).cells) == 6
    plugin.modify = lambda cells: cells.append(cells[0])
    with pytest.raises(PluginError, match="two cells named 'concise,seed=0"):
        load(QUICKSTART)


def test_task_paths_are_relative_to_the_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "own.yaml").write_text("task: own\n")
    matrix = load(QUICKSTART.replace("keep: [full]", "task_paths: [mine]").replace("coins: {", "own: {"))
    assert matrix.cells[0].evaluations[0].task_path == tmp_path / "mine" / "own.yaml"


def test_the_launcher_has_options(load: Load) -> None:
    launcher = load(QUICKSTART + "launcher: {use: local, workers: 4}\n").launcher
    assert launcher.options.workers == 4
    assert str(launcher.origins["workers"]) == "matrix.yaml:25: launcher.workers"


def test_an_unused_entry_is_allowed(load: Load) -> None:
    matrix = load(QUICKSTART.replace("teacher: [concise, verbose]", "teacher: concise"))
    assert names(matrix)[0] == "seed=0,learning_rate=1e-4"


def test_one_cell_is_named_after_its_teacher(load: Load) -> None:
    text = QUICKSTART.replace("teacher: [concise, verbose]", "teacher: verbose").replace("[0, 1]", "0")
    assert names(load(text.replace("  - 2e-4\n", ""))) == ["verbose", "base-tiny"]


def test_ten_thousand_cells(load: Load) -> None:
    text = QUICKSTART.replace("seed: [0, 1]", f"seed: {list(range(50))}").replace("  - 1e-4\n  - 2e-4\n", "")
    text += "".join(f"  - {rate}e-5\n" for rate in range(1, 21)) + "  evaluation.temperature: [0, 0.2, 0.4, 0.6, 0.8]\n"
    matrix = load(text)
    assert len(matrix.cells) == 10_000 + 5
    assert len(set(names(matrix))) == 10_005


def test_ten_thousand_include_entries(load: Load) -> None:
    text = QUICKSTART[: QUICKSTART.index("matrix:")] + "matrix:\n  include:\n"
    text += "".join(f"  - {{teacher: concise, seed: {seed}}}\n" for seed in range(10_000))
    assert len(load(text).cells) == 10_001


def test_names_are_safe_and_tell_odd_values_apart() -> None:
    rows: list[dict[str, Any]] = [
        {"trainer.path": "data/a b.jsonl"},
        {"trainer.path": "data/a-b.jsonl"},
        {"trainer.path": ".."},
        {"trainer.path": ""},
        {"trainer.path": ["q", "k/v"]},
        {"trainer.path": []},
        {"trainer.path": {"a": 1}},
        {"trainer.path": None},
        {"trainer.path": True},
        {"trainer.path": 2e-5},
        {"trainer.path": 1e20},
        {},
    ]
    found = [join(parts) for parts in distinguish(rows)]
    assert len(set(found)) == len(rows)
    assert found[5:] == ["path=empty", found[6], "path=null", "path=true", "path=2e-5", "path=1e20", ""]
    assert all("/" not in name and " " not in name for name in found)
    assert len(join(["x" * 400])) < 255


@pytest.mark.parametrize(
    "written",
    [
        "2e-4",
        "1e-05",
        "1E-5",
        "0.10",
        "0.0001",
        "1e-4",
        "100e-6",
        "2.50",
        "1.",
        ".5",
        "+0.5",
        "1e+2",
        "3",
        "00.1",
        "1e20",
    ],
)
def test_a_number_is_named_as_it_was_written(written: str, load: Load) -> None:
    text = QUICKSTART.replace("  - 1e-4\n  - 2e-4\n", f"  - {written}\n  - 7e-9\n").replace("[0, 1]", "0")
    matrix = load(text.replace("teacher: [concise, verbose]", "teacher: concise"))
    assert names(matrix)[:2] == [f"learning_rate={written}", "learning_rate=7e-9"]
    assert matrix.cells[0].axes["trainer.learning_rate"] == float(written)


def test_numbers_in_lists_and_in_evaluations_are_named_as_written(load: Load) -> None:
    text = QUICKSTART.replace("  - 2e-4\n", "").replace("[0, 1]", "0").replace("[concise, verbose]", "concise")
    axes = "  evaluations.coins.temperature: [0.10, 0.70]\n  evaluations.coins.budgets: [[010, 0x20], [16]]\n"
    matrix = load(text + axes)
    assert "temperature=0.10,budgets=010+0x20" in names(matrix)
    assert "base-tiny,temperature=0.70,budgets=16" in names(matrix)


def test_one_number_written_in_two_ways_is_one_number(load: Load) -> None:
    text = QUICKSTART.replace("  - 1e-4\n  - 2e-4\n", "  - 1e-4\n  - 0.00020\n").replace("[0, 1]", "0")
    text = text.replace("teacher: [concise, verbose]", "teacher: concise")
    text += "  include:\n" + "".join(
        f"  - {{teacher: verbose, trainer.learning_rate: {one}}}\n" for one in ("0.0001", "2e-4")
    )
    assert [name for name in names(load(text)) if not name.startswith("base")] == [
        "concise,learning_rate=1e-4",
        "concise,learning_rate=0.00020",
        "verbose,learning_rate=1e-4",
        "verbose,learning_rate=0.00020",
    ]
    with pytest.raises(MatrixError, match="each value once"):
        load(text.replace("  - 0.00020\n", "  - 0.0001\n"))


VALUES = st.recursive(
    st.sampled_from(
        [True, "true", 1, 1.0, "1", 1.5, "1.5", None, "null", "", "a", "a b", "a-b", "é", "A", [], {}, 0, False]
    ),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=8), st.lists(st.integers(0, 7), min_size=1, max_size=8))
def test_two_values_never_have_one_name_and_one_value_never_has_two(values: list[Any], picks: list[int]) -> None:
    rows = [{"trainer.x": values[pick % len(values)], "student.y": pick} for pick in picks]
    found = [join(parts) for parts in distinguish(rows)]
    for one, name in zip(rows, found, strict=True):
        for other, other_name in zip(rows, found, strict=True):
            is_same = same(one["trainer.x"], other["trainer.x"]) and one["student.y"] == other["student.y"]
            assert (name == other_name) == is_same


AXES = st.fixed_dictionaries(
    {},
    optional={
        "teacher": st.lists(st.sampled_from(["concise", "verbose"]), min_size=1, unique=True),
        "renderer": st.lists(st.sampled_from(["qwen3", "plain"]), min_size=1, unique=True),
        "engine": st.lists(st.sampled_from(["transformers", "vllm"]), min_size=1, unique=True),
        "filters": st.lists(st.sampled_from([[], ["fits"], ["correct_only", "fits"]]), min_size=1, unique_by=str),
        "seed": st.lists(st.integers(0, 3), min_size=1, unique=True),
        "student.hidden": st.lists(st.integers(1, 3), min_size=1, unique=True),
        "teacher.n": st.lists(st.integers(1, 3), min_size=1, unique=True),
        "trainer.rank": st.lists(st.none() | st.integers(1, 3), min_size=1, unique=True),
        "evaluation.repeats": st.lists(st.integers(1, 3), min_size=1, unique=True),
        "evaluations.coins.prefill": st.lists(st.sampled_from(["none", "think"]), min_size=1, unique=True),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(AXES, st.randoms())
def test_cells_are_the_product_each_once_in_any_order(
    write: Callable[[str], Path], catalog: Catalog, axes: dict[str, list[Any]], random: Any
) -> None:
    head = QUICKSTART[: QUICKSTART.index("matrix:")]
    matrix = load_matrix(write(head + "matrix: " + json.dumps(axes) + "\n"), catalog)
    trained = [cell for cell in matrix.cells if not cell.is_baseline]
    size = 1
    for axis, values in {"teacher": ["concise", "verbose"], **axes}.items():
        size *= len(values)
        assert axis == "evaluations.coins.prefill" or all(axis in cell.axes for cell in trained)
    assert len(trained) == size
    assert len(set(names(matrix))) == len(matrix.cells)
    assert len(set(map(untrained, trained))) == len(matrix.cells) - size
    shuffled = list(axes.items())
    random.shuffle(shuffled)
    other = load_matrix(write(head + "matrix: " + json.dumps(dict(shuffled)) + "\n"), catalog)
    assert identities(other) == identities(matrix)


def untrained(cell: Cell) -> tuple[Any, ...]:
    """What a baseline of this cell depends on."""
    evaluations = tuple((each.repeats, each.prefill) for each in cell.evaluations)
    return cell.student.identity, cell.renderer.label, cell.engine.label, evaluations
