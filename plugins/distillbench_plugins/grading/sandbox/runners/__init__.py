"""What a child does once it is confined, by name. A runner gets its channel and its files, and ends the process itself.

A runner is given inputs and never an expected output, and what it says counts only under the nonce that it is told
after the model code was loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..channel import Channel
from .emulated import run_emulated
from .functions import run_functions
from .program import run_program
from .pytest_tests import run_pytest
from .solution import run_solution

RUNNERS: Mapping[str, Callable[[Channel, list[int]], None]] = {
    "emulated": run_emulated,
    "functions": run_functions,
    "program": run_program,
    "pytest": run_pytest,
    "solution": run_solution,
}
