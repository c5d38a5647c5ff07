"""A grade stage, in a store of its own."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

from distillbench.bench import Bench
from distillbench.catalog import Catalog
from distillbench.hookspecs import hookimpl
from distillbench.manager import make_manager
from distillbench.protocols import Grader, no_progress
from distillbench.records import Choice, Evaluation, Judgement, Message, Problem, Sample, Sampling
from distillbench.stages.grade import Grade
from distillbench.stages.sample import Sample as SampleStage
from distillbench.store.rows import SAMPLES, RowWriter
from distillbench.store.samples import sample_row
from distillbench.store.store import Made, Store
from distillbench.tasks.identity import TaskIndex
from distillbench.tasks.loader import LmEvalTasks
from memory_steps.made import Size, Step, Text
from memory_steps.tables import STORE


class Number(Grader):
    """Compares a boxed number."""

    name = "number"

    def extract(self, answer: str, problem: Problem) -> str | None:
        """What stands in the box."""
        return answer.rpartition("\\boxed{")[2].partition("}")[0] or None

    def judge(self, problem: Problem, extracted: str) -> Judgement:
        """Right where it is the gold answer."""
        return Judgement(extracted == problem.gold)


@hookimpl
def distillbench_benchmarks() -> list[type[Grader]]:
    """The grader that is measured with."""
    return [Number]


@cache
def catalog() -> Catalog:
    """The components that there are, and `number`."""
    manager = make_manager(())
    manager.register(sys.modules[__name__], "memory")
    return Catalog(manager)


def choice(kind: str, component: str) -> Choice:
    """A component without options."""
    options = catalog().kind(kind)[component].Options
    return Choice(kind, component, component, options(**({"model": "m"} if kind == "student" else {})), "{}")


def bench_in(folder: Path) -> Bench:
    """What stages work with."""
    store = Store(folder / "store")
    store.prepare()
    return Bench(store, catalog(), LmEvalTasks(TaskIndex(())))


def sample_stage() -> SampleStage:
    """Samples of a model behind a server."""
    evaluation = Evaluation(
        "e", "t", Path(), Sampling(), "auto", 1, None, "first", (), "s", "g", None, choice("benchmark", "number")
    )
    return SampleStage(
        student=choice("student", "hosted"),
        renderer=choice("renderer", "hosted"),
        engine=choice("engine", "api"),
        step=0,
        asked=evaluation,
    )


def problem(number: int, text: Text) -> Problem:
    """A problem of some 300 characters, twice: its message, and its task's document."""
    asked = text.text(90)
    return Problem(f"p/{number}", "t", (Message("user", asked),), "7", {"doc": {"problem": asked, "answer": "7"}})


def make_samples(folder: Path, size: Size) -> int:
    """A finished sample stage."""
    bench, stage, text = bench_in(folder), sample_stage(), Text(size)
    bench.store.begin(stage)
    with RowWriter(bench.store.work(stage) / SAMPLES) as writer:
        for number, n_tokens in enumerate(text.lengths()):
            one = problem(number, text)
            sample = Sample(
                sample_id=f"{one.problem_id}#0",
                problem=one,
                repeat=0,
                prompt=one.messages[0].content,
                prefill="",
                seed=number,
                token_ids=text.token_ids(n_tokens),
                text=f"<think>\n{text.text(n_tokens)}\n</think>\n\nSo it is \\boxed{{{number % 9}}}.",
                finish_reason="stop",
                error=None,
                n_tokens=n_tokens,
                n_prompt_tokens=100,
                effective={"temperature": 0.0},
            )
            writer.append(sample_row(sample))
    bench.store.finish(stage, Made((SAMPLES,), {"generated": size.n, "seconds": 1.0}), 1.0, {})
    return size.n


def grade(folder: Path, size: Size) -> int:
    """A grade stage, from samples to verdicts."""
    bench, sample = bench_in(folder), sample_stage()
    stage = Grade(
        grader=sample.asked.grader, asked=sample.asked, parser="hosted", sample=sample, renderer=sample.renderer
    )
    bench.store.begin(stage)
    made = stage.run(bench, no_progress)
    bench.store.finish(stage, made, 1.0, {})
    if sorted(made.facts["outcomes"]) != ["correct", "wrong"]:
        sys.exit(f"wanted right and wrong answers, got {made.facts}")
    return sum(made.facts["outcomes"].values())


STEPS = {
    "samples": Step(make_samples, STORE, ready=catalog),
    "grade": Step(grade, STORE, after="samples", ready=catalog),
}
