"""Collects what a store holds of a plan into the records that a report is made of."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from distillbench.errors import DamagedError
from distillbench.outcomes import GRADER_ERROR
from distillbench.plan.plan import Plan
from distillbench.plan.sampling import effective_sampling
from distillbench.plan.stage import Stage
from distillbench.preflight.look import Looked, merged
from distillbench.records import Cell, Evaluation
from distillbench.report.results import CellResult, CheckpointResult, NllPoint, Results
from distillbench.report.scores import Scores
from distillbench.report.stored import StoredSamples
from distillbench.stages.curate import Curate
from distillbench.stages.grade import Grade
from distillbench.stages.sample import Sample
from distillbench.stages.train import Train
from distillbench.store.environment import describe
from distillbench.store.rows import METRICS, SAMPLES, VERDICTS, iterate
from distillbench.store.store import Store

_T = TypeVar("_T")
_S = TypeVar("_S", bound=Stage)
#: Characters of an error.
_MOST_SHOWN = 160
#: Places of problems.
_MOST_NAMED = 10


def collect(
    plan: Plan,
    store: Store,
    command: str,
    reasons: Mapping[str, str] | None = None,
    looked: Mapping[str, Looked | None] | None = None,
) -> Results:
    """The results of everything in a plan that is finished.

    Args:
        plan: With statuses.
        store: Where the stages' results are.
        command: What the user asked for.
        reasons: By key, why stages of the last run failed or were blocked.
        looked: For each cell what its preflight found; None where none is on record.
    """
    collector = _Collector(plan, store, reasons or {}, looked or {})
    found = [result for cell in plan.cells for result in collector.checkpoints(cell)]
    whole = {(one.cell, one.step, one.evaluation) for one in found if one.budget is None}
    cut = [one for one in found if one.budget is not None and (one.cell, one.step, one.evaluation) in whole]
    return Results(
        matrix=plan.matrix,
        cells=tuple(collector.cell(cell) for cell in plan.cells),
        checkpoints=tuple(result for result in found if result.budget is None),
        provenance=_provenance(command) | {"device": collector.devices()},
        recomputed=tuple(cut),  # a curve of a result that is left out would stand for nothing
    )


class _Collector:
    def __init__(
        self, plan: Plan, store: Store, reasons: Mapping[str, str], looked: Mapping[str, Looked | None]
    ) -> None:
        self.plan = plan
        self.store = store
        self.reasons = reasons
        self.looked = looked
        self.baselines = {cell.setup: cell.name for cell in plan.cells if cell.is_baseline}
        self.damaged: dict[str, str] = {}  # by key, what is wrong with results that are left out
        self._scores: dict[str, Scores] = {}
        self._current: dict[str, bool] = {}

    def cell(self, cell: Cell) -> CellResult:
        """Everything about a cell but its samples."""
        stages = self.plan.of_cell(cell.name)
        return CellResult(
            name=cell.name,
            is_baseline=cell.is_baseline,
            axes=dict(cell.axes),
            nll=tuple(
                point for stage in stages if isinstance(stage, Train) for point in self._read(self._nll, stage) or ()
            ),
            traces=next((self._traces(stage) for stage in stages if isinstance(stage, Curate)), None),
            problems=tuple(f"{stage.name}: {self.reasons[stage.key]}" for stage in stages if stage.key in self.reasons),
            missing=tuple(self._missing(stages)),
            preflight=tuple(self._preflight(cell)),
        )

    def checkpoints(self, cell: Cell) -> Iterator[CheckpointResult]:
        """One result for every graded (checkpoint, evaluation, budget) of a cell."""
        for graded in self.plan.graded[cell.name]:
            grade, evaluation = graded.grade, graded.evaluation
            if self.store.lookup(grade) is None or not self._is_current(grade):
                continue
            stored = self._read(self._stored, grade)
            if stored is None:
                continue
            scores = self._scored(grade, stored)
            yield CheckpointResult(
                cell=cell.name,
                step=graded.step,
                evaluation=evaluation.name,
                task=evaluation.task,
                groups=evaluation.groups,
                is_baseline=cell.is_baseline,
                baseline=None if cell.is_baseline else self.baselines.get(cell.setup),
                teacher=cell.teacher.label if cell.teacher else None,
                student=cell.student.label,
                renderer=cell.renderer.label,
                trainer=cell.trainer.label if cell.trainer else None,
                filters=tuple(choice.label for choice in cell.filters),
                seed=cell.seed,
                subset=_subset(evaluation, scores),
                scores=scores,
                read=stored.read,
                samples_in=str(stored.samples.parent.relative_to(self.store.root)),
                settings=_settings(evaluation),
                grader=evaluation.grader.component,
                grading=(self.store.facts(grade) or {}).get("grading", {}),
                accepted=self._accepted(cell, evaluation),
                budget=graded.budget,
                device=self._device(graded.sample),
            )

    def _device(self, sample: Stage) -> str | None:
        device = (self.store.facts(sample) or {}).get("engine", {}).get("device")
        return None if device is None else str(device)

    def devices(self) -> dict[str, str]:
        """What the finished stages of the plan trained and sampled on, in words."""
        trained: list[str | None] = []
        for stage in self.plan.stages.values():
            if isinstance(stage, Train) and stage.kept is not None:
                about = (self.store.usable(stage) or {}).get("about", {})
                gpus = about.get("granted", {}).get("gpus")
                trained.append(None if gpus is None else f"{gpus} GPU" if gpus else "cpu")
        sampled = [self._device(stage) for stage in self.plan.stages.values() if isinstance(stage, Sample)]
        found = {"training": trained, "sampling": sampled}
        return {what: ", ".join(sorted({*filter(None, names)})) for what, names in found.items() if any(names)}

    def _is_current(self, stage: Stage) -> bool:
        """Whether a result was made from the results that its needs have now; what is not there says nothing."""
        if stage.key not in self._current:
            own = self.store.lookup(stage)
            self._current[stage.key] = own is None or all(
                self._is_current(need) and self.store.digest(need) in (None, own.inputs.get(need.key))
                for need in stage.needs
            )
        return self._current[stage.key]

    def _preflight(self, cell: Cell) -> Iterator[str]:
        """What the preflight has to say of a cell."""
        if cell.name not in self.looked:
            return
        looked = self.looked[cell.name]
        if looked is None:  # other traces, or another tokenizers, than those that were looked at
            if not cell.is_baseline:
                yield "not on record for these rows: `distillbench check` looks at them"
            return
        told = [("accepted", one) for one in merged(looked.accepted(cell.rules))]
        told += [("warning", one) for one in merged(looked.warnings(cell.rules))]
        for level, one in told:
            where = f" on {one.evaluation}" if one.evaluation else ""
            yield f"{level}{where}: {one.name}: {one.kind.summary}; {one.headline}"

    def _accepted(self, cell: Cell, evaluation: Evaluation) -> tuple[str, ...]:
        looked = self.looked.get(cell.name)
        found = looked.accepted(cell.rules) if looked else []
        return tuple(dict.fromkeys(one.name for one in found if one.evaluation in ("", evaluation.name)))

    def _read(self, read: Callable[[_S], _T], stage: _S) -> _T | None:
        """What a stage has left; None where that is damaged, which the cells that need it are told."""
        try:
            return read(stage)
        except DamagedError:
            return None

    def _file(self, stage: Stage, name: str) -> Path:
        try:
            return self.store.file(stage, name)
        except DamagedError as error:
            self.damaged[stage.key] = f"{error.path} {error.why}"
            raise

    def _damage(self, stage: Stage) -> str | None:
        """What is wrong with a stage's result, in words; None where nothing is."""
        return self.damaged.get(stage.key) or self.store.damage(stage)

    def _stored(self, grade: Grade) -> StoredSamples:
        return StoredSamples(
            verdicts=self._file(grade, VERDICTS),
            samples=self._file(grade.sample, SAMPLES),
            is_cut=grade.budget is not None,
        )

    def _scored(self, grade: Stage, stored: StoredSamples) -> Scores:
        if grade.key not in self._scores:  # cells share their baselines
            self._scores[grade.key] = stored.scores()
        return self._scores[grade.key]

    def _nll(self, stage: Stage) -> tuple[NllPoint, ...]:
        if not self.store.has(stage, METRICS):
            return ()
        lines = self._file(stage, METRICS).read_text(encoding="utf-8").splitlines()
        rows: Iterator[dict[str, Any]] = map(json.loads, lines)
        return tuple(
            NllPoint(row["step"], row.get("train_loss"), row.get("held_out_nll"), row.get("held_out_tokens"))
            for row in rows
        )

    def _traces(self, curate: Curate) -> Mapping[str, int] | None:
        facts = self.store.facts(curate)
        if facts is None:
            return None
        collected = self.store.facts(curate.traces) or {}
        return {"kept": facts["kept"], **collected.get("rejected", {}), **facts["rejected"]}

    def _missing(self, stages: list[Stage]) -> Iterator[str]:
        damaged = {stage.key: why for stage in stages if (why := self._damage(stage)) is not None}
        for stage in stages:
            if stage.key in damaged:
                what = f"{stage.name} is damaged, and what is made of it is left out"
                yield f"{what}: {damaged[stage.key]}; the next run makes it again"
        told = self.reasons.keys() | damaged.keys()
        absent = [stage for stage in stages if self.store.lookup(stage) is None and stage.key not in told]
        if absent:
            yield f"{len(absent)} of {len(stages)} stages have not run"
        old = [stage for stage in stages if isinstance(stage, Grade) and not self._is_current(stage)]
        if old:
            yield f"{len(old)} results are of inputs that changed since, and are left out; the next run renews them"
        for stage in stages:
            found = self.store.lookup(stage)
            if found is not None and found.holes:
                what, why = self._read(self._why_holes, stage) or ("read", "")
                one = f"{stage.label}: {found.holes} samples could not be {what}; the next run tries them again"
                yield f"{one} (most often: {why})" if why else one

    def _why_holes(self, stage: Stage) -> tuple[str, str]:
        """What could not be done with the samples of a stage, and the commonest reason, on one line."""
        if isinstance(stage, Grade):
            rows = iterate(self._file(stage, VERDICTS), ("outcome", "detail"))
            failed = (row["detail"] for row in rows if row["outcome"] == GRADER_ERROR)
        else:
            failed = (row["error"] for row in iterate(self._file(stage, SAMPLES), ("error",)) if row["error"])
        words = Counter(" ".join(why.split())[:_MOST_SHOWN] for why in failed).most_common(1)
        return "graded" if isinstance(stage, Grade) else "generated", words[0][0] if words else ""


