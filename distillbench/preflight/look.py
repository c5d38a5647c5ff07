"""Gathers what a preflight looks at, remembers what it found, and refuses what the matrix does not accept.

Rows come from the best source there is: the kept traces; or the teacher's traces, or its preview, through the filters
that need no verdict. Findings are remembered in `<store>/preflight/`, so that a run which changes nothing costs none.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distillbench import preflight
from distillbench.bench import Bench
from distillbench.catalog import Catalog
from distillbench.errors import DamagedError, DistillbenchError, StageError
from distillbench.filtering import decided
from distillbench.findings import Finding
from distillbench.fingerprint import key_of
from distillbench.matrix.choices import package_version
from distillbench.plan.plan import Pairing
from distillbench.plan.sampling import sampling_params
from distillbench.preflight.rows import LENGTH, with_lengths
from distillbench.protocols import AskingTeacher, Context, Grader, Renderer, Student, Teacher, Trainer, TrainingRows
from distillbench.records import Evaluation, PreflightRules, Trace
from distillbench.sealed import read_sealed, write_sealed
from distillbench.store.kept import Kept, Whole
from distillbench.store.rendered import StoredTrainingRows, rendered_again
from distillbench.store.rows import ROWS
from distillbench.traces import why_unusable

#: Bumped when the checks find other things in the same rows.
VERSION = 4
#: Rows that `check` looks at, evenly spaced, and rows of a preview. Before training all rows are looked at.
_ROWS, _PREVIEW = 512, 128
#: Problems of each benchmark whose prompts are rendered.
_PROBLEMS = 8
_PACKAGES = ("transformers", "tokenizers")


#: Some traces, which may be read again and again, and may be more than memory holds.
Traces = Collection[Trace]


class PreflightError(DistillbenchError):
    """Training and evaluation do not fit together."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What a preflight found.

    Attributes:
        findings: Refused, accepted and warned of.
        n_rows: Training rows looked at; 0 for a baseline, and where there are none yet.
        source: Where the rows come from: `kept`, `traces` or `preview`, after a `no` where there are none; `unasked`
            where the teacher is still to ask for them, `unbuilt` without even a tokenizer.
        n_all: How many rows there are, of which these were chosen.
        reasoning: How completions' reasoning is told from the answer, in words; empty without even a tokenizer.
    """

    findings: tuple[Finding, ...]
    n_rows: int
    source: str
    n_all: int = 0
    reasoning: str = ""

    def refused(self, rules: PreflightRules) -> list[Finding]:
        """The findings that stop a run."""
        return [one for one in self.findings if one.kind.severity == "refused" and one.name not in rules.accept]

    def accepted(self, rules: PreflightRules) -> list[Finding]:
        """The findings that would stop a run, had the matrix not accepted them."""
        return [one for one in self.findings if one.kind.severity == "refused" and one.name in rules.accept]

    def warnings(self, rules: PreflightRules) -> list[Finding]:
        """The findings to be shown and no more."""
        return [one for one in self.findings if one.kind.severity == "warning" and one.name not in rules.accept]


class Preflight:
    """Looks at pairings of rows and prompts.

    Args:
        bench: The store, the components and the tasks.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def known(self, pairing: Pairing) -> Looked | None:
        """What is remembered of a pairing; None when it has not been looked at since something changed."""
        key = self.key(pairing)
        try:
            found = read_sealed(self._path(key), key)
        except (FileNotFoundError, DamagedError):
            return None
        return Looked(tuple(Finding(**one) for one in found.pop("findings")), **found)

    def look(self, pairing: Pairing) -> Looked:
        """Looks at a pairing, unless it is remembered.

        Raises:
            StageError: The student's tokenizer cannot be loaded.
            TaskError: A benchmark cannot be loaded.
        """
        if (known := self.known(pairing)) is not None:
            return known
        renderer = self.renderer(pairing)
        if renderer is None:
            asked = [self._asked(evaluation) for evaluation in pairing.evaluations]
            return Looked(tuple(preflight.check_unbuilt(asked)), 0, "unbuilt")
        source, _ = self._source(pairing)
        traces: Traces = () if pairing.trainer is None else self.traces(pairing, renderer, _PREVIEW)
        some = preflight.sample_evenly(traces, _ROWS)
        return self._look_at(pairing, renderer, some, source if traces else self._none(pairing, source), len(traces))

    def _none(self, pairing: Pairing, source: str) -> str:
        """What there is instead of rows."""
        teacher = None if pairing.teacher is None else self.bench.catalog.build(pairing.teacher)
        return "unasked" if source == "preview" and isinstance(teacher, AskingTeacher) else f"no {source}"

    def look_at_all(self, pairing: Pairing, renderer: Renderer) -> Looked:
        """Looks at every row that was rendered for a training, and remembers what is found.

        Args:
            pairing: What it is about; its rows are there.
            renderer: With the student's tokenizer.
        """
        if pairing.rows is None or pairing.kept is None or pairing.traces is None:
            raise ValueError("a training has rows")
        kept = Kept(self.bench.store, pairing.traces, pairing.kept)
        return self._look_at(pairing, renderer, kept, "kept", rows=self.bench.store.file(pairing.rows, ROWS))

    def _look_at(
        self,
        pairing: Pairing,
        renderer: Renderer,
        traces: Traces,
        source: str,
        n_all: int | None = None,
        rows: Path | None = None,
    ) -> Looked:
        """Looks at given traces and their rows, and remembers what is found.

        Args:
            pairing: What it is about.
            renderer: With the student's tokenizer.
            traces: What the rows are made of.
            source: Where these come from.
            n_all: How many lie there; None for these.
            rows: Where the rows are; None where they are not made yet.
        """
        trained = None
        if pairing.trainer is not None and traces:
            trainer: Trainer = self.bench.catalog.build(pairing.trainer)
            made = None if rows is None else rendered_again(rows)
            trained = preflight.Trained(traces, source == "kept", trainer, pairing.rules.max_cut, made)
        asked = [self._asked(evaluation) for evaluation in pairing.evaluations]
        found = tuple(preflight.check(renderer, asked, trained))
        looked = Looked(found, len(traces), source, len(traces) if n_all is None else n_all, renderer.reasoning_told())
        if traces or pairing.trainer is None:
            self._remember(pairing, looked)
        return looked

    def renderer(self, pairing: Pairing) -> Renderer | None:
        """The renderer with the student's tokenizer; None while that is to be had only from a built student."""
        student: Student = self.bench.catalog.build(pairing.student)
        component: Renderer = self.bench.catalog.build(pairing.renderer)
        if not component.needs_tokenizer:
            return component
        built = self.bench.built(pairing.built)
        tokenizer = (
            student.preview_tokenizer() if built is None or not built.exists() else student.load_tokenizer(built)
        )
        return None if tokenizer is None else component.bind(tokenizer)

    def trained_rows(self, pairing: Pairing) -> TrainingRows | None:
        """The rows that a training reads; None while they are not rendered."""
        if pairing.rows is None or self.bench.store.digest(pairing.rows) is None:
            return None
        return StoredTrainingRows(self.bench.store.file(pairing.rows, ROWS))

    def traces(self, pairing: Pairing, renderer: Renderer, limit: int) -> Traces:
        """The best rows there are.

        Args:
            pairing: Whose teacher and filters.
            renderer: Bound; for filters that render.
            limit: How many to ask of a teacher that has not run.
        """
        source, _ = self._source(pairing)
        if source == "kept" and pairing.kept is not None and pairing.traces is not None:
            return Kept(self.bench.store, pairing.traces, pairing.kept)
        if source == "traces" and pairing.traces is not None:
            some = preflight.sample_evenly(Whole(self.bench.store, pairing.traces), _ROWS)
            return self._filtered(pairing, renderer, some)
        return self._filtered(pairing, renderer, self._preview(pairing, limit))

    def _preview(self, pairing: Pairing, limit: int) -> Sequence[Trace]:
        if pairing.teacher is None:
            raise ValueError("a training has a teacher")
        teacher: Teacher = self.bench.catalog.build(pairing.teacher)
        with tempfile.TemporaryDirectory() as folder, self.bench.catalog.blaming(pairing.teacher):
            needed = self.bench.catalog.needed(pairing.teacher)
            context = Context(work=Path(folder), tasks=self.bench.tasks, components=needed)
            found = list(teacher.preview(context, limit))
        return [trace for trace in found if why_unusable(trace) is None]

    def _filtered(self, pairing: Pairing, renderer: Renderer, traces: Sequence[Trace]) -> list[Trace]:
        """What is left of some traces, as far as it can be told before anything has run."""
        kept = list(traces)
        with tempfile.TemporaryDirectory() as folder:
            context = Context(work=Path(folder), tasks=self.bench.tasks)
            for choice in pairing.filters:
                reads = self.bench.catalog.build(choice).reads
                if reads <= {LENGTH} and not choice.components:  # what it needs may have to be paid
                    known = with_lengths(kept, renderer) if reads else kept
                    reasons = decided(choice, self.bench.catalog, known, context)
                    kept = [trace for trace, why in zip(kept, reasons, strict=True) if why is None]
        return kept

    def _asked(self, evaluation: Evaluation) -> preflight.Asked:
        if evaluation.problems is None:
            problems = self.bench.tasks.problems(evaluation.ref, "test", _PROBLEMS)
        else:
            problems = self.bench.tasks.evaluation_problems(evaluation)[:_PROBLEMS]
        grader = self.bench.grader(evaluation.grader, evaluation.ref)
        return preflight.Asked(evaluation, grader, problems, self._of_problems(evaluation, grader))

    def _of_problems(self, evaluation: Evaluation, grader: Grader) -> list[tuple[str, str]]:
        """What is wrong with the problems of an evaluation, whoever answers them; remembered for every pairing."""
        facts = [sampling_params(evaluation), evaluation.grade_identity, evaluation.grader.identity]
        key = key_of({"version": VERSION, "problems": facts})
        try:
            return [(name, text) for name, text in read_sealed(self._path(key), key)["findings"]]
        except (FileNotFoundError, DamagedError):
            problems = self.bench.tasks.evaluation_problems(evaluation)
        with self.bench.catalog.blaming(evaluation.grader):
            found = preflight.check_problems(grader, problems, evaluation.task_path)
        self._write(key, {"findings": found})
        return found

    def _source(self, pairing: Pairing) -> tuple[str, str | None]:
        """Where rows come from, and the digest of what lies there."""
        for source, stage in (("kept", pairing.kept), ("traces", pairing.traces)):
            if stage is not None and (digest := self.bench.store.digest(stage)) is not None:
                return source, digest
        return "preview", None

    def key(self, pairing: Pairing) -> str:
        """The name under which findings are remembered: pairings of one name are one and the same to a preflight."""
        return key_of({**compared(pairing, self.bench.catalog), "source": self._source(pairing)})

    def _path(self, key: str) -> Path:
        return self.bench.store.root / "preflight" / f"{key}.json"

    def _remember(self, pairing: Pairing, looked: Looked) -> None:
        self._write(self.key(pairing), asdict(looked))

    def _write(self, key: str, found: Mapping[str, Any]) -> None:
        self.bench.store.preflight()
        write_sealed(self._path(key), found, key)


