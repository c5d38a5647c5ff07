"""A matrix that was read, and the cells chosen from it: plan, check, run, report."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillbench.errors import DistillbenchError, nearest
from distillbench.session.subset import WHOLE, Subset

if TYPE_CHECKING:
    from distillbench.events import Emit
    from distillbench.matrix.resolve import Matrix
    from distillbench.plan.plan import Plan
    from distillbench.preflight.look import Preflight
    from distillbench.records import Cell
    from distillbench.report.evaluated import Evaluated
    from distillbench.report.results import GradedSample
    from distillbench.report.tables import Tables
    from distillbench.run.ledger import Summary
    from distillbench.session.checking import Checked
    from distillbench.session.session import Session
    from distillbench.tasks.identity import TaskIndex

Say = Callable[[str], None]
_LOG = logging.getLogger("distillbench")


@dataclass(frozen=True)
class Report:
    """Numbers, and where they are written.

    Attributes:
        tables: Everything that the report shows.
        folder: Its folder.
        summary: How the run ended; None where nothing was run.
    """

    tables: Tables
    folder: Path
    summary: Summary | None = None

    @property
    def exit_code(self) -> int:
        """0 where everything is done, 1 where a stage failed, 3 where some samples have no result."""
        if self.summary is None:
            return 0
        if self.summary.count("failed") + self.summary.count("blocked"):
            return 1
        return 3 if self.summary.count("holes") else 0

    def rows(self) -> list[dict[str, Any]]:
        """Every checkpoint on every evaluation, with its numbers, their n and intervals."""
        from distillbench.report.writers.columns import flat_row

        return [flat_row(row) for row in self.tables.rows]

    def row(self, **where: Any) -> dict[str, Any]:
        """The one row with these values: `report.row(cell="concise", step=20, evaluation="coins")`.

        Raises:
            DistillbenchError: None has them, or several have.
        """
        from distillbench.report.writers.columns import flat_row

        return flat_row(self._evaluated(where))

    def outcomes(self, **where: Any) -> dict[str, int]:
        """How many samples of one row have each outcome, without those that none has.

        Raises:
            DistillbenchError: No row has these values, or several have.
        """
        return {outcome: count for outcome, count in self._evaluated(where).summary.counts.items() if count}

    def samples(self, **where: Any) -> list[GradedSample]:
        """Every sample of one row, with its texts.

        Raises:
            DistillbenchError: No row has these values, or several have.
        """
        return list(self._evaluated(where).result.samples())

    def traces(self, cell: str) -> dict[str, int]:
        """How many traces of a cell were kept, and how many each filter rejected for which reason.

        Raises:
            DistillbenchError: No cell has this name.
        """
        cells = {one.name: one for one in self.tables.results.cells}
        if cell not in cells:
            raise DistillbenchError(f"the report has no cell {cell!r}; {nearest(cell, cells)}")
        return dict(cells[cell].traces or {})

    def failures(self) -> dict[str, str]:
        """Why stages failed or were blocked in this run, by the stage's name."""
        if self.summary is None:
            return {}
        return {self.summary.plan.stages[key].name: why for key, why in self.summary.reasons.items()}

    def _evaluated(self, where: Mapping[str, Any]) -> Evaluated:
        from distillbench.report.writers.columns import flat_row

        flat = [flat_row(row) for row in self.tables.rows]
        if unknown := [name for name in where if flat and name not in flat[0]]:
            raise DistillbenchError(f"rows of a report have no {unknown[0]!r}; {nearest(unknown[0], flat[0])}")
        found = [row for row, values in zip(self.tables.rows, flat, strict=True) if where.items() <= values.items()]
        if len(found) != 1:
            wanted = ", ".join(f"{name}={value!r}" for name, value in where.items())
            there = [f"    {row.name}, evaluation {row.result.evaluation!r}" for row in found or self.tables.rows]
            raise DistillbenchError("\n".join([f"{len(found)} rows with {wanted}, wanted one of:", *there]))
        return found[0]

    def to_pandas(self) -> Any:
        """The rows as a pandas frame.

        Raises:
            DistillbenchError: pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise DistillbenchError("pandas is not installed\n    hint: pip install pandas") from error
        return pandas.DataFrame(self.rows())

    def to_polars(self) -> Any:
        """The rows as a polars frame.

        Raises:
            DistillbenchError: polars is not installed.
        """
        try:
            polars = importlib.import_module("polars")
        except ImportError as error:
            raise DistillbenchError("polars is not installed\n    hint: pip install polars") from error
        return polars.DataFrame(self.rows(), infer_schema_length=None)


@dataclass(frozen=True)
class Experiment:
    """A matrix, and the cells chosen from it.

    Attributes:
        session: The store and the plugins.
        matrix: What the file says.
        cells: The chosen cells.
        subset: Which part of the matrix was asked for.
    """

    session: Session
    matrix: Matrix
    cells: tuple[Cell, ...]
    subset: Subset = WHOLE

    @property
    def tasks(self) -> TaskIndex:
        """The tasks by name."""
        return self.matrix.tasks

    def with_all_cells(self) -> Experiment:
        """The same with every cell chosen."""
        return replace(self, cells=tuple(self.matrix.cells), subset=replace(self.subset, only=()))

    def report_folder(self) -> Path:
        """Where its report goes: that of a part of the matrix lies in a folder of its own in that of the whole."""
        return self.session.store.reports(self.matrix.name, self.subset.folder)

    def make_plan(self) -> Plan:
        """The stages of the chosen cells, without statuses.

        Raises:
            MatrixError: What the matrix asks for cannot be planned.
        """
        from distillbench.stages.planner import build_plan

        chosen = {cell.name for cell in self.cells}
        return build_plan(
            self.matrix.name,
            self.cells,
            self.session.catalog,
            self.tasks,
            self.session.store.facts,
            others=[cell for cell in self.matrix.cells if cell.name not in chosen],
        )

    def plan(self) -> Plan:
        """The stages of the chosen cells, compared with the store: what is done, what has to run, and why."""
        from distillbench.plan.inspect import with_statuses

        return with_statuses(self.make_plan(), self.session.store.lookup, self.session.store.damage)

    def preflight(self) -> Preflight:
        """What looks at training rows and prompts."""
        from distillbench.bench import Bench
        from distillbench.preflight.look import Preflight
        from distillbench.tasks.loader import LmEvalTasks

        return Preflight(Bench(self.session.store, self.session.catalog, LmEvalTasks(self.tasks)))

    def refuse_others(self, lock: Path) -> None:
        """Refuses models, data, tasks, files and packages that are others than those of a report.

        Args:
            lock: The report's `lock.json`.

        Raises:
            DistillbenchError: With each one that differs, what was locked, what is here and what to do.
        """
        from distillbench.session.lock import refuse_others

        refuse_others(self, lock)

    def check(self) -> list[Checked]:
        """Finds mistakes before anything runs; a line of level `refused` would stop a run."""
        from distillbench.session.checking import checked

        return checked(self)

    def run(
        self,
        on_event: Emit | None = None,
        *,
        command: str = "",
        look_beside: bool = False,
        spares_others: bool = False,
        tell: Say = _LOG.warning,
        note: Say = _LOG.info,
    ) -> Report:
        """Trains every cell, evaluates every checkpoint, and reports. What is done already is reused.

        Args:
            on_event: Is given everything that happens, as it happens: see `distillbench.events`.
            command: What the report says that was asked for.
            look_beside: Whether the preflight looks while the run begins already: where nothing is trained, it costs as
                long as an engine takes to load, and what it refuses ends the run all the same.
            spares_others: Whether a benchmark whose documents cannot be had is told and fails alone.
            tell: Says what must be said, such as that something was damaged.
            note: Says what a person may want to know, such as warnings of the preflight.

        Raises:
            PreflightError: Training and evaluation do not fit together, and the matrix does not accept it.
            DistillbenchError: It asks for GPUs that are not there.
            KeyboardInterrupt: After every worker has been ended; what was journaled is kept.
        """
        from distillbench.session.running import run

        report = f"distillbench run {self.matrix.path.name}"
        return run(self, on_event, command or report, look_beside, spares_others, tell, note)

    def report(self, output: Path | None = None, *, command: str = "") -> Report:
        """Writes the report of what is finished. Runs nothing.

        Args:
            output: The folder of the report; the store's own where None.
            command: What the report says that was asked for.
        """
        from distillbench.session.reporting import note_stages, write_report

        plan = self.plan()
        if output is None:
            note_stages(self, plan)
        folder = self.report_folder() if output is None else output
        command = command or f"distillbench report {self.matrix.path.name}"
        tables = write_report(self, plan, folder, command, {})
        return Report(tables, folder)
