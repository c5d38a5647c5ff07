"""A store and the plugins that there are: what matrices are loaded with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from distillbench.errors import Mistake
from distillbench.fingerprint import expanded

if TYPE_CHECKING:
    import pluggy

    from distillbench.catalog import Catalog
    from distillbench.records import Cell
    from distillbench.session.experiment import Experiment
    from distillbench.store.store import Store
    from distillbench.tasks.identity import TaskIndex


class Session:
    """Loads matrices.

    Args:
        store: The folder of results and reports; made when something is first written.
        blocked: Names of plugins that are left out, in workers too.
        manager: The plugins; those that are installed where None.

    Attributes:
        manager: The plugins.
        blocked: Names of those left out.
    """

    def __init__(
        self,
        store: Path | str = "distillbench-runs",
        *,
        blocked: Sequence[str] = (),
        manager: pluggy.PluginManager | None = None,
    ) -> None:
        from distillbench.manager import make_manager

        self.blocked = tuple(blocked)
        self.manager = make_manager(self.blocked) if manager is None else manager
        self._store_path = expanded(store)

    @cached_property
    def catalog(self) -> Catalog:
        """The components of all plugins."""
        from distillbench.catalog import Catalog

        return Catalog(self.manager)

    @cached_property
    def store(self) -> Store:
        """The store.

        Raises:
            StoreError: The folder belongs to another format, or cannot be read.
        """
        from distillbench.store.store import Store

        return Store(self._store_path)

    def load(
        self, path: Path | str, only: Sequence[str] | str = (), limit: int | None = None, fast: bool = False
    ) -> Experiment:
        """Reads a matrix and chooses cells of it.

        Args:
            path: The YAML file.
            only: Names of cells, or one name, which may hold `*`; the untouched students that they are compared with
                come along. All cells where none is named.
            limit: Only the first so many problems of each benchmark.
            fast: Only 100 problems of each benchmark, a fixed shuffle.

        Raises:
            MatrixError: It has mistakes; each with its file, line and key.
            DistillbenchError: A name in `only` is no cell's.
        """
        from distillbench.matrix.resolve import load_matrix
        from distillbench.session.choosing import choose_cells
        from distillbench.session.experiment import Experiment
        from distillbench.session.subset import Subset

        names = (only,) if isinstance(only, str) else tuple(only)
        subset = Subset(limit, fast, names)
        matrix = load_matrix(Path(path), self.catalog, limit=limit, fast=fast, further_mistakes=self._planning_mistakes)
        cells = choose_cells(matrix.cells, names)
        if len(cells) == len(matrix.cells):
            subset = replace(subset, only=())
        return Experiment(self, matrix, cells, subset)

    def _planning_mistakes(self, cells: Sequence[Cell], tasks: TaskIndex) -> Sequence[Mistake]:
        from distillbench.stages.planner import planning_mistakes  # 80 ms that a matrix without mistakes is spared

        return planning_mistakes(cells, tasks, catalog=self.catalog)
