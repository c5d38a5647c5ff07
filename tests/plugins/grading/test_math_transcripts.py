"""Real transcripts: every verdict that differs from their published score, with who is right; and math-verify's own."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from plugin_helpers import ROOT, beside

from distillbench.errors import GraderError
from distillbench_plugins.grading.mathematics.boxes import last_boxed
from distillbench_plugins.grading.mathematics.checker import MathChecker

Differing = dict[int, tuple[str, str, bool | None]]  # idx: gold answer, box, our verdict (None: grader error)

#: Against `answer`, the gold answer of MATH-500. Ours is right in each.
AGAINST_ANSWER: Differing = {
    184: ("(2,\\infty)", "[2, \\infty)", False),  # the published grader takes a closed end for an open one
    198: ("10,\\!080", "10080", True),  # the gold answer that it compared with had become 10,80
    217: ("11,\\! 111,\\! 111,\\! 100", "11111111100", True),  # had become 11,100,111,111
    284: ("3 \\pm 2 \\sqrt{2}", "3 + 2\\sqrt{2}, 3 - 2\\sqrt{2}", True),  # had become 32\sqrt{2}
}
#: Against `gt`, which the published pipeline mangled; ours compares with what stands there.
AGAINST_GT: Differing = {
    97: ("", "east", None),  # no gold answer is left: nobody knows
    102: ("(+5)(b+2)", "(a + 5)(b + 2)", False),  # its a was lost, in the answer too
    184: ("(2,\\infty)", "[2, \\infty)", False),
    205: ("\\begin{pmatrix}-2-14-7\\end{pmatrix}", "\\begin{pmatrix} -2 \\\\ -14 \\\\ -7 \\end{pmatrix}", False),
    298: ("\\begin{pmatrix}-18-4996\\end{pmatrix}", "\\begin{pmatrix} -18 \\\\ -49 \\\\ 96 \\end{pmatrix}", False),
    419: ("\\begin{pmatrix}-7165\\end{pmatrix}", "\\begin{pmatrix} -7 \\\\ 16 \\\\ 5 \\end{pmatrix}", False),
}


@pytest.fixture(scope="module")
def checker() -> Iterator[MathChecker]:
    with MathChecker() as opened:
        yield opened


@pytest.fixture(scope="module")
def transcripts() -> list[dict[str, Any]]:
    path = beside("outputs_math", "Qwen2.5-14B-Instruct_math500.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("column", "wanted"), [("answer", AGAINST_ANSWER), ("gt", AGAINST_GT)])
def test_all_that_is_graded_otherwise_is_listed(
    column: str, wanted: Differing, transcripts: list[dict[str, Any]], checker: MathChecker
) -> None:
    boxes = [last_boxed(row["code"][0]) for row in transcripts]
    asked = ((row[column], box) for row, box in zip(transcripts, boxes, strict=True) if box is not None)
    found = checker.compare_all(asked)
    differing: Differing = {}
    for row, box in zip(transcripts, boxes, strict=True):
        says = False if box is None else next(found)
        says = None if isinstance(says, GraderError) else says
        if (says is True) is not bool(row["score"][0]):
            differing[row["idx"]] = (row[column], box or "", says)
    assert differing == wanted


def test_verdicts_are_math_verifys_but_for_what_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fortieth pair of the benchmark, which compares all of them."""
    beside("outputs_longcot", "skyt1-14B_aime24.jsonl")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    bench = importlib.import_module("grading_math")
    asked = bench.pairs()[::40]
    assert len(asked) == 125
    judgements = bench.judged([(bench.problem(gold), box) for gold, box in asked])
    differing = []
    for (gold, box), judgement in zip(asked, judgements, strict=True):
        if judgement.correct is not bench.theirs(gold, bench.boxed(box)):
            differing.append((gold, box, judgement, bench.reason(gold, box)))
    assert [one for one in differing if one[-1] == "none known"] == []
    assert 0 < len(differing) < 25, "the pairs hold full stops that math-verify cannot read"
