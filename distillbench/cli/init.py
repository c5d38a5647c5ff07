"""`distillbench init`: a first matrix, with every section explained."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from distillbench.errors import DistillbenchError, WriteError
from distillbench.hookspecs import hookimpl


@click.command(short_help="Write a first matrix.")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), default=Path("matrix.yaml"))
def init(path: Path) -> None:
    """Write a small matrix to PATH (default: matrix.yaml) that runs as it is and is meant to be changed."""
    if path.exists():
        raise DistillbenchError(f"{path} exists and is left as it is; give another name: distillbench init NAME.yaml")
    text = (files("distillbench.cli") / "starter.yaml").read_text(encoding="utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WriteError(f"{error.filename or path}: {error.strerror or error}") from error
    click.echo(f"wrote {path}\nnext: distillbench plan {path}")


@hookimpl
def distillbench_add_commands(group: click.Group) -> None:
    """Adds `init`."""
    group.add_command(init)
