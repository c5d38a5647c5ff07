"""`distillbench gc`: frees what no report of the store needs, after showing it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from distillbench.cli.invocation import JSON, Invocation, print_json, print_rows
from distillbench.errors import DistillbenchError
from distillbench.hookspecs import hookimpl

if TYPE_CHECKING:
    from distillbench.store.garbage import Found, Needless


@click.command(short_help="Free what no report needs, after showing it.")
@click.option("--dry-run", is_flag=True, help="Show it and stop.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@JSON
@click.pass_context
def gc(context: click.Context, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Free what no report of the store needs: show it, ask, delete it.

    That is: results that a changed input has replaced, what killed runs left and no report's plan would go on from,
    finished stages that no report's plan names, and caches. A stage that a process is running is never touched, and a
    checkpoint of yours that the store has links to is not deleted with them.
    """
    from distillbench.store.garbage import find_needless, free

    session: Invocation = context.obj
    found = find_needless(session.store)
    if as_json and not yes:
        print_json(_as_json(found.needless, found))
        return
    if not as_json:
        _print(found, session)
    if dry_run or not found.needless:
        return
    if not yes:
        if not sys.stdin.isatty():
            raise DistillbenchError("nobody is there to be asked; say --yes to free all of this, --dry-run to look")
        click.confirm("free all of this?", abort=True)
    freed = list(free(session.store, found.needless))
    if as_json:
        print_json(_as_json(freed, found))
        return
    click.echo(f"freed: {len(freed)} folders, {_size(sum(one.n_bytes for one in freed))}")
    if len(freed) < len(found.needless):
        click.echo(f"kept: {len(found.needless) - len(freed)} folders that a run or a report wants by now")


def _print(found: Found, session: Invocation) -> None:
    from rich.table import Table

    if found.needless:
        table = Table(title=f"needless in {session.store.root}", title_justify="left", box=None, pad_edge=False)
        for heading in ("what", "how many", "size", "why"):
            table.add_column(heading, justify="right" if heading in ("how many", "size") else "left")
        for (what, why), group in _grouped(found.needless).items():
            table.add_row(what, str(len(group)), _size(sum(one.n_bytes for one in group)), why)
        table.add_row("all", str(len(found.needless)), _size(sum(one.n_bytes for one in found.needless)), "")
        print_rows(session.console, table)
    else:
        click.echo("nothing is needless")
    for line in found.kept:
        session.console.print(f"kept: {line}", markup=False, soft_wrap=True)


def _grouped(needless: Sequence[Needless]) -> dict[tuple[str, str], list[Needless]]:
    groups: dict[tuple[str, str], list[Needless]] = {}
    for one in needless:
        groups.setdefault((one.what, one.why), []).append(one)
    return groups


def _size(n_bytes: int) -> str:
    """A size as a person reads it."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes} B"


def _as_json(needless: Sequence[Needless], found: Found) -> dict[str, Any]:
    return {
        "needless": [{name: getattr(one, name) for name in one.__slots__} for one in needless],
        "bytes": sum(one.n_bytes for one in needless),
        "kept": list(found.kept),
    }


@hookimpl
def distillbench_add_commands(group: click.Group) -> None:
    """Adds `gc`."""
    group.add_command(gc)
