"""Writes what is made from the code into the pages: `make blocks`.

A block stands between `<!-- generated: NAME -->` and `<!-- end -->`. A test fails where one is not what the code says.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from distillbench import hookspecs
from distillbench.catalog import Catalog
from distillbench.cli.main import EPILOG, make_group
from distillbench.cli.plugins import describe
from distillbench.findings import KINDS
from distillbench.manager import PREFIX, make_manager
from distillbench.matrix.evaluation_options import EvaluationOptions
from distillbench.options import OptionField, fields_of
from distillbench.protocols import COMPONENT_KINDS
from distillbench.report.writers.markdown import OUTCOME_DEFINITIONS
from distillbench.tasks.data import data_source
from distillbench.tasks.identity import TaskIndex, TaskSpec

PAGES = Path(__file__).parent
_BLOCK = re.compile(r"^<!-- generated: ([a-z ]+) -->\n(?:(?:(?!<!-- generated: ).)*?^<!-- end -->\n)?", re.M | re.S)
_EXIT_CODE = re.compile(r"^ {2}(\d+) +(\S.*)$", re.MULTILINE)
_ATTRIBUTE = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)$", re.MULTILINE)

_MARKED = "<!-- generated: {} -->\n\n{}\n\n<!-- end -->\n"


def main() -> None:
    """Writes every page anew whose blocks have changed, and names it."""
    for path in sorted(PAGES.glob("*.md")):
        before = path.read_text(encoding="utf-8")
        if (after := expand(before)) != before:
            path.write_text(after, encoding="utf-8")
            sys.stdout.write(f"{path}\n")


def expand(markdown: str) -> str:
    """A page with every block as the code has it now.

    Raises:
        KeyError: A mark names nothing.
    """
    return _BLOCK.sub(
        lambda mark: f"<!-- generated: {mark[1]} -->\n\n{GENERATED[mark[1]]()}\n\n<!-- end -->\n", markdown
    )


def hooks() -> str:
    """Every hook: its arguments, and what its docstring says."""
    specs = [(name, spec) for name, spec in vars(hookspecs).items() if name.startswith(PREFIX)]
    rows = [(f"`{name}({', '.join(inspect.signature(spec).parameters)})`", _flat(spec.__doc__)) for name, spec in specs]
    return _table(("hook", "what it is for"), rows)


def kinds() -> str:
    """Every base class: the methods that a component must have, and those that it may have."""
    rows = []
    for kind, base in COMPONENT_KINDS.items():
        methods = {name: method for name, method in vars(base).items() if inspect.isfunction(method) and name[0] != "_"}
        must = base.lacks()
        may = [name for name in methods if name not in must]
        rows.append((kind, f"`{base.__name__}`", _code(must), _code(may)))
    return _table(("kind", "base class", "must be written", "has a default"), rows)


def components() -> str:
    """Every built-in component: what it is, and its options."""
    catalog = Catalog(make_manager())
    return "\n\n".join(_kind_section(kind, catalog) for kind in COMPONENT_KINDS)


def evaluation_options() -> str:
    """Every option of an evaluation."""
    texts = _attributes(EvaluationOptions)
    rows = [
        (
            f"`{name}`",
            _cell(field.wanted),
            "the evaluation's own name" if field.required else _default(field.default),
            _flat(texts[name]),
        )
        for name, field in fields_of(EvaluationOptions).items()
    ]
    return _table(("option", "value", "default", "meaning"), rows)


def benchmarks() -> str:
    """Every built-in benchmark in its chat variant: how many problems, its grader, where its data comes from."""
    index = TaskIndex(Catalog(make_manager()).task_roots)
    specs = [index.find(name) for name in index.names if not name.endswith("_base")]
    return _table(("task", "problems", "grader", "data", "licence of the data"), [_benchmark(spec) for spec in specs])


def outcomes() -> str:
    """Every outcome and when it is given."""
    return _table(("outcome", "when"), [(f"`{name}`", meaning) for name, meaning in OUTCOME_DEFINITIONS.items()])


def findings() -> str:
    """Every finding of the preflight."""
    rows = [(f"`{name}`", kind.severity, _flat(kind.summary), _flat(kind.advice)) for name, kind in KINDS.items()]
    return _table(("finding", "", "what is wrong", "what to do"), rows)


def exit_codes() -> str:
    """Every exit code, as `--help` has them."""
    return _table(("exit code", "meaning"), [(f"`{code}`", meaning) for code, meaning in _EXIT_CODE.findall(EPILOG)])


def command_help(name: str) -> Callable[[], str]:
    """Makes the text of `distillbench NAME --help`."""

    def text() -> str:
        group = make_group()
        # the same lines in every terminal
        context = click.Context(group, info_name="distillbench", terminal_width=98, **group.context_settings)
        if name:
            command = group.commands[name]
            context = click.Context(command, info_name=name, parent=context, **command.context_settings)
        return f"```text\n{context.command.get_help(context)}\n```"

    return text


def _benchmark(spec: TaskSpec) -> tuple[str, ...]:
    source = data_source(spec.config.get("metadata") or {}, str(spec.path))
    origin = re.sub(r"@([0-9a-f]{7})[0-9a-f]{33}", r"@\1", source.pinned) if source else "in the package"
    docs, licence = spec.settings.get("docs", "see its README"), spec.settings.get("licence", "Apache-2.0")
    return f"`{spec.name}`", str(docs), f"`{spec.settings['grader']}`", _cell(origin), _cell(str(licence))


def _kind_section(kind: str, catalog: Catalog) -> str:
    parts = [_component(catalog, kind, name) for name in catalog.kind(kind)]
    return "\n\n".join([f"## {kind.capitalize()}s", *parts])


def _component(catalog: Catalog, kind: str, name: str) -> str:
    about, known = describe(catalog, kind, name), fields_of(catalog.kind(kind)[name].Options)
    parent = _parent(catalog, kind, name)
    theirs = fields_of(catalog.kind(kind)[parent].Options) if parent else {}
    shown = [option for option in about["options"] if known[option["name"]] != theirs.get(option["name"])]
    rows = [_option_row(known[option["name"]], option["help"]) for option in shown]
    options = _table(("option", "value", "default", "meaning"), rows) if rows else "No options."
    if parent:
        options = f"The options of [`{parent}`](#{_anchor(kind, parent)})" + (
            f"; these differ:\n\n{options}" if rows else "."
        )
    return (
        f'<a id="{_anchor(kind, name)}"></a>\n\n'
        f"### {name}\n\n{about['documentation']}\n\nPlugin `{about['plugin']}`.\n\n{options}"
    )


def _option_row(field: OptionField, text: str) -> tuple[str, ...]:
    default = "**must be given**" if field.required else _default(field.default)
    return f"`{field.name}`", _cell(field.wanted), default, _flat(text)


def _parent(catalog: Catalog, kind: str, name: str) -> str | None:
    """The component that this one is a preset of."""
    known = catalog.kind(kind)
    return next((other.name for other in known.values() if other is known[name].__mro__[1]), None)


def _anchor(kind: str, name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{kind}-{name}")


def _attributes(options: type) -> dict[str, str]:
    """The `Attributes:` of a Google-style docstring."""
    return dict(_ATTRIBUTE.findall(inspect.getdoc(options) or ""))


def _default(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        raise TypeError(f"no short form for {value!r}")
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if isinstance(value, bool | None) else f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, tuple):
        text = f"[{', '.join(map(str, value))}]"
    return f"`{text}`"


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "-"


def _flat(text: str | None) -> str:
    return _cell(" ".join((text or "").split()))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _table(headers: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    headers = tuple(headers)
    return "\n".join("| " + " | ".join(line) + " |" for line in (headers, ["---"] * len(headers), *rows))


GENERATED: Mapping[str, Callable[[], str]] = {
    "hooks": hooks,
    "kinds": kinds,
    "components": components,
    "evaluation options": evaluation_options,
    "benchmarks": benchmarks,
    "outcomes": outcomes,
    "findings": findings,
    "exit codes": exit_codes,
    "help": command_help(""),
    **{f"help {name}": command_help(name) for name in make_group().commands},
}

if __name__ == "__main__":
    main()
