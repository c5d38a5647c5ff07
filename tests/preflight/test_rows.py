"""Many rows make one finding, a bad one does not hide the others, and nothing is rendered more often than needed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from preflight_factories import Chat, FailsOn, asks, bound, evaluation, find, only, problem, trace, traces

from distillbench.errors import StageError
from distillbench.findings import Finding
from distillbench.preflight import sample_evenly
from distillbench.preflight.material import counted
from distillbench.preflight.rows import _CHUNK
from distillbench.records import Prompt, Rendered, Trace


def test_one_finding_counts_its_rows_and_names_the_first() -> None:
    made = [trace("<think>a" if number % 3 == 1 else "a", number=number) for number in range(20)]
    found = only(find(bound(), made), "doubled_tag")
    assert found.text.startswith("7 of 20 rows (35 %) open their reasoning a second time")
    assert found.text.endswith("the first: row 1")
    assert "'<think>\\n<think>a" in found.shown


def test_a_preview_says_so() -> None:
    made = traces(2, reasoning="", answer="no")
    texts = [one.text for one in find(bound(), made, are_kept=False)]
    assert "2 of 2 previewed rows (all) teach" in texts[0]
    assert "none of 2 previewed rows that" in texts[1]


@pytest.mark.parametrize(("n", "bad"), [(3, {1}), (_CHUNK + 2, {0, _CHUNK - 1, _CHUNK + 1}), (2, {0, 1})])
def test_a_bad_row_is_found_and_the_others_are_checked(n: int, bad: set[int]) -> None:
    made = [trace("", "\\boxed{bad}" if number in bad else "\\boxed{5}", number=number) for number in range(n)]
    found = find(bound(FailsOn), made)
    assert found[0].name == "bad_row"
    assert found[0].text.startswith(f"{len(bad):,} of {n:,} rows (")
    assert found[0].text.endswith(f"the first: row {min(bad)}\nrow {min(bad)}: it says bad")
    rest = n - len(bad)
    assert [one.text.split(" (")[0] for one in found[1:]] == ([f"{rest:,} of {rest:,} rows"] if rest else [])


class Counts(Chat):
    """Counts what it is asked for."""

    made: list[tuple[Any, str]]
    chunks: list[int]

    def prompt(self, messages: Any, prefill: Any = "auto") -> Prompt:
        self.made.append((messages, prefill))
        return super().prompt(messages, prefill)

    def render_all(self, traces: Sequence[Trace]) -> list[Rendered]:
        self.chunks.append(len(traces))
        rows = [Chat.render(self, one) for one in traces]
        self.made.clear()
        return rows


def test_rows_are_rendered_in_chunks_and_prompts_once() -> None:
    renderer = bound(Counts)
    renderer.made, renderer.chunks = [], []
    made = traces(_CHUNK + 5, asked=problem("the same"))
    asked = asks(evaluation("one"), evaluation("two", "think"), evaluation("three", "think"), problems=[])
    assert find(renderer, made, asked) == []
    assert renderer.chunks == [_CHUNK, 5]
    assert renderer.made == []  # cleared when the second chunk was rendered: nothing was asked for again
    renderer.made = []
    find(renderer, made[:3], asked)
    assert [prefill for _, prefill in renderer.made] == ["auto", "think"]


class TooFew(Chat):
    def render_all(self, traces: Sequence[Trace]) -> list[Rendered]:
        return []


def test_a_renderer_that_loses_rows_is_an_error() -> None:
    with pytest.raises(StageError, match="'chat': render_all gives 0 rows for 2 traces"):
        find(bound(TooFew), traces(2))


class ShortMask(Chat):
    def render(self, trace: Trace) -> Rendered:
        row = super().render(trace)
        return Rendered(row.input_ids, row.loss_mask[:-1])


class Empty(Chat):
    def render(self, trace: Trace) -> Rendered:
        return Rendered(np.array([], dtype=np.int32), np.array([], dtype=np.bool_))


def test_rows_of_the_wrong_shape() -> None:
    found = only(find(bound(ShortMask), traces(2)), "bad_row")
    assert "tokens and" in found.text
    only(find(bound(Empty), traces(2)), "no_loss")


def test_a_row_without_loss_is_said_once() -> None:
    found = only(find(bound(reasoning="strip"), [trace("a", "", "length"), trace()]), "no_loss")
    assert found.text == "1 of 2 rows (50 %) carry no loss at all, the first: row 0"


@pytest.mark.parametrize(
    ("n", "total", "text"),
    [
        (37, 1000, "37 of 1,000 rows (3.7 %)"),
        (1, 3, "1 of 3 rows (33.3 %)"),
        (1, 100_000, "1 of 100,000 rows (< 0.1 %)"),
        (2500, 2500, "2,500 of 2,500 rows (all)"),
        (0, 5, "0 of 5 rows (0 %)"),
    ],
)
def test_counts_in_words(n: int, total: int, text: str) -> None:
    assert counted(n, total, "rows") == text


@given(total=st.integers(0, 60), n=st.integers(0, 20))
def test_an_even_sample(total: int, n: int) -> None:
    made = [trace(number=number) for number in range(total)]
    chosen = [made.index(one) for one in sample_evenly(made, n)]
    assert len(chosen) == min(n, total)
    assert chosen == sorted(set(chosen))
    if len(chosen) > 1:
        assert (chosen[0], chosen[-1]) == (0, total - 1)
        gaps = [right - left for left, right in pairwise(chosen)]
        assert max(gaps) - min(gaps) <= 1
    assert sample_evenly(made, n) == sample_evenly(made, n)


def test_what_is_shown_never_reaches_a_terminal_raw() -> None:
    made = [trace("<think>\x1b[31m\x9b\u202e", "\x1b]0;title\x07", asked=problem("\x1b[2J"))]
    asked = asks(evaluation(prefill="none"), problems=[problem("\x1b[2J", system="\x1b[2J")])
    found: list[Finding] = find(bound(given="<think>\n", reasoning="text"), made, asked)
    assert len(found) >= 3
    for one in found:
        assert (one.text + one.shown).replace("\n", "").isprintable()


class FailsRudely(FailsOn):
    def render(self, trace: Trace) -> Rendered:
        raise StageError("it says \x1b[31m\\boxed\n    hint: \x07none")


def test_somebodys_message_is_harmless_and_keeps_its_lines() -> None:
    found = only(find(bound(FailsRudely), [trace()]), "bad_row")
    assert found.text.splitlines()[1:] == ["it says \\x1b[31m\\boxed", "    hint: \\x07none"]
