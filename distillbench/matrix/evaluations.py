"""Resolves evaluations: an lm-eval task with everything that decides what is sampled and how it is graded.

An option comes from, weakest first: distillbench's default, the task's YAML, the matrix's `defaults`, the entry, an
axis, the command line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le

from distillbench.errors import Mistake, TaskError, nearest
from distillbench.fingerprint import canonical_json
from distillbench.matrix.choices import Choices, Layers, Picks
from distillbench.matrix.expand import Combination
from distillbench.matrix.sections import Entry
from distillbench.options import Given, Resolved, fields_of, resolve_options
from distillbench.records import Choice, Evaluation, Prefill, Sampling, Subset, TaskRef
from distillbench.tasks.identity import TaskIndex, TaskSpec

_SAMPLING = ("temperature", "top_p", "top_k", "min_p")
#: lm-eval's names for the token budget.
_BUDGET = ("max_gen_toks", "max_new_tokens")
_FAST_LIMIT = 100


@dataclass(frozen=True)
class EvaluationOptions:
    """The options of an evaluation in a matrix.

    Attributes:
        benchmark: An lm-eval task's name; the evaluation's own name where none is given.
        temperature: 0 is greedy.
        top_p: Nucleus mass; 1 keeps everything.
        top_k: Number of candidates; 0 keeps everything.
        min_p: Least probability relative to the best candidate's; 0 keeps everything.
        max_tokens: Token budget of one completion.
        repeats: Completions per problem.
        prefill: What stands in the assistant's turn before the model writes: `auto` what stands there in training,
            `none` nothing, `think` an open reasoning tag.
        limit: Number of problems; null for all.
        subset: Which problems a limit keeps.
        until: Strings that end the answer part.
        grader: The benchmark component that grades.
        grader_options: Its options; they go over those in the task's YAML.
        metadata: What to change in the task's `metadata`, as `lm_eval --metadata` does.
    """

    benchmark: str
    temperature: Annotated[float, Ge(0)] = 0.0
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    top_k: Annotated[int, Ge(0)] = 0
    min_p: Annotated[float, Ge(0), Le(1)] = 0.0
    max_tokens: Annotated[int, Ge(1)] = 512
    repeats: Annotated[int, Ge(1)] = 1
    prefill: Prefill = "auto"
    limit: Annotated[int, Ge(1)] | None = None
    subset: Subset = "first"
    until: tuple[str, ...] = ()
    grader: str = "lm_eval"
    grader_options: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskSettings:
    """What a task YAML may say in `metadata.distillbench`.

    Attributes:
        grader: The benchmark component that grades.
        grader_options: Its options.
        docs: How many problems the task has.
        grading_columns: Columns that only the grader reads; they are not stored with the samples.
        licence: The data's licence, for people.
    """

    grader: str = "lm_eval"
    grader_options: Mapping[str, Any] = field(default_factory=dict)
    docs: Annotated[int, Ge(1)] | None = None
    grading_columns: tuple[str, ...] = ()
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Suite:
    """The evaluations of a cell, with the identity of all of them."""

    evaluations: tuple[Evaluation, ...]
    identity: str


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
        self._suites: dict[Picks, Suite | None] = {}
        self._found: dict[TaskRef, TaskSpec | str] = {}

    def of(self, combination: Combination) -> Suite | None:
        """The evaluations of a combination; None when a mistake is in the way."""
        picks = self.axes.picks(combination, "evaluation")
        if picks not in self._suites:
            found = [self._evaluation(entry, combination) for entry in self.entries.values()]
            whole = tuple(evaluation for evaluation in found if evaluation)
            suite = Suite(whole, canonical_json([_identity(evaluation) for evaluation in whole]))
            self._suites[picks] = suite if len(whole) == len(found) else None
        return self._suites[picks]

    def check(self) -> None:
        """Notes what is wrong whatever the combination."""
        document, sections = self.axes.document, self.choices.sections
        if not self.entries and "evaluation" not in sections.broken:
            self.mistakes.append(Mistake(document.where("evaluations"), "at least one evaluation", "none"))
        if not self._suites:  # mistakes elsewhere left no combination
            self.of(Combination({}, {}))
        known = fields_of(EvaluationOptions)
        for name, given in sections.defaults["evaluation"].items():
            if name not in known:
                hint = nearest(name, known)
                self.mistakes.append(Mistake(given.place, "an option of an evaluation", repr(name), hint))
        for key, target in self.axes.targets.items():
            if target.kind == "evaluation" and target.name is not None and target.name not in self.entries:
                where = document.where(*self.axes.first_place(key))
                wanted, hint = "the name of an evaluation", nearest(target.name, self.entries)
                self.mistakes.append(Mistake(where, wanted, repr(target.name), hint))

    def _evaluation(self, entry: Entry, combination: Combination) -> Evaluation | None:
        known = fields_of(EvaluationOptions)
        defaults = self.choices.sections.defaults["evaluation"]
        picks = self.axes.picks(combination, "evaluation", entry.label)
        written: list[Mapping[str, Given]] = [
            {name: given for name, given in defaults.items() if name in known},
            entry.options,
            self.axes.layer(combination, picks),
            self.forced,
        ]
        benchmark = _last(written, "benchmark") or Given(entry.label, "default", entry.where)
        metadata = _last(written, "metadata") or Given({}, "default")
        spec = self._task(benchmark, metadata)
        settings = self._settings(spec) if spec else None
        layers = [{"benchmark": benchmark}, _task_layer(spec) if spec else {}, *written]
        resolved = resolve_options(EvaluationOptions, layers, entry.where, f"evaluation {entry.label!r}")
        self.mistakes.extend(resolved.mistakes)
        if spec is None or settings is None or resolved.mistakes:
            return None
        grader = self._grader(resolved.options, settings, spec, layers)
        return _record(entry.label, spec, settings, resolved, grader) if grader else None

    def _task(self, benchmark: Given, metadata: Given) -> TaskSpec | None:
        name = benchmark.value
        if self.tasks is None or not isinstance(name, str):
            return None
        found = self._find(TaskRef(name))
        if isinstance(found, str):
            wanted = "`benchmark:` and the name of a task that can be read"
            self.mistakes.append(Mistake(benchmark.place, wanted, found))
            return None
        if found.output_type != "generate_until":
            wanted = "a task with `output_type: generate_until`"
            self.mistakes.append(Mistake(benchmark.place, wanted, f"{name}, with {found.output_type!r}"))
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
        place = f"{spec.path}: metadata.distillbench"
        layer = {name: Given(value, f"{place}.{name}") for name, value in spec.settings.items()}
        resolved = resolve_options(TaskSettings, [layer], place, "metadata.distillbench")
        self.mistakes.extend(resolved.mistakes)
        settings: TaskSettings | None = resolved.options
        return settings

    def _grader(
        self, options: EvaluationOptions, settings: TaskSettings, spec: TaskSpec, layers: Layers
    ) -> Choice | None:
        """The grader; the task's options for it count only where it is the grader that the task names."""
        named = _last(layers, "grader") or Given(options.grader, f"task {spec.path.name}", str(spec.path))
        known = self.choices.catalog.kind("benchmark")
        if options.grader not in known:
            hint = nearest(options.grader, known)
            self.mistakes.append(Mistake(named.place, "a registered grader", repr(options.grader), hint))
            return None
        place = f"{spec.path}: metadata.distillbench.grader_options"
        from_task = Given(settings.grader_options, f"task {spec.path.name}", place, spec.path.parent)
        from_matrix = _last(layers, "grader_options") or Given({}, "default")
        grader_layers = [
            _split(from_task, from_task.origin) if options.grader == settings.grader else {},
            _split(from_matrix),
        ]
        return self.choices.make("benchmark", options.grader, options.grader, grader_layers, named.place)