def _settings(evaluation: Evaluation) -> dict[str, Any]:
    """How completions were drawn; what changed nothing is None or not there."""
    drawn = effective_sampling(evaluation.sampling)
    without = {"repetition_penalty", "presence_penalty"} - drawn.penalties.keys()
    return {name: value for name, value in asdict(drawn).items() if name not in without} | {
        "num_fewshot": evaluation.num_fewshot,
        "system": evaluation.system or None,
        "prefill": evaluation.prefill,
        "repeats": evaluation.repeats,
        "until": list(evaluation.until),
        "n_docs": evaluation.n_docs,
        "metadata": None if evaluation.metadata == "{}" else evaluation.metadata,
    }


def _subset(evaluation: Evaluation, scores: Scores) -> str:
    """Which problems were asked, in words; empty where all were."""
    named = "" if evaluation.problems is None else _named(evaluation.problems)
    if evaluation.limit is None or len(scores.names) < evaluation.limit:
        return named
    cut = f"first {evaluation.limit} problems"
    if evaluation.subset == "shuffled":
        cut = f"{evaluation.limit} problems, fixed shuffle"
    return f"{cut} of {named}" if named else cut


def _named(places: Sequence[int]) -> str:
    shown = ", ".join(map(str, places[:_MOST_NAMED]))
    more = f" and {len(places) - _MOST_NAMED} more" if len(places) > _MOST_NAMED else ""
    return f"{len(places)} named problem{'s' if len(places) > 1 else ''} ({shown}{more})"


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
