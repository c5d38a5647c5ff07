"""`distillbench tokens`: a cell's training rows and evaluation prompts, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distillbench.cli.invocation import JSON, MATRIX, Invocation, print_json
from distillbench.errors import DistillbenchError
from distillbench.hookspecs import hookimpl
from distillbench.session.choosing import cells_there_are

if TYPE_CHECKING:
    from rich.text import Text

    from distillbench.plan.plan import Pairing
    from distillbench.preflight import Piece
    from distillbench.preflight.look import Preflight
    from distillbench.protocols import Renderer

_INDENT = 8


@dataclass(frozen=True, slots=True)
class _Shown:
    """A row or a prompt, readable."""

    title: str
    pieces: Sequence[Piece]


@click.command(short_help="Rendered rows and prompts, token by token.")
@MATRIX
@click.option("--cell", required=True, metavar="CELL", help="Whose rows and prompts; `show` lists the names.")
@click.option("--rows", default=3, show_default=True, type=click.IntRange(min=1), metavar="N", help="Training rows.")
@JSON
@click.pass_context
def tokens(context: click.Context, matrix: Path, cell: str, rows: int, as_json: bool) -> None:
    r"""Print a few training rows of a cell of MATRIX, and under them what each evaluation asks.

    Tokens with loss, tokens without, and control tokens are told apart. Line breaks and whatever a terminal would obey
    are printed as \n, \x1b.
    """
    session: Invocation = context.obj
    loaded = session.load(matrix)
    pairings = loaded.plan().pairings
    if cell not in pairings:
        raise DistillbenchError(f"no cell is named {cell!r}; {cells_there_are(cell, pairings)}")
    shown = list(_shown(loaded.preflight(), pairings[cell], rows))
    if as_json:
        print_json([{"title": one.title, "tokens": [asdict(piece) for piece in one.pieces]} for one in shown])
        return
    for one in shown:
        session.console.print(_title(one.title))
        session.console.print(_text(one.pieces), soft_wrap=True)
    session.console.print(_legend())


def _shown(preflight: Preflight, pairing: Pairing, n_rows: int) -> Iterator[_Shown]:
    """A few rows, evenly spaced, and the first prompt of each evaluation.

    Raises:
        DistillbenchError: The tokenizer is made with the student, which is not built yet.
    """
    from distillbench.preflight import pieces

    renderer = preflight.renderer(pairing)
    if renderer is None:
        raise DistillbenchError(
            f"student {pairing.student.label!r} has no tokenizer before it is built\n"
            f"    hint: `distillbench run` builds it; then this command works"
        )
    for source, ids, mask in _rows(preflight, pairing, renderer, n_rows):
        title = f"row: {source} ({len(ids)} tokens, {int(mask.sum())} with loss)"
        yield _Shown(title, pieces(renderer.tokenizer, ids, mask))
    for evaluation in pairing.evaluations:
        problem = preflight.bench.tasks.problems(evaluation.ref, "test", 1)[0]
        prompt = renderer.prompt(problem.messages, evaluation.prefill)
        title = (
            f"evaluation {evaluation.name}: {problem.problem_id} ({len(prompt.input_ids)} tokens; the model goes on)"
        )
        yield _Shown(title, pieces(renderer.tokenizer, prompt.input_ids))


def _rows(preflight: Preflight, pairing: Pairing, renderer: Renderer, n: int) -> Iterator[tuple[str, Any, Any]]:
    """Of at most `n` rows, evenly spaced, where each comes from, its tokens and which of them carry loss.

    They are those that a training reads, where they are rendered already.
    """
    from distillbench.preflight import evenly, sample_evenly

    if pairing.trainer is None:
        return
    trained = preflight.trained_rows(pairing)
    if trained is not None:
        rows = (trained[place] for place in evenly(len(trained), n))
        yield from ((row.source, row.input_ids, row.loss_mask) for row in rows)
        return
    traces = sample_evenly(preflight.traces(pairing, renderer, 8 * n), n)
    for trace, rendered in zip(traces, renderer.render_all(traces), strict=True):
        yield trace.source, rendered.input_ids, rendered.loss_mask


def _title(title: str) -> Text:
    from rich.text import Text

    from distillbench.preflight import escaped

    return Text(escaped(title), style="bold")


def _text(pieces: Sequence[Piece]) -> Text:
    """Runs of tokens with and without loss, each under its word, a line for each line of the text."""
    from rich.text import Text

    text = Text()
    for has_loss, run in groupby(pieces, key=lambda piece: piece.loss):
        part = Text(f"{'loss' if has_loss else 'masked':<{_INDENT}}")
        for piece in run:
            part.append(*_written(piece))
            if piece.text.endswith("\\n"):
                part.append("\n" + " " * _INDENT)
        part.rstrip()
        text.append_text(part).append("\n")
    return text


def _written(piece: Piece) -> tuple[str, str]:
    """What a token looks like: control tokens stand in brackets, also where there are no colours."""
    if piece.is_control:
        return f"⟦{piece.text}⟧", "bold magenta"
    return piece.text, "green" if piece.loss else "dim"


def _legend() -> Any:
    from rich.text import Text

    return Text.assemble(
        ("loss", "green"), ": trained on   ", ("masked", "dim"), ": not trained on   ", ("⟦control⟧", "bold magenta")
    )


@hookimpl
def distillbench_add_commands(group: click.Group) -> None:
    """Adds `tokens`."""
    group.add_command(tokens)
