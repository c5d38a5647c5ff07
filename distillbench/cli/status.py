"""`distillbench status`: what is running in a store and how far it is, and what the store holds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import click

from distillbench.cli.invocation import JSON, Invocation, print_json
from distillbench.cli.words import counted, duration
from distillbench.errors import StoreError
from distillbench.hookspecs import hookimpl
from distillbench.run.state import Running, RunState
from distillbench.store.runs import Run, runs_of


@click.command(short_help="What is running, how far it is, and what the store holds.")
@click.option("--all", "show_all", is_flag=True, help="Also the last run of every matrix that is not running.")
@JSON
@click.pass_context
def status(context: click.Context, show_all: bool, as_json: bool) -> None:
    """Show what is running in the store: which cells, how much of each is done, about how long the rest takes.

    Below that, what the store holds: finished stages, those that stopped (failed, interrupted), reports and sizes.
    """
    session: Invocation = context.obj
    found = session.store.overview()
    runs = [(run, _state(run)) for run in _worth_showing(runs_of(session.store), show_all)]
    if as_json:
        print_json(found | {"runs": [_plain(run, state) for run, state in runs]})
        return
    for run, state in runs:
        _print_run(run, state)
    _print_store(found)


def _worth_showing(runs: list[Run], show_all: bool) -> list[Run]:
    """Those that are alive; with the last of each matrix where it is asked for, or where none is alive the last one."""
    alive = [run for run in runs if run.is_alive]
    if show_all:
        latest = {run.matrix: run for run in runs}
        return [run for run in runs if run.is_alive or latest[run.matrix] is run]
    return alive or runs[-1:]


def _state(run: Run) -> RunState:
    try:
        return RunState.of(run.events())
    except ValueError as error:
        raise StoreError(f"{error}\n    hint: the log of a run serves `status` alone; it can be deleted") from error


def _word(run: Run, state: RunState) -> str:
    if run.is_alive:
        return "running"
    failed = sum(ending in ("failed", "blocked") for ending in state.endings.values())
    return (f"ended, {failed} stages failed or blocked" if failed else "ended") if state.is_over else "stopped"


def _print_run(run: Run, state: RunState) -> None:
    now = time.time() if run.is_alive else state.at
    left = state.left(now) if run.is_alive else None
    rest = f", about {duration(left)} left" if left is not None else ""
    more = " (more once rows are rendered)" if state.grows else ""
    click.echo(
        f"run {state.matrix}: {_word(run, state)} after {duration(now - state.begun)}, "
        f"{counted(state.n_done, state.n_stages)} stages{more}{rest}"
    )
    width = max(map(len, state.cells), default=0)
    for cell in state.cells:
        done, total = state.share(cell)
        click.echo(f"  {cell:<{width}}  {done / total:>4.0%}  {counted(done, total)} stages{_now(state, cell)}")
    if run.is_alive:
        for one in _running(state):
            click.echo(f"  now: {_line(one, now)}")


def _now(state: RunState, cell: str) -> str:
    """What of a cell runs, or failed, in words."""
    keys = state.cells[cell]
    failed = next((state.stages[key] for key in keys if state.endings.get(key) == "failed"), None)
    if failed is not None:
        return f"; FAILED: {failed.kind}"
    kinds = list(dict.fromkeys(state.running[key].stage.kind for key in keys if key in state.running))
    return f"; {', '.join(kinds)}" if kinds else ""


def _running(state: RunState) -> Iterator[Running]:
    yield from sorted(state.running.values(), key=lambda one: one.since)


def _line(one: Running, now: float) -> str:
    if one.is_elsewhere:
        return f"{one.stage.name}: waits for another run"
    left = one.left(now)
    parts = [counted(one.done, one.total) if one.total or one.done else "", one.note]
    parts += [f"{duration(now - one.since)} so far", f"about {duration(left)} left" if left is not None else ""]
    return f"{one.stage.name}: {', '.join(filter(None, parts))}"


def _plain(run: Run, state: RunState) -> dict[str, Any]:
    now = time.time() if run.is_alive else state.at
    return {
        "log": str(run.path),
        "matrix": state.matrix,
        "state": _word(run, state),
        "begun": state.begun,
        "stages": {"done": state.n_done, "all": state.n_stages, "grows": state.grows},
        "seconds_left": state.left(now) if run.is_alive else None,
        "cells": {cell: dict(zip(("done", "all"), state.share(cell), strict=True)) for cell in state.cells},
        "running": [
            {"stage": one.stage.name, "done": one.done, "total": one.total, "note": one.note, "since": one.since}
            for one in _running(state)
            if run.is_alive
        ],
    }


def _print_store(found: dict[str, Any]) -> None:
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
