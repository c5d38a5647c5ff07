"""Reports: where they go, what they need of the store, and how they are made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from distillbench.errors import DamagedError, StoreError
from distillbench.report.collect import collect
from distillbench.report.sections import with_sections
from distillbench.report.tables import Tables, tables_of
from distillbench.report.writers.folder import write
from distillbench.sealed import read_sealed, write_sealed
from distillbench.store.garbage import STAGES

if TYPE_CHECKING:
    from distillbench.plan.plan import Plan
    from distillbench.session.experiment import Experiment
    from distillbench.session.session import Session


def write_report(loaded: Experiment, plan: Plan, folder: Path, command: str, reasons: Mapping[str, str]) -> Tables:
    """Collects the results of a plan and writes a report of them.

    Args:
        loaded: The matrix and the chosen cells.
        plan: Its plan.
        folder: Where the report goes.
        command: What the user asked for.
        reasons: By key, why stages of the last run failed or were blocked.
    """
    preflight = loaded.preflight()
    looked = {name: preflight.known(pairing) for name, pairing in plan.pairings.items()}
    found = collect(plan, loaded.session.store, command, reasons, looked)
    results, sections = with_sections(found, loaded.session.manager)
    tables = tables_of(results)
    write(tables, folder, sections)
    return tables


def note_stages(loaded: Experiment, plan: Plan) -> None:
    """Writes the keys of every stage that a report of this matrix needs: `gc` frees none of these.

    They are those of all its cells, whichever were chosen, and also those of the whole matrix where only some problems
    of each benchmark are asked, so that a quick look at a few problems gives nothing up.

    Args:
        loaded: The matrix and the chosen cells.
        plan: Of the chosen cells.
    """
    plans = [plan] if len(loaded.cells) == len(loaded.matrix.cells) else [loaded.with_all_cells().make_plan()]
    if loaded.is_cut:
        plans.append(loaded.session.load(loaded.matrix.path).make_plan())
    stages = {key: stage.kind for plan in plans for key, stage in plan.stages.items()}
    session, matrix = loaded.session, loaded.matrix
    of_matrix = claim_report(session, matrix.name, matrix.path)
    named = {"stages": stages, "matrix": of_matrix, "keep": sorted(matrix.keep)}
    write_sealed(session.store.reports(matrix.name) / STAGES, named, STAGES)


def claim_report(session: Session, name: str, matrix: Path) -> str:
    """Makes sure that the report of this name is no other matrix's, which would be overwritten.

    Args:
        session: Whose store.
        name: The report's.
        matrix: The file.

    Returns:
        The file as the report names it: seen from the store, so that both may move together.

    Raises:
        StoreError: Another file, which is still there, has a report of this name.
    """
    root = session.store.root
    path = root / "reports" / name / STAGES
    own = os.path.relpath(matrix.resolve(), root)
    try:
        other = read_sealed(path, STAGES).get("matrix", own)
    except (FileNotFoundError, DamagedError):  # there is none, or what it said is not known
        return own
    if isinstance(other, str) and other != own and (root / other).is_file():
        raise StoreError(
            f"{path.parent} is the report of another matrix, {os.path.normpath(root / other)}\n"
            f"    wanted: one report for each matrix, so that none is overwritten\n"
            f"    got:    the same `name`, {name!r}, in {matrix}\n"
            f"    hint:   give one of them another `name`, or another --store"
        )
    return own
