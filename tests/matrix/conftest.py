"""Toy components, declared by a plugin like any other, and a writer of matrix files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from annotated_types import Gt

from distillbench.catalog import Catalog
from distillbench.hookspecs import hookimpl
from distillbench.manager import DistillbenchManager, register
from distillbench.matrix.resolve import Matrix, load_matrix
from distillbench.protocols import Component, Engine, Filter, Grader, Launcher, Renderer, Student, Teacher, Trainer
from distillbench.records import Cell


def never_called(*unused: object) -> None:
    raise AssertionError("resolving a matrix calls no such method")


def only_declared(cls: type[Component]) -> type[Component]:
    """Completes a component of which resolving a matrix needs nothing but its declaration."""
    for name in cls.lacks():
        setattr(cls, name, never_called)
    cls.__abstractmethods__ = frozenset()
    return cls


@dataclass(frozen=True)
class SyntheticOptions:
    style: Literal["concise", "verbose"] = "concise"
    n: int = 10


@only_declared
class Synthetic(Teacher[SyntheticOptions]):
    """Makes traces."""

    name = "synthetic"


@dataclass(frozen=True)
class RecordedOptions:
    path: Path
    column: str = "text"


@only_declared
class Recorded(Teacher[RecordedOptions]):
    """Reads traces from a file."""

    name = "recorded"

    def inputs(self) -> Sequence[Path]:
        return (self.options.path,)


@dataclass(frozen=True)
class TinyOptions:
    hidden: int = 96
    device: str = field(default="cpu", metadata={"key": False})


@only_declared
class Tiny(Student[TinyOptions]):
    """A small student."""

    name = "tiny"
    packages = ("pyyaml",)

    def renderer(self) -> str:
        return "qwen3"


@only_declared
class Silent(Student):
    """A student that names no renderer."""

    name = "silent"


@dataclass(frozen=True)
class Qwen3Options:
    thinking: bool = True


@only_declared
class Qwen3(Renderer[Qwen3Options]):
    """Qwen3's format."""

    name = "qwen3"


@only_declared
class Plain(Renderer):
    """No format at all."""

    name = "plain"


@only_declared
class CorrectOnly(Filter):
    """Keeps what is right."""

    name = "correct_only"


@dataclass(frozen=True)
class FitsOptions:
    max_tokens: int = 160


@only_declared
class Fits(Filter[FitsOptions]):
    """Keeps what is short."""

    name = "fits"


@dataclass(frozen=True)
class SftOptions:
    method: Literal["lora", "full"] = "lora"
    learning_rate: Annotated[float, Gt(0)] = 1e-3
    max_steps: int = 10
    rank: int | None = 16
    targets: tuple[str, ...] = ()
    packing: bool = False

    def __post_init__(self) -> None:
        if self.method == "full" and self.rank is not None:
            raise ValueError("method full has no rank")


@only_declared
class Sft(Trainer[SftOptions]):
    """Fine-tunes."""

    name = "sft"
    version = 3


@dataclass(frozen=True)
class ReplayOptions:
    epochs: int = 1


@only_declared
class Replay(Trainer[ReplayOptions]):
    """A trainer with other options."""

    name = "replay"


@only_declared
class TransformersEngine(Engine):
    """Generates slowly."""

    name = "transformers"


@dataclass(frozen=True)
class VllmOptions:
    memory: float = 0.9


@only_declared
class Vllm(Engine[VllmOptions]):
    """Generates fast."""

    name = "vllm"


@only_declared
class LmEval(Grader):
    """Grades as lm-eval does."""

    name = "lm_eval"


@dataclass(frozen=True)
class MathBoxedOptions:
    strict: bool = False
    digits: int = 6


@only_declared
class MathBoxed(Grader[MathBoxedOptions]):
    """Grades boxes."""

    name = "math_boxed"


@dataclass(frozen=True)
class LocalOptions:
    workers: int = 1


@only_declared
class Local(Launcher[LocalOptions]):
    """Runs here."""

    name = "local"


