"""Fixtures for the tests of plugins. pytest finds them by itself wherever distillbench is installed.

A test of a whole run, in a store of its own:

    def test_short_traces_are_kept(run_matrix):
        report = run_matrix('''
            teachers: {concise: {use: synthetic, n: 8}}
            students: {tiny: {use: tiny-qwen3, steps: 2}}
            filters: {short: {use: my-short}}
            trainers: {lora: {use: sft, max_steps: 2, batch_size: 2, holdout: 0}}
            evaluations: {coins: {limit: 2, max_tokens: 8}}
        ''')
        assert report.exit_code == 0, report.failures()
        assert report.row(cell="lora", step=2)["n"] == 2

pytest loads this module in every environment that has distillbench, so it imports nothing else at its top.
"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from distillbench.manager import DistillbenchManager
    from distillbench.protocols import Renderer, Student
    from distillbench.session import Experiment, Report

#: Pretraining of `tiny_student`: enough for sensible outputs, some problems right and some wrong.
TINY_STEPS = 100


@dataclass(frozen=True)
class TinyStudent:
    """The built-in `tiny-qwen3`, made ready as an engine and a trainer are given it.

    Attributes:
        student: The component.
        built: The folder that its `build` made.
        tokenizer: Loaded from there.
        renderer: The student's own, bound to the tokenizer.
    """

    student: Student
    built: Path
    tokenizer: Any
    renderer: Renderer


@dataclass(frozen=True)
class Ran:
    """What one command line left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON; fails when anything else was printed there."""
        return json.loads(self.out)


@pytest.fixture
def toy_store(tmp_path: Path) -> Path:
    """The folder of a store of this test's own; made when something is first written."""
    return tmp_path / "store"


@pytest.fixture
def plugin_manager() -> Callable[..., DistillbenchManager]:
    """Makes a manager: `plugin_manager(my_module)` has all that is installed, and this module or object.

    Nobody else knows of it: processes that a run starts see only what is installed (`install_plugin`).
    """

    def make(*plugins: Any) -> DistillbenchManager:
        from distillbench.manager import make_manager, register

        manager = make_manager()
        for number, plugin in enumerate(plugins):
            if not manager.is_registered(plugin):
                register(manager, plugin, getattr(plugin, "__name__", f"plugin-{number}"))
        return manager

    return make


@pytest.fixture
def write_matrix(tmp_path: Path) -> Callable[..., Path]:
    """Writes a matrix, a text or a mapping, into this test's folder: `write_matrix(TEXT, name="matrix.yaml")`.

    Files that a matrix names are looked for beside it: put them into `tmp_path`.
    """

    def write(matrix: str | Mapping[str, Any], name: str = "matrix.yaml") -> Path:
        import yaml

        text = textwrap.dedent(matrix) if isinstance(matrix, str) else yaml.safe_dump(dict(matrix), sort_keys=False)
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def load_matrix(toy_store: Path, write_matrix: Callable[..., Path]) -> Callable[..., Experiment]:
    """Loads a matrix, a text, a mapping or the path of a file, to `plan()` or `check()` it; options as `Session.load`.

    A mistake in it is a `MatrixError`, which `pytest.raises` can look at.
    """

    def load(matrix: str | Mapping[str, Any] | Path, **options: Any) -> Experiment:
        from distillbench.session import Session

        return Session(toy_store).load(matrix if isinstance(matrix, Path) else write_matrix(matrix), **options)

    return load


@pytest.fixture
def run_matrix(load_matrix: Callable[..., Experiment]) -> Callable[..., Report]:
    """Loads, checks and runs a matrix in this test's own store, and returns its report; arguments as `load_matrix`.

    What the check refuses is a `PreflightError`. A stage that fails does not raise: `report.exit_code` is 1, and
    `report.failures()` says why. Running the same matrix again reuses what is done.
    """

    def run(matrix: str | Mapping[str, Any] | Path, **options: Any) -> Report:
        return load_matrix(matrix, **options).run()

    return run


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], toy_store: Path) -> Callable[..., Ran]:
    """Runs a command line in this process, on this test's own store: `cli("plan", path).code`."""

    def run(*arguments: str | Path, store: Path | None = None) -> Ran:
        from distillbench.cli.main import invoke

        capfd.readouterr()
        code = invoke(["--store", str(store or toy_store), *map(str, arguments)])
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory: pytest.TempPathFactory) -> TinyStudent:
    """The built-in tiny student, pretrained once a session (some 20 seconds): what trainers and engines are given."""
    base = tmp_path_factory.getbasetemp()  # the workers of pytest-xdist have the folder above it together
    return built_student(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


def built_student(base: Path) -> TinyStudent:
    """Pretrains the tiny student in a folder, unless it is there; several processes may ask at once."""
    from filelock import FileLock

    from distillbench.catalog import Catalog
    from distillbench.manager import make_manager
    from distillbench.protocols import Context

    catalog = Catalog(make_manager())
    tiny: Any = catalog.kind("student")["tiny-qwen3"]
    built, student = base / "tiny-student", tiny(tiny.Options(steps=TINY_STEPS))
    with FileLock(f"{built}.lock"):
        if not built.exists():
            partial = base / "tiny-student-partial"
            partial.mkdir(exist_ok=True)
            student.build(partial, Context(work=base))
            partial.rename(built)
    tokenizer = student.load_tokenizer(built)
    renderer: Any = catalog.kind("renderer")[student.renderer()]
    return TinyStudent(student, built, tokenizer, renderer(renderer.Options()).bind(tokenizer))


@pytest.fixture(scope="session")
def install_plugin() -> Callable[..., Path]:
    """Lays a distribution with entry points into a folder: `install_plugin(folder, distribution, modules, entries)`.

    With `monkeypatch.syspath_prepend(folder)` this process and those that a run starts find it.
    """
    return lay_plugin


def lay_plugin(folder: Path, distribution: str, modules: Mapping[str, str], entries: Mapping[str, str]) -> Path:
    """Lays a distribution with entry points into a folder, as `pip install --target` would.

    Args:
        folder: Goes on `sys.path` or PYTHONPATH.
        distribution: Its name.
        modules: Source by module name.
        entries: Of the group `distillbench`: plugin names and what they load.

    Returns:
        The folder.
    """
    about = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    lines = [f"{name} = {target}" for name, target in entries.items()]
    (about / "entry_points.txt").write_text("\n".join(["[distillbench]", *lines]) + "\n")
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    return folder
