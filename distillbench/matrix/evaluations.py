"""Resolves evaluations: an lm-eval task with everything that decides what is sampled and how it is graded.

An option comes from, weakest first: distillbench's default, the task's YAML, the matrix's `defaults`, what the
student's entry says of sampling, the evaluation's entry, an axis, the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from distillbench.errors import DEFAULT, Mistake, Place, TaskError, nearest
from distillbench.fingerprint import canonical_json
from distillbench.matrix.choices import Choices, Layers, Picks
from distillbench.matrix.evaluation_mistakes import budget_mistake, do_sample_mistake, scoring_mistake
from distillbench.matrix.evaluation_options import (
    DO_SAMPLE,
    SAMPLING_OPTIONS,
    EvaluationOptions,
    TaskSettings,
    grader_layer,
    last_given,
    origin_of,
    settings_of,
    task_layer,
)
from distillbench.matrix.expand import Combination
from distillbench.matrix.members import Member, members_of
from distillbench.matrix.problems import places_of
from distillbench.matrix.sections import Entry
from distillbench.options import Given, Resolved, fields_of, resolve_options
from distillbench.records import Choice, Evaluation, Sampling, TaskRef
from distillbench.tasks.groups import TaskGroup, find_group
from distillbench.tasks.identity import OUTPUT_TYPES, TaskIndex, TaskSpec


@dataclass(frozen=True, slots=True)
class Suite:
    """The evaluations of a cell.

    Attributes:
        evaluations: All that no mistake is in the way of.
        identity: Of all of them.
        is_whole: Whether a mistake is in the way of none.
    """

    evaluations: tuple[Evaluation, ...]
    identity: str
    is_whole: bool


class Evaluations:
    """Resolves the evaluations, once for each set of axis values that reach them.

    Args:
        choices: Resolves the graders; it has the sections, the axes and the list of mistakes.
        tasks: The tasks; None when it is not known where they are.
        forced: What the command line says.
    """

    def __init__(self, choices: Choices, tasks: TaskIndex | None, forced: Mapping[str, Given]) -> None:
        self.choices = choices
        self.entries = choices.sections.entries["evaluation"]
        self.axes = choices.axes
        self.tasks = tasks
        self.forced = forced
        self.mistakes = choices.mistakes
        self._suites: dict[tuple[Picks, str | None], Suite] = {}
        self._found: dict[TaskRef, TaskSpec | str] = {}
        self._groups: dict[str, TaskGroup | None] = {}

    def of(self, combination: Combination) -> Suite:
        """The evaluations of a combination."""
        student = self._sampled_student(combination)
        key = (self.axes.picks(combination, "evaluation"), student.label if student else None)
        if key not in self._suites:
            of_student = student.sampling if student else {}
            found = [self._of_entry(entry, combination, of_student) for entry in self.entries.values()]
            whole = tuple(evaluation for several in found if several for evaluation in several)
            identity = canonical_json([_identity(evaluation) for evaluation in whole])
            self._suites[key] = Suite(whole, identity, all(found))
        return self._suites[key]

    def _sampled_student(self, combination: Combination) -> Entry | None:
        """The entry of the combination's student, where it says how to sample."""
        entry = self.choices.sections.entries["student"].get(combination.values.get("student", ""))
        return entry if entry and entry.sampling else None

    def check(self) -> None:
        """Notes what is wrong whatever the combination."""
        document, sections = self.axes.document, self.choices.sections
        if not self.entries and "evaluation" not in sections.broken:
            self.mistakes.append(Mistake(document.place("evaluations"), "at least one evaluation", "none"))
        if not self._suites:  # mistakes elsewhere left no combination
            self.of(Combination({}, {}))
        known = fields_of(EvaluationOptions)
        for entry in sections.entries["student"].values():
            self._check_sampling(entry)
        for name, given in sections.defaults["evaluation"].items():
            if name == DO_SAMPLE and not self.entries:
                self.mistakes.append(do_sample_mistake(given, None))
            elif name not in known and name != DO_SAMPLE:  # which each evaluation tells of
                hint = nearest(name, known)
                self.mistakes.append(Mistake(given.place, "an option of an evaluation", repr(name), hint))
        for key, target in self.axes.targets.items():
            if target.kind == "evaluation" and target.name is not None and target.name not in self.entries:
                place = document.place(*self.axes.first_place(key))
                wanted, hint = "the name of an evaluation", nearest(target.name, self.entries)
                self.mistakes.append(Mistake(place, wanted, repr(target.name), hint))

    def _check_sampling(self, student: Entry) -> None:
        """Notes what is wrong in a student's `sampling`, whether a cell uses that student or not."""
        owner = f"the sampling of student {student.label!r}"
        for name, given in student.sampling.items():
            if name not in (*SAMPLING_OPTIONS, DO_SAMPLE):
                hint = nearest(name, SAMPLING_OPTIONS)
                self.mistakes.append(Mistake(given.place, f"an option of {owner}", repr(name), hint))
        layers = [{"benchmark": Given("any", DEFAULT)}, _without_do_sample(_known_sampling(student.sampling))]
        self.mistakes.extend(resolve_options(EvaluationOptions, layers, student.place, owner).mistakes)
        self._refuse_do_sample([student.sampling])

    def _refuse_do_sample(self, written: Layers) -> None:
        """Notes every `do_sample` in the matrix: engines disagree on what it means beside a temperature."""
        temperature = last_given(written, "temperature")
        self.mistakes.extend(
            do_sample_mistake(layer[DO_SAMPLE], temperature) for layer in written if DO_SAMPLE in layer
        )

    def _of_entry(
        self, entry: Entry, combination: Combination, of_student: Mapping[str, Given]
    ) -> list[Evaluation] | None:
        """The evaluation that an entry is, or those of the tasks in a group; None when a mistake is in the way."""
        known = {*fields_of(EvaluationOptions), DO_SAMPLE}
        defaults = self.choices.sections.defaults["evaluation"]
        picks = self.axes.picks(combination, "evaluation", entry.label)
        written: list[Mapping[str, Given]] = [
            {name: given for name, given in defaults.items() if name in known},
            _without_do_sample(_known_sampling(of_student)),  # `check` tells of that one
            entry.options,
            self.axes.layer(combination, picks),
            self.forced,
        ]
        self._refuse_do_sample(written)
        benchmark = last_given(written, "benchmark") or Given(entry.label, DEFAULT, entry.place)
        group = self._group(benchmark)
        members = [Member(entry.label, benchmark)]
        if group is not None:
            members = members_of(group, entry.label, benchmark, last_given(written, "problems"), self.mistakes)
        found = []
        for member in members:
            evaluation = self._evaluation(entry, written, member)
            if evaluation is None:  # what is wrong with one task of a group is most often wrong with all
                return None
            found.append(evaluation)
        return found or None

    def _group(self, benchmark: Given) -> TaskGroup | None:
        """The group or tag that an entry names, where no task has the name."""
        name = benchmark.value
        if self.tasks is None or not isinstance(name, str) or not isinstance(self._find(TaskRef(name)), str):
            return None
        if name not in self._groups:
            try:
                self._groups[name] = find_group(name, self.tasks)
            except TaskError as error:
                self._groups[name], self._found[TaskRef(name)] = None, str(error)
        return self._groups[name]

    def _evaluation(self, entry: Entry, as_written: Layers, member: Member) -> Evaluation | None:
        written = [*map(_without_do_sample, as_written), member.options]
        benchmark = member.benchmark
        metadata = last_given(written, "metadata") or Given({}, DEFAULT)
        spec = self._task(benchmark, metadata)
        settings = self._settings(spec) if spec else None
        layers = [{"benchmark": benchmark}, task_layer(spec) if spec else {}, *written]
        resolved = resolve_options(EvaluationOptions, layers, entry.place, f"evaluation {entry.label!r}")
        self.mistakes.extend(resolved.mistakes)
        if spec is None or settings is None or resolved.mistakes or any(DO_SAMPLE in layer for layer in as_written):
            return None
        mistake = budget_mistake(resolved.options, spec, layers)
        if mistake := mistake or scoring_mistake(resolved.options, spec, layers, entry):
            self.mistakes.append(mistake)
            return None
        problems = self._problems(resolved.options, settings, spec, layers)
        grader = self._grader(resolved.options, settings, spec, layers)
        if grader is None or isinstance(problems, Mistake):
            return None
        made = _record(member.label, spec, settings, resolved, grader, problems)
        return replace(made, groups=member.groups, place=entry.place)

    def _problems(
        self, options: EvaluationOptions, settings: TaskSettings, spec: TaskSpec, layers: Layers
    ) -> tuple[int, ...] | Mistake | None:
        """The places of the problems that an evaluation names, or what is wrong with them, which is noted."""
        given = last_given(layers, "problems")
        if given is None or options.problems is None:
            return None
        n_docs = None if options.metadata else settings.docs  # which may leave some out
        found = places_of(options.problems, spec.name, n_docs, given.place)
        if isinstance(found, Mistake):
            self.mistakes.append(found)
        return found

    def _task(self, benchmark: Given, metadata: Given) -> TaskSpec | None:
        name = benchmark.value
        if self.tasks is None or not isinstance(name, str):
            return None
        found = self._find(TaskRef(name))
        if isinstance(found, str):
            wanted = "`benchmark:` and the name of a task that can be read"
            self.mistakes.append(Mistake(benchmark.place, wanted, found))
            return None
        if found.output_type not in OUTPUT_TYPES:
            wanted = f"a task with `output_type` {', '.join(f'`{word}`' for word in OUTPUT_TYPES)}"
            hint = "a rolling log-likelihood scores whole documents: no answer is right or wrong"
            hint = hint if found.output_type == "loglikelihood_rolling" else ""
            self.mistakes.append(
                Mistake(benchmark.place, wanted, f"{name} ({found.path}), with {found.output_type!r}", hint)
            )
            return None
        changed = self._find(TaskRef(name, _as_json(metadata.value)))
        if isinstance(changed, str):
            self.mistakes.append(Mistake(metadata.place, "metadata that the task takes", changed))
            return None
        return changed

    def _find(self, ref: TaskRef) -> TaskSpec | str:
        """The task, or what is wrong with it."""
        if self.tasks is not None and ref not in self._found:
            try:
                self._found[ref] = self.tasks.find(ref)
            except TaskError as error:
                self._found[ref] = str(error)
        return self._found[ref]

    def _settings(self, spec: TaskSpec) -> TaskSettings | None:
        resolved = settings_of(spec)
        self.mistakes.extend(resolved.mistakes)
        settings: TaskSettings | None = resolved.options
        return settings

    def _grader(
        self, options: EvaluationOptions, settings: TaskSettings, spec: TaskSpec, layers: Layers
    ) -> Choice | None:
        """The grader; the task's options for it count only where it is the grader that the task names."""
        named = last_given(layers, "grader") or Given(options.grader, origin_of(spec), Place(str(spec.path)))
        known = self.choices.catalog.kind("benchmark")
        if options.grader not in known:
            hint = nearest(options.grader, known)
            self.mistakes.append(Mistake(named.place, "a registered grader", repr(options.grader), hint))
            return None
        from_matrix = last_given(layers, "grader_options") or Given({}, DEFAULT)
        from_task = grader_layer(spec, settings) if options.grader == settings.grader else {}
        grader_layers = [from_task, _split(from_matrix)]
        return self.choices.make("benchmark", options.grader, options.grader, grader_layers, named.place)


