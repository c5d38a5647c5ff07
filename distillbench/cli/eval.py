"""`distillbench eval`: a model, and checkpoints of it, on benchmarks, without any training matrix.

The command writes itself a matrix, keeps it in the report's folder, and runs it as `distillbench run` would.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from distillbench.cli.in_options import MATRIX_FILE, in_options
from distillbench.cli.invocation import FAST, JSON, LIMIT, UNSAFE, Invocation
from distillbench.cli.limits import check_limits
from distillbench.cli.unavailable import by_benchmark
from distillbench.errors import DistillbenchError, MatrixError, Place
from distillbench.fingerprint import expanded, key_of
from distillbench.hookspecs import hookimpl
from distillbench.matrix.chosen import engine_of, preset_of, renderer_of
from distillbench.matrix.model_files import other_bases, read_model
from distillbench.options import Given
from distillbench.protocols import Student, Trainer
from distillbench.session import Experiment
from distillbench.tasks.identity import TaskIndex

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "max_tokens", "repeats", "prefill")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says; None and nothing where it does not."""

    model: str
    adapters: tuple[Path, ...]
    benchmarks: tuple[str, ...]
    renderer: str | None
    engine: str | None
    dtype: str | None
    name: str | None
    task_paths: tuple[Path, ...]
    evaluation: Mapping[str, Any]
    axes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Decided:
    """The matrix that was made, and what was decided on the way.

    Attributes:
        matrix: The plain data of the file.
        lines: What to tell the user: subjects and what was decided about them.
        missing: The benchmarks that cannot be had, and why.
    """

    matrix: dict[str, Any]
    lines: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


