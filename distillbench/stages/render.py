"""render: the kept traces as training rows, once for the preflight, the trainer and whoever looks at tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import compress, islice
from pathlib import Path
from typing import Any

from distillbench.bench import Bench
from distillbench.errors import RowError, StageError
from distillbench.plan.stage import Pace, Stage, alike
from distillbench.preflight.rows import rendered_rows
from distillbench.protocols import Overlong, Progress, Renderer, no_progress
from distillbench.records import Choice, Rendered, RowCounts, Trace
from distillbench.stages.build import Build
from distillbench.stages.curate import Curate
from distillbench.stages.length import Length
from distillbench.store.kept import Kept
from distillbench.store.rendered import Cut, StoredTrainingRows, rendered_again, stored_row
from distillbench.store.rows import ROWS, SCHEMAS, RowWriter, iterate
from distillbench.store.store import Made, Store

#: Rows that are compared with those of a student that was built after them.
_COMPARED = 16


class Render(Stage):
    """Renders the kept traces for a student.

    Attributes:
        kept: Decides which traces are rendered.
        lengths: Has rendered all of them already; None where nothing has.
        student: Whose tokens they become.
        renderer: Makes them.
        built: Makes the student.
        max_length: The most tokens of a row that are trained on; None for all.
        overlong: What a longer row does.
    """

    kind = "render"

    kept: Curate
    lengths: Length | None = None
    student: Choice
    renderer: Choice
    built: Build | None = None
    max_length: int | None = None
    overlong: Overlong = "error"

    def pace(self) -> Pace:
        """One set of rows."""
        return Pace(1.0, alike(self.kind, self.renderer))

    def run(self, bench: Bench, progress: Progress) -> Made:
        """Writes the rows; one that cannot be made is written with the reason, for the preflight to tell."""
        renderer = bench.renderer(self.student, self.renderer, self.built)
        kept = Kept(bench.store, self.kept.traces, self.kept)
        path, cut = bench.store.work(self) / ROWS, Cut(self.max_length, self.overlong)
        made: Iterable[tuple[Trace, Rendered | StageError]] = rendered_rows(renderer, kept)
        if self.lengths is not None:
            known = compress(rendered_again(bench.store.file(self.lengths, ROWS)), kept.is_kept)
            made = zip(kept, known, strict=True)
        facts = _written(path, made, len(kept), cut, progress)
        return Made((ROWS,), {**facts, "tokenising": renderer.tokenising()} if self.lengths is None else facts)

    def refuse_other_tokens(self, bench: Bench, renderer: Renderer) -> None:
        """Compares a few rows with those of the student's own tokenizer, where they were made before it was built.

        Args:
            bench: The store.
            renderer: Bound to the student's tokenizer.

        Raises:
            StageError: The tokenizer that was there before is another one.
        """
        traces = list(islice(Kept(bench.store, self.kept.traces, self.kept), _COMPARED))
        own = (rendered for _, rendered in rendered_rows(renderer, traces))
        stored = rendered_again(bench.store.file(self, ROWS))
        for trace, now, before in zip(traces, own, stored, strict=False):
            if not _is_same(now, before):
                raise StageError(
                    f"the row of {trace.source} has other tokens with the tokenizer that student "
                    f"{self.student.label!r} was built with than with the one that it had before\n"
                    f"    hint: `preview_tokenizer` of {self.student.component!r} must give the tokenizer that `build` "
                    f"leaves"
                )

    def counts(self, store: Store) -> RowCounts | None:
        """How much there is to train on; None while it has not run."""
        facts = store.facts(self)
        return None if facts is None else counts_of(facts)

    def rows(self, store: Store) -> StoredTrainingRows:
        """The rows that are trained on; as for `read_training_rows`."""
        return read_training_rows(store.file(self, ROWS), store.facts(self) or {}, Cut(self.max_length, self.overlong))


def _is_same(one: Rendered | StageError, other: Rendered | StageError) -> bool:
    if isinstance(one, Rendered) and isinstance(other, Rendered):
        return (one.input_ids.tolist(), one.loss_mask.tolist()) == (other.input_ids.tolist(), other.loss_mask.tolist())
    return type(one) is type(other)


def counts_of(facts: Mapping[str, Any]) -> RowCounts:
    """What the facts of a finished stage say of its rows."""
    return RowCounts(facts["rows"], facts["tokens"], facts["loss_tokens"])


def write_training_rows(
    path: Path, renderer: Renderer, traces: Collection[Trace], cut: Cut, progress: Progress = no_progress
) -> dict[str, int]:
    """Renders traces into a file.

    Args:
        path: The file.
        renderer: Bound to the student's tokenizer.
        traces: What is rendered.
        cut: What is trained on of a row.
        progress: Is told how many rows there are so far.

    Returns:
        How many rows there are, how many of them count and how many tokens they have.
    """
    return _written(path, rendered_rows(renderer, traces), len(traces), cut, progress)


def _written(
    path: Path, made: Iterable[tuple[Trace, Rendered | StageError]], n_all: int, cut: Cut, progress: Progress
) -> dict[str, int]:
    facts = dict.fromkeys(("all", "bad", "rows", "tokens", "loss_tokens", "longest", "too_long"), 0)
    with RowWriter(path, SCHEMAS[ROWS]) as writer:
        for trace, rendered in made:
            row = stored_row(trace, rendered, cut)
            writer.append(row)
            _count(row, cut, facts)
            progress(facts["all"], n_all, "rows")
    return facts


def _count(row: Mapping[str, Any], cut: Cut, facts: dict[str, int]) -> None:
    n_tokens = len(row["input_ids"])
    facts["all"] += 1
    facts["bad"] += row["error"] is not None
    facts["rows"] += row["n_trained"] > 0
    facts["tokens"] += row["n_trained"]
    facts["loss_tokens"] += row["n_loss"]
    facts["longest"] = max(facts["longest"], n_tokens)
    facts["too_long"] += cut.max_length is not None and n_tokens > cut.max_length


def read_training_rows(path: Path, facts: Mapping[str, Any], cut: Cut) -> StoredTrainingRows:
    """The rows of a file that are trained on.

    Raises:
        RowError: One could not be rendered.
        StageError: Some are too long, and that is not allowed; or none is left.
    """
    if facts["bad"]:
        raise RowError(next(row["error"] for row in iterate(path, ("error",)) if row["error"] is not None))
    if facts["too_long"] and cut.overlong == "error":
        raise StageError(
            f"{facts['too_long']} of {facts['all']} rows are longer than max_length {cut.max_length} "
            f"(longest: {facts['longest']})\n"
            f"    hint: put the filter max_tokens (limit: {cut.max_length}) before training, raise max_length, or set "
            f"`overlong: truncate` or `overlong: drop`"
        )
    if not facts["rows"]:
        raise StageError(f"all {facts['all']} rows are longer than max_length {cut.max_length}, and are dropped")
    return StoredTrainingRows(path)
