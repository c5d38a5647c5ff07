"""Resolves evaluations: an lm-eval task with everything that decides what is sampled and how it is graded.

An option comes from, weakest first: distillbench's default, the task's YAML, the matrix's `defaults`, what the
student's entry says of sampling, the evaluation's entry, an axis, the command line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, MinLen

from distillbench.errors import Mistake, TaskError, nearest
from distillbench.fingerprint import canonical_json
from distillbench.matrix.choices import Choices, Layers, Picks
from distillbench.matrix.expand import Combination
from distillbench.matrix.sections import Entry
from distillbench.options import Given, Resolved, fields_of, resolve_options
from distillbench.records import Choice, Evaluation, Prefill, Sampling, Subset, TaskRef
from distillbench.tasks.identity import OUTPUT_TYPES, TaskIndex, TaskSpec

_SAMPLING = ("temperature", "top_p", "top_k", "min_p")
#: What a student's entry may say under `sampling`.
SAMPLING_OPTIONS = (*_SAMPLING, "max_tokens", "stop", "seed", "repeats")
_MOST_SEED = 2**32 - 1
#: Transformers' word for what a temperature above 0 says.
_DO_SAMPLE = "do_sample"
#: lm-eval's names for the token budget.
_BUDGET = ("max_gen_toks", "max_new_tokens")
_FAST_LIMIT = 100
#: What means something only where a completion is drawn.
_DRAWN = {*_SAMPLING, "max_tokens", "stop", "seed", "until"}
#: The one grader that reads log-likelihoods.
_SCORING_GRADER = "lm_eval"


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
        stop: Strings that end a completion wherever they come, inside reasoning too.
        seed: Of sampling. Each sample's own seed is made from it, the task, the problem and the repeat.
        budgets: Smaller token budgets, ascending: the same completions are cut there and graded again.
        repeats: Completions per problem.
        prefill: What stands in the assistant's turn before the model writes: `auto` what stands there in training,
            `none` nothing, `think` an open reasoning tag.
        limit: Number of problems; null for all.
        subset: Which problems a limit keeps.
        until: Strings that end the answer part when it is graded.
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
    budgets: tuple[Annotated[int, Ge(1)], ...] = ()
    stop: tuple[Annotated[str, MinLen(1)], ...] = ()
    seed: Annotated[int, Ge(0), Le(_MOST_SEED)] = 0
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
        self._suites: dict[tuple[Picks, str | None], Suite | None] = {}
        self._found: dict[TaskRef, TaskSpec | str] = {}

    def of(self, combination: Combination) -> Suite | None:
        """The evaluations of a combination; None when a mistake is in the way."""
        student = self._sampled_student(combination)
        key = (self.axes.picks(combination, "evaluation"), student.label if student else None)
        if key not in self._suites:
            of_student = student.sampling if student else {}
            found = [self._evaluation(entry, combination, of_student) for entry in self.entries.values()]
            whole = tuple(evaluation for evaluation in found if evaluation)
            suite = Suite(whole, canonical_json([_identity(evaluation) for evaluation in whole]))
            self._suites[key] = suite if len(whole) == len(found) else None
        return self._suites[key]

    def _sampled_student(self, combination: Combination) -> Entry | None:
        """The entry of the combination's student, where it says how to sample."""
        entry = self.choices.sections.entries["student"].get(combination.values.get("student", ""))
        return entry if entry and entry.sampling else None

    def check(self) -> None:
        """Notes what is wrong whatever the combination."""
        document, sections = self.axes.document, self.choices.sections
        if not self.entries and "evaluation" not in sections.broken:
            self.mistakes.append(Mistake(document.where("evaluations"), "at least one evaluation", "none"))
        if not self._suites:  # mistakes elsewhere left no combination
            self.of(Combination({}, {}))
        known = fields_of(EvaluationOptions)
        for entry in sections.entries["student"].values():
            self._check_sampling(entry)
        for name, given in sections.defaults["evaluation"].items():
            if name == _DO_SAMPLE and not self.entries:
                self.mistakes.append(_do_sample_mistake(given, None))
            elif name not in known and name != _DO_SAMPLE:  # which each evaluation tells of
                hint = nearest(name, known)
                self.mistakes.append(Mistake(given.place, "an option of an evaluation", repr(name), hint))
        for key, target in self.axes.targets.items():
            if target.kind == "evaluation" and target.name is not None and target.name not in self.entries:
                where = document.where(*self.axes.first_place(key))
                wanted, hint = "the name of an evaluation", nearest(target.name, self.entries)
                self.mistakes.append(Mistake(where, wanted, repr(target.name), hint))

    def _check_sampling(self, student: Entry) -> None:
        """Notes what is wrong in a student's `sampling`, whether a cell uses that student or not."""
        owner = f"the sampling of student {student.label!r}"
        for name, given in student.sampling.items():
            if name not in (*SAMPLING_OPTIONS, _DO_SAMPLE):
                hint = nearest(name, SAMPLING_OPTIONS)
                self.mistakes.append(Mistake(given.place, f"an option of {owner}", repr(name), hint))
        layers = [{"benchmark": Given("any", "default")}, _without_do_sample(_known_sampling(student.sampling))]
        self.mistakes.extend(resolve_options(EvaluationOptions, layers, student.where, owner).mistakes)
        self._refuse_do_sample([student.sampling])

    def _refuse_do_sample(self, written: Layers) -> None:
        """Notes every `do_sample` in the matrix: engines disagree on what it means beside a temperature."""
        temperature = _last(written, "temperature")
        self.mistakes.extend(
            _do_sample_mistake(layer[_DO_SAMPLE], temperature) for layer in written if _DO_SAMPLE in layer
        )

    def _evaluation(self, entry: Entry, combination: Combination, of_student: Mapping[str, Given]) -> Evaluation | None:
        known = {*fields_of(EvaluationOptions), _DO_SAMPLE}
        defaults = self.choices.sections.defaults["evaluation"]
        picks = self.axes.picks(combination, "evaluation", entry.label)
        as_written: list[Mapping[str, Given]] = [
            {name: given for name, given in defaults.items() if name in known},
            _without_do_sample(_known_sampling(of_student)),  # `check` tells of that one
            entry.options,
            self.axes.layer(combination, picks),
            self.forced,
        ]
        self._refuse_do_sample(as_written)
        written = [_without_do_sample(layer) for layer in as_written]
        benchmark = _last(written, "benchmark") or Given(entry.label, "default", entry.where)
        metadata = _last(written, "metadata") or Given({}, "default")
        spec = self._task(benchmark, metadata)
        settings = self._settings(spec) if spec else None
        layers = [{"benchmark": benchmark}, _task_layer(spec) if spec else {}, *written]
        resolved = resolve_options(EvaluationOptions, layers, entry.where, f"evaluation {entry.label!r}")
        self.mistakes.extend(resolved.mistakes)
        if spec is None or settings is None or resolved.mistakes or any(_DO_SAMPLE in layer for layer in as_written):
            return None
        mistake = _budget_mistake(resolved.options, spec, layers)
        if mistake := mistake or _scoring_mistake(resolved.options, spec, layers, entry):
            self.mistakes.append(mistake)
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
        if found.output_type not in OUTPUT_TYPES:
            wanted = f"a task with `output_type` {', '.join(f'`{word}`' for word in OUTPUT_TYPES)}"
            hint = "a rolling log-likelihood scores whole documents: no answer is right or wrong"
            hint = hint if found.output_type == "loglikelihood_rolling" else ""
            self.mistakes.append(Mistake(benchmark.place, wanted, f"{name}, with {found.output_type!r}", hint))
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
    is_generated = spec.output_type == "generate_until"
    return Evaluation(
        name=name,
        task=spec.name,
        task_path=spec.path,
        sampling=_sampling(options) if is_generated else Sampling(max_tokens=1),
        prefill=options.prefill,
        repeats=options.repeats,
        limit=options.limit,
        subset=options.subset,
        until=options.until if is_generated else (),
        sample_identity=spec.sample_identity,
        grade_identity=spec.grade_identity,
        n_docs=None if options.metadata else settings.docs,  # which may leave some out
        grader=grader,
        origins=_origins(resolved),
        metadata=canonical_json(options.metadata),
        findings=_findings(spec, resolved),
        budgets=options.budgets,
        output_type=spec.output_type,
    )


