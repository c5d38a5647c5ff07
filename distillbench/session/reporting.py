"""Reports: where they go, what they need of the store, and how they are made."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from distillbench.errors import DamagedError, DistillbenchError, StoreError
from distillbench.report.collect import collect
from distillbench.report.sections import with_sections
from distillbench.report.tables import Tables, tables_of
from distillbench.report.writers.earlier import keep_earlier
from distillbench.report.writers.folder import write
from distillbench.sealed import read_sealed, write_sealed
from distillbench.session.lock import write_lock
from distillbench.session.subset import WHOLE, Subset
from distillbench.stages.grade import Grade
from distillbench.store.failures import note_failure
from distillbench.store.report_folders import STAGES, parts

if TYPE_CHECKING:
    from distillbench.plan.plan import Plan
    from distillbench.plan.stage import Stage
    from distillbench.session.experiment import Experiment
    from distillbench.session.session import Session


def write_report(loaded: Experiment, plan: Plan, folder: Path, command: str, reasons: Mapping[str, str]) -> Tables:
    """Collects the results of a plan and writes a report of them.

    Args:
        loaded: The matrix and the chosen cells.
        plan: Its plan.
        folder: Where the report goes.
        command: What the user asked for, without the options that choose a part of the matrix.
        reasons: By key, why stages of the last run failed or were blocked.
    """
    preflight = loaded.preflight()
    looked = {name: preflight.known(pairing) for name, pairing in plan.pairings.items()}
    command = f"{command} {loaded.subset.options}".rstrip()
    for stage in _failed(plan, reasons):
        note_failure(loaded.session.store, stage, reasons[stage.key])
    found = collect(plan, loaded.session.store, command, looked)
    remarks = [*_elsewhere(loaded, plan), *keep_earlier(folder, found.checkpoints)]
    results, sections = with_sections(replace(found, remarks=tuple(remarks)), loaded.session.manager)
    tables = tables_of(results)
    write(tables, folder, sections)
    write_lock(loaded, plan, folder)
    return tables


def _failed(plan: Plan, reasons: Mapping[str, str]) -> Iterator[Stage]:
    """The stages that failed by themselves; the others were blocked by one of these."""
    for key, stage in plan.stages.items():
        if key in reasons and not any(need.key in reasons for need in stage.waits_for):
            yield stage


def note_stages(loaded: Experiment, plan: Plan) -> None:
    """Writes the keys of every stage that a report of this matrix needs: `gc` frees none of these.

    The report's folder names those of the whole matrix, also where a part of it was chosen, so that a quick look at a
    few problems gives nothing up. The folder of a part names the part's own.

    Args:
        loaded: The matrix and the chosen cells.
        plan: Of the chosen cells.
    """
    session, matrix, subset = loaded.session, loaded.matrix, loaded.subset
    of_matrix = claim_report(session, matrix.name, matrix.path)
    about = {"matrix": of_matrix, "keep": sorted(matrix.keep)}
    for which, its_plan in {WHOLE: _whole(loaded, plan), subset: plan}.items():
        stages = {key: stage.kind for key, stage in its_plan.stages.items()}
        named = about | {"stages": stages, "subset": which.plain()}
        write_sealed(session.store.reports(matrix.name, which.folder) / STAGES, named, STAGES)


def _whole(loaded: Experiment, plan: Plan) -> Plan:
    """The plan of the whole matrix, of which a part may be chosen."""
    if not loaded.subset:
        return plan
    whole = _other(loaded, WHOLE) if loaded.subset.is_cut else loaded.with_all_cells()
    return whole.make_plan()


def _other(loaded: Experiment, subset: Subset) -> Experiment:
    """Another part of the same matrix."""
    return loaded.session.load(loaded.matrix.path, subset.only, subset.limit, subset.fast)


def _elsewhere(loaded: Experiment, plan: Plan) -> Iterator[str]:
    """Where this report lacks results: of which other parts of the matrix the store has some, in words."""
    graded = [stage for stage in plan.stages.values() if isinstance(stage, Grade)]
    if not plan.open_cells and all(loaded.session.store.folder(stage).is_dir() for stage in graded):
        return
    whole = loaded.session.store.root / "reports" / loaded.matrix.name
    for folder in (whole, *parts(whole)):
        try:
            named = read_sealed(folder / STAGES, STAGES)
            subset = Subset.of(named["subset"])
        except (FileNotFoundError, DamagedError, KeyError):
            continue
        if subset == loaded.subset or not _unseen(loaded, plan, named["stages"]):
            continue
        try:
            n = len(_unseen(loaded, plan, _other(loaded, subset).make_plan().stages))
        except DistillbenchError:  # a cell or a task that was asked for then is not there any more
            continue
        if n:
            what = f"under `{subset.options}`" if subset else "of the whole matrix"
            command = f"distillbench report {loaded.matrix.path.name} {subset.options}".rstrip()
            yield f"the store has {n} results {what} that are not in this report: `{command}` shows them"


def _unseen(loaded: Experiment, plan: Plan, keys: Iterable[str]) -> list[str]:
    """The results among other stages; none where a report of this plan shows some of them."""
    graded = loaded.session.store.root / "stages" / Grade.kind
    found = [key for key in keys if (graded / key).is_dir()]
    return [] if any(key in plan.stages for key in found) else found


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
