"""From plain mappings to `Options`, and the words for what is wrong."""

from __future__ import annotations

import dataclasses
import enum
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

import pytest
from annotated_types import Ge, Gt, Interval, Le, MinLen
from hypothesis import given
from hypothesis import strategies as st

from distillbench.errors import DEFAULT, Place, PluginError
from distillbench.options import Given, Resolved, describe, fields_of, resolve_options


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Window:
    start: int
    stop: int = 5


@dataclass(frozen=True)
class Options:
    model: str
    method: Literal["lora", "full"] = "lora"
    lr: Annotated[float, Gt(0)] = 1e-3
    rank: Annotated[int, Interval(ge=1, le=512)] | None = None
    steps: int = 100
    packing: bool = False
    targets: tuple[str, ...] = ()
    path: Path | None = None
    paths: tuple[Path, ...] = ()
    named: Mapping[str, float] = field(default_factory=dict)
    color: Color = Color.RED
    window: Window = field(default_factory=lambda: Window(1))
    device: str = field(default="cpu", metadata={"key": False})
    computed: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.method == "full" and self.rank is not None:
            raise ValueError("method full has no rank")


def resolve(values: dict[str, Any], folder: Path | None = None, **more: Any) -> Resolved:
    layers = [{name: Given(value, Place("m.yaml", 7, ("t", name)), folder=folder) for name, value in values.items()}]
    return resolve_options(Options, layers, Place("m.yaml", 6, ("t",)), "trainer 't'", **more)


def test_values_become_what_their_types_say(tmp_path: Path) -> None:
    resolved = resolve(
        {
            "model": "m",
            "lr": 1,
            "rank": 8,
            "targets": ["q", "v"],
            "path": "a/b",
            "paths": ["/c", "d"],
            "named": {"x": 1},
            "color": "blue",
            "window": {"start": 2},
        },
        folder=tmp_path,
    )
    assert resolved.mistakes == ()
    options = resolved.options
    assert (options.lr, type(options.lr)) == (1.0, float)
    assert options.targets == ("q", "v")
    assert options.path == tmp_path / "a/b"
    assert options.paths == (Path("/c"), tmp_path / "d")
    assert options.named == {"x": 1.0}
    assert options.color is Color.BLUE
    assert options.window == Window(2)


def test_a_later_layer_wins_and_origins_say_which() -> None:
    layers = [
        {"model": Given("a", Place("one")), "steps": Given(1, Place("one")), "rank": Given(4, Place("one"))},
        {"steps": Given(2, Place("two")), "rank": Given(None, Place("two"))},
        {"steps": Given(3, Place("three"))},
    ]
    resolved = resolve_options(Options, layers, Place("here"), "trainer 't'")
    assert (resolved.options.model, resolved.options.steps, resolved.options.rank) == ("a", 3, None)
    assert resolved.origins["steps"] == Place("three")
    assert resolved.origins["rank"] == Place("two")
    assert resolved.origins["model"] == Place("one")
    assert resolved.origins["lr"] == DEFAULT
    assert "computed" not in resolved.origins


@pytest.mark.parametrize(
    ("values", "wanted", "got", "hint"),
    [
        ({"lr": "fast"}, "a number > 0", "'fast'", ""),
        ({"lr": 0}, "a number > 0", "0", ""),
        ({"lr": True}, "a number > 0", "True", ""),
        ({"lr": None}, "a number > 0", "None", ""),
        ({"lr": float("nan")}, "a number > 0, finite", "nan", ""),
        ({"named": {"x": float("inf")}}, "a mapping of strings to numbers, finite", "{'x': inf}", ""),
        ({"steps": 1.5}, "a whole number", "1.5", ""),
        ({"steps": 10.0}, "a whole number", "10.0", ""),
        ({"steps": "10"}, "a whole number", "'10'", ""),
        ({"steps": True}, "a whole number", "True", ""),
        ({"steps": [1]}, "a whole number", "[1]", ""),
        ({"rank": 0}, "a whole number >= 1 and <= 512 or null", "0", ""),
        ({"rank": "x"}, "a whole number >= 1 and <= 512 or null", "'x'", ""),
        ({"packing": 1}, "true or false", "1", ""),
        ({"packing": "off"}, "true or false", "'off'", "write true or false"),
        ({"model": 3}, "a string", "3", ""),
        ({"model": None}, "a string", "None", ""),
        ({"method": "lorra"}, "one of: lora, full", "'lorra'", "did you mean 'lora'?"),
        ({"method": 1}, "one of: lora, full", "1", ""),
        ({"targets": "q"}, "a list of strings", "'q'", ""),
        ({"targets": ["q", 3]}, "a list of strings", "['q', 3], wrong at item 2", ""),
        ({"path": 3}, "a path or null", "3", ""),
        ({"paths": ["a", None]}, "a list of paths", "['a', None], wrong at item 2", ""),
        ({"named": {"x": "y"}}, "a mapping of strings to numbers", "{'x': 'y'}", ""),
        ({"named": [1]}, "a mapping of strings to numbers", "[1]", ""),
        ({"color": "rad"}, "one of: red, blue", "'rad'", "did you mean 'red'?"),
        ({"window": {"stop": 1}}, "a mapping with the keys start, stop", "{'stop': 1}", ""),
        ({"model": {"a": "b" * 200}}, "a string", "...", ""),
    ],
)
def test_wrong_values_are_told_in_words(values: dict[str, Any], wanted: str, got: str, hint: str) -> None:
    (mistake,) = resolve({"model": "m", **values}).mistakes
    (name,) = values
    assert str(mistake.place) == f"m.yaml:7: t.{name}"
    assert mistake.wanted == wanted
    assert got in mistake.got
    assert len(mistake.got) < 120
    assert mistake.hint == hint


