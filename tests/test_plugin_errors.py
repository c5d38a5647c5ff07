"""An error of a plugin names the plugin, and costs nothing that was made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from core_bench import Control, Heard, Toys
from core_factories import keys, merged

from distillbench.cli.invocation import Invocation
from distillbench.errors import PluginError
from distillbench.events import Event
from distillbench.hookspecs import hookimpl
from distillbench.manager import make_manager
from distillbench.report.results import Results, Section
from distillbench.report.sections import with_sections

Cli = Callable[..., Any]


HEAD = """
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Filter
from distillbench.report.results import Section
from distillbench_toys import ToyFilter, ToyTeacher, ToyTrainer
"""
ODD = """
class Raising(ToyFilter):
    "Raises at the third trace."
    name = "raising"
    def reason(self, trace, context):
        if trace.source == "toy 2":
            raise KeyError("no such thing")

class Few(ToyFilter):
    "Decides on the first trace alone."
    name = "few"
    def decide(self, traces, context):
        return [None]

class Yes(ToyFilter):
    "Gives no words."
    name = "yes"
    def reason(self, trace, context):
        return True

class Stops(ToyTeacher):
    "Raises after two traces."
    name = "stops"
    def traces(self, context, start):
        yield from list(super().traces(context, start))[:2]
        raise ZeroDivisionError("no more")

class Breaks(ToyTrainer):
    "Raises."
    name = "breaks"
    def train(self, job, context):
        raise AttributeError("no such thing")

@hookimpl
def distillbench_filters():
    return [Raising, Few, Yes]

@hookimpl
def distillbench_teachers():
    return [Stops]

@hookimpl
def distillbench_trainers():
    return [Breaks]
"""
SMALL = {
    "students": {"small": {"use": "toy-hub-student"}},
    "trainers": {"fit": {"steps": [1]}},
    "evaluations": {"toy": {"limit": 1}},
}


@pytest.fixture
def make(bench: Toys, install_plugin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Toys]:
    """Installs a plugin `odd` of a distribution `oddities`, in a module of its own name."""

    def installed(source: str, module: str) -> Toys:
        install_plugin(tmp_path / module, "oddities", {module: HEAD + source}, {"odd": module})
        monkeypatch.syspath_prepend(str(tmp_path / module))
        session = Invocation(make_manager(), (), tmp_path / "store", 0)
        return Toys(session, lambda changes=None: bench.matrix(merged(SMALL, changes or {})))

    return installed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "changes", "why"),
    [
        ("curate", "raising", {"filters": {"odd": {"use": "raising"}}}, "KeyError: 'no such thing'"),
        ("curate", "few", {"filters": {"odd": {"use": "few"}}}, "it decided 1 times on 4 traces"),
        ("curate", "yes", {"filters": {"odd": {"use": "yes"}}}, "got True"),
        ("traces", "stops", {"teachers": {"wise": {"use": "stops"}}}, "ZeroDivisionError: no more"),
        ("train", "breaks", {"trainers": {"fit": {"use": "breaks"}}}, "AttributeError: no such thing"),
    ],
)
def test_a_component_that_raises_is_named_with_its_plugin(
    make: Callable[..., Toys], kind: str, name: str, changes: dict[str, Any], why: str
) -> None:
    odd = make(ODD, "odd_components")
    summary = odd.run(changes)
    (key,) = keys(summary.plan, kind, "wise")
    told = summary.reasons[key]
    assert why in told and f"{name!r} of plugin 'odd' of oddities (odd_components)" in told
    log = Path(told.rpartition("log: ")[2])
    assert "Traceback" in log.read_text()
    assert {summary.endings[one] for one in summary.plan.cell_stages["base-small"]} == {"done"}, "the rest is made"


@pytest.mark.slow
def test_the_preflight_names_a_filter_that_raises(make: Callable[..., Toys], cli: Cli) -> None:
    odd = make(ODD, "odd_looked_at")
    odd.run()
    matrix = odd.matrix({"filters": {"odd": {"use": "raising"}}})
    for command in ("check", "run"):
        done = cli(command, matrix, store=odd.session.store.root)
        assert done.code == 2 and "Traceback" not in done.err + done.out
        assert "filter 'raising' of plugin 'odd' of oddities (odd_looked_at)" in done.out + done.err


# ---------------------------------------------------------------- hooks


class Hooks:
    """A plugin whose hooks do what they are told."""

    def __init__(self, do: Callable[[str], Any]) -> None:
        self.do = do
        self.called: list[str] = []

    def _call(self, name: str) -> Any:
        self.called.append(name)
        return self.do(name)

    @hookimpl
    def distillbench_report_sections(self, results: Results) -> Any:
        return self._call("sections")

    @hookimpl
    def distillbench_event(self, event: Event) -> None:
        self._call(event.kind())


def fail(name: str) -> Any:
    raise RuntimeError(f"{name} went wrong")


def fail_late(name: str) -> Any:
    yield Section("First", "is kept")
    raise RuntimeError(f"{name} went wrong")


class FailsLate(list[Any]):
    """A list that raises when somebody goes through it."""

    def __iter__(self) -> Any:
        return fail_late("sections")


class Nameless:
    """Something that cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no name")