class ToyPlugin:
    """Declares the toys; `modify` is what its cell hook does."""

    kinds: ClassVar[dict[str, tuple[type[Component], ...]]] = {
        "teachers": (Synthetic, Recorded),
        "students": (Tiny, Silent),
        "renderers": (Qwen3, Plain),
        "filters": (CorrectOnly, Fits),
        "trainers": (Sft, Replay),
        "engines": (TransformersEngine, Vllm),
        "benchmarks": (LmEval, MathBoxed),
        "launchers": (Local,),
    }

    def __init__(self, task_root: Path) -> None:
        self.task_root = task_root
        self.modify: Callable[[list[Cell]], None] = lambda cells: None

    @hookimpl
    def distillbench_teachers(self) -> Iterable[type[Component]]:
        return self.kinds["teachers"]

    @hookimpl
    def distillbench_students(self) -> Iterable[type[Component]]:
        return self.kinds["students"]

    @hookimpl
    def distillbench_renderers(self) -> Iterable[type[Component]]:
        return self.kinds["renderers"]

    @hookimpl
    def distillbench_filters(self) -> Iterable[type[Component]]:
        return self.kinds["filters"]

    @hookimpl
    def distillbench_trainers(self) -> Iterable[type[Component]]:
        return self.kinds["trainers"]

    @hookimpl
    def distillbench_engines(self) -> Iterable[type[Component]]:
        return self.kinds["engines"]

    @hookimpl
    def distillbench_benchmarks(self) -> Iterable[type[Component]]:
        return self.kinds["benchmarks"]

    @hookimpl
    def distillbench_launchers(self) -> Iterable[type[Component]]:
        return self.kinds["launchers"]

    @hookimpl
    def distillbench_task_roots(self) -> Iterable[Path]:
        return (self.task_root,)

    @hookimpl
    def distillbench_modify_cells(self, cells: list[Cell]) -> None:
        self.modify(cells)


TASKS = {
    "coins.yaml": """
task: coins
generation_kwargs: {do_sample: false, temperature: 0.7, max_gen_toks: 256, until: "\\n\\n"}
metadata: {version: 1, distillbench: {grader: math_boxed, grader_options: {strict: true}, docs: 500}}
""",
    "dice.yaml": """
task: dice
repeats: 4
generation_kwargs: {do_sample: true, temperature: 0.6, top_p: 0.95, top_k: 20, min_p: 0.05, until: [STOP, END]}
""",
    "stops.yaml": "task: stops\ngeneration_kwargs: {stop: END, seed: 3, until: [A]}\n",
    "beams.yaml": "task: beams\ngeneration_kwargs: {num_beams: 4}\n",
    "hot.yaml": "task: hot\ngeneration_kwargs: {temperature: very}\n",
    "typo.yaml": "task: typo\nmetadata: {distillbench: {gradr: math_boxed}}\n",
    "nograder.yaml": "task: nograder\nmetadata: {distillbench: {grader: math_bxed}}\n",
    "broken.yaml": "task: broken\ndoc_to_text: {{question}\n",
}


@pytest.fixture(scope="session")
def task_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of toy tasks."""
    root = tmp_path_factory.mktemp("tasks")
    for name, text in TASKS.items():
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def plugin(task_root: Path) -> ToyPlugin:
    """The toy plugin, not registered yet."""
    return ToyPlugin(task_root)


@pytest.fixture
def catalog(plugin: ToyPlugin) -> Catalog:
    """What the toy plugin declares."""
    manager = DistillbenchManager()
    register(manager, plugin, "toys")
    return Catalog(manager)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes `matrix.yaml`."""

    def write_matrix(text: str) -> Path:
        path = tmp_path / "matrix.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_matrix


@pytest.fixture
def load(write: Callable[[str], Path], catalog: Catalog) -> Callable[..., Matrix]:
    """Writes and resolves a matrix."""
    return lambda text, **arguments: load_matrix(write(text), catalog, **arguments)
