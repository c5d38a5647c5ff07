"""What a plugin can get wrong: each stops the program with its name and what to do, and none shows a traceback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, new_class
from typing import Any

import pytest

from distillbench.catalog import Catalog
from distillbench.errors import PluginError
from distillbench.hookspecs import hookimpl
from distillbench.manager import BUILTIN_MODULES, DistillbenchManager, make_manager, register, short_name
from distillbench.protocols import Engine, Filter, Grader, Launcher, Renderer, Student, Teacher, Trainer

GOOD = '''
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Filter

class Keep(Filter):
    """Keeps everything."""
    name = "keep-all"
    def reason(self, trace, context):
        return None

@hookimpl
def distillbench_filters():
    return [Keep]
'''


@pytest.fixture
def broken(tmp_path: Path, install_plugin: Callable[..., Path]) -> Path:
    """A distribution whose plugin cannot be imported."""
    return install_plugin(
        tmp_path / "site", "acme-distill", {"acme_plugin": "import no_such_package\n"}, {"acme": "acme_plugin"}
    )


def no_traceback(text: str) -> bool:
    return "Traceback" not in text and 'File "' not in text


@pytest.mark.parametrize("command", [["plugins"], ["plan", "nothing.yaml"], ["--help"]])
def test_a_plugin_that_cannot_be_imported_stops_every_command(
    broken: Path, run_cli: Callable[..., Any], tmp_path: Path, command: list[str]
) -> None:
    done = run_cli(*command, path=broken, cwd=tmp_path)
    assert done.code == 2 and no_traceback(done.err) and done.out == ""
    assert done.err.splitlines() == [
        "error: plugin 'acme' of acme-distill (acme_plugin) cannot be imported",
        "    cause: ModuleNotFoundError: No module named 'no_such_package'",
        "    to go on without it: -p no:acme, or DISTILLBENCH_BLOCK_PLUGINS=acme",
    ]


def test_it_can_be_left_out_in_both_ways(broken: Path, run_cli: Callable[..., Any]) -> None:
    for arguments, environment in (
        (["-p", "no:acme", "plugins", "--json"], {}),
        (["plugins", "--json", "-p", "no:acme"], {}),
        (["plugins", "--json"], {"DISTILLBENCH_BLOCK_PLUGINS": "acme"}),
        (["plugins", "--json"], {"DISTILLBENCH_BLOCK_PLUGINS": " filters.max_tokens , acme,"}),
    ):
        done = run_cli(*arguments, path=broken, **environment)
        assert done.code == 0 and done.err == "", arguments
        names = {component["name"] for component in done.json}
        assert "synthetic" in names and ("max_tokens" in names) == ("max" not in str(environment))


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("def (:\n", "SyntaxError"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)\n", "SystemExit: 3"),
        ("from distillbench.hookspecs import hookimp\n", "ImportError: cannot import name 'hookimp'"),
    ],
)
def test_whatever_an_import_raises_is_said(
    tmp_path: Path, install_plugin: Callable[..., Path], run_cli: Callable[..., Any], source: str, cause: str
) -> None:
    site = install_plugin(tmp_path / "site", "acme-distill", {"acme_plugin": source}, {"acme": "acme_plugin"})
    done = run_cli("plugins", path=site)
    assert done.code == 2 and no_traceback(done.err)
    assert f"cause: {cause}" in done.err and "-p no:acme" in done.err


def test_an_entry_point_to_nothing(
    tmp_path: Path, install_plugin: Callable[..., Path], run_cli: Callable[..., Any]
) -> None:
    site = install_plugin(tmp_path / "site", "acme-distill", {"acme_plugin": GOOD}, {"acme": "acme_plugin:missing"})
    done = run_cli("plugins", path=site)
    assert done.code == 2 and no_traceback(done.err)
    assert "plugin 'acme' of acme-distill (acme_plugin:missing) cannot be imported" in done.err


def test_two_plugins_that_declare_one_component(
    tmp_path: Path, install_plugin: Callable[..., Path], run_cli: Callable[..., Any]
) -> None:
    site = install_plugin(tmp_path / "site", "one", {"plugin_one": GOOD}, {"one": "plugin_one"})
    install_plugin(site, "two", {"plugin_two": GOOD}, {"two": "plugin_two"})
    done = run_cli("plugins", path=site)
    assert done.code == 2 and no_traceback(done.err)
    assert "filter 'keep-all' is declared by two plugins: " in done.err
    assert "'one'" in done.err and "'two'" in done.err and "-p no:" in done.err
    assert run_cli("-p", "no:two", "plugins", "keep-all", path=site).code == 0


def test_two_plugins_of_one_name(
    tmp_path: Path, install_plugin: Callable[..., Path], run_cli: Callable[..., Any]
) -> None:
    site = install_plugin(tmp_path / "site", "one", {"plugin_one": GOOD}, {"same": "plugin_one"})
    install_plugin(site, "two", {"plugin_two": GOOD.replace("keep-all", "other")}, {"same": "plugin_two"})
    done = run_cli("plugins", path=site)
    assert done.code == 2 and no_traceback(done.err)
    assert "two plugins are named 'same'" in done.err and "-p no:same" in done.err


def test_a_plugin_named_like_a_built_in_is_refused_and_not_mixed_up(
    tmp_path: Path, install_plugin: Callable[..., Path], run_cli: Callable[..., Any]
) -> None:
    site = install_plugin(tmp_path / "site", "one", {"plugin_one": GOOD}, {"trainers.sft": "plugin_one"})
    done = run_cli("plugins", path=site)
    assert done.code == 2 and no_traceback(done.err) and "two plugins are named 'trainers.sft'" in done.err


def test_blocking_what_is_not_there_is_a_typing_error(run_cli: Callable[..., Any]) -> None:
    done = run_cli("-p", "no:trainers.sf", "plugins")
    assert done.code == 2 and no_traceback(done.err)
    assert "no plugin is named 'trainers.sf'" in done.err and "did you mean 'trainers.sft'?" in done.err
    assert run_cli("-p", "trainers.sft", "plugins").code == 2


# ---------------------------------------------------------------- hooks


def module(source: str) -> ModuleType:
    found = ModuleType("acme_plugin")
    exec(compile(source, "acme_plugin", "exec"), found.__dict__)
    return found


def registered(source: str, monkeypatch: pytest.MonkeyPatch) -> DistillbenchManager:
    """A manager with one third-party plugin, found as all are."""

    class Found:
        name, value, dist = "acme", "acme_plugin", None

        def load(self) -> ModuleType:
            return module(source)

    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Found()])
    return make_manager()


HEAD = "from distillbench.hookspecs import hookimpl\n"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "def distillbench_filters():\n    return []\n",
            ["plugin acme_plugin: distillbench_filters has no @hookimpl", "rename it"],
        ),
        (
            "@hookimpl\ndef distillbench_filtres():\n    return []\n",
            [
                "plugin 'acme': no hook is named 'distillbench_filtres'",
                "did you mean 'distillbench_filters'?",
                "-p no:acme",
            ],
        ),
        (
            "@hookimpl\ndef distillbench_filters(catalog):\n    return []\n",
            ["plugin 'acme'", "distillbench_filters", "catalog", "-p no:acme"],
        ),
        (
            "@hookimpl\ndef distillbench_event(event, result):\n    pass\n",
            ["plugin 'acme'", "result", "-p no:acme"],
        ),
        (
            "class Holder:\n    pass\n\ndef distillbench_report_sections(results):\n    return []\n",
            ["distillbench_report_sections has no @hookimpl"],
        ),
    ],
    ids=["no hookimpl", "misspelled", "argument", "second argument", "other hook"],
)
def test_a_hook_that_would_never_be_called(source: str, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PluginError) as caught:
        registered(HEAD + source, monkeypatch)
    for text in said:
        assert text in str(caught.value)


def test_a_hook_may_take_fewer_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = registered(
        HEAD + "@hookimpl\ndef distillbench_event():\n    said.append(1)\nsaid = []\n",
        monkeypatch,
    )
    manager.hook.distillbench_event(event=None)
    assert manager.get_plugin("acme").said == [1]


def test_helpers_with_other_names_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    registered(HEAD + "import distillbench_plugins\ndistillbench_constant = 3\ndef helper():\n    pass\n", monkeypatch)


# ---------------------------------------------------------------- components


def catalog_of(kind: str, components: Any) -> Catalog:
    """The catalog of one plugin that declares these components."""
    manager = DistillbenchManager()
    plugin = ModuleType("acme_plugin")

    def declare() -> Any:
        return components() if callable(components) and not isinstance(components, type) else components

    declare.__name__ = f"distillbench_{kind}s"
    setattr(plugin, declare.__name__, hookimpl(declare))
    register(manager, plugin, "acme")
    return Catalog(manager)


def component(base: Any = Filter, doc: str | None = "A toy.", **members: Any) -> type:
    body = {"__doc__": doc, "name": "toy", "reason": lambda *unused: None, **members}
    return new_class("Toy", (base,), exec_body=lambda namespace: namespace.update(body))


@dataclass
class Fine:
    rate: float = 1.0


def raising() -> Any:
    raise RuntimeError("the hook itself is broken")


@pytest.mark.parametrize(
    ("components", "said"),
    [
        ([component(doc=None)], "Toy has no docstring; its first line is its summary"),
        ([component(doc="  \n ")], "Toy has no docstring"),
        ([component(name=3)], "Toy has no `name`"),
        ([type("Toy", (Filter,), {"__doc__": "A toy."})], "Toy has no `name`"),
        ([component(base=Filter[dict])], "the options of Toy are not a dataclass: <class 'dict'>"),
        ([component(base=Filter["Later"])], "the options of Toy are not a dataclass: ForwardRef('Later')"),
        ([component(base=Trainer)], "is not a subclass of distillbench.protocols.Filter"),
        ([component()(Fine())], "is not a subclass of distillbench.protocols.Filter"),
        (["keep"], "'keep' is not a subclass of distillbench.protocols.Filter"),
        ([component(reason=Filter.reason)], "Toy lacks reason()"),
        (component(), "wanted a list of classes"),
        (lambda: None, "wanted a list of classes, got None"),
        (raising, "RuntimeError: the hook itself is broken"),
    ],
)
def test_a_component_that_is_none(components: Any, said: str) -> None:
    with pytest.raises(PluginError) as caught:
        catalog_of("filter", components)
    assert str(caught.value).startswith("plugin 'acme', filters: ") and said in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "base", "members", "said"),
    [
        ("teacher", Teacher, {}, "Toy lacks traces()"),
        ("trainer", Trainer, {"train": print}, "Toy lacks checkpoint_steps()"),
        ("student", Student, {"load_model": print}, "Toy lacks load_tokenizer()"),
        ("student", Student, {"load_model": print, "load_tokenizer": print, "builds": True}, "Toy lacks build()"),
        ("renderer", Renderer, {"render": print, "prompt": print}, "Toy lacks parse(), stop_token_ids()"),
        ("benchmark", Grader, {}, "Toy lacks extract(), judge()"),
        ("engine", Engine, {}, "Toy lacks open()"),
        ("launcher", Launcher, {"start": print}, "Toy lacks capacity()"),
    ],
)
def test_a_component_that_is_not_finished(kind: str, base: type, members: dict[str, Any], said: str) -> None:
    with pytest.raises(PluginError) as caught:
        catalog_of(kind, [component(base, **members)])
    assert str(caught.value) == f"plugin 'acme', {kind}s: {said}"


def test_a_filter_of_sets_needs_no_reason() -> None:
    both = {"decide": lambda self, traces, context: iter(()), "reason": Filter.reason}
    assert set(catalog_of("filter", [component(**both)]).kind("filter")) == {"toy"}


def test_a_component_twice_in_one_plugin() -> None:
    with pytest.raises(PluginError, match=r"filter 'toy' is declared by two plugins: 'acme' and 'acme'"):
        catalog_of("filter", [component(), component()])


def test_one_name_may_be_of_two_kinds() -> None:
    catalog = catalog_of("filter", (each for each in [component()]))
    assert set(catalog.kind("filter")) == {"toy"} and catalog.kind("trainer") == {}
    assert catalog.provider("filter", "toy") == "acme"


# ---------------------------------------------------------------- built-ins


def test_built_ins_are_plugins_like_all_others() -> None:
    names = [short_name(name) for name in BUILTIN_MODULES]
    assert len(set(names)) == len(names)
    manager = make_manager(builtins=BUILTIN_MODULES)
    assert {name for name, plugin in manager.list_name_plugin() if plugin} >= set(names)
    catalog = Catalog(make_manager(["trainers.sft", "filters.max_tokens"]))
    assert "sft" not in catalog.kind("trainer") and set(catalog.kind("filter")) == {"correct_only"}


def test_no_manager_is_shared() -> None:
    assert make_manager() is not make_manager()
    before = set(Catalog(make_manager()).kind("filter"))
    register(make_manager(), module(GOOD), "acme")
    assert set(Catalog(make_manager()).kind("filter")) == before
