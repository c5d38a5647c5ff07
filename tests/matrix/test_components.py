"""Components that need components: resolved by name, in the identity of whoever needs them, and built."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from distillbench.catalog import Catalog
from distillbench.errors import MatrixError, PluginError
from distillbench.matrix.resolve import Matrix
from distillbench.protocols import Context, Engine, Filter
from distillbench.records import Choice, Resources, Trace
from distillbench.stages.needed import most_needed
from distillbench.stages.planner import Planner
from distillbench.tasks.identity import TaskIndex

Load = Callable[..., Matrix]


@dataclass(frozen=True)
class JudgedOptions:
    judge: str | None = field(default=None, metadata={"component": "engine"})
    reader: str | None = field(default=None, metadata={"component": "student"})
    strange: str | None = field(default=None, metadata={"component": "planet"})


class Judged(Filter[JudgedOptions]):
    """Asks a judge."""

    name = "judged"

    def reason(self, trace: Trace, context: Context) -> str | None:
        raise AssertionError("resolving a matrix filters nothing")


@dataclass(frozen=True)
class RelayOptions:
    behind: str | None = field(default=None, metadata={"component": "engine"})
    heat: float = 0.5


class Relay(Engine[RelayOptions]):
    """An engine that asks another one."""

    name = "relay"

    def open(self, *unused: object) -> Any:
        raise AssertionError("resolving a matrix opens nothing")


@pytest.fixture(autouse=True)
def _judges(plugin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = plugin.kinds
    more = {"filters": (*kinds["filters"], Judged), "engines": (*kinds["engines"], Relay)}
    monkeypatch.setattr(plugin, "kinds", kinds | more)


def matrix(judge: str = "mild", engines: str = "  mild: {use: relay, heat: 0.1}", extra: str = "") -> str:
    return f"""\
name: judged
teachers: {{concise: {{use: synthetic}}}}
students: {{tiny: {{}}}}
engines:
{engines}
filters:
  asks: {{use: judged, judge: {judge}{extra}}}
trainers: {{lora: {{use: sft}}}}
evaluations: {{coins: {{}}}}
matrix: {{teacher: concise, student: tiny, filters: [[asks]], trainer: lora, engine: transformers}}
"""


def judged(loaded: Matrix) -> Choice:
    return next(cell.filters[0] for cell in loaded.cells if cell.filters)


def test_a_needed_component_is_resolved_and_built(load: Load, catalog: Catalog) -> None:
    """An entry that only a component uses counts as used, and its options are those it is given."""
    choice = judged(load(matrix()))
    assert choice.components["judge"].label == "mild"
    built = catalog.needed(choice)
    assert isinstance(built["judge"], Relay)
    assert built["judge"].options.heat == 0.1


def test_no_name_is_no_component(load: Load) -> None:
    """Null, as any option's default."""
    choice = judged(load(matrix("null")))
    assert choice.components == {}
    assert json.loads(choice.identity)["options"] == {"judge": None, "reader": None, "strange": None}


def test_a_registered_component_needs_no_entry(load: Load) -> None:
    """Its name is enough."""
    assert judged(load(matrix("vllm"))).components["judge"].component == "vllm"


def test_the_identity_holds_what_is_needed_and_not_its_name(load: Load) -> None:
    """Another option of it is another identity, at any depth; another name of the same is not."""
    first = judged(load(matrix())).identity
    assert judged(load(matrix("other", "  other: {use: relay, heat: 0.1}"))).identity == first
    assert judged(load(matrix(engines="  mild: {use: relay, heat: 0.2}"))).identity != first
    deep = "  mild: {{use: relay, behind: far}}\n  far: {{use: relay, heat: {heat}}}"
    assert len({judged(load(matrix(engines=deep.format(heat=heat)))).identity for heat in (0.1, 0.2)}) == 2


def test_defaults_reach_it(load: Load) -> None:
    """Those of its kind, like any of that kind."""
    text = matrix(engines="  mild: {use: relay}") + "defaults: {engine: {heat: 0.7}}\n"
    assert judged(load(text)).components["judge"].options.heat == 0.7


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (matrix("mlid"), r"matrix\.yaml:7.*'mlid'.*mild"),
        (matrix(engines="  mild: {use: relay, heat: warm}"), r"matrix\.yaml:5.*warm"),
        (matrix(engines="  mild: {use: relay, behind: mild}"), r"matrix\.yaml:5.*engine 'mild' needs engine 'mild'"),
        (
            matrix(engines="  mild: {use: relay, behind: b}\n  b: {use: relay, behind: mild}"),
            r"matrix\.yaml:6.*engine 'mild' needs engine 'b' needs engine 'mild'",
        ),
    ],
    ids=["unknown", "its option", "itself", "a circle"],
)
def test_what_is_wrong_is_told_with_its_line(load: Load, text: str, told: str) -> None:
    """Once, and where it stands."""
    with pytest.raises(MatrixError, match=f"(?s){told}") as caught:
        load(text)
    assert len(caught.value.mistakes) == 1


def test_the_machine_is_to_have_what_they_ask_for(
    load: Load, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student its own; an engine, for a student beside it or else for the cell's; and so on at any depth."""
    monkeypatch.setattr(catalog.kind("student")["tiny"], "resources", lambda self: Resources(2, 1, 8.0))
    monkeypatch.setattr(Relay, "resources", lambda self, student: Resources(1, 4, 2.0))
    planner = Planner((), catalog, TaskIndex(()), lambda stage: None)

    def needed(text: str) -> Resources:
        loaded = load(text)
        return most_needed(planner, Resources(), loaded.cells[0].student, judged(loaded))

    assert needed(matrix("null")) == Resources()
    assert needed(matrix()) == Resources(1, 4, 2.0)
    assert needed(matrix("null", extra=", reader: tiny")) == Resources(2, 1, 8.0)
    assert needed(matrix(extra=", reader: tiny")) == Resources(2, 4, 8.0)
    assert needed(matrix(engines="  mild: {use: relay, behind: far}\n  far: {use: relay}")) == Resources(1, 4, 2.0)


def test_a_kind_that_no_section_has_is_the_plugin_s_mistake(load: Load) -> None:
    """Told with the word that it used."""
    with pytest.raises(PluginError, match="planet"):
        load(matrix(extra=", strange: mars"))
