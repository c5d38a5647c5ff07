"""Numbers on which an accepted finding of the preflight casts a doubt are marked wherever they stand."""

from __future__ import annotations

import io
from dataclasses import replace

from report_factories import checkpoint, print_table, render_markdown, results, samples, summary_json
from rich.console import Console

from distillbench.report.evaluated import build_rows
from distillbench.report.results import CellResult, Results
from distillbench.report.statements import notes
from distillbench.report.writers.columns import ROW_COLUMNS, flat_row


def doubtful() -> Results:
    made = results()
    marked = replace(checkpoint(samples({"correct": 3, "wrong": 1})), accepted=("prefilled_tag", "no_loss"))
    base = checkpoint(samples({"correct": 1, "wrong": 3}), cell="base-tiny", step=0)
    cell = CellResult("concise", preflight=("accepted on coins: prefilled_tag: x\x1b", "warning: short_budget: y"))
    return replace(made, checkpoints=(base, marked), cells=(CellResult("base-tiny", is_baseline=True), cell))


def printed(made: Results) -> str:
    stream = io.StringIO()
    print_table(made, Console(file=stream, width=120))
    return stream.getvalue()


def test_the_mark_is_in_the_terminal_and_its_note_says_why() -> None:
    text = printed(doubtful())
    assert "concise †" in text and "base-tiny †" not in text
    assert "note: † concise: preflight: accepted on coins: prefilled_tag: x\N{REPLACEMENT CHARACTER}" in text
    assert "note: concise: preflight: warning: short_budget: y" in text


def test_the_mark_is_in_markdown_with_its_meaning() -> None:
    text = render_markdown(doubtful())
    assert "| concise † |" in text and "| base-tiny |" in text
    assert "†: the preflight found that training and evaluation do not fit together" in text


def test_what_is_true_of_many_cells_is_said_once() -> None:
    cells = tuple(CellResult(f"seed={seed}", preflight=("warning on coins: x", "accepted: y")) for seed in range(5))
    lines = notes([], replace(results(), cells=cells, checkpoints=()))
    assert lines == [
        "seed=0; seed=1; seed=2 and 2 more: preflight: warning on coins: x",
        "† seed=0; seed=1; seed=2 and 2 more: preflight: accepted: y",
    ]


def test_names_are_in_the_files() -> None:
    made = doubtful()
    base, marked = build_rows(made)
    assert ROW_COLUMNS["accepted"] == "string"
    assert (flat_row(base)["accepted"], flat_row(marked)["accepted"]) == ("", "prefilled_tag, no_loss")
    assert summary_json(made)["cells"][1]["preflight"][1] == "warning: short_budget: y"