def _sampling(options: EvaluationOptions) -> Sampling:
    return Sampling(
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        min_p=options.min_p,
        max_tokens=options.max_tokens,
        stop=options.stop,
        seed=options.seed,
    )


def _findings(spec: TaskSpec, resolved: Resolved) -> tuple[tuple[str, str], ...]:
    """What a preflight is to tell of how the task's YAML was read."""
    asked = spec.generation_kwargs
    temperature = asked.get("temperature")
    if asked.get(_DO_SAMPLE) is not False or not temperature or resolved.origins["temperature"] != _origin(spec):
        return ()
    text = f"{spec.path}: generation_kwargs has `do_sample: false` and `temperature: {temperature}`; sampled greedily"
    return (("greedy_with_temperature", text),)


def _origins(resolved: Resolved) -> dict[str, str]:
    """Where each option came from, and which of them decide nothing."""
    idle = ("top_p", "top_k", "min_p", "seed") if resolved.options.temperature == 0 else ()
    return {
        name: f"{origin} (no effect at temperature 0)" if name in idle and origin != "default" else origin
        for name, origin in resolved.origins.items()
    }


def _origin(spec: TaskSpec) -> str:
    return f"task {spec.path.name}"


def _known_sampling(sampling: Mapping[str, Given]) -> dict[str, Given]:
    return {name: given for name, given in sampling.items() if name in (*SAMPLING_OPTIONS, _DO_SAMPLE)}