def _as_json(metadata: Any) -> str:
    """Metadata as canonical JSON; what is no mapping of finite values is a mistake that is told elsewhere."""
    try:
        return canonical_json(metadata) if isinstance(metadata, Mapping) else "{}"
    except ValueError:
        return "{}"


def _split(given: Given) -> dict[str, Given]:
    """A mapping's values, each with its own place."""
    return {
        name: Given(value, given.origin.below(name), given.place.below(name), given.folder)
        for name, value in given.value.items()
    }


def _record(
    name: str,
    spec: TaskSpec,
    settings: TaskSettings,
    resolved: Resolved,
    grader: Choice,
    problems: tuple[int, ...] | None,
) -> Evaluation:
    options: EvaluationOptions = resolved.options
    is_generated = spec.output_type == "generate_until"
    said = {option: getattr(options, option) for option in Evaluation.options()} | {
        "problems": problems,
        "num_fewshot": None if options.num_fewshot == spec.num_fewshot else options.num_fewshot,
        "until": options.until if is_generated else (),
        "metadata": canonical_json(options.metadata),
    }
    return Evaluation(
        **said,
        name=name,
        task=spec.name,
        task_path=spec.path,
        sampling=_sampling(options) if is_generated else Sampling(max_tokens=1),
        sample_identity=spec.sample_identity,
        grade_identity=spec.grade_identity,
        n_docs=None if options.metadata else settings.docs,  # which may leave some out
        grader=grader,
        origins=_origins(resolved),
        findings=_findings(spec, resolved),
        output_type=spec.output_type,
    )


