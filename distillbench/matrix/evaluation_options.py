"""The options of an evaluation, and what a task's YAML and the command line say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen

from distillbench.errors import Place
from distillbench.options import Given, Resolved, resolve_options
from distillbench.records import Every, Prefill, Sampling, Subset
from distillbench.tasks.identity import TaskSpec

#: What a student's entry may say under `sampling`.
SAMPLING_OPTIONS = (*(one.name for one in fields(Sampling)), "repeats")
#: How a token is drawn.
SAMPLING = tuple(name for name in SAMPLING_OPTIONS if name not in ("max_tokens", "stop", "seed", "repeats"))
_MOST_SEED = 2**32 - 1
#: Transformers' word for what a temperature above 0 says.
DO_SAMPLE = "do_sample"
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
        repetition_penalty: Above 1, tokens that the prompt or the completion holds already become less likely, in
            greedy decoding too; 1 changes nothing.
        presence_penalty: Taken off the logits of tokens that the completion holds already, in greedy decoding too; 0
            changes nothing.
        max_tokens: Token budget of one completion.
        stop: Strings that end a completion wherever they come, inside reasoning too.
        seed: Of sampling. Each sample's own seed is made from it, the task, the problem and the repeat.
        budgets: Smaller token budgets, ascending: the same completions are cut there and graded again.
        repeats: Completions per problem.
        prefill: What stands in the assistant's turn before the model writes: `auto` what stands there in training,
            `none` nothing, `think` an open reasoning tag.
        limit: Number of problems; null for all.
        subset: Which problems a limit keeps.
        steps: Which checkpoints are asked: `all`, `none` (the untouched student alone), `last`, `{every: 100}` (the
            steps that 100 divides), or a list of steps. The untouched student is asked always.
        problems: The problems to ask, by their ids in a report (`math500/17`) or their numbers alone (17, from 0); null
            for all. A limit counts among them.
        num_fewshot: Examples before each problem, as lm-eval draws them; null for the task's own number.
        system: What the system turn begins with, as `lm_eval --system_instruction`; a description of the task's own
            follows it.
        until: Strings that end the answer part when it is graded.
        grader: The component that grades.
        grader_options: Its options; they go over those in the task's YAML.
        metadata: What to change in the task's `metadata`, as `lm_eval --metadata` does.
    """

    benchmark: str
    temperature: Annotated[float, Ge(0)] = 0.0
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    top_k: Annotated[int, Ge(0)] = 0
    min_p: Annotated[float, Ge(0), Le(1)] = 0.0
    repetition_penalty: Annotated[float, Gt(0)] = 1.0
    presence_penalty: Annotated[float, Ge(-2), Le(2)] = 0.0
    max_tokens: Annotated[int, Ge(1)] = 512
    budgets: tuple[Annotated[int, Ge(1)], ...] = ()
    stop: tuple[Annotated[str, MinLen(1)], ...] = ()
    seed: Annotated[int, Ge(0), Le(_MOST_SEED)] = 0
    repeats: Annotated[int, Ge(1)] = 1
    prefill: Prefill = "auto"
    limit: Annotated[int, Ge(1)] | None = None
    subset: Subset = "first"
    steps: Literal["all", "none", "last"] | Every | tuple[Annotated[int, Ge(0)], ...] = "all"
    problems: tuple[str | Annotated[int, Ge(0)], ...] | None = None
    num_fewshot: Annotated[int, Ge(0)] | None = None
    system: str = ""
    until: tuple[str, ...] = ()
    grader: str = "lm_eval"
    grader_options: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses lists that ask for nothing."""
        if self.problems == ():
            raise ValueError("problems: an empty list asks nothing; leave it out to ask all")
        if self.steps == ():
            raise ValueError("steps: an empty list; `steps: none` asks the untouched student alone")


@dataclass(frozen=True)
class TaskSettings:
    """What a task YAML may say in `metadata.distillbench`.

    Attributes:
        grader: The component that grades.
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


def forced_options(limit: int | None, fast: bool) -> dict[str, Given]:
    """What the command line's `--limit` and `--fast` say; a limit outweighs `--fast`."""
    if limit is None and not fast:
        return {}
    place = Place("--fast" if limit is None else "--limit")
    subset = "shuffled" if limit is None else "first"
    return {"limit": Given(_FAST_LIMIT if limit is None else limit, place), "subset": Given(subset, place)}


def origin_of(spec: TaskSpec) -> Place:
    """How the origin of what a task's YAML says is named."""
    return Place(words=f"task {spec.path.name}")


def settings_of(spec: TaskSpec) -> Resolved:
    """What a task's YAML says in `metadata.distillbench`, as `TaskSettings`."""
    place = Place(str(spec.path), keys=("metadata", "distillbench"))
    layer = {name: Given(value, place.below(name)) for name, value in spec.settings.items()}
    return resolve_options(TaskSettings, [layer], place, "metadata.distillbench")


def grader_layer(spec: TaskSpec, settings: TaskSettings) -> dict[str, Given]:
    """What a task's YAML says of its grader's options."""
    place = Place(str(spec.path), keys=("metadata", "distillbench", "grader_options"))
    return {
        name: Given(value, origin_of(spec), place.below(name), spec.path.parent)
        for name, value in settings.grader_options.items()
    }


def task_layer(spec: TaskSpec) -> dict[str, Given]:
    """What a task's YAML says of sampling, in an evaluation's own words."""
    asked = {key: value for key, value in spec.generation_kwargs.items() if value is not None}
    named = {name: name for name in (*SAMPLING, "seed")} | dict.fromkeys(_BUDGET, "max_tokens")
    origin, place = origin_of(spec), Place(str(spec.path), keys=("generation_kwargs",))
    layer = {}
    for key, value in asked.items():
        if key in ("until", "stop"):
            layer[key] = Given([value] if isinstance(value, str) else value, origin, place.below(key))
        elif key in named:
            layer[named[key]] = Given(value, origin, place.below(key))
        elif (key, value) != ("num_beams", 1) and key != DO_SAMPLE:  # any other is a mistake: it would be ignored
            layer[key] = Given(value, place.below(key))
    if asked.get(DO_SAMPLE) is False:  # engines disagree on what a temperature means then: it is greedy
        layer["temperature"] = Given(0, origin, place.below(DO_SAMPLE))
    elif asked.get(DO_SAMPLE) is True and "temperature" not in asked:
        layer["temperature"] = Given(1, origin, place.below(DO_SAMPLE))
    for name, value in (("repeats", spec.config.get("repeats")), ("grader", spec.settings.get("grader"))):
        if value is not None:
            layer[name] = Given(value, origin, Place(str(spec.path), keys=(name,)))
    return layer


def last_given(layers: Sequence[Mapping[str, Given]], name: str) -> Given | None:
    """What the strongest of some layers says of an option; None where none says anything."""
    return next((layer[name] for layer in reversed(layers) if name in layer), None)
