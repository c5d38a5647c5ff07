"""`distillbench plugins`: what is installed, and the options of each component."""

from __future__ import annotations

import inspect
import json
from typing import Any

import click

from distillbench.catalog import Catalog
from distillbench.cli.invocation import JSON, Invocation, print_json
from distillbench.errors import DistillbenchError, nearest
from distillbench.hookspecs import hookimpl
from distillbench.options import fields_of
from distillbench.protocols import COMPONENT_KINDS, Component


@click.command(short_help="Installed components and their options.")
@click.argument("name", required=False)
@JSON
@click.pass_context
def plugins(context: click.Context, name: str | None, as_json: bool) -> None:
    """List the components of every plugin; with NAME, what that component does and its options."""
    session: Invocation = context.obj
    found = [describe(session.catalog, kind, one) for kind in COMPONENT_KINDS for one in session.catalog.kind(kind)]
    if name is not None:
        known = {component["name"] for component in found}
        found = [component for component in found if component["name"] == name]
        if not found:
            raise DistillbenchError(f"no component is named {name!r}; {nearest(name, known)}")
    if as_json:
        print_json(found)
        return
    for kind in dict.fromkeys(component["kind"] for component in found):
        click.echo(f"{kind}s")
        for component in found:
            if component["kind"] == kind:
                _print_component(component, with_options=name is not None)


def describe(catalog: Catalog, kind: str, name: str) -> dict[str, Any]:
    """What a person or a program wants to know of a component."""
    component = catalog.kind(kind)[name]
    documentation = inspect.getdoc(component) or ""
    return {
        "kind": kind,
        "name": name,
        "plugin": catalog.provider(kind, name),
        "version": component.version,
        "summary": documentation.partition("\n")[0],
        "documentation": documentation,
        "options": _options(component),
    }


def _options(component: type[Component]) -> list[dict[str, Any]]:
    help_texts = _attribute_texts(component.Options)
    return [
        {
            "name": name,
            "type": field.wanted,
            "required": field.required,
            "default": field.default,
            "help": help_texts.get(name, ""),
        }
        for name, field in fields_of(component.Options).items()
    ]


def _attribute_texts(options: type) -> dict[str, str]:
    """The `Attributes:` section of a Google-style docstring, by attribute; a class also has those of its bases."""
    texts: dict[str, str] = {}
    for base in reversed(options.__mro__):
        lines = inspect.cleandoc(base.__dict__.get("__doc__") or "").partition("Attributes:\n")[2].splitlines()
        name = ""
        for line in lines:
            head, colon, text = line.strip().partition(": ")
            if line.startswith("    ") and not line.startswith("     ") and colon and head.isidentifier():
                name, texts[head] = head, text
            elif name and line.strip():
                texts[name] += f" {line.strip()}"
    return texts


def _print_component(component: dict[str, Any], with_options: bool) -> None:
    click.echo(f"  {component['name']:<28} {component['summary']}  [{component['plugin']}]")
    if not with_options:
        return
    for line in component["documentation"].splitlines()[1:]:
        click.echo(f"    {line}".rstrip())
    click.echo("    options:" if component["options"] else "    no options")
    for option in component["options"]:
        default = "required" if option["required"] else f"default {json.dumps(option['default'], default=str)}"
        click.echo(f"      {option['name']} ({option['type']}, {default})")
        if option["help"]:
            click.echo(f"          {option['help']}")


@hookimpl
def distillbench_add_commands(group: click.Group) -> None:
    """Adds `plugins`."""
    group.add_command(plugins)
