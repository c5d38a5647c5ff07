"""The preflight in a run: what stops it and when, what is accepted and marked, what is remembered; bad rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from core_bench import Control, Toys
from core_factories import keys, trace
from hypothesis import given
from hypothesis import strategies as st

from distillbench.session.checking import cells_by_pairing
from distillbench.store.rows import TRACES, read_rows, trace_of, trace_row, why_unwritable
from distillbench.traces import why_unusable

Cli = Callable[..., Any]
Matrix = Callable[..., Path]
HUB: dict[str, Any] = {"students": {"small": {"use": "toy-hub-student"}}}
FORGETFUL: dict[str, Any] = {"renderers": {"toy-renderer": {"end_loss": False}}}
ACCEPTED = FORGETFUL | {"accept": ["end_without_loss"]}


@pytest.fixture(autouse=True)
def _with_toys(toys: Path) -> None:
    """The toy plugin is installed in every test of this module."""


# ---------------------------------------------------------------- what stops a run


def test_rows_that_come_late_are_refused_just_before_their_training(cli: Cli, matrix: Matrix, control: Control) -> None:
    done = cli("run", matrix(HUB | FORGETFUL))
    assert done.code == 1 and "Traceback" not in done.err
    assert "end_without_loss: the end-of-turn token carries no loss" in done.err
    assert "4 of 4 rows (all)" in done.err and "toy 0" in done.err
    assert control.log("train") == [] and control.log("teacher") == ["0", "1", "2", "3"]
    assert control.log("asked") != [], "the untouched student is evaluated all the same"


def test_rows_that_are_there_stop_the_run_before_it_begins(cli: Cli, matrix: Matrix, control: Control) -> None:
    assert cli("run", matrix(HUB)).code == 0
    for what in ("train", "asked"):
        control.log(what)
    done = cli("run", matrix(HUB | FORGETFUL))
    assert done.code == 2 and "the preflight refuses this matrix; nothing has run" in done.err
    assert "small with toy-renderer on wise (cell wise)" in done.err and "accept: [NAME]" in done.err
    assert control.log("train") == control.log("asked") == []
    checked = cli("check", matrix(HUB | FORGETFUL), "--json")
    assert checked.code == 2
    assert [(line["level"], line["name"]) for line in checked.json if line["name"]] == [("refused", "end_without_loss")]


@pytest.mark.slow
def test_an_accepted_finding_is_told_and_marks_the_numbers(
    cli: Cli, matrix: Matrix, control: Control, tmp_path: Path
) -> None:
    path = matrix(HUB | ACCEPTED)
    done = cli("run", path)
    assert done.code == 0 and len(control.log("train")) == 1
    assert "wise †" in done.out and "base-small †" not in done.out
    assert "† wise: preflight: accepted: end_without_loss" in done.out
    report = cli("report", path, "--json").json
    assert {row["cell"]: row["accepted"] for row in report["rows"]} == {"wise": "end_without_loss", "base-small": ""}
    assert "wise †" in next(tmp_path.glob("store/reports/toys/report.md")).read_text()
    again = cli("run", path)
    assert again.code == 0 and "preflight: accepted: small with toy-renderer on wise" in again.err
    assert cli("run", path, "-q").err == ""


def test_a_report_says_when_no_preflight_is_on_record(cli: Cli, matrix: Matrix, tmp_path: Path) -> None:
    """An accepted finding must not vanish with what is remembered, as after an upgrade of tokenizers."""
    path = matrix(HUB | ACCEPTED)
    assert cli("run", path).code == 0
    for remembered in tmp_path.glob("store/preflight/*.json"):
        remembered.unlink()
    notes = cli("report", path, "--json").json["notes"]
    assert notes == ["wise: preflight: not on record for these rows: `distillbench check` looks at them"]


def test_a_tokenizer_that_cannot_be_loaded_stops_the_run_before_it_begins(cli: Cli, matrix: Matrix) -> None:
    lost = {
        "students": {"small": {"use": "hf", "model": "nobody/nothing", "device": "cpu"}},
        "renderers": {"toy-renderer": {}},
    }
    done = cli("run", matrix(lost))
    assert done.code == 2 and "nothing has run" in done.err and "Traceback" not in done.err
    assert "small with toy-renderer on wise (cell wise)" in done.err and "nobody/nothing" in done.err


def test_an_unknown_finding_cannot_be_accepted(cli: Cli, matrix: Matrix) -> None:
    done = cli("plan", matrix({"accept": ["prefiled_tag"]}))
    assert done.code == 2 and "accept[0]" in done.err and "did you mean 'prefilled_tag'?" in done.err
    done = cli("plan", matrix({"max_cut": 2}))
    assert done.code == 2 and "max_cut" in done.err and "a number >= 0 and <= 1" in done.err


def test_neither_rules_nor_evaluations_of_a_preflight_are_in_a_key(bench: Toys) -> None:
    one, other = bench.plan(HUB), bench.plan(HUB | {"accept": ["no_loss"], "max_cut": 0.5})
    assert {stage.kind for key, stage in other.stages.items() if key not in one.stages} == {"check"}
    plan = bench.plan(HUB | {"matrix": {"engine": "talk", "evaluations.toy.prefill": ["none", "auto"]}})
    (check,), (train,) = keys(plan, "check"), keys(plan, "train")
    assert [one.evaluations[0].prefill for one in plan.stages[check].pairings] == ["none", "auto"]
    assert plan.stages[train].after == (plan.stages[check],)


# ---------------------------------------------------------------- what is remembered


def test_what_was_found_is_remembered_until_something_changes(bench: Toys) -> None:
    bench.run(HUB)
    loaded = bench.load(HUB)
    checks = cells_by_pairing(loaded.preflight(), loaded.plan())
    known = {cells[0]: loaded.preflight().known(check) for check, cells in checks.items()}
    wise = known["wise"]
    assert wise is not None and (wise.n_rows, wise.source, wise.findings) == (4, "kept", ())
    assert known["base-small"] is None, "only the runner ran here, and the start of `run` looks at baselines"
    for change in (FORGETFUL, {"evaluations": {"toy": {"max_tokens": 7}}}, {"max_cut": 0.5}):
        loaded = bench.load(HUB | change)
        check = loaded.plan().pairings["wise"]
        assert loaded.preflight().known(check) is None
        loaded.preflight().look(check)
        assert loaded.preflight().known(check) is not None


def test_cells_that_differ_in_seed_or_learning_rate_alone_are_looked_at_once(bench: Toys) -> None:
    loaded = bench.load({"matrix": {"engine": "talk", "seed": [0, 1], "trainer.rate": [0.1, 0.2]}})
    same, base = cells_by_pairing(loaded.preflight(), loaded.plan()).values()
    assert (len(same), base) == (4, ["base-small"])


# ---------------------------------------------------------------- bad rows


def test_bad_rows_are_counted_and_the_run_goes_on(cli: Cli, matrix: Matrix, control: Control, tmp_path: Path) -> None:
    path = matrix(HUB | {"teachers": {"wise": {"n": 7, "bad": 3}}})
    done = cli("run", path, "--json")
    assert done.code == 0, done.err
    counts = {cell["name"]: cell["traces"] for cell in done.json["cells"]}
    assert counts["wise"] == {"kept": 4, "unusable: control character": 1, "unusable: empty": 2}
    (folder,) = tmp_path.glob("store/stages/traces/*")
    assert len(read_rows(folder / TRACES)) == 4
    bad = [json.loads(line) for line in (folder / "unusable.jsonl").read_text().splitlines()]
    assert [row["source"] for row in bad] == ["toy 4", "toy 5", "toy 6"]
    assert bad[0]["reason"] == "control character: U+000C at place 0 of the reasoning"
    assert bad[0]["reasoning"] == "\x0crac", "nothing that was paid for is lost"
    control.log("teacher")
    assert cli("run", path).code == 0 and control.log("teacher") == []


#: What a teacher gives in place of a trace (see the toy), and words of the reason.
ODD = {
    "null": "trace: wanted a Trace, got null",
    "dict": "trace: wanted a Trace, got dict {'answer': '5'",
    "list": "trace: wanted a Trace, got list",
    "no problem": "problem: wanted a Problem, got null",
    "no messages": "nothing was asked",
    "null messages": "messages: wanted a list of messages, got null",
    "messages of dicts": "message 1: wanted a Message, got dict",
    "content in parts": "content of message 1: wanted a text, got list",
    "null content": "content of message 2: wanted a text, got null",
    "role": "role of message 1: wanted one of: system, user, assistant, got str 'human'",
    "null gold": "gold: wanted a text, got null",
    "a number for a gold": "gold: wanted a text, got int 5",
    "null id": "problem_id: wanted a text that is not empty, got null",
    "metadata": "metadata: cannot be written as JSON",
    "null answer": "answer: wanted a text, got null",
    "answers": "answer: wanted a text, got list ['5', '6']",
    "reasoning": "reasoning: wanted a text or null, got dict",
    "eos": "finish_reason: wanted one of: stop, length, got str 'eos'",
    "null reason": "finish_reason: wanted one of: stop, length, got null",
    "tokens": "n_tokens: wanted a whole number or null, got float nan",
    "null source": "source: wanted a text, got null",
    "half a character": "U+D800 at place 4 of the source",
}


def test_what_is_no_trace_is_told_with_its_row_and_not_trained_on(cli: Cli, matrix: Matrix, tmp_path: Path) -> None:
    path = matrix(HUB | {"teachers": {"wise": {"n": 4, "odd": list(ODD)}}})
    done = cli("run", path, "--json")
    assert done.code == 0, done.err
    counts = {cell["name"]: cell["traces"] for cell in done.json["cells"]}["wise"]
    assert counts == {
        "kept": 4,
        "unusable: malformed": 20,
        "unusable: no messages": 1,
        "unusable: control character": 1,
    }
    (folder,) = tmp_path.glob("store/stages/traces/*")
    assert [row["source"] for row in read_rows(folder / TRACES)] == ["toy 0", "toy 1", "toy 2", "toy 3"]
    bad = [json.loads(line) for line in (folder / "unusable.jsonl").read_text().splitlines()]
    for (name, words), row in zip(ODD.items(), bad, strict=True):
        assert words in row["reason"], name
        assert row["source"], name
    by_name = dict(zip(ODD, bad, strict=True))
    assert by_name["null"]["source"] == "trace 4 of wise" and by_name["null source"]["source"].startswith("trace 24")
    assert by_name["answers"]["source"] == "toy 0"
    assert "answer=['5', '6']" in by_name["answers"]["given"], "nothing that was paid for is lost"


@pytest.mark.parametrize("name", ["dict", "eos", "half a character"])
def test_a_teacher_of_no_traces_fails_with_the_first_reason(cli: Cli, matrix: Matrix, name: str) -> None:
    done = cli("run", matrix(HUB | {"teachers": {"wise": {"n": 0, "odd": [name]}}}))
    assert done.code == 1 and "Traceback" not in done.err
    told = " ".join(done.err.split())  # lines are broken where they are long
    assert "none of 1 traces is usable" in told
    assert ODD[name] in told, told[100:400]


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=2)
ANYTHING = st.recursive(
    PLAIN,
    lambda one: st.lists(one, max_size=2) | st.dictionaries(PLAIN, one, max_size=2) | st.tuples(one),
    max_leaves=4,
)
FIELDS = ("problem", "reasoning", "answer", "finish_reason", "n_tokens", "teacher", "source", "trace_id")
OF_PROBLEM = ("problem_id", "domain", "messages", "gold", "metadata")


@given(where=st.sampled_from((*FIELDS, *OF_PROBLEM, "role", "content", "message", "all")), value=ANYTHING)
def test_whatever_a_field_holds_the_trace_is_usable_and_comes_back_or_says_why(where: str, value: Any) -> None:
    one = trace()
    if where in OF_PROBLEM:
        one = replace(one, problem=replace(one.problem, **{where: value}))
    elif where in ("role", "content", "message"):
        message = value if where == "message" else replace(one.problem.messages[0], **{where: value})
        one = replace(one, problem=replace(one.problem, messages=(*one.problem.messages, message)))
    else:
        one = value if where == "all" else replace(one, **{where: value})
    reason = why_unusable(one)
    if reason is None:
        row = trace_row(one)
        assert why_unwritable(TRACES, row) is None
        back = trace_of(json.loads(json.dumps(row)))
        assert (back.answer, back.reasoning, back.problem.gold) == (one.answer, one.reasoning, one.problem.gold)
        assert back.finish_reason in ("stop", "length")
    else:
        assert (": " in reason and reason.isascii()) or reason.encode(errors="replace")


def test_every_message_is_looked_at() -> None:
    one = trace()
    spoiled = replace(one.problem.messages[0], content="a\x08")
    both = replace(one, problem=replace(one.problem, messages=(spoiled, one.problem.messages[0])))
    assert why_unusable(both) == "control character: U+0008 at place 1 of the user message"


def test_a_teacher_of_bad_rows_alone_fails_with_the_first_reason(cli: Cli, matrix: Matrix) -> None:
    done = cli("run", matrix(HUB | {"teachers": {"wise": {"n": 2, "bad": 2}}}))
    assert done.code == 1 and "none of 2 traces is usable; toy 0: control character: U+000C" in done.err


@pytest.mark.parametrize(
    ("reasoning", "answer", "reason"),
    [
        (None, "", "empty: neither reasoning nor answer"),
        (" \n", "\t", "empty: neither reasoning nor answer"),
        ("so", "5\x00", "control character: U+0000 at place 1 of the answer"),
        ("a\x1b[31m", "5", "control character: U+001B at place 1 of the reasoning"),
        (None, "\ud800", "control character: U+D800 at place 0 of the answer"),
        (None, "\x7f", "control character: U+007F at place 0 of the answer"),
        ("so", "", None),
        (None, "tabs\t and\r\n lines\x85 \u2028 é 數", None),
    ],
)
def test_unusable_traces_say_why(reasoning: str | None, answer: str, reason: str | None) -> None:
    assert why_unusable(trace(reasoning=reasoning, answer=answer)) == reason


def test_a_bad_problem_makes_a_bad_trace() -> None:
    one = trace()
    message = replace(one.problem.messages[0], content="How\x08many?")
    spoiled = replace(one, problem=replace(one.problem, messages=(message,)))
    assert why_unusable(spoiled) == "control character: U+0008 at place 3 of the user message"


@given(st.text(), st.none() | st.text())
def test_usable_text_can_be_written(answer: str, reasoning: str | None) -> None:
    one = trace(answer=answer, reasoning=reasoning)
    if why_unusable(one) is None:
        assert f"{answer}{reasoning}".encode()
        assert not set(answer) & set(map(chr, [0, 7, 8, 11, 12, 27, 127]))
