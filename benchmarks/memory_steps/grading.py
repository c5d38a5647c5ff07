"""A grade stage, in a store of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from distillbench.protocols import no_progress
from distillbench.records import Evaluation, Sample, Sampling
from distillbench.stages.grade import Grade
from distillbench.stages.sample import Sample as SampleStage
from distillbench.store.rows import SAMPLES, RowWriter
from distillbench.store.samples import sample_row
from distillbench.store.store import Made
from memory_steps.made import Size, Step, Text
from memory_steps.parts import bench_in, catalog, choice, problem
from memory_steps.tables import STORE


def sample_stage() -> SampleStage:
    """Samples of a model behind a server."""
    evaluation = Evaluation(
        "e", "t", Path(), Sampling(), "auto", 1, None, "first", (), "s", "g", None, choice("benchmark", "number")
    )
    return SampleStage(
        student=choice("student", "hosted", model="m"),
        renderer=choice("renderer", "hosted"),
        engine=choice("engine", "api"),
        step=0,
        asked=evaluation,
    )


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