def _without_do_sample(layer: Mapping[str, Given]) -> dict[str, Given]:
    return {name: given for name, given in layer.items() if name != _DO_SAMPLE}


def _budget_mistake(options: EvaluationOptions, spec: TaskSpec, layers: Layers) -> Mistake | None:
    """What is wrong with the budgets at which completions are cut."""
    given, most = _last(layers, "budgets"), _last(layers, "max_tokens")
    if given is None or not options.budgets:
        return None
    got = repr(list(options.budgets))
    if spec.output_type != "generate_until":
        return Mistake(given.place, "no `budgets` where nothing is generated", f"{got} with {spec.output_type!r}")
    if list(options.budgets) != sorted(set(options.budgets)):
        hint = f"write {sorted(set(options.budgets))}"
        return Mistake(given.place, "each budget once, the smallest first", got, hint)
    if options.budgets[-1] >= options.max_tokens:
        where = f" ({most.place})" if most else " (the default)"
        hint = "max_tokens is the budget of the generation itself and is always reported; name smaller ones"
        return Mistake(given.place, f"budgets below max_tokens {options.max_tokens}{where}", got, hint)
    return None


def _scoring_mistake(options: EvaluationOptions, spec: TaskSpec, layers: Layers, entry: Entry) -> Mistake | None:
    """What an evaluation asks for in vain, because its task has given continuations scored and nothing generated.

    What only the defaults or the student say of sampling is meant for other evaluations, and passed over.
    """
    if spec.output_type == "generate_until":
        return None
    task = f"task {spec.name!r} ({spec.output_type})"
    repeats, grader = _last(layers, "repeats"), _last(layers, "grader")
    if repeats is not None and options.repeats > 1:
        hint = "log-likelihoods of given continuations are the same each time; write `repeats: 1` in this evaluation"
        return Mistake(repeats.place, f"one repeat of {task}", repr(options.repeats), hint)
    if grader is not None and options.grader != _SCORING_GRADER:
        hint = "leave `grader` out; other graders read text, and here are only log-likelihoods"
        return Mistake(grader.place, f"`grader: {_SCORING_GRADER}` for {task}", repr(options.grader), hint)
    for name in sorted(entry.options.keys() & _DRAWN):
        given, hint = entry.options[name], "leave it out: nothing is drawn, and no text is made"
        return Mistake(given.place, f"no `{name}` for {task}", repr(given.value), hint)
    return None


def _do_sample_mistake(given: Given, temperature: Given | None) -> Mistake:
    """`do_sample` in a matrix: greedy or not is for the temperature to say, in one place."""
    wanted = "`temperature`, which alone says whether to sample"
    got = f"{_DO_SAMPLE}: {str(given.value).lower() if isinstance(given.value, bool) else repr(given.value)}"
    warm = temperature.value if temperature and temperature.value else None
    if given.value is not False:
        return Mistake(given.place, wanted, got, "leave it out; `temperature: 0` is greedy, any above 0 samples")
    if warm is None or temperature is None:
        return Mistake(given.place, wanted, got, "leave it out; `temperature: 0` is greedy")
    got += f" with temperature {warm} ({temperature.place})"
    return Mistake(given.place, wanted, got, f"`temperature: 0` is greedy; leave do_sample out to sample at {warm}")


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
    named = {name: name for name in (*_SAMPLING, "seed")} | dict.fromkeys(_BUDGET, "max_tokens")
    origin, place = _origin(spec), f"{spec.path}: generation_kwargs"
    layer = {}
    for key, value in asked.items():
        if key in ("until", "stop"):
            layer[key] = Given([value] if isinstance(value, str) else value, origin, f"{place}.{key}")
        elif key in named:
            layer[named[key]] = Given(value, origin, f"{place}.{key}")
        elif (key, value) != ("num_beams", 1) and key != _DO_SAMPLE:  # any other is a mistake: it would be ignored
            layer[key] = Given(value, f"{place}.{key}")
    if asked.get(_DO_SAMPLE) is False:  # engines disagree on what a temperature means then: it is greedy
        layer["temperature"] = Given(0, origin, f"{place}.do_sample")
    elif asked.get(_DO_SAMPLE) is True and "temperature" not in asked:
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
        evaluation.budgets,
        evaluation.grader.identity,
    ]
