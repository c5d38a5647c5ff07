"""Renders training rows, some at a time, and looks at each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

from distillbench.errors import RowError, StageError
from distillbench.findings import Finding
from distillbench.preflight.boundary import shown_boundary, told_boundary, what_is_wrong, wrong_prompt
from distillbench.preflight.lost import told_lost
from distillbench.preflight.marks import Bos, End
from distillbench.preflight.material import Asked, Lengths, RenderedRow, Tallies, Trained
from distillbench.preflight.prompts import PromptMaker
from distillbench.preflight.show import Side, around
from distillbench.preflight.tags import check_tags
from distillbench.protocols import Renderer
from distillbench.records import Prefill, Prompt, Rendered, Trace

#: Rows rendered at a time, and so the most that are held in memory.
_CHUNK = 128
#: The measure of how long the row of a trace is.
LENGTH = "length"


def check_rows(
    renderer: Renderer, maker: PromptMaker, asked: Sequence[Asked], trained: Trained
) -> tuple[list[Finding], Lengths]:
    """What is wrong with single rows, and how long the rows are."""
    checker = _RowChecker(renderer, maker, _by_prefill(asked), End.of(renderer, trained.trainer))
    lengths, max_length = Lengths(), trained.trainer.max_length()
    made = (
        rendered_rows(renderer, trained.traces)
        if trained.rows is None
        else zip(trained.traces, trained.rows, strict=True)
    )
    for trace, rendered in made:
        if isinstance(rendered, StageError):
            checker.tallies.add("bad_row", "cannot be rendered", trace.source, detail=str(rendered))
            continue
        row = RenderedRow.of(trace, rendered)
        lengths.add(row, max_length)
        checker.check(row)
    totals = {"bad_row": len(trained.traces)}
    found = checker.tallies.findings(lambda name: totals.get(name, lengths.rows), trained.unit)
    return found, lengths


def rendered_rows(renderer: Renderer, traces: Iterable[Trace]) -> Iterator[tuple[Trace, Rendered | StageError]]:
    """Each trace with its row, or with why it has none.

    Raises:
        StageError: The renderer gives another number of rows than it was given traces.
    """
    rest = iter(traces)
    while chunk := list(islice(rest, _CHUNK)):
        try:
            rows: list[Rendered | StageError] = list(renderer.render_all(chunk))
        except StageError:  # which of them it is, and whether the others are right
            rows = [_rendered(renderer, trace) for trace in chunk]
        if len(rows) != len(chunk):
            raise StageError(f"renderer {renderer.name!r}: render_all gives {len(rows)} rows for {len(chunk)} traces")
        for trace, row in zip(chunk, rows, strict=True):
            yield trace, _well_formed(row)


def with_lengths(traces: Iterable[Trace], renderer: Renderer) -> Iterator[Trace]:
    """Traces with the measure of their lengths, for filters of a preview."""
    for trace, row in rendered_rows(renderer, traces):
        length: dict[str, Any]
        if isinstance(row, StageError):
            length = {"n_tokens": None, "n_loss_tokens": None, "error": str(row)}
        else:
            length = {"n_tokens": len(row.input_ids), "n_loss_tokens": int(row.loss_mask.sum()), "error": None}
        yield replace(trace, measures={**trace.measures, LENGTH: length})


def _rendered(renderer: Renderer, trace: Trace) -> Rendered | StageError:
    try:
        return renderer.render(trace)
    except StageError as error:
        return error


def _well_formed(row: Rendered | StageError) -> Rendered | StageError:
    if isinstance(row, Rendered) and row.input_ids.shape != row.loss_mask.shape:
        return RowError(f"{len(row.input_ids)} tokens and {len(row.loss_mask)} loss marks")
    return row


def _by_prefill(asked: Sequence[Asked]) -> dict[Prefill, list[str]]:
    """The names of the evaluations, by what they prefill."""
    found: dict[Prefill, list[str]] = {}
    for one in asked:
        found.setdefault(one.evaluation.prefill, []).append(one.evaluation.name)
    return found


@dataclass(slots=True)
class _RowChecker:
    """Looks at rows one by one.

    Attributes:
        renderer: What made them.
        maker: Makes the prompts of their messages.
        evaluations: Names of evaluations by what they prefill.
        end: What ends rows.
        tallies: What was found so far.
        bos: The beginning-of-text token; None for a tokenizer without one.
    """

    renderer: Renderer
    maker: PromptMaker
    evaluations: dict[Prefill, list[str]]
    end: End
    tallies: Tallies = field(default_factory=Tallies)
    bos: Bos | None = field(init=False)

    def __post_init__(self) -> None:
        """Reads the tokenizer once."""
        self.bos = Bos.of(self.renderer.tokenizer)

    def check(self, row: RenderedRow) -> None:
        """Counts everything that is wrong with a row."""
        if self.bos is not None:
            self.bos.check(row.input_ids, row.start, self.tallies, row.trace.source)
        if not row.loss_mask.any():
            self.tallies.add("no_loss", "carry no loss at all", row.trace.source, partial(self._shown_end, row))
            return  # it teaches nothing: neither where a response begins nor how it ends
        auto = self.maker.prompt(row.trace.problem.messages, "auto")
        if lost := self.maker.lost(row.trace.problem.messages, "auto"):
            self.tallies.add("lost_text", "leave a message out", row.trace.source, detail=told_lost(lost))
        usual, tags = auto if isinstance(auto, Prompt) else None, self.renderer.reasoning_tags()
        for prefill, names in self.evaluations.items():
            self._check_prompt(row, prefill, names, usual, tags[0] if tags else None)
        if tags is not None:
            check_tags(row, usual, tags, self.renderer.tokenizer, self.tallies)
        self.end.check(row, self.tallies)

    def _check_prompt(
        self, row: RenderedRow, prefill: Prefill, names: Sequence[str], auto: Prompt | None, opening: str | None
    ) -> None:
        prompt, source = self.maker.prompt(row.trace.problem.messages, prefill), row.trace.source
        if isinstance(prompt, StageError):
            for name in names:
                what = f"have messages that cannot be asked with `prefill: {prefill}`"
                self.tallies.add("bad_row", what, source, evaluation=name, detail=str(prompt))
            return
        wrong = wrong_prompt(row, prompt, auto, opening)
        if wrong is None:
            return
        show = partial(shown_boundary, row, prompt, self.renderer.tokenizer)
        for name in names:
            self.tallies.add(
                wrong, what_is_wrong(wrong, prefill), source, show, name, detail=told_boundary(wrong, row, prompt)
            )

    def _shown_end(self, row: RenderedRow) -> str:
        return around(self.renderer.tokenizer, Side("training", row.input_ids), max(0, len(row.input_ids) - 1))
