"""What a preflight is given, and how what it finds in many rows becomes one finding."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from distillbench.errors import StageError
from distillbench.findings import Finding
from distillbench.preflight.show import harmless
from distillbench.protocols import Grader, Trainer
from distillbench.records import Evaluation, Problem, Prompt, Rendered, Trace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Asked:
    """One evaluation as a cell uses it.

    Attributes:
        evaluation: What is asked, and how.
        grader: Its task's grader.
        problems: Real problems of the task, the first few.
        findings: What is wrong with all of its problems: names of findings, with words.
    """

    evaluation: Evaluation
    grader: Grader
    problems: Sequence[Problem]
    findings: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Trained:
    """The training rows of a cell.

    Attributes:
        traces: What is rendered; may be read again and again.
        are_kept: True after all filters; False for a preview, before the filters that need verdicts.
        trainer: What they are trained with.
        max_cut: The share of rows whose answer `max_length` may cut.
        rows: The rows of these traces, in order, where they are rendered already.
    """

    traces: Collection[Trace]
    are_kept: bool
    trainer: Trainer
    max_cut: float
    rows: Iterable[Rendered | StageError] | None = None

    @property
    def unit(self) -> str:
        """What the rows are called in a finding."""
        return "rows" if self.are_kept else "previewed rows"


@dataclass(frozen=True, slots=True)
class RenderedRow:
    """A rendered training row.

    Attributes:
        trace: What it was made of.
        input_ids: int32[T].
        loss_mask: bool[T].
        start: The place of the first token with loss; T where none has it.
    """

    trace: Trace
    input_ids: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]
    start: int

    @classmethod
    def of(cls, trace: Trace, rendered: Rendered) -> RenderedRow:
        """The row of a trace."""
        has_loss = rendered.loss_mask.any()
        start = int(rendered.loss_mask.argmax()) if has_loss else len(rendered.input_ids)
        return cls(trace, rendered.input_ids, rendered.loss_mask, start)

    @property
    def masked(self) -> NDArray[np.int32]:
        """What stands before the first token with loss."""
        return self.input_ids[: self.start]

    @property
    def is_complete(self) -> bool:
        """Whether the teacher ended its turn by itself."""
        return self.trace.finish_reason == "stop"


def begins_with(input_ids: NDArray[np.int32], start: NDArray[np.int32]) -> bool:
    """Whether a sequence begins with another one, id for id."""
    return len(start) <= len(input_ids) and bool((input_ids[: len(start)] == start).all())


def sample_evenly(traces: Collection[Trace], n: int) -> list[Trace]:
    """At most `n` traces, evenly spaced, the first and the last among them; always the same ones."""
    wanted = set(evenly(len(traces), n))
    return [trace for number, trace in enumerate(traces) if number in wanted]


def evenly(n_all: int, n: int) -> list[int]:
    """The places of at most `n` of so many, evenly spaced, the first and the last among them."""
    if n_all <= n:
        return list(range(n_all))
    if n < 2:
        return list(range(n))
    return [number * (n_all - 1) // (n - 1) for number in range(n)]


def counted(n: int, total: int, unit: str) -> str:
    """How many of how many, and the share: `37 of 1,000 rows (3.7 %)`."""
    share = n / total
    percent = "< 0.1 %" if 0 < share < 0.001 else f"{share * 100:.3g} %" if n < total else "all"
    return f"{n:,} of {total:,} {unit} ({percent})"


@dataclass(slots=True)
class Tally:
    """In how many rows or prompts something was found.

    Attributes:
        what: What is wrong with them, as the rest of a sentence.
        n: Their number.
        first: Where the first of them comes from.
        detail: What else is to be said of the first; may be empty.
        shown: The first one's tokens.
    """

    what: str
    n: int = 0
    first: str = ""
    detail: str = ""
    shown: str = ""


def no_tokens() -> str:
    """Where there is nothing to show."""
    return ""


@dataclass(slots=True)
class Tallies:
    """What was found so far, by name and evaluation."""

    found: dict[tuple[str, str], Tally] = field(default_factory=dict)

    def add(
        self,
        name: str,
        what: str,
        source: str,
        show: Callable[[], str] = no_tokens,
        evaluation: str = "",
        detail: str = "",
    ) -> None:
        """Counts one row or prompt; only the first is shown, so only it is made readable."""
        tally = self.found.setdefault((name, evaluation), Tally(what))
        if not tally.n:
            tally.first, tally.detail, tally.shown = harmless(source), harmless(detail), show()
        tally.n += 1

    def findings(self, total: Callable[[str], int], unit: str) -> list[Finding]:
        """One finding for each name and evaluation.

        Args:
            total: By a finding's name, how many rows or prompts were looked at.
            unit: What they are called.
        """
        return [
            Finding(name, _told(tally, total(name), unit), tally.shown, evaluation)
            for (name, evaluation), tally in self.found.items()
        ]


def _told(tally: Tally, total: int, unit: str) -> str:
    text = f"{counted(tally.n, total, unit)} {tally.what}, the first: {tally.first}"
    return f"{text}\n{tally.detail}" if tally.detail else text


@dataclass(slots=True)
class Lengths:
    """How long the rendered rows are, one number for each row with loss.

    Attributes:
        rows: Rendered rows, those without loss included.
        needed: Tokens up to the last one with loss: what `max_length` must hold.
        response: Tokens with loss.
        longest: Tokens of the longest row.
        cut: Where the first row comes from that `max_length` cuts.
    """

    rows: int = 0
    needed: array[int] = field(default_factory=partial(array, "q"))
    response: array[int] = field(default_factory=partial(array, "q"))
    longest: int = 0
    cut: str = ""

    def add(self, row: RenderedRow, max_length: int | None) -> None:
        """Measures a row."""
        self.rows += 1
        self.longest = max(self.longest, len(row.input_ids))
        if row.start == len(row.input_ids):
            return
        self.needed.append(len(row.input_ids) - int(row.loss_mask[::-1].argmax()))
        self.response.append(int(row.loss_mask.sum()))
        if max_length is not None and self.needed[-1] > max_length and not self.cut:
            self.cut = row.trace.source


def same_ids(one: Prompt | None, input_ids: NDArray[np.int32]) -> bool:
    """Whether a prompt is these tokens."""
    return one is not None and len(one.input_ids) == len(input_ids) and begins_with(input_ids, one.input_ids)
