"""Collects what a store holds of a plan into the records that a report is made of."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distillbench.plan.plan import Plan
from distillbench.plan.stage import Stage
from distillbench.preflight.look import Looked, merged
from distillbench.records import Cell, Evaluation
from distillbench.report.asked import settings_of, subset_of
from distillbench.report.reader import Reader
from distillbench.report.results import CellResult, CheckpointResult, Results
from distillbench.stages.curate import Curate
from distillbench.stages.grade import Grade, Graded
from distillbench.stages.sample import Sample
from distillbench.stages.train import Train
from distillbench.store.environment import describe
from distillbench.store.store import Store


def collect(
    plan: Plan,
    store: Store,
    command: str,
    looked: Mapping[str, Looked | None] | None = None,
) -> Results:
    """The results of everything in a plan that is finished.

    Args:
        plan: With statuses.
        store: Where the stages' results are.
        command: What the user asked for.
        looked: For each cell what its preflight found; None where none is on record.
    """
    reader, looked = Reader(store), looked or {}
    baselines = {cell.setup: cell.name for cell in plan.cells if cell.is_baseline}
    found = [
        result
        for cell in plan.cells
        for graded in plan.graded[cell.name]
        for result in _checkpoint(cell, graded, baselines.get(cell.setup), looked.get(cell.name), reader)
    ]
    whole = {(one.cell, one.step, one.evaluation) for one in found if one.budget is None}
    cut = [one for one in found if one.budget is not None and (one.cell, one.step, one.evaluation) in whole]
    return Results(
        matrix=plan.matrix,
        cells=tuple(_cell(cell, plan.of_cell(cell.name), looked, reader) for cell in plan.cells),
        checkpoints=tuple(result for result in found if result.budget is None),
        provenance=_provenance(command) | {"device": _devices(plan, reader)},
        recomputed=tuple(cut),  # a curve of a result that is left out would stand for nothing
    )


def _checkpoint(
    cell: Cell, graded: Graded, baseline: str | None, looked: Looked | None, reader: Reader
) -> Iterator[CheckpointResult]:
    """One graded (checkpoint, evaluation, budget) of a cell, where it is there."""
    evaluation, stored = graded.evaluation, reader.samples(graded.grade)
    if stored is None:
        return
    scores = reader.scores(graded.grade, stored)
    yield CheckpointResult(
        cell=cell.name,
        step=graded.step,
        evaluation=evaluation.name,
        task=evaluation.task,
        groups=evaluation.groups,
        is_baseline=cell.is_baseline,
        baseline=None if cell.is_baseline else baseline,
        teacher=cell.teacher.label if cell.teacher else None,
        student=cell.student.label,
        renderer=cell.renderer.label,
        trainer=cell.trainer.label if cell.trainer else None,
        filters=tuple(choice.label for choice in cell.filters),
        seed=cell.seed,
        subset=subset_of(evaluation, len(scores.names)),
        scores=scores,
        read=stored.read,
        samples_in=reader.place(graded.sample),
        settings=settings_of(evaluation),
        grader=evaluation.grader.component,
        grading=reader.facts(graded.grade).get("grading", {}),
        accepted=_accepted(cell, evaluation, looked),
        budget=graded.budget,
        device=reader.device(graded.sample),
        graded_at=reader.finished_at(graded.grade),
    )


def _accepted(cell: Cell, evaluation: Evaluation, looked: Looked | None) -> tuple[str, ...]:
    found = looked.accepted(cell.rules) if looked else []
    return tuple(dict.fromkeys(one.name for one in found if one.evaluation in ("", evaluation.name)))


def _cell(
    cell: Cell,
    stages: Sequence[Stage],
    looked: Mapping[str, Looked | None],
    reader: Reader,
) -> CellResult:
    """Everything about a cell but its samples."""
    reasons = _reasons(stages, reader)
    return CellResult(
        name=cell.name,
        is_baseline=cell.is_baseline,
        axes=dict(cell.axes),
        nll=tuple(point for stage in stages if isinstance(stage, Train) for point in reader.losses(stage)),
        traces=next((_traces(stage, reader) for stage in stages if isinstance(stage, Curate)), None),
        problems=tuple(f"{stage.name}: {reasons[stage.key]}" for stage in stages if stage.key in reasons),
        missing=tuple(_missing(stages, reasons, reader)),
        preflight=tuple(_preflight(cell, looked[cell.name])) if cell.name in looked else (),
    )


def _traces(curate: Curate, reader: Reader) -> Mapping[str, int] | None:
    facts = reader.facts(curate)
    if not facts:
        return None
    return {"kept": facts["kept"], **reader.facts(curate.traces).get("rejected", {}), **facts["rejected"]}


def _reasons(stages: Sequence[Stage], reader: Reader) -> dict[str, str]:
    """By key, why stages have failed, or cannot run before what they need has succeeded; needs come first."""
    found: dict[str, str] = {}
    for stage in stages:
        if (why := reader.failure(stage)) is not None:
            found[stage.key] = why
        elif not reader.is_there(stage) and (need := next((one for one in stage.needs if one.key in found), None)):
            found[stage.key] = f"needs {need.name}, which did not succeed"
    return found


def _missing(stages: Sequence[Stage], reasons: Mapping[str, str], reader: Reader) -> Iterator[str]:
    """What the cell lacks, in words."""
    damaged = {stage.key: why for stage in stages if (why := reader.damage(stage)) is not None}
    for stage in stages:
        if stage.key in damaged:
            what = f"{stage.name} is damaged, and what is made of it is left out"
            yield f"{what}: {damaged[stage.key]}; the next run makes it again"
    told = reasons.keys() | damaged.keys()
    absent = [stage for stage in stages if not reader.is_there(stage) and stage.key not in told]
    if absent:
        yield f"{len(absent)} of {len(stages)} stages have not run"
    old = [stage for stage in stages if isinstance(stage, Grade) and not reader.is_current(stage)]
    if old:
        yield f"{len(old)} results are of inputs that changed since, and are left out; the next run renews them"
    for stage in stages:
        if holes := reader.holes(stage):
            what, why = reader.why_holes(stage)
            one = f"{stage.label}: {holes} samples could not be {what}; the next run tries them again"
            yield f"{one} (most often: {why})" if why else one


def _preflight(cell: Cell, looked: Looked | None) -> Iterator[str]:
    """What the preflight has to say of a cell; None stands for one that is not on record."""
    if looked is None:  # other traces, or another tokenizers, than those that were looked at
        if not cell.is_baseline:
            yield "not on record for these rows: `distillbench check` looks at them"
        return
    told = [("accepted", one) for one in merged(looked.accepted(cell.rules))]
    told += [("warning", one) for one in merged(looked.warnings(cell.rules))]
    for level, one in told:
        where = f" on {one.evaluation}" if one.evaluation else ""
        yield f"{level}{where}: {one.name}: {one.kind.summary}; {one.headline}"


def _devices(plan: Plan, reader: Reader) -> dict[str, str]:
    """What the finished stages of the plan trained and sampled on, in words."""
    stages = plan.stages.values()
    trained = [reader.processor(one) for one in stages if isinstance(one, Train) and one.rows is not None]
    sampled = [reader.device(one) for one in stages if isinstance(one, Sample)]
    found = {"training": trained, "sampling": sampled}
    return {what: ", ".join(sorted({*filter(None, names)})) for what, names in found.items() if any(names)}


def _provenance(command: str) -> dict[str, Any]:
    about = describe()
    return {
        "command": command,
        "date": int(time.time()),
        "git_hash": about["commit"],
        "lm_eval_version": about["packages"].get("lm_eval"),
        "transformers_version": about["packages"].get("transformers"),
        "packages": about["packages"],
        "python": about["python"],
        "platform": about["platform"],
    }
