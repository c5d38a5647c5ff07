"""`distillbench status`: what a store holds, and what is running in it."""

from __future__ import annotations

import click

from distillbench.cli.invocation import JSON, Invocation, print_json
from distillbench.hookspecs import hookimpl


@click.command(short_help="What the store holds and what is running.")
@JSON
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Show what the store holds: finished stages, those running or stopped (failed, interrupted), reports and sizes."""
    session: Invocation = context.obj
    found = session.store.overview()
    if as_json:
        print_json(found)
        return
    click.echo(f"store: {found['root']}")
    if not found["finished"]:
        click.echo("nothing is finished yet")
    for kind, about in found["finished"].items():
        click.echo(f"  {kind:<8} {about['stages']:>6} finished  {about['bytes'] / 2**20:>10.1f} MiB")
    for stage in found["unfinished"]:
        click.echo(f"  {stage['state']}: {stage['key']}  {stage['bytes'] / 2**20:.1f} MiB so far")
    for why in found["damaged"]:
        click.echo(f"  damaged: {why}")
    if found["superseded_bytes"]:
        click.echo(f"  superseded results: {found['superseded_bytes'] / 2**20:.1f} MiB")
    for name in found["reports"]:
        click.echo(f"  report: {name}")


@hookimpl
def distillbench_add_commands(group: click.Group) -> None:
    """Adds `status`."""
    group.add_command(status)
