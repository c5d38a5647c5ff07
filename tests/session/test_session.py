"""The one door: what a notebook does, without the command line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from core_bench import Control

from distillbench.errors import DistillbenchError, MatrixError
from distillbench.session import Session
from distillbench.stages import planner

Matrix = Callable[..., Path]


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The matrices that plans were made of."""
    made: list[str] = []
    build = planner.build_plan

    def counted(matrix: str, *rest: Any, **more: Any) -> Any:
        made.append(matrix)
        return build(matrix, *rest, **more)

    monkeypatch.setattr(planner, "build_plan", counted)
    yield made


@pytest.fixture
def session(toys: Path, control: Control, toy_store: Path) -> Session:
    return Session(toy_store)


def test_from_a_matrix_to_frames_of_its_results(session: Session, matrix: Matrix) -> None:
    experiment = session.load(matrix())
    assert {one.level for one in experiment.check()} == {"ok", "not looked at"}
    assert len(experiment.plan().pending()) == 12
    report = experiment.run()
    assert report.exit_code == 0 and (report.folder / "report.md").is_file()
    frame = report.to_pandas()
    assert list(frame["cell"]) == ["base-small", "wise", "wise"] and list(frame["n"]) == [6, 6, 6]
    assert {"accuracy", "accuracy_low", "accuracy_high", "difference"} <= set(frame.columns)
    assert experiment.plan().pending() == []
    assert [row["accuracy"] for row in experiment.report().rows()] == list(frame["accuracy"])


def test_a_run_plans_once_and_once_more_for_each_growth(session: Session, matrix: Matrix, plans: list[str]) -> None:
    session.load(matrix()).run()
    assert plans == ["toys"]
    del plans[:]
    session.load(matrix({"trainers": {"fit": {"steps": []}}, "teachers": {"wise": {"n": 6}}})).run()
    assert plans == ["toys"] * 2
    del plans[:]
    session.load(matrix()).report()
    assert plans == ["toys"]


def test_what_is_wrong_is_an_error_and_never_an_exit(session: Session, matrix: Matrix) -> None:
    with pytest.raises(MatrixError, match="did you mean 'toy'"):
        session.load(matrix({"evaluations": {"toi": {}}}))
    with pytest.raises(DistillbenchError, match="matches no cell"):
        session.load(matrix(), only="wize")
    with pytest.raises(DistillbenchError, match="exclude each other"):
        session.load(matrix(), limit=1, fast=True)


def test_what_failed_is_logged_and_in_the_exit_code(
    session: Session, matrix: Matrix, caplog: pytest.LogCaptureFixture
) -> None:
    forgetful = {"renderers": {"plain": {"use": "toy-renderer", "end_loss": False}}, "matrix": {"renderer": "plain"}}
    with caplog.at_level(logging.WARNING, "distillbench"):
        report = session.load(matrix(forgetful)).run()
    assert report.exit_code == 1 and report.summary is not None and report.summary.count("failed") == 1
    assert "FAILED: check wise by no filter for small" in caplog.text and "end_without_loss" in caplog.text


def test_polars_that_is_not_there_is_told(session: Session, matrix: Matrix, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    real = importlib.import_module

    def missing(name: str, *rest: Any) -> Any:
        if name == "polars":
            raise ImportError(name)
        return real(name, *rest)

    report = session.load(matrix()).report()
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(DistillbenchError, match="pip install polars"):
        report.to_polars()