def _as_json(metadata: Any) -> str:
    """Metadata as canonical JSON; what is no mapping of finite values is a mistake that is told elsewhere."""
    try:
        return canonical_json(metadata) if isinstance(metadata, Mapping) else "{}"
    except ValueError:
        return "{}"


def _split(given: Given, origin: str = "") -> dict[str, Given]:
    """A mapping's values, each with its own place."""
    return {
        name: Given(value, origin or f"{given.origin}.{name}", f"{given.place}.{name}", given.folder)
        for name, value in given.value.items()
    }


def _record(name: str, spec: TaskSpec, settings: TaskSettings, resolved: Resolved, grader: Choice) -> Evaluation:
    options: EvaluationOptions = resolved.options
    return Evaluation(
        name=name,
        task=spec.name,
        task_path=spec.path,
        sampling=Sampling(options.temperature, options.top_p, options.top_k, options.min_p, options.max_tokens),
        prefill=options.prefill,
        repeats=options.repeats,
        limit=options.limit,
        subset=options.subset,
        until=options.until,
        sample_identity=spec.sample_identity,
        grade_identity=spec.grade_identity,
        n_docs=None if options.metadata else settings.docs,  # which may leave some out
        grader=grader,
        origins=resolved.origins,
        metadata=canonical_json(options.metadata),
    )


def forced_options(limit: int | None, fast: bool) -> dict[str, Given]:
    """What the command line's `--limit` and `--fast` say; a limit outweighs `--fast`."""
    forced = {}
    if fast:
        forced = {"limit": Given(_FAST_LIMIT, "--fast"), "subset": Given("shuffled", "--fast")}
    if limit is not None:
        forced = {"limit": Given(limit, "--limit"), "subset": Given("first", "--limit")}
    return forced


def _task_layer(spec: TaskSpec) -> dict[str, Given]:
    """What a task's YAML says of sampling, in an evaluation's own words."""
    asked = {key: value for key, value in spec.generation_kwargs.items() if value is not None}
    named = {name: name for name in _SAMPLING} | dict.fromkeys(_BUDGET, "max_tokens")
    origin, place = f"task {spec.path.name}", f"{spec.path}: generation_kwargs"
    layer = {}
    for key, value in asked.items():
        if key == "until":
            layer["until"] = Given([value] if isinstance(value, str) else value, origin, f"{place}.{key}")
        elif key in named:
            layer[named[key]] = Given(value, origin, f"{place}.{key}")
        elif (key, value) != ("num_beams", 1) and key != "do_sample":  # any other is a mistake: it would be ignored
            layer[key] = Given(value, f"{place}.{key}")
    if asked.get("do_sample") is False:  # engines disagree on what a temperature means then: it is greedy
        layer["temperature"] = Given(0, origin, f"{place}.do_sample")
    elif asked.get("do_sample") is True and "temperature" not in asked:
        layer["temperature"] = Given(1, origin, f"{place}.do_sample")
    for name, value in (("repeats", spec.config.get("repeats")), ("grader", spec.settings.get("grader"))):
        if value is not None:
            layer[name] = Given(value, origin, f"{spec.path}: {name}")
    return layer


def _last(layers: Sequence[Mapping[str, Given]], name: str) -> Given | None:
    return next((layer[name] for layer in reversed(layers) if name in layer), None)


def _identity(evaluation: Evaluation) -> list[Any]:
    return [
        evaluation.name,
        evaluation.sample_identity,
        evaluation.grade_identity,
        evaluation.sampling,
        evaluation.prefill,
        evaluation.repeats,
        evaluation.limit,
        evaluation.subset,
        evaluation.until,
        evaluation.grader.identity,
    ]
