"""The entry point: makes the plugin manager, collects the commands, turns errors into text and exit codes."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from distillbench import __version__
from distillbench.cli.invocation import Invocation
from distillbench.errors import DistillbenchError, MistakesError, WriteError
from distillbench.manager import ask_each, make_manager
from distillbench.writing import refused_by_disk

INTERRUPTED = 130

EPILOG = """\b
Exit codes:
  0    everything asked for is done
  1    a stage failed; what depends on it is blocked, the rest is done; or a disk refused a file
  2    a mistake in the matrix, a task, a plugin or the command line
  3    done, but some samples could not be generated or graded; run again to fill them
  130  interrupted; run again to go on

\b
Start here:
  distillbench init matrix.yaml     write a small matrix to change
  distillbench plan matrix.yaml     what would run, what is done, how long
  distillbench check matrix.yaml    whether training and evaluation fit together
  distillbench run matrix.yaml      train, evaluate every checkpoint, report
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits."""
    sys.exit(invoke(sys.argv[1:] if arguments is None else list(arguments)))


def invoke(arguments: list[str]) -> int:
    """Runs one command line; returns its exit code."""
    try:
        arguments = hoist(arguments)
        group = make_group(tuple(_blocked(arguments)))
        result = group.main(arguments, prog_name="distillbench", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except MistakesError as error:
        count = len(error.mistakes)
        click.echo(f"{error}\n\n{count} mistake{'s' if count > 1 else ''} found", err=True)
        return error.exit_code
    except DistillbenchError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except OSError as error:
        if (why := refused_by_disk(error)) is None:
            raise
        click.echo(f"error: {why}", err=True)
        return WriteError.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("\ninterrupted: what was finished is kept; run the same command to go on", err=True)
        return INTERRUPTED


def make_group(blocked: tuple[str, ...] = ()) -> click.Group:
    """The command group with the commands of every plugin."""
    manager = make_manager(blocked)

    @click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
    @click.version_option(__version__, prog_name="distillbench")
    @click.option("-p", "blocks", multiple=True, metavar="no:NAME", help="Go on without a plugin. May be repeated.")
    @click.option(
        "--store",
        type=click.Path(path_type=Path, file_okay=False),
        default="distillbench-runs",
        envvar="DISTILLBENCH_STORE",
        show_default=True,
        help="Folder of results and reports.",
    )
    @click.option("-v", "--verbose", count=True, help="Say more.")
    @click.option("-q", "--quiet", is_flag=True, help="Say only what went wrong, and results.")
    @click.pass_context
    def distillbench(context: click.Context, blocks: tuple[str, ...], store: Path, verbose: int, quiet: bool) -> None:
        """Distil reasoning traces into student models, and find out what it did.

        A matrix of teachers, students, renderers, filters, trainers and evaluations becomes cells. Each cell is
        trained, every checkpoint is evaluated, and every number comes with its n, its interval and its comparison to
        the untouched student.
        """
        context.obj = Invocation(manager, blocked, store, -1 if quiet else verbose)

    for answer in ask_each(manager, "distillbench_add_commands", group=distillbench):
        if answer.error is not None:
            raise answer.error
    return distillbench


def hoist(arguments: Sequence[str]) -> list[str]:
    """Moves the options that every command has to the front, so that they may also stand after the command."""
    front, rest = [], []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in ("-p", "--store"):
            front += [word, *itertools.islice(words, 1)]
        elif word.startswith(("-pno:", "--store=")) or word in ("-q", "--quiet", "--verbose") or set(word) == set("-v"):
            front.append(word)
        else:
            rest.append(word)
    return front + rest


def _blocked(arguments: Sequence[str]) -> list[str]:
    """The plugins that `-p no:NAME` leaves out; read before click does, because plugins bring commands."""
    names = []
    for option, value in itertools.pairwise([*arguments, ""]):
        if option.startswith("-pno:"):
            names.append(option.removeprefix("-pno:"))
        if option != "-p":
            continue
        if not value.startswith("no:"):
            raise click.UsageError(f"-p takes no:NAME, got {value!r}")
        names.append(value.removeprefix("no:"))
    return names