def _sampling(options: EvaluationOptions) -> Sampling:
    return Sampling(**{one.name: getattr(options, one.name) for one in fields(Sampling)})


def _findings(spec: TaskSpec, resolved: Resolved) -> tuple[tuple[str, str], ...]:
    """What a preflight is to tell of how the task's YAML was read."""
    asked = spec.generation_kwargs
    temperature = asked.get("temperature")
    if asked.get(DO_SAMPLE) is not False or not temperature or resolved.origins["temperature"] != origin_of(spec):
        return spec.findings
    text = f"{spec.path}: generation_kwargs has `do_sample: false` and `temperature: {temperature}`; sampled greedily"
    return (*spec.findings, ("greedy_with_temperature", text))


def _origins(resolved: Resolved) -> dict[str, Place]:
    """Where each option came from, and which of them decide nothing."""
    idle = Sampling.random - {"temperature"} if resolved.options.temperature == 0 else ()
    return {
        name: Place(words=f"{origin} (no effect at temperature 0)") if name in idle and origin != DEFAULT else origin
        for name, origin in resolved.origins.items()
    }


def _known_sampling(sampling: Mapping[str, Given]) -> dict[str, Given]:
    return {name: given for name, given in sampling.items() if name in (*SAMPLING_OPTIONS, DO_SAMPLE)}


def _without_do_sample(layer: Mapping[str, Given]) -> dict[str, Given]:
    return {name: given for name, given in layer.items() if name != DO_SAMPLE}


def _identity(evaluation: Evaluation) -> list[Any]:
    identities = (evaluation.sample_identity, evaluation.grade_identity, evaluation.grader.identity)
    return [evaluation.name, *identities, evaluation.settings]