def compared(pairing: Pairing, catalog: Catalog) -> dict[str, object]:
    """Everything that decides what a preflight finds in a pairing, but for what lies in the store, as plain values."""
    teacher = pairing.teacher if pairing.traces is None else None  # otherwise the traces say all of it
    choices = (pairing.student, pairing.renderer, teacher, *pairing.filters)
    return {
        "version": VERSION,
        "needs": [one and one.key for one in (pairing.built, pairing.traces, pairing.kept, pairing.rows)],
        "choices": [choice and choice.identity for choice in choices],
        "trainer": _trainer_facts(pairing, catalog),
        "max_cut": pairing.rules.max_cut,
        "evaluations": [
            [one.name, sampling_params(one), one.grade_identity, one.grader.identity, one.findings]
            for one in pairing.evaluations
        ],
        "packages": {name: package_version(name) for name in _PACKAGES},
    }


def _trainer_facts(pairing: Pairing, catalog: Catalog) -> list[object] | None:
    """What of a trainer matters here, so that a sweep over learning rates is looked at once."""
    if pairing.trainer is None:
        return None
    trainer: Trainer = catalog.build(pairing.trainer)
    return [trainer.name, trainer.version, trainer.max_length(), trainer.masks_pad_token]


def refuse_mismatch(pairings: Iterable[Pairing], bench: Bench, renderer: Renderer) -> None:
    """Looks at all rows of a training, once they are rendered.

    Raises:
        StageError: They do not fit what some evaluation will ask.
    """
    look = Preflight(bench)
    for pairing in pairings:
        looked = look.look_at_all(pairing, renderer)
        if refused := looked.refused(pairing.rules):
            raise StageError("the preflight refuses this training\n" + "\n".join(map(described, merged(refused))))


def merged(findings: Sequence[Finding]) -> list[Finding]:
    """The findings with those put together that differ in their evaluation alone."""
    evaluations: dict[Finding, list[str]] = {}
    for one in findings:
        evaluations.setdefault(replace(one, evaluation=""), []).append(one.evaluation)
    return [replace(one, evaluation=", ".join(filter(None, names))) for one, names in evaluations.items()]


def described(finding: Finding) -> str:
    """A finding in full: what, both token sequences, what to do."""
    where = f" ({finding.evaluation})" if finding.evaluation else ""
    lines = [*finding.text.splitlines(), *finding.shown.splitlines(), f"do: {finding.kind.advice}"]
    return "\n".join([f"    {finding.name}{where}: {finding.kind.summary}", *(f"        {line}" for line in lines)])
