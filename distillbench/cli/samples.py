"""`distillbench samples`: what checkpoints wrote, and what became of it, in the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distillbench.cli.invocation import FAST, JSON, LIMIT, MATRIX, Invocation, print_json
from distillbench.errors import DistillbenchError
from distillbench.hookspecs import hookimpl
from distillbench.outcomes import OUTCOMES
from distillbench.session.choosing import cells_there_are

if TYPE_CHECKING:
    from rich.text import Text

    from distillbench.report.results import GradedSample
    from distillbench.session import Experiment
    from distillbench.stages.grade import Graded
    from distillbench.store.store import Store

#: Characters of a prompt that are shown: its end, which the completion follows.
_PROMPT_END = 600


@dataclass(frozen=True, slots=True)
class Shown:
    """A sample, with where it is from."""

    cell: str
    step: int
    evaluation: str
    sample: GradedSample


@click.command(short_help="Raw samples of a checkpoint, and what became of them.")
@MATRIX
@click.argument("checkpoint", metavar="CELL[@STEP]")
@click.option("--evaluation", "evaluations", multiple=True, metavar="NAME", help="Only of this one. May be repeated.")
@click.option(
    "--outcome",
    "outcomes",
    multiple=True,
    type=click.Choice(OUTCOMES),
    metavar="OUTCOME",
    help=f"Only samples with this outcome: {', '.join(OUTCOMES)}. May be repeated.",
)
@click.option("-n", "most", default=5, show_default=True, type=click.IntRange(min=1), help="The most samples to show.")
@LIMIT
@FAST
@JSON
@click.pass_context
def samples(
    context: click.Context,
    matrix: Path,
    checkpoint: str,
    evaluations: tuple[str, ...],
    outcomes: tuple[str, ...],
    most: int,
    limit: int | None,
    fast: bool,
    as_json: bool,
) -> None:
    r"""Print samples of CELL of MATRIX, as they were generated, with their prompt, their answer and their outcome.

    Without @STEP those of its last checkpoint that has any. Give the same --limit or --fast as the run. Whatever a
    terminal would obey is printed as \x1b.
    """
    session: Invocation = context.obj
    loaded = session.load(matrix, (), limit, fast)
    graded = _chosen(loaded, checkpoint, evaluations)
    counts: Counter[str] = Counter()
    shown: list[Shown] = []
    for one in _samples(loaded.session.store, checkpoint.partition("@")[0], graded):
        counts[one.sample.outcome] += 1
        if len(shown) < most and (not outcomes or one.sample.outcome in outcomes):
            shown.append(one)
    if as_json:
        print_json([_plain(one) for one in shown])
        return
    for one in shown:
        session.console.print(_text(one), soft_wrap=True)
    session.console.print(_summary(checkpoint, counts, len(shown), outcomes), markup=False, soft_wrap=True)


def _chosen(loaded: Experiment, wanted: str, evaluations: Sequence[str]) -> list[Graded]:
    """What is graded of a checkpoint.

    Raises:
        DistillbenchError: There is no such cell, checkpoint or evaluation, or nothing of it has run.
    """
    name, _, step = wanted.partition("@")
    plan = loaded.plan()
    if name not in plan.graded:
        raise DistillbenchError(f"no cell is named {name!r}; {cells_there_are(name, plan.graded)}")
    of_cell = [one for one in plan.graded[name] if one.budget is None]
    known = list(dict.fromkeys(one.evaluation.name for one in of_cell))
    if unknown := [one for one in evaluations if one not in known]:
        raise DistillbenchError(f"--evaluation {unknown[0]!r}: {name} has {', '.join(known)}")
    done = [one for one in of_cell if loaded.session.store.digest(one.grade) is not None]
    done = [one for one in done if not evaluations or one.evaluation.name in evaluations]
    steps = sorted({one.step for one in done})
    if not steps:
        run = f"distillbench run {loaded.matrix.path} --only {name} {loaded.subset.options}".rstrip()
        raise DistillbenchError(f"no sample of {name} has been graded yet\n    hint: {run}")
    if step and step not in map(str, steps):
        raise DistillbenchError(f"{name} has samples at steps {', '.join(map(str, steps))}, none at {step}")
    at = int(step) if step else steps[-1]
    return [one for one in done if one.step == at]


def _samples(store: Store, cell: str, graded: Iterable[Graded]) -> Iterator[Shown]:
    from distillbench.report.stored import StoredSamples
    from distillbench.store.rows import SAMPLES, VERDICTS

    for one in graded:
        stored = StoredSamples(store.file(one.grade, VERDICTS), store.file(one.sample, SAMPLES), is_cut=False)
        for sample in stored.read():
            yield Shown(cell, one.step, one.evaluation.name, sample)


def _text(one: Shown) -> Text:
    from rich.text import Text

    sample = one.sample
    text = Text()
    title = f"{one.cell}@{one.step} on {one.evaluation}: {sample.sample_id}: {sample.outcome}"
    text.append(f"{readable(title)}{f' ({readable(sample.detail)})' if sample.detail else ''}\n", style="bold")
    prompt = sample.prompt[-_PROMPT_END:]
    text.append(f"{'...' if len(prompt) < len(sample.prompt) else ''}{readable(prompt)}", style="dim")
    text.append(f"{readable(sample.text)}\n")
    n_tokens = "?" if sample.n_tokens is None else sample.n_tokens
    told = f"gold: {sample.gold!r}; answered: {sample.extracted!r}; {n_tokens} tokens, finish: {sample.finish_reason}"
    text.append(f"[{told}; reasoning: {sample.reasoning_state}]\n", style="cyan")
    return text


def readable(text: str) -> str:
    """A text with everything written out that a terminal would obey, but line breaks and tabs."""
    return "".join(one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode() for one in text)


def _summary(checkpoint: str, counts: Counter[str], n_shown: int, outcomes: Sequence[str]) -> str:
    there = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    of = sum(counts[outcome] for outcome in outcomes) if outcomes else counts.total()
    more = "; -n shows more" if n_shown < of else ""
    return f"{n_shown} of {of} samples shown{more}; {checkpoint} has {there}"


def _plain(one: Shown) -> dict[str, Any]:
    return {"cell": one.cell, "step": one.step, "evaluation": one.evaluation, **asdict(one.sample)}


@hookimpl
def distillbench_add_commands(group: click.Group) -> None:
    """Adds `samples`."""
    group.add_command(samples)
