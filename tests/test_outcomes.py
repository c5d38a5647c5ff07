"""The contract: every sample has exactly one outcome, and what stands inside reasoning never is an answer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from core_factories import completion, problem
from hypothesis import given
from hypothesis import strategies as st

from distillbench.errors import GraderError
from distillbench.outcomes import COMPLETED, ERRORS, OUTCOMES, cut_at, decide, decide_all, is_loop, is_text_loop
from distillbench.protocols import Context, Grader, OneByOne
from distillbench.records import Completion, Judgement, Problem, ReasoningState
from distillbench.report.results import CheckpointResult, GradedSample
from distillbench.report.statistics.summary import summarise

NO_LOOP = tuple(range(200))
LOOP = (*range(100), *(5, 6, 7) * 20)


ODD_SCORES: dict[str, Any] = {"text": "0.5", "nan": math.nan, "inf": -math.inf, "null": None, "list": [1.0]}


class Brackets(Grader):
    """The answer is what stands in the last `[...]`; `[boom]` breaks the grader, `[half]` scores a half."""

    name = "brackets"

    def extract(self, answer: str, problem: Problem) -> str | None:
        if "[crash" in answer:
            raise RuntimeError("cannot read this")
        head, closed, _ = answer.rpartition("]")
        return head.rpartition("[")[2] if closed and "[" in head else None

    def judge(self, problem: Problem, extracted: str) -> Judgement:
        if extracted == "boom":
            raise GraderError("no verdict")
        if extracted == "half":
            return Judgement(None, "", {"score": 0.5})
        if extracted in ODD_SCORES:
            return Judgement(True, "", {"fine": 1, "odd": ODD_SCORES[extracted]})
        right = extracted == problem.gold
        return Judgement(right, "" if right else "wrong_answer", {"seen": 1.0})


GRADER = Brackets(None)

TABLE = [
    # answer, state, finish reason, token ids, until -> outcome, detail, extracted, ran_on
    ("[7]", "closed", "stop", NO_LOOP, (), "correct", "", "7", False),
    ("[7]", "absent", "stop", NO_LOOP, (), "correct", "", "7", False),
    ("[8]", "closed", "stop", NO_LOOP, (), "wrong", "wrong_answer", "8", False),
    ("[half]", "closed", "stop", NO_LOOP, (), "graded", "", "half", False),
    ("[8] no, [7]", "absent", "stop", NO_LOOP, (), "correct", "", "7", False),
    ("so what", "closed", "stop", NO_LOOP, (), "no_answer", "", None, False),
    ("", "absent", "stop", NO_LOOP, (), "no_answer", "", None, False),
    ("", "open", "stop", NO_LOOP, (), "unclosed", "", None, False),
    ("", "open", "stop", LOOP, (), "unclosed", "", None, False),
    ("", "open", "length", NO_LOOP, (), "truncated", "in_reasoning", None, False),
    ("[7", "closed", "length", NO_LOOP, (), "truncated", "in_answer", None, False),
    ("[7", "absent", "length", NO_LOOP, (), "truncated", "in_answer", None, False),
    ("", "open", "length", LOOP, (), "loop", "in_reasoning", None, False),
    ("[7", "closed", "length", LOOP, (), "loop", "in_answer", None, False),
    ("[7] and on and on", "absent", "length", LOOP, (), "correct", "", "7", True),
    ("[8] and on and on", "absent", "length", NO_LOOP, (), "wrong", "wrong_answer", "8", True),
    ("[7]\n\nQ: next [9]", "absent", "stop", NO_LOOP, ("\n\n",), "correct", "", "7", True),
    ("[7]\n\nQ: next [9]", "absent", "length", LOOP, ("\n\n",), "correct", "", "7", True),
    ("hm\n\n[7]", "absent", "stop", NO_LOOP, ("\n\n",), "no_answer", "", None, False),
    ("hm\n\n[7]", "absent", "length", LOOP, ("\n\n",), "no_answer", "", None, False),
    ("[boom]", "closed", "stop", NO_LOOP, (), "grader_error", "GraderError: no verdict", "boom", False),
    ("[crash]", "closed", "stop", NO_LOOP, (), "grader_error", "RuntimeError: cannot read this", None, False),
    ("[crash", "closed", "length", NO_LOOP, (), "grader_error", "RuntimeError: cannot read this", None, False),
]


@pytest.mark.parametrize(
    ("answer", "state", "finish", "ids", "until", "outcome", "detail", "extracted", "ran_on"), TABLE
)
def test_the_table(
    answer: str,
    state: str,
    finish: str,
    ids: tuple[int, ...],
    until: tuple[str, ...],
    outcome: str,
    detail: str,
    extracted: str | None,
    ran_on: bool,
) -> None:
    verdict = decide(completion(answer, state, finish, ids), problem("7"), GRADER, until)
    assert (verdict.outcome, verdict.detail, verdict.extracted, verdict.ran_on) == (outcome, detail, extracted, ran_on)


def test_the_table_reaches_every_outcome_that_a_completion_can_have() -> None:
    assert {row[5] for row in TABLE} == set(OUTCOMES) - {"generation_error"}


@pytest.mark.parametrize("odd", ODD_SCORES)
def test_scores_that_are_no_numbers_are_a_failure_of_the_grader(odd: str) -> None:
    """One of them would be in the way of every mean of the report."""
    found = decide(completion(f"[{odd}]"), problem("7"), GRADER)
    assert found.outcome == "grader_error" and "wanted finite numbers as scores; got {'odd': " in found.detail


def test_scores_of_the_grader_are_kept() -> None:
    assert decide(completion("[7]"), problem("7"), GRADER).scores == {"seen": 1.0}
    assert decide(completion("[half]"), problem("7"), GRADER).scores == {"score": 0.5}
    assert decide(completion("none"), problem("7"), GRADER).scores == {}


class Batches:
    """A grading that reads everything before it says anything, and gives the first `n` judgements only."""

    facts: ClassVar[dict[str, str]] = {}

    def __init__(self, n: int | None = None) -> None:
        self.n = n

    def judge_all(self, answers: Iterable[tuple[Problem, str]]) -> Iterator[Judgement]:
        yield from list(OneByOne(GRADER).judge_all(list(answers)))[: self.n]


ANSWERED = ("[7]", "none", "[8]", "[boom]", "[crash]", "[half]", "[7]", "")
OUTCOMES_OF_ANSWERED = [
    "correct",
    "no_answer",
    "wrong",
    "grader_error",
    "grader_error",
    "graded",
    "correct",
    "no_answer",
]


def test_verdicts_come_in_the_samples_order_whatever_the_grading_reads_ahead() -> None:
    samples = [(completion(answer), problem("7")) for answer in ANSWERED]
    for grading in (OneByOne(GRADER), Batches()):
        assert [one.outcome for one in decide_all(iter(samples), GRADER, grading)] == OUTCOMES_OF_ANSWERED


def test_a_grading_that_gives_too_few_judgements_loses_no_sample() -> None:
    samples = [(completion(answer), problem("7")) for answer in ANSWERED]
    found = [one.outcome for one in decide_all(samples, GRADER, Batches(2))]
    assert found == [
        *OUTCOMES_OF_ANSWERED[:3],
        "grader_error",
        "grader_error",
        "grader_error",
        "grader_error",
        "no_answer",
    ]


def test_a_grading_that_cannot_go_on_ends_the_stage() -> None:
    class Gone(Batches):
        """Its sandbox is not there."""

        def judge_all(self, answers: Iterable[tuple[Problem, str]]) -> Iterator[Judgement]:
            raise GraderError("no sandbox")

    with pytest.raises(GraderError, match="no sandbox"):
        list(decide_all([(completion("[7]"), problem("7"))], GRADER, Gone()))


def test_a_grader_that_only_opens_judges_single_answers_too() -> None:
    class Opens(Grader):
        """Has no `judge` of its own."""

        name = "opens"

        def extract(self, answer: str, problem: Problem) -> str | None:
            return GRADER.extract(answer, problem)

        def open(self, context: Context) -> Any:
            return nullcontext(Batches())

    assert Opens.lacks() == []
    assert decide(completion("[7]"), problem("7"), Opens(None)).outcome == "correct"
    with pytest.raises(GraderError, match="no verdict"):
        Opens(None).judge(problem("7"), "boom")


def test_a_grader_that_is_interrupted_is_not_a_verdict() -> None:
    class Interrupted(Brackets):
        """Ctrl-C while it grades."""

        def judge(self, problem: Problem, extracted: str) -> Judgement:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decide(completion("[7]"), problem("7"), Interrupted(None))


ANSWERS = st.lists(
    st.sampled_from(["[7]", "[8]", "[half]", "[boom]", "[crash]", "[", "]", "7", " ", "STOP", "\n\n"]), max_size=6
)
COMPLETIONS = st.builds(
    lambda parts, state, finish, ids: completion("" if state == "open" else "".join(parts), state, finish, tuple(ids)),
    ANSWERS,
    st.sampled_from(["absent", "open", "closed"]),
    st.sampled_from(["stop", "length"]),
    st.one_of(st.lists(st.integers(0, 9), max_size=60), st.just(list(LOOP))),
)


@given(COMPLETIONS, st.sampled_from([(), ("STOP",), ("\n\n", "STOP"), ("",)]))
def test_a_verdict_agrees_with_the_contract(one: Completion, until: tuple[str, ...]) -> None:
    """Section 3 of the design, said again in other words."""
    verdict = decide(one, problem("7"), GRADER, until)
    assert verdict.outcome in OUTCOMES and verdict.outcome != "generation_error"
    if one.reasoning_state == "open":
        assert verdict.outcome in ("unclosed", "truncated", "loop")
        assert verdict.detail == ("in_reasoning" if one.finish_reason == "length" else "")
    if verdict.outcome in ("truncated", "loop"):
        assert one.finish_reason == "length"
        assert (verdict.outcome == "loop") == is_loop(one.token_ids)
    if verdict.outcome in ("no_answer", "unclosed") and not until:
        assert one.finish_reason == "stop"
    if verdict.outcome != "grader_error":
        assert (verdict.extracted is not None) == (verdict.outcome in COMPLETED)
    if verdict.outcome in COMPLETED:
        assert f"[{verdict.extracted}]" in one.answer
    if verdict.ran_on:
        assert verdict.outcome in COMPLETED


@given(COMPLETIONS, st.text(max_size=20), st.sampled_from([(), ("STOP",), ("\n\n",)]))
def test_nothing_inside_reasoning_changes_the_verdict(one: Completion, draft: str, until: tuple[str, ...]) -> None:
    """Neither a draft answer nor a stop string that stands there."""
    reasoning = f"{draft} [7] STOP \n\n [8]"
    other = Completion(
        reasoning + one.text, one.token_ids, one.finish_reason, "", reasoning, one.answer, one.reasoning_state
    )
    assert decide(other, problem("7"), GRADER, until) == decide(one, problem("7"), GRADER, until)


@given(st.lists(st.one_of(COMPLETIONS, st.none()), min_size=1, max_size=40))
def test_outcomes_add_up_and_accuracy_is_the_product(many: list[Completion | None]) -> None:
    """`None` stands for a sample whose generation failed. `[half]` is left out: a task scores or it judges."""
    samples = []
    for number, one in enumerate(many):
        outcome = "generation_error" if one is None else decide(one, problem("7"), GRADER).outcome
        samples.append(GradedSample(f"toy/{number}", 0, "wrong" if outcome == "graded" else outcome))
    counts = Counter(sample.outcome for sample in samples)
    result = summarise(CheckpointResult.of(samples, cell="cell", step=1, evaluation="toy", task="toy"))
    assert sum(result.counts.values()) == result.n == len(many)
    assert result.counts == {outcome: counts[outcome] for outcome in OUTCOMES}
    errors = sum(counts[outcome] for outcome in ERRORS)
    scored = len(many) - errors
    completed = counts["correct"] + counts["wrong"]
    if result.accuracy is None:
        assert scored == 0 or (errors > 1 and errors > 0.01 * len(many))
        return
    assert result.accuracy == pytest.approx(counts["correct"] / scored)
    assert result.completion_rate == pytest.approx(completed / scored)
    if completed:
        assert result.accuracy_completed is not None
        assert result.accuracy == pytest.approx(result.completion_rate * result.accuracy_completed)
    else:
        assert result.accuracy_completed is None and result.accuracy == 0


@pytest.mark.parametrize(
    ("answer", "until", "wanted"),
    [
        ("abc", (), ("abc", False)),
        ("abc", ("c", "b"), ("a", True)),
        ("abc", ("",), ("abc", False)),
        ("abc", ("x",), ("abc", False)),
        ("STOP", ("STOP",), ("", True)),
        ("a\n\nb\n\nc", ("\n\n",), ("a", True)),
    ],
)
def test_cut_at(answer: str, until: tuple[str, ...], wanted: tuple[str, bool]) -> None:
    assert cut_at(answer, until) == wanted


@given(st.text(alphabet="abc", max_size=12), st.lists(st.text(alphabet="abc", max_size=3), max_size=3))
def test_cut_at_leaves_no_stop_string_and_loses_only_what_follows_one(answer: str, until: list[str]) -> None:
    kept, stopped = cut_at(answer, tuple(until))
    assert answer.startswith(kept)
    assert not any(stop in kept for stop in until if stop)
    assert stopped == any(stop in answer for stop in until if stop)
    if stopped:
        assert any(answer[len(kept) :].startswith(stop) for stop in until if stop)
    else:
        assert kept == answer


@given(
    st.lists(st.integers(0, 99), max_size=50),
    st.lists(st.integers(0, 99), min_size=1, max_size=40),
    st.integers(4, 6),
    st.integers(0, 39),
)
def test_a_repeated_tail_is_a_loop(head: list[int], period: list[int], times: int, more: int) -> None:
    """Whole periods and the beginning of one more; at least 24 tokens in all."""
    times = max(times, -(-24 // len(period)))
    assert is_loop((*head, *period * times, *period[: more % len(period)]))


@given(st.lists(st.integers(0, 2), max_size=60))
def test_is_loop_is_what_its_docstring_says(ids: list[int]) -> None:
    """One period, at least 4 times over, at least 24 tokens: looked for naively."""
    wanted = any(
        all(ids[place] == ids[place - period] for place in range(len(ids) - span + period, len(ids)))
        for period in range(1, len(ids) // 4 + 1)
        for span in [max(4 * period, 24)]
        if span <= len(ids)
    )
    assert is_loop(tuple(ids)) == wanted


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        ((), False),
        ((1,) * 23, False),
        ((1,) * 24, True),
        (tuple(range(300)), False),
        (tuple(range(256)) * 4, True),
        (tuple(range(257)) * 4, False),  # a longer period is not looked for
        (tuple(range(100)) * 3, False),
        ((*(1, 2) * 30, 9), False),  # it ended otherwise
    ],
)
def test_the_edges_of_a_loop(ids: tuple[int, ...], wanted: bool) -> None:
    assert is_loop(ids) == wanted


@given(st.text(max_size=200), st.text(min_size=1, max_size=200), st.integers(4, 6), st.integers(0, 199))
def test_a_text_that_repeats_itself_is_a_loop(head: str, period: str, times: int, more: int) -> None:
    """Wherever the budget ends it, and whatever white space a server strips."""
    times = max(times, -(-130 // len(period)))
    text = head + period * (times + 1) + period[: more % len(period)]
    assert not period.strip() or is_text_loop(text)


def test_a_loop_is_found_from_the_text_where_a_server_tells_no_tokens() -> None:
    sentence = "the same words again and again. "
    for text, wanted in [
        (sentence * 60, "loop"),
        (f"<think>\n{sentence * 60}the same wo", "loop"),
        ("1" * 400, "loop"),
        ("".join(f"{number}. then {number * 7}; " for number in range(200)), "truncated"),
        (sentence * 60 + "But now for something else, which ends it otherwise.", "truncated"),
        (sentence * 3, "truncated"),
    ]:
        state: ReasoningState = "open" if text.startswith("<think>") else "absent"
        cut = Completion(text, (), "length", "", None, "" if state == "open" else text, state)
        assert decide(cut, problem(), GRADER).outcome == wanted
        stopped = replace(cut, finish_reason="stop")
        assert decide(stopped, problem(), GRADER).outcome in ("no_answer", "unclosed")


def test_the_order_of_outcomes_is_that_of_reports() -> None:
    wanted = ["correct", "wrong", "graded", "no_answer", "unclosed", "truncated", "loop", "generation_error"]
    assert list(OUTCOMES) == [*wanted, "grader_error"]
    assert frozenset(OUTCOMES) >= COMPLETED | ERRORS and not COMPLETED & ERRORS


@pytest.mark.parametrize(
    "judged",
    [True, None, Judgement(None), Judgement(None, "", {"score": float("nan")}), Judgement(None, "", {"bleu": 1.0})],
)
def test_what_is_no_judgement_costs_its_sample_and_nothing_else(judged: Any) -> None:
    """A bare bool, or neither a verdict nor a score: the other samples of the stage, and the report, go on."""

    class Careless(Brackets):
        """Returns what it should not."""

        def judge(self, problem: Problem, extracted: str) -> Any:
            return judged

    verdict = decide(completion("[7]"), problem("7"), Careless(None))
    assert verdict.outcome == "grader_error" and verdict.detail
