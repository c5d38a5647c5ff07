"""`distillbench init`: a first matrix with every section explained, or a first plugin with tests that pass."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template

import click

from distillbench.cli.invocation import Invocation
from distillbench.errors import DistillbenchError, WriteError
from distillbench.hookspecs import hookimpl

_PREFIX = "distillbench-"
_NAME = re.compile(r"[a-z](?:[a-z0-9]|-(?=[a-z0-9]))*")


@click.command(short_help="Write a first matrix, or a first plugin.")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--plugin", metavar="NAME", help="Make a plugin to change, with its tests.")
@click.pass_context
def init(context: click.Context, path: Path | None, plugin: str | None) -> None:
    """Write a small matrix to PATH (default: matrix.yaml) that runs as it is and is meant to be changed.

    With --plugin, make a plugin instead: a Python package in a new folder distillbench-NAME, with one filter, its entry
    point, and tests that pass. NAME is in lower-case letters, digits and hyphens. `pip install -e distillbench-NAME`
    makes distillbench find it, `pytest distillbench-NAME` runs its tests. Nothing that exists is overwritten.
    """
    if plugin is None:
        _write_matrix(path or Path("matrix.yaml"))
    elif path is not None:
        raise click.UsageError("PATH is for a matrix; --plugin makes its folder here, distillbench-NAME")
    else:
        _write_plugin(plugin, context.obj)


def _write_matrix(path: Path) -> None:
    if path.exists():
        raise DistillbenchError(f"{path} exists and is left as it is; give another name: distillbench init NAME.yaml")
    _write(path.parent, {path.name: _template("starter.yaml")})
    click.echo(f"wrote {path}\nnext: distillbench plan {path}")


def _write_plugin(given: str, invocation: Invocation) -> None:
    name = _checked_name(given)
    folder, module = Path(_PREFIX + name), f"{_PREFIX}{name}".replace("-", "_")
    if invocation.manager.has_plugin(name) or importlib.util.find_spec(module) is not None:
        raise DistillbenchError(
            f"--plugin {given}: there is a plugin or a module {module} of that name already; give another name"
        )
    if folder.exists() or folder.is_symlink():
        raise DistillbenchError(f"{folder} exists and is left as it is; give another name, or go to another folder")
    names = {"name": name, "module": module, "distribution": folder.name}
    placed = {
        "pyproject.toml": "pyproject.toml.txt",
        "README.md": "README.md.txt",
        f"{module}.py": "plugin.py.txt",
        f"tests/test_{module}.py": "test_plugin.py.txt",
    }
    texts = {path: Template(_template(f"skeleton/{source}")).substitute(names) for path, source in placed.items()}
    _write(folder, texts)
    click.echo("\n".join(f"wrote {folder / path}" for path in texts))
    click.echo(f"next: pip install -e {folder}\n      pytest {folder}")


def _checked_name(given: str) -> str:
    """The plugin's name, without the prefix of its distribution.

    Raises:
        DistillbenchError: It cannot be the name of a package.
    """
    name = given.removeprefix(_PREFIX)
    if _NAME.fullmatch(name):
        return name
    near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")
    raise DistillbenchError(
        f"--plugin {given!r} cannot be a plugin's name\n"
        f"    wanted: lower-case letters, digits and single hyphens, a letter first, such as `lab` or `my-filters`"
        + (f"\n    hint:   did you mean {near!r}?" if _NAME.fullmatch(near) else "")
    )


def _template(name: str) -> str:
    return (files("distillbench.cli") / name).read_text(encoding="utf-8")


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    """Writes files, none over another.

    Raises:
        WriteError: The disk refuses.
    """
    try:
        for name, text in texts.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as stream:
                stream.write(text)
    except OSError as error:
        raise WriteError(f"{error.filename or folder}: {error.strerror or error}") from error


@hookimpl
def distillbench_add_commands(group: click.Group) -> None:
    """Adds `init`."""
    group.add_command(init)
