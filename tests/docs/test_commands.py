"""Every command line in the docs is parsed by the real command line; the cheap ones are run, page by page."""

from __future__ import annotations

import contextlib
import re

import click
import pytest
from docs_blocks import Block, all_blocks, blocks_of, pages

from distillbench.cli.main import invoke, make_group

SHELL = [block for block in all_blocks("bash", "console") if block.commands()]
COMMANDS = [(block, arguments) for block in SHELL for arguments in block.commands()]
#: They read, or write a small file; `run` trains and is left to other tests, but for its `--dry-run`.
CHEAP = {"plan", "show", "check", "report", "status", "data", "plugins", "init", "--help", "--version"}
#: Its commands need an installed package: tests/docs/test_docs_plugin.py runs them.
NEEDS_INSTALLATION = "plugins.md"


def command_of(arguments: list[str]) -> str:
    group = make_group()
    context = group.make_context("distillbench", list(arguments))
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    command.make_context(name, rest, parent=context)
    return name


@pytest.mark.parametrize(("block", "arguments"), COMMANDS, ids=lambda one: str(one) if isinstance(one, Block) else None)
def test_a_command_line_is_understood(block, arguments):
    with contextlib.suppress(click.exceptions.Exit):  # `--help` and `--version` end by themselves
        command_of(arguments)


@pytest.mark.parametrize("page", [page for page in pages() if page.name != NEEDS_INSTALLATION], ids=lambda p: p.name)
def test_the_cheap_commands_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTILLBENCH_STORE", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    for block in blocks_of(page):
        block.write(tmp_path)
        for arguments in block.commands():
            if CHEAP.isdisjoint(arguments) and "--dry-run" not in arguments:
                continue
            assert invoke(arguments) == 0, f"{block}: {capsys.readouterr().err}"
            printed = squeezed(capsys.readouterr().out)
            for line in block.outputs():
                if line != "...":
                    assert squeezed(line) in printed, f"{block}: {line}"


def squeezed(text: str) -> str:
    """Without column widths and line numbers, which depend on the matrix around."""
    return re.sub(r"\.yaml:\d+", ".yaml:N", " ".join(text.split()))


def test_every_command_is_shown_in_use():
    shown = {word for _, arguments in COMMANDS for word in arguments}
    assert set(make_group().commands) <= shown
