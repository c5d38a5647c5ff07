"""report.md: what it holds, and that nothing from outside can change its shape."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from report_factories import checkpoint, render_markdown, results, sample, samples

from distillbench.outcomes import OUTCOMES
from distillbench.report.evaluated import build_rows
from distillbench.report.results import CellResult, NllPoint, Results, Section
from distillbench.report.writers.markdown import OUTCOME_DEFINITIONS, escape, table

EVIL = "a|b\n# c <script>alert(1)</script> `d` [e](http://f) ![g](h) *i* _j_ ~k~ \\ &lt; $l$ <!-- \x1b[31m"


def parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def tables_of(text: str) -> list[list[list[str]]]:
    """Every table, as rows of cells, as a markdown reader sees them."""
    tables: list[list[list[str]]] = []
    for place, token in enumerate(tokens := parser().parse(text)):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type in ("th_open", "td_open"):
            children = tokens[place + 1].children or []
            tables[-1][-1].append("".join(child.content for child in children))
    return tables


def test_the_evaluation_tables_hold_every_number() -> None:
    coins, judge = tables_of(render_markdown(results()))[:2]
    header, *body = coins
    rows = [row for row in build_rows(results()) if row.result.evaluation == "coins"]
    assert len(body) == len(rows) == 5
    for line, row in zip(body, rows, strict=True):
        cells = dict(zip(header, line, strict=True))
        assert cells["cell"] == row.result.cell
        assert int(cells["n"]) == row.summary.n
        assert sum(int(cells[outcome]) for outcome in OUTCOMES if outcome in cells) == row.summary.n
    concise = dict(zip(header, body[2], strict=True))
    assert concise["accuracy"] == "0.969 [0.940, 0.984]"
    assert concise["vs. baseline"] == "+0.520 [0.455, 0.579] (base-tiny)"  # newcombe(115, 133, 0, 8)
    assert (concise["pairs"], concise["completion rate"], concise["held-out NLL"]) == ("256", "1.000", "0.4120")
    assert "mean score (completed)" in judge[0]
    assert "accuracy" not in judge[0]


def test_invalid_shows_no_number() -> None:
    header, *body = tables_of(render_markdown(results()))[0]
    cells = dict(zip(header, body[-1], strict=True))
    assert (cells["cell"], cells["accuracy"], cells["accuracy (completed)"]) == ("flaky", "INVALID", "INVALID")
    assert (cells["completion rate"], cells["vs. baseline"]) == ("-", "- (this checkpoint is INVALID)")
    assert "within 0.781 .. 0.859" in render_markdown(results())


def test_provenance_losses_traces_failures_and_holes_are_there() -> None:
    text = render_markdown(results())
    assert "- versions.torch: 2.13.0" in text
    assert "- git_hash: abc1234" in text
    assert "flaky: failed or blocked: train: CUDA out of memory" in text
    assert "flaky: missing: coins @60" in text
    *_, losses, traces = tables_of(text)
    assert losses[1:] == [["concise", "20", "1.1000", "0.9123", "5000"], ["concise", "100", "0.5000", "0.4120", "5000"]]
    assert traces[1:] == [["concise", "kept", "900"], ["concise", "length: longer than 160 tokens", "100"]]


def test_every_outcome_is_explained() -> None:
    assert tuple(OUTCOME_DEFINITIONS) == OUTCOMES
    definitions = tables_of(render_markdown(results()))[2]
    assert [row[0] for row in definitions[1:]] == list(OUTCOMES)


def test_parts_without_content_are_left_out() -> None:
    text = render_markdown(Results("m"))
    for title in ("What was run", "Notes", "Losses", "Traces", "Evaluation", "What the numbers say"):
        assert f"## {title}" not in text


def test_sections_of_plugins_stand_at_the_end_as_they_are() -> None:
    text = render_markdown(results(), [Section("Mine | <b>", "| a |\n|---|\n| **b** |\n")])
    assert text.endswith("## Mine \\| &lt;b&gt;\n\n| a |\n|---|\n| **b** |\n")


def test_the_same_results_give_the_same_text() -> None:
    assert render_markdown(results()) == render_markdown(results())


def evil_results() -> Results:
    made = checkpoint(
        [sample(f"p{place}", "correct", text=EVIL, detail=EVIL) for place in range(3)],
        EVIL,
        evaluation=EVIL,
        task=EVIL,
        grader=EVIL,
        baseline=EVIL + "gone",
        subset=EVIL,
        settings={EVIL: EVIL},
    )
    cell = CellResult(
        EVIL, nll=(NllPoint(100, 1.0, float("nan"), 3),), traces={EVIL: 1}, problems=(EVIL,), missing=(EVIL,)
    )
    return Results(EVIL, (cell,), (made,), {EVIL: {EVIL: EVIL}})


def test_nothing_from_outside_changes_the_shape() -> None:
    text = render_markdown(evil_results())
    kinds = {child.type for token in parser().parse(text) for child in [token, *(token.children or [])]}
    assert not kinds & {"html_inline", "html_block", "link_open", "image", "em_open", "s_open", "fence"}
    assert "<script" not in text
    assert "\x1b" not in text
    for rows in tables_of(text):
        assert {len(row) for row in rows} == {len(rows[0])}
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert not any(line.startswith("# c") for line in headings)
    shown = EVIL.replace("\n", " ").replace("\x1b", "\N{REPLACEMENT CHARACTER}")
    assert tables_of(text)[0][1][0] == shown


@given(st.text(max_size=60) | st.text(alphabet="_*~`a0 |\\<&;#[]()!$-.:\n", max_size=30))
@example("__0__")
def test_an_escaped_text_reads_as_it_was_in_a_cell(text: str) -> None:
    (rows,) = tables_of(table(["cell", "n"], [[f"x{escape(text)}x", "1"]]))
    shown = "".join(
        char if char.isprintable() else " " if char.isspace() else "\N{REPLACEMENT CHARACTER}" for char in text
    )
    assert rows[1] == [f"x{shown}x", "1"]


@pytest.mark.parametrize("name", ["concise_r1", "lr=2e-4,rank=32", "no_answer"])
def test_ordinary_names_stay_readable(name: str) -> None:
    assert escape(name) == name


def test_a_loss_that_is_not_finite_is_said() -> None:
    made = Results("m", (CellResult("c", nll=(NllPoint(5, float("inf"), float("nan"), 7),)),))
    assert re.search(r"\| c \| 5 \| inf \| nan \| 7 \|", render_markdown(made))


def test_subset_and_settings_stand_above_their_table() -> None:
    made = Results("m", checkpoints=(checkpoint(samples({"correct": 3}), subset="100 problems, fixed shuffle"),))
    text = render_markdown(made)
    assert "task coins_word; grader math_boxed; temperature 0.0; max_tokens 160; 100 problems, fixed shuffle" in text
    assert "coins: a subset, 100 problems, fixed shuffle." in text


def test_everything_that_a_judge_scored_has_its_mean_under_the_table() -> None:
    first = {"score": 0.5, "spread": 0.1, "insight": 0.4, "n_judgements": 3.0}
    second = {"score": 0.7, "insight": 0.8, "n_judgements": 1.0}  # one judgement has no spread
    judged = (sample("a", "graded", scores=first), sample("b", "graded", scores=second), sample("c", "no_answer"))
    text = render_markdown(Results("m", checkpoints=(checkpoint(judged),)))
    assert "| cell | insight | n_judgements | spread |" in text
    assert "| concise @100 | 0.600 | 2.000 | 0.100 |" in text


def test_means_are_left_out_where_they_say_nothing_or_must_not() -> None:
    alone = tuple(sample(name, "correct", scores={"exact_match": 1.0}) for name in "ab")
    assert "Means over" not in render_markdown(Results("m", checkpoints=(checkpoint(alone),)))
    good = tuple(sample(name, "graded", scores={"score": 0.7, "insight": 0.8, "depth": 0.9}) for name in "ab")
    failed = tuple(sample(name, "grader_error") for name in "cd")
    text = render_markdown(Results("m", checkpoints=(checkpoint(good + failed),)))
    assert "| concise @100 | - | - |" in text, "INVALID has no number"


def test_what_a_grader_says_of_itself_stands_beside_its_name() -> None:
    grading = {"judge": "a-model|x", "temperature": None, "repeats": 3}
    one = checkpoint(samples({"correct": 1}), grader="judge", grading=grading)
    text = render_markdown(Results("m", checkpoints=(one,)))
    assert "task coins\\_word; grader judge (judge a-model\\|x, repeats 3); temperature 0.0" in text.replace("_", "\\_")
