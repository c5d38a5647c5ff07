"""Gold answers by which nothing can be judged, and problems among their own examples, as `check` finds them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillbench.cli.main import invoke
from distillbench.preflight import check_problems
from distillbench.protocols import Context, Teacher
from distillbench.records import Message, Problem, Trace
from distillbench_plugins.benchmarks.math_boxed import MathBoxed, MathBoxedOptions

PLACE = Path("t.yaml")
MATH = MathBoxed(MathBoxedOptions())


def problem(number: int, *turns: str, gold: str = "1", system: str = "") -> Problem:
    """A problem whose turns are the user's and the assistant's in turn."""
    roles = ["user", "assistant"] * len(turns)
    messages = [Message(role, text) for role, text in zip(roles, turns, strict=False)]  # type: ignore[arg-type]
    if system:
        messages.insert(0, Message("system", system))
    return Problem(f"t/{number}", "t", tuple(messages), gold, {"doc": {}})


@pytest.mark.parametrize(
    ("turns", "is_own"),
    [
        (("q",), False),
        (("q", "a", "q"), True),
        (("q", "a", "p", "b", "q"), True),
        (("p", "b", "q\n", "a", " q"), True),
        (("p", "b", "q"), False),
        (("q", "a", "q", "The answer is"), True),
        (("p", "b", "q", "The answer is"), False),
        (("", "a", ""), False),
        ((), False),
    ],
)
def test_a_problem_among_its_own_examples(turns: tuple[str, ...], is_own: bool) -> None:
    for system in ("", "q"):
        found = check_problems(MATH, [problem(0, *turns, system=system), problem(1, "z")], PLACE)
        assert [name for name, _ in found] == ["own_example"] * is_own
        assert not is_own or "t.yaml: 1 of 2 problems (50 %) stand among" in found[0][1]


@given(st.lists(st.sampled_from(["1", "", "None", "null"]), min_size=1, max_size=12))
def test_every_unusable_gold_is_counted_and_the_first_are_named(golds: list[str]) -> None:
    problems = [problem(number, "q", gold=gold) for number, gold in enumerate(golds)]
    why = list(MATH.unusable_golds(problems))
    bad = [one.problem_id for one, reason in zip(problems, why, strict=True) if reason]
    found = check_problems(MATH, problems, PLACE)
    assert len(found) == bool(bad)
    if bad:
        ((name, text),) = found
        assert name == "unusable_gold"
        assert f"{len(bad)} of {len(golds)} problems" in text
        assert all(f"{one}: " in text for one in bad[:3]) and ("more" in text) == (len(bad) > 3)


DATA = """
from datasets import Dataset
ROWS = [{"question": f"What is {n} + 1?", "answer": str(n + 1), "choices": ["cat", "dog"], "letter": "AB"[n % 2]}
        for n in range(6)]
def load(**metadata):
    return {"test": Dataset.from_list(ROWS)}
def without(**metadata):
    return {"test": Dataset.from_list([dict(row, answer=None if n == 3 else "1") for n, row in enumerate(ROWS)])}
"""
TASK = """
task: {name}
custom_dataset: !function data.{load}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: [], do_sample: false, max_gen_toks: 16}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0, distillbench: {{grader: {grader}}}}}
"""


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Writes a task and a matrix of the untouched student, and gives exit code and findings of a command."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "data.py").write_text(DATA)

    def run(text: str, *, command: str = "check", accept: str = "[]", more: str = "") -> tuple[int, dict[str, Any]]:
        (tmp_path / "tasks" / "t.yaml").write_text(text)
        (tmp_path / "m.yaml").write_text(
            f"task_paths: [tasks]\naccept: {accept}\nstudents: {{tiny: {{use: tiny-qwen3}}}}\n"
            f"evaluations: {{t: {{{more}}}}}\n"
        )
        code = invoke([command, "m.yaml", "--json"])
        told = capsys.readouterr()
        if command != "check":
            return code, {"": {"text": told.err}}
        return code, {line["name"]: line for line in json.loads(told.out) if line["name"]}

    return run


def test_unusable_golds_are_refused_by_file_problem_and_reason(checked: Callable[..., Any]) -> None:
    text = TASK.format(name="t", load="without", grader="math_boxed")
    code, found = checked(text)
    assert code == 2 and found["unusable_gold"]["level"] == "refused"
    assert "tasks/t.yaml: 1 of 6 problems (16.7 %)" in found["unusable_gold"]["text"]
    assert "t/3: " in found["unusable_gold"]["text"]
    code, told = checked(text, command="run")
    assert code == 2 and "unusable_gold" in told[""]["text"] and "nothing has run" in told[""]["text"]
    code, found = checked(text, accept="[unusable_gold]")
    assert code == 0 and found["unusable_gold"]["level"] == "accepted"
    code, found = checked(text, more="limit: 3")
    assert code == 0 and not found, "what is not asked is not looked at"


def test_a_choice_that_is_none_is_refused(checked: Callable[..., Any]) -> None:
    text = TASK.format(name="t", load="load", grader="lm_eval").replace("generate_until", "multiple_choice")
    text = text.replace("{{answer}}", "{{letter}}").replace("exact_match, aggregation", "acc, aggregation")
    code, found = checked(text.replace("generation_kwargs", "doc_to_choice: choices\n#"))
    assert code == 2 and "6 of 6 problems (all)" in found["unusable_gold"]["text"]


def test_examples_of_the_test_split_are_refused(checked: Callable[..., Any]) -> None:
    code, found = checked(TASK.format(name="t", load="load", grader="math_boxed") + "num_fewshot: 3\n")
    assert code == 2 and found["own_example"]["level"] == "refused"
    code, found = checked(
        TASK.format(name="t", load="load", grader="math_boxed") + "fewshot_split: test\nnum_fewshot: 3\n"
    )
    assert code == 0 and not found, "lm-eval leaves the problem out where the split is named"


def test_a_key_twice_is_refused(checked: Callable[..., Any]) -> None:
    code, found = checked(TASK.format(name="t", load="load", grader="math_boxed") + "doc_to_text: other\n")
    assert code == 2 and "'doc_to_text' on lines 6 and 11" in found["key_twice"]["text"]


class Reading(Teacher):
    """Reads a file; the text says how far."""

    name = "reading"

    def inputs(self) -> list[Path]:
        """The file."""
        return [self.options]

    def traces(self, context: Context, start: int) -> Iterator[Trace]:
        """One trace for each line."""
        for number, line in enumerate(self.options.read_text().splitlines()):
            assert line != "never read"
            yield Trace(problem(number, line), "", line, "stop", None, "reading", f"line {number}")


class Asking(Reading):
    """Has no file."""

    def inputs(self) -> list[Path]:
        """None."""
        return []


def test_a_teacher_that_reads_gives_the_first_rows_as_a_preview(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("a\nb\nnever read\n")
    context = Context(work=tmp_path)
    assert [trace.answer for trace in Reading(tmp_path / "rows").preview(context, 2)] == ["a", "b"]
    assert list(Asking(tmp_path / "rows").preview(context, 2)) == []
