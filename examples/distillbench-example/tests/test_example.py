"""Tests of the example, as a plugin's author writes them.

`load_matrix` and `run_matrix` are fixtures of distillbench. pytest finds them by itself, and each test has a
store of its own.
"""

from pathlib import Path

from distillbench_example import ANSWER, LastNumber, ShortFilter, ShortOptions

from distillbench.protocols import Context
from distillbench.records import Message, Problem, Trace

HERE = Path(__file__).parents[1]
PROBLEM = Problem("p1", "example", (Message("user", "Digits: 1, 2. Which is the last?"),), "2")
#: As the example's own matrix, and much smaller.
MATRIX = f"""
teachers: {{written: {{use: example-jsonl, path: {HERE / "digits.jsonl"}}}}}
students: {{tiny: {{use: example-tiny}}}}
filters: {{short: {{use: example-short, words: 20}}}}
trainers: {{loop: {{use: example-loop, steps: 2, checkpoint_every: 1, batch_size: 2}}}}
evaluations: {{digits: {{grader: example-number, max_tokens: 8, limit: 3}}}}
"""


def test_components_are_plain_classes(tmp_path):
    trace = Trace(PROBLEM, "It is the last one.", "2", "stop", None, "example-jsonl", "line 1")
    assert ShortFilter(ShortOptions(words=4)).reason(trace, Context(tmp_path)) == "too wordy: 5 words, limit 4"
    grader = LastNumber(LastNumber.Options())
    assert grader.extract("no number", PROBLEM) is None
    assert grader.judge(PROBLEM, grader.extract("first 1, then 2", PROBLEM)).correct


def test_its_own_matrix_can_be_planned(load_matrix):
    plan = load_matrix(HERE / "matrix.yaml").plan()
    assert {"train", "sample", "grade"} <= {stage.kind for stage in plan.stages.values()}


def test_the_renderer_ends_a_trace_with_the_answer(plugin_manager, tmp_path):
    from distillbench.catalog import Catalog

    catalog = Catalog(plugin_manager())
    student = catalog.kind("student")["example-tiny"]
    student = student(student.Options())
    student.build(tmp_path, Context(tmp_path))
    renderer = catalog.kind("renderer")["example-plain"]
    bound = renderer(renderer.Options()).bind(student.load_tokenizer(tmp_path))
    row = bound.render(Trace(PROBLEM, "Two.", "2", "stop", None, "example-jsonl", "line 1"))
    assert bound.tokenizer.decode(row.input_ids[row.loss_mask]) == f"Two.{ANSWER} 2<end>"


def test_a_run_trains_and_evaluates_every_checkpoint(run_matrix):
    report = run_matrix(MATRIX)
    assert report.exit_code == 0, report.failures()
    assert report.traces("written") == {"kept": 60, "short: too wordy": 4}
    assert [(row["cell"], row["step"], row["n"]) for row in report.rows()] == [
        ("base-tiny", 0, 3),
        ("written", 1, 3),
        ("written", 2, 3),
    ]
    assert sum(report.outcomes(cell="written", step=2).values()) == 3