GOOD = [Section("Good", "good text")]


@pytest.mark.parametrize(
    ("do", "said"),
    [
        (fail, "RuntimeError: sections went wrong"),
        (lambda name: exit("enough"), "SystemExit: enough"),
        (lambda name: 7, "got 7"),
        (lambda name: [1, 2, 3], "3 sections of plugin 'bad'"),
        (lambda name: ["x" * 10_000], "..."),
        (lambda name: [Nameless()], "got <Nameless instance"),
        (lambda name: {"Good": "text"}, "got 'Good'"),
        (lambda name: "text", "got 'text'"),
        (lambda name: [Section("Odd", None)], "wanted sections with a title"),  # type: ignore[arg-type]
        (lambda name: [None], "got None"),
        (lambda name: [Section("Good", "another text")], "has one of that name"),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_section_that_fails_is_left_out_and_named(do: Callable[[str], Any], said: str, is_first: bool) -> None:
    manager = make_manager()
    plugins = [("bad", Hooks(do)), ("good", Hooks(lambda name: GOOD))]
    for name, plugin in plugins if is_first else reversed(plugins):
        manager.register(plugin, name)
    results, sections = with_sections(Results("m"), manager)
    assert [section.title for section in sections] == ["Good"]
    (left_out,) = results.left_out
    assert said in left_out and ("'bad' of test" in left_out or "'good' of test" in left_out) and len(left_out) < 600


@pytest.mark.parametrize("do", [fail_late, lambda name: FailsLate(), lambda name: [Section("First", ""), None, 7]])
def test_what_fails_costs_no_other_section_of_its_plugin(do: Callable[[str], Any]) -> None:
    manager = make_manager()
    manager.register(Hooks(do), "bad")
    results, sections = with_sections(Results("m"), manager)
    assert [section.title for section in sections] == ["First"]
    (left_out,) = results.left_out
    assert "plugin 'bad' of test" in left_out


def test_a_plugin_without_sections_is_no_error() -> None:
    manager = make_manager()
    for number, given in enumerate((None, [], ())):
        manager.register(Hooks(lambda name, given=given: given), str(number))
    assert with_sections(Results("m"), manager) == (Results("m"), [])


SECTIONS = """
@hookimpl
def distillbench_report_sections(results):
    raise RuntimeError("no section today")
"""


@pytest.mark.slow
def test_the_report_is_written_without_the_section_and_says_so(make: Callable[..., Toys], cli: Cli) -> None:
    odd = make(SECTIONS, "odd_sections")
    done = cli("run", odd.matrix(), store=odd.session.store.root)
    assert done.code == 0 and "Traceback" not in done.err
    text = (odd.session.store.root / "reports" / "toys" / "report.md").read_text()
    told = "'odd' of oddities (odd_sections), distillbench_report_sections: RuntimeError: no section today"
    assert told in text.replace("\\", "") and told in " ".join(done.out.split())
    notes = cli("report", odd.matrix(), "--json", store=odd.session.store.root).json["notes"]
    assert any(told in note for note in notes)


@pytest.mark.slow
def test_a_hook_that_fails_during_a_run_is_told_once_and_costs_nothing(bench: Toys, control: Control) -> None:
    bad, good, heard = Hooks(fail), Hooks(lambda name: None), Heard()
    for name, plugin in (("good", good), ("bad", bad)):
        bench.session.manager.register(plugin, name)
    summary = bench.run(SMALL, on_event=heard)
    assert set(summary.endings.values()) == {"done"}
    (told,) = heard.told
    assert "plugin 'bad' of tests (tests.test_plugin_errors)" in told
    assert good.called == bad.called and good.called.count("ended") == len(summary.plan.stages)


COMMANDS = """
@hookimpl
def distillbench_add_commands(group):
    raise RuntimeError("no command today")
"""
CELLS = """
@hookimpl
def distillbench_modify_cells(cells):
    {}
"""


def test_a_plugin_that_cannot_add_its_commands_is_named(make: Callable[..., Toys], cli: Cli) -> None:
    make(COMMANDS, "odd_commands")
    done = cli("plugins")
    assert done.code == 2 and "plugin 'odd' of oddities (odd_commands), distillbench_add_commands" in done.err
    assert "no command today" in done.err and "-p no:odd" in done.err
    assert cli("-p", "no:odd", "plugins").code == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("raise KeyError('seed')", "KeyError: 'seed'"),
        ("cells.append(None)", "left None among the cells"),
        ("cells.append(cells[0])", "left two cells named"),
        ("cells[:] = ['a', 'b']", "left 'a' among the cells"),
    ],
)
def test_a_plugin_that_spoils_the_cells_is_named(
    make: Callable[..., Toys], cli: Cli, line: str, said: str, request: pytest.FixtureRequest
) -> None:
    module = f"odd_cells_{abs(hash(line))}"
    odd = make(CELLS.format(line), module)
    done = cli("plan", odd.matrix())
    assert done.code == 2 and said in done.err
    assert f"plugin 'odd' of oddities ({module}), distillbench_modify_cells" in done.err
    with pytest.raises(PluginError, match="distillbench_modify_cells"):
        odd.load()