def test_unknown_and_missing_options_and_wrong_values_come_together() -> None:
    resolved = resolve({"stepz": 3, "lr": -1, "nothing_like_it": 0})
    assert resolved.options is None
    texts = [str(mistake) for mistake in resolved.mistakes]
    assert len(texts) == 4
    assert "an option of trainer 't'" in texts[0]
    assert "did you mean 'steps'?" in texts[0]
    assert "one of: color, device" in texts[2]
    assert "m.yaml:6: t\n    wanted: `model`: a string\n    got:    nothing" in texts[3]


def test_options_that_do_not_go_together() -> None:
    (mistake,) = resolve({"model": "m", "method": "full", "rank": 4}).mistakes
    assert str(mistake.place) == "m.yaml:6: t"
    assert mistake.got == "method full has no rank"
    assert "rank=4 (m.yaml:7: t.rank)" in mistake.hint


def test_a_wrong_value_is_told_even_where_a_later_layer_replaces_it() -> None:
    layers = [{"model": Given("m", Place("one")), "steps": Given("x", Place("one"))}, {"steps": Given(2, Place("two"))}]
    (mistake,) = resolve_options(Options, layers, Place("here"), "trainer 't'").mistakes
    assert mistake.place == Place("one")


def test_a_mistake_points_to_the_exact_place_rather_than_to_the_origin() -> None:
    exact = Place("/tasks/coins.yaml", keys=("generation_kwargs", "model"))
    given = {"model": Given(3, Place(words="task coins.yaml"), exact)}
    (mistake,) = resolve_options(Options, [given], Place("here"), "evaluation 'e'").mistakes
    assert mistake.place == exact


def test_fields_say_what_an_option_is() -> None:
    fields = fields_of(Options)
    assert list(fields)[:3] == ["model", "method", "lr"]
    assert "computed" not in fields
    assert fields["model"].required
    assert not fields["named"].required
    assert fields["named"].default == {}
    assert fields["window"].default == Window(1)
    assert fields["rank"].wanted == "a whole number >= 1 and <= 512 or null"
    assert not fields["device"].in_key
    assert fields["lr"].in_key


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Optional[int], "a whole number or null"),  # noqa: UP045 - plugins may write it so
        (Union[int, str], "a whole number or a string"),  # noqa: UP007
        (list[int], "a list of whole numbers"),
        (tuple[int, str], "a list holding a whole number, a string"),
        (frozenset[str], "a list of strings"),
        (dict[str, list[int]], "a mapping of strings to lists of whole numbers"),
        (list[Literal["a", "b"]], "a list of values, each one of: a, b"),
        (Literal["a", 1, None], "one of: a, 1, None"),
        (tuple[int | None, ...], "a list of whole numbers or nulls"),
        (dict, "a mapping"),
        (list, "a list"),
        (Any, "anything"),
        (list[Any], "a list of values"),
        (Annotated[str, MinLen(1)], "a string of length >= 1"),
        (Annotated[float, Ge(0), Le(1)], "a number >= 0 and <= 1"),
        (list[Window], "a list of mappings with the keys start, stop"),
        (bytes, "a list"),
        (complex, "a complex"),
    ],
)
def test_types_in_words(annotation: Any, words: str) -> None:
    assert describe(annotation) == words


def test_a_type_that_cannot_be_found_names_the_plugin() -> None:
    bad = dataclasses.make_dataclass("Bad", [("x", "NoSuchType")])
    with pytest.raises(PluginError, match=r"Bad: name 'NoSuchType' is not defined"):
        fields_of(bad)


def test_a_type_that_cannot_be_checked_names_the_option() -> None:
    class Strange:
        pass

    bad = dataclasses.make_dataclass("Bad", [("x", Strange)])
    with pytest.raises(PluginError, match=r"Bad\.x: not a type an option can have"):
        resolve_options(bad, [{"x": Given(1, Place("here"))}], Place("here"), "trainer 't'")


def test_pydantic_is_not_imported_before_a_value_is_checked() -> None:
    code = "import sys, distillbench.options, distillbench.matrix.resolve; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


TYPES: list[tuple[Any, Callable[[Any], bool]]] = [
    (int, lambda value: type(value) is int),
    (bool, lambda value: type(value) is bool),
    (str, lambda value: type(value) is str),
    (float, lambda value: type(value) in (int, float)),
    (int | None, lambda value: value is None or type(value) is int),
    (tuple[int, ...], lambda value: isinstance(value, list) and all(type(entry) is int for entry in value)),
    (Mapping[str, Any], lambda value: isinstance(value, dict)),
    (Literal["a", "b"], lambda value: value in ("a", "b")),
]
CLASSES = [(dataclasses.make_dataclass("One", [("x", annotation)]), fits) for annotation, fits in TYPES]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.sampled_from(["a", "b", "1", "true"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from(CLASSES), JSON)
def test_nothing_is_coerced(case: tuple[type, Callable[[Any], bool]], value: Any) -> None:
    cls, fits = case
    resolved = resolve_options(cls, [{"x": Given(value, Place("here"))}], Place("here"), "trainer 't'")
    assert (resolved.options is not None) == fits(value)
    if resolved.options is not None:
        kept = resolved.options.x
        assert json.loads(json.dumps(kept)) == value