@click.command("eval", short_help="Evaluate a model and checkpoints that are there already.")
@click.option("--model", required=True, metavar="PATH_OR_ID", help="A folder with a model, or its Hub id.")
@click.option(
    "--adapters",
    "--checkpoints",
    "adapters",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A LoRA adapter or a full checkpoint of the model, or a folder of several. May be repeated.",
)
@click.option(
    "--benchmarks",
    required=True,
    multiple=True,
    metavar="NAMES",
    help="Names of lm-eval tasks, with commas between them. May be repeated.",
)
@LIMIT
@FAST
@click.option("--renderer", metavar="NAME", help="How prompts are written. Default: found from the model's files.")
@click.option(
    "--engine", metavar="NAME", help="What generates. Default: vllm where it is installed, else transformers."
)
@click.option("--dtype", metavar="NAME", help="The number format. Default: the model's own.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="Token budget of one completion.")
@click.option("--temperature", type=float, metavar="T", help="0 is greedy.")
@click.option("--top-p", type=float, metavar="P", help="Nucleus mass.")
@click.option("--top-k", type=int, metavar="K", help="Number of candidates; 0 keeps everything.")
@click.option("--min-p", type=float, metavar="P", help="Least probability relative to the best candidate's.")
@click.option("--repeats", type=click.IntRange(min=1), metavar="K", help="Completions per problem.")
@click.option("--prefill", metavar="WORD", help="What stands in the assistant's turn: auto, none or think.")
@click.option("--name", metavar="NAME", help="The report's name. Default: made from the model and what is asked.")
@click.option(
    "--task-path",
    "task_paths",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A folder of task YAML. May be repeated.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any other option, as an axis of a matrix: engine.gpu_memory=0.5, evaluation.seed=1. May be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@UNSAFE
@JSON
@click.pass_context
def evaluate(context: click.Context, /, dry_run: bool, unsafe_code_execution: bool, as_json: bool, **given: Any) -> int:
    """Evaluate a model, and checkpoints of it, on benchmarks, and report.

    Everything goes through one engine: the untouched model and each checkpoint on each benchmark. The same command goes
    on where it was interrupted. What was decided (renderer, number format, engine) is printed, and kept as a matrix in
    the report's folder: change it and go on with `distillbench run`.
    """
    from distillbench.cli.run import allow_unsafe_code, run_loaded

    session: Invocation = context.obj
    allow_unsafe_code(unsafe_code_execution)
    check_limits()
    loaded, decided = prepare(session, _asked(given), is_kept=not dry_run)
    if session.verbosity >= 0:
        for subject, text in decided.lines.items():
            click.echo(f"{subject:<12}{text}", err=True)
    _tell_missing(session, decided.missing)
    if dry_run:
        from distillbench.cli.plan import print_plan

        print_plan(loaded, session, as_json=as_json, show_all=False)
        return 1 if decided.missing else 0
    command, is_paid = f"distillbench eval --model {given['model']}", "api" in decided.matrix["engines"]
    code = run_loaded(session, loaded, command, as_json, look_beside=not is_paid, spares_others=True)
    _tell_missing(session, decided.missing)
    return code or (1 if decided.missing else 0)


def _tell_missing(session: Invocation, missing: Mapping[str, str]) -> None:
    """Says which benchmarks are not evaluated; quiet runs too, because something that was asked is not done."""
    from distillbench.session.running import not_evaluated

    for name, why in missing.items():
        session.tell(not_evaluated(name, why))


def prepare(session: Invocation, asked: Asked, is_kept: bool = True) -> tuple[Experiment, Decided]:
    """Makes the matrix and reads it as a file.

    Args:
        session: Whose store and plugins.
        asked: What the command line says.
        is_kept: Whether the matrix is written into the report's folder.

    Raises:
        DistillbenchError: There is no such model.
        MatrixError: Anything else in the command line is wrong, in the words of its options.
        StoreError: A matrix of the user's has a report of this name.
    """
    from distillbench.session.reporting import claim_report

    decided = decide(session, asked)
    loaded, decided = _loaded(session, decided)
    kept = session.store.root / "reports" / loaded.matrix.name / MATRIX_FILE
    if is_kept:
        claim_report(session, loaded.matrix.name, kept)
        session.store.reports(loaded.matrix.name)
        kept.write_text(_as_yaml(decided.matrix), encoding="utf-8")
    preset = [text for subject, text in loaded.matrix.chosen.items() if subject.startswith("student ")]
    lines = (
        decided.lines
        | ({"preset": preset[0]} if preset else {})
        | dict(_about_checkpoints(loaded))
        | {"matrix": str(kept)}
    )
    return replace(loaded, matrix=replace(loaded.matrix, path=kept)), replace(decided, lines=lines)


def _loaded(session: Invocation, decided: Decided) -> tuple[Experiment, Decided]:
    """Reads and plans the matrix; benchmarks that cannot be had are taken out of it, as long as another is left.

    Raises:
        MatrixError: Anything else is wrong, in the words of the command line's options.
    """
    tasks = TaskIndex([*map(Path, decided.matrix.get("task_paths", ())), *session.catalog.task_roots])
    while True:
        try:
            return _read(session, decided.matrix), decided
        except MatrixError as error:
            asked = decided.matrix["evaluations"]
            found = by_benchmark(error.mistakes, asked, tasks)
            left = {name: options for name, options in asked.items() if not found or name not in found}
            if not found or not left:
                raise in_options(error) from error
            why = {name: "; ".join(mistake.got for mistake in found[name]) for name in found}
            decided = replace(decided, matrix=decided.matrix | {"evaluations": left}, missing=decided.missing | why)


def _read(session: Invocation, matrix: Mapping[str, Any]) -> Experiment:
    with tempfile.TemporaryDirectory() as folder:  # what is wrong leaves no trace in the store
        path = Path(folder) / MATRIX_FILE
        path.write_text(_as_yaml(matrix), encoding="utf-8")
        loaded = session.load(path)
    loaded.make_plan()
    return loaded


def decide(session: Invocation, asked: Asked) -> Decided:
    """Chooses what the command line leaves open, and makes the matrix.

    Raises:
        DistillbenchError: There is no such model, or two checkpoints would have one name.
    """
    lines: dict[str, str] = {}
    if asked.engine == "api" and asked.renderer is None and not expanded(asked.model).is_dir():
        renderers: dict[str, Any] = {}
        student = {"use": "hosted", "model": asked.model}
        lines["model"] = f"{asked.model}, at a server"
    else:
        renderers, student = _of_files(session, asked, lines)
    engine, lines["engine"] = (asked.engine, asked.engine) if asked.engine else _engine(session, student)
    if others := [f"{folder} was trained on {base}" for folder, base in other_bases(asked.model, asked.adapters)]:
        lines["note"] = f"by their own account: {'; '.join(others)}"
    label = _label(asked.model.rstrip("/").rpartition("/")[2])
    matrix: dict[str, Any] = {
        "name": asked.name,
        "task_paths": [str(path.resolve()) for path in asked.task_paths],
        "students": {label: student},
        "renderers": renderers,
        "trainers": {name: {"use": "existing", "path": str(path)} for name, path in _named(asked.adapters).items()},
        "engines": {engine: {}},
        "defaults": {"evaluation": dict(asked.evaluation)} if asked.evaluation else {},
        "evaluations": {name: {} for name in asked.benchmarks},
        "matrix": dict(asked.axes),
    }
    matrix["name"] = asked.name or f"eval-{label[:60]}-{key_of(matrix)[:8]}"
    return Decided({key: value for key, value in matrix.items() if value}, lines)


def _of_files(session: Invocation, asked: Asked, lines: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The renderers and the student of a model whose files can be read."""
    files = read_model(asked.model)
    dtype, gpus = asked.dtype or files.dtype, _gpus(session)
    lines["model"] = f"{files.name}, {dtype}, on {f'{gpus} GPU' if gpus else 'the CPU'}"
    student = {"use": "hf", "model": files.name, "dtype": dtype, "gpus": gpus}
    if asked.renderer:
        renderers: dict[str, Any] = {asked.renderer: {}}
        lines["renderer"] = asked.renderer
    elif preset := _preset(session, files.name):
        renderers, lines["renderer"] = {}, f"that of {preset}, a model that is known by its Hub id"
    else:
        chosen = renderer_of(files, session.catalog)
        renderers, lines["renderer"] = {chosen.name: dict(chosen.options)}, str(chosen)
    return renderers, student


def _preset(session: Invocation, model: str) -> str:
    """The student that a Hub id is known as; empty where it is none."""
    cls = session.catalog.kind("student").get("hf")
    return preset_of(cls, {"model": Given(model, Place("--model"))}, session.catalog)[0] if cls else ""


def _engine(session: Invocation, student: Mapping[str, Any]) -> tuple[str, str]:
    """The engine that a student of the matrix gets, by its name and in words."""
    cls: Any = session.catalog.kind("student").get(student["use"])
    if cls is None:  # a blocked plugin: what reads the matrix says so
        return "transformers", "transformers"
    built: Student = cls(cls.Options(**{name: value for name, value in student.items() if name != "use"}))
    chosen = engine_of(built, session.catalog)
    return chosen.name, str(chosen)


def _gpus(session: Invocation) -> int:
    """1 where this machine has a GPU that may be used."""
    cls = session.catalog.kind("launcher").get("local")
    local: Any = cls(cls.Options()) if cls else None
    return min(1, local.capacity().gpus) if local else 0


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    """The folders by the names that their cells get: their own, with their parent's where two share one.

    Raises:
        DistillbenchError: Two have one name all the same.
    """
    paths = [path.resolve() for path in dict.fromkeys(folders)]
    own = [path.name for path in paths]
    found: dict[str, Path] = {}
    for path in paths:
        name = _label(path.name if own.count(path.name) == 1 else f"{path.parent.name}-{path.name}")
        if name in found:
            both = f"--adapters {found[name]} and {path} would both be named {name!r}"
            raise DistillbenchError(f"{both}\n    hint: rename a folder, or give one of them by a link of another name")
        found[name] = path
    return found


def _label(text: str) -> str:
    """A text as a name in a matrix."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:100] or "model"


def _as_yaml(matrix: Mapping[str, Any]) -> str:
    import yaml

    head = "# Written by `distillbench eval`. Go on from it: distillbench run THIS_FILE\n"
    return head + yaml.safe_dump(dict(matrix), sort_keys=False, allow_unicode=True, width=1000)


def _about_checkpoints(loaded: Experiment) -> Iterator[tuple[str, str]]:
    """What was found of checkpoints, in words."""
    found = []
    for cell in loaded.cells:
        if cell.trainer is not None:
            trainer: Trainer = loaded.session.catalog.build(cell.trainer)
            steps = ", ".join(map(str, trainer.checkpoint_steps(None) or ()))
            found.append(f"{cell.name} (step {steps})")
    if found:
        yield "checkpoints", "; ".join(found)
    asked = loaded.cells[0].evaluations
    yield "asked of", ", ".join(dict.fromkeys(one.groups[0].group if one.groups else one.task for one in asked))


def _asked(given: Mapping[str, Any]) -> Asked:
    """The command line's words, put in order.

    Raises:
        UsageError: Some do not go together.
    """
    from distillbench.matrix.evaluation_options import forced_options

    if given["limit"] is not None and given["fast"]:
        raise click.UsageError("--limit and --fast exclude each other")
    axes = dict(map(_assigned, given["assignments"]))
    twice = sorted({"evaluation.limit", "evaluation.subset"} & axes.keys())
    if twice and (given["limit"] is not None or given["fast"]):
        raise click.UsageError(f"--set {twice[0]} and --limit or --fast exclude each other")
    named = (part.strip() for names in given["benchmarks"] for part in names.split(","))
    benchmarks = tuple(dict.fromkeys(part for part in named if part))
    if not benchmarks:
        raise click.UsageError("--benchmarks: wanted names of tasks, got none")
    for name in _SAMPLING:
        _check_finite(f"--{name.replace('_', '-')}", given[name])
    forced = {name: one.value for name, one in forced_options(given["limit"], given["fast"]).items()}
    return Asked(
        benchmarks=benchmarks,
        evaluation=forced | {name: given[name] for name in _SAMPLING if given[name] is not None},
        axes=axes,
        **{name: given[name] for name in ("model", "adapters", "renderer", "engine", "dtype", "name", "task_paths")},
    )


def _assigned(text: str) -> tuple[str, Any]:
    """KEY=VALUE as an axis of a matrix, which has one value.

    Raises:
        UsageError: It is something else.
    """
    import yaml

    key, found, value = text.partition("=")
    if not found or "." not in key:
        raise click.UsageError(f"--set: wanted KEY=VALUE such as engine.gpu_memory=0.5, got {text!r}")
    try:
        read = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise click.UsageError(f"--set {key}: wanted a value as YAML has it, got {value!r}") from error
    _check_finite(f"--set {key}", read)
    return key.strip(), [read]


def _check_finite(where: str, value: Any) -> None:
    """Refuses numbers that no file of results could hold.

    Raises:
        UsageError: It is one, or holds one.
    """
    try:
        json.dumps(value, allow_nan=False, default=str)
    except ValueError as error:
        raise click.UsageError(f"{where}: wanted a finite number, got {value}") from error


@hookimpl
def distillbench_add_commands(group: click.Group) -> None:
    """Adds `eval`."""
    group.add_command(evaluate)
