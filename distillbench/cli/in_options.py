"""Mistakes in the matrix that `distillbench eval` makes, told at the options of the command line they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from distillbench.errors import MatrixError, Mistake, Place

MATRIX_FILE = "matrix.yaml"
#: Which option a section of the matrix comes from.
_OPTIONS: Mapping[str, str] = {
    "students": "--model",
    "trainers": "--adapters",
    "renderers": "--renderer",
    "engines": "--engine",
    "evaluations": "--benchmarks",
    "task_paths": "--task-path",
    "matrix": "--set",
    "name": "--name",
}


def in_options(error: MatrixError) -> MatrixError:
    """The mistakes in the matrix, at the options of the command line that they come from."""
    return MatrixError(map(_in_option, error.mistakes))


def _in_option(mistake: Mistake) -> Mistake:
    """A mistake in the matrix, at the option that it comes from."""
    place = mistake.place
    section, *keys = place.keys if place.file == MATRIX_FILE and place.keys else ("",)
    if section == "defaults":
        return replace(mistake, place=Place(f"--{str(keys[-1]).replace('_', '-')}"))
    if section not in _OPTIONS:
        return mistake
    return replace(mistake, place=Place(_OPTIONS[str(section)], keys=tuple(keys), words=place.words))
