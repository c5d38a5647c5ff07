"""What a user is told, and the records that plugins import."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distillbench import errors, records
from distillbench.errors import DEFAULT, DistillbenchError, MatrixError, Mistake, Place, StageError, nearest
from distillbench.protocols import Component, Context, Filter, Grader, Renderer
from distillbench.records import Cell, Choice, Evaluation, Sampling

COINS_GRADER = "/tasks/coins.yaml: metadata.distillbench.grader"


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("concice", ["concise", "verbose"], "did you mean 'concise'?"),
        ("zzz", ["b", "a", "a"], "one of: a, b"),
        ("x", [], ""),
        ("x", [f"n{i:02}" for i in range(14)], "one of: " + ", ".join(f"n{i:02}" for i in range(12)) + ", and 2 more"),
        ("x", [f"n{i:02}" for i in range(12)], "one of: " + ", ".join(f"n{i:02}" for i in range(12))),
        ("lora_rnk", {"lora_rank": 1, "lora_alpha": 2}, "did you mean 'lora_rank'?"),
    ],
)
def test_nearest(name: str, known: Any, hint: str) -> None:
    assert nearest(name, known) == hint


def test_a_mistake_says_where_what_was_wanted_what_came_and_what_to_do() -> None:
    lines = str(Mistake(Place("m.yaml", 3, ("seed",)), "a number", "'x'", "write 1")).splitlines()
    assert lines == ["m.yaml:3: seed", "    wanted: a number", "    got:    'x'", "    hint:   write 1"]
    assert "hint" not in str(Mistake(Place("m.yaml", 3), "a", "b"))


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        (Place("m.yaml", 3, ("matrix", "include", 2, "trainer.lr")), "m.yaml:3: matrix.include[2].trainer.lr"),
        (Place("m.yaml", 3), "m.yaml:3"),
        (Place("/tasks/coins.yaml", keys=("metadata",)).below("distillbench", "grader"), COINS_GRADER),
        (Place("--task-path", keys=(1,)), "--task-path: [1]"),
        (Place("m.yaml", 3, ("evaluations", "a"), "evaluation 'a'"), "m.yaml:3: evaluations.a: evaluation 'a'"),
        (Place(words="evaluation 'x'"), "evaluation 'x'"),
        (DEFAULT, "default"),
    ],
)
def test_a_place_is_told_as_a_user_finds_it(place: Place, shown: str) -> None:
    assert str(place) == shown


def test_mistakes_are_told_once_and_by_line_those_without_a_line_last() -> None:
    lines = [7, 0, 2, 7, 11]
    mistakes = [Mistake(Place("m.yaml", line), str(line), "x") for line in lines]
    assert [mistake.wanted for mistake in MatrixError(mistakes).mistakes] == ["2", "7", "11", "0"]


def test_mistakes_are_told_all_at_once() -> None:
    error = MatrixError([Mistake(Place("a"), "b", "c"), Mistake(Place("d"), "e", "f")])
    assert len(error.mistakes) == 2
    assert str(error) == "\n".join(map(str, error.mistakes))


def test_every_error_of_ours_has_an_exit_code_that_the_documentation_names() -> None:
    ours = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, DistillbenchError)]
    assert {one.exit_code for one in ours} == {1, 2}
    assert StageError.exit_code == 1 and MatrixError.exit_code == 2


def test_records_are_frozen_and_have_no_dictionary() -> None:
    """A typo in an attribute of a record must be an error, and a record must be safe to share between cells."""
    found = [one for one in vars(records).values() if dataclasses.is_dataclass(one) and isinstance(one, type)]
    assert len(found) >= 15
    for one in found:
        assert one.__dataclass_params__.frozen, one  # type: ignore[attr-defined]
        assert "__slots__" in vars(one), one
        assert (one.__doc__ or "").strip() and not (one.__doc__ or "").startswith(f"{one.__name__}("), one


def test_a_plugin_author_imports_records_and_protocols_without_anything_heavy(run_python: Callable[..., Any]) -> None:
    code = "import sys, distillbench.records, distillbench.protocols; print(*{n.split('.')[0] for n in sys.modules})"
    modules = set(run_python("-c", code).out.split())
    assert "distillbench" in modules
    assert modules.isdisjoint(
        {"numpy", "torch", "transformers", "pydantic", "yaml", "lm_eval", "rich", "click", "pyarrow"}
    )


def choice(kind: str, name: str = "one") -> Choice:
    return Choice(kind, name, name, None, f'{{"component":"{name}"}}')


def test_a_cell_and_its_baseline_share_their_setup() -> None:
    evaluation = Evaluation(
        "toy", "toy", Path("toy.yaml"), Sampling(), "none", 1, None, "first", (), "s", "g", None, choice("benchmark")
    )
    parts = {"student": choice("student"), "renderer": choice("renderer"), "engine": choice("engine")}
    baseline = Cell("base", **parts, evaluations=(evaluation,))
    trained = dataclasses.replace(baseline, name="x", teacher=choice("teacher"), trainer=choice("trainer"), seed=3)
    assert baseline.is_baseline and not trained.is_baseline
    assert baseline.setup == trained.setup
    other = dataclasses.replace(trained, renderer=choice("renderer", "other"))
    assert other.setup != baseline.setup


def test_two_choices_of_one_identity_are_equal_whatever_their_origins_and_options() -> None:
    one = Choice("trainer", "lora", "sft", object(), "{}", {"rate": DEFAULT})
    assert one == Choice("trainer", "lora", "sft", object(), "{}", {"rate": Place("m.yaml", 3)})
    assert one != Choice("trainer", "lora", "sft", one.options, '{"version":2}', one.origins)


def test_a_renderer_that_is_not_bound_says_so() -> None:
    class Plain(Renderer):
        """Plain."""

        name = "plain"
        stop_token_ids = render = prompt = parse = None  # type: ignore[assignment]

    renderer = Plain(None)
    with pytest.raises(ValueError, match="'plain' is used before bind"):
        _ = renderer.tokenizer
    bound = renderer.bind("a tokenizer")  # type: ignore[arg-type]
    assert bound.tokenizer == "a tokenizer"
    with pytest.raises(ValueError, match="before bind"):  # binding makes a copy: a renderer serves many students
        _ = renderer.tokenizer


def test_a_grader_with_a_task_is_a_copy() -> None:
    class Plain(Grader):
        """Plain."""

        name = "plain"
        extract = judge = None  # type: ignore[assignment]

    first = Plain(None)
    bound = first.with_task("a task")
    assert bound._task == "a task" and not hasattr(first, "_task")  # type: ignore[attr-defined]


def test_a_filter_of_rows_and_a_filter_of_sets() -> None:
    class Even(Filter):
        """Even numbers."""

        name = "even"

        def reason(self, trace: Any, context: Context) -> str | None:
            return None if trace % 2 == 0 else "odd"

    class First(Filter):
        """The first."""

        name = "first"

        def decide(self, traces: Any, context: Context) -> Any:
            yield from (None if number == 0 else "later" for number, _ in enumerate(traces))

    assert list(Even(None).decide([1, 2, 3], Context(work=Path()))) == ["odd", None, "odd"]
    assert list(First(None).decide([1, 2, 3], Context(work=Path()))) == [None, "later", "later"]
    assert Component(None).inputs() == ()
