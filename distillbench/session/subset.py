"""Which part of a matrix was asked for, and where its report lies: beside that of the whole, never over it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from distillbench.errors import DistillbenchError
from distillbench.report.writers.files import file_name


@dataclass(frozen=True, slots=True)
class Subset:
    """A part of a matrix; the whole where nothing is said.

    Attributes:
        limit: Only the first so many problems of each benchmark.
        fast: Only 100 problems of each benchmark, a fixed shuffle.
        only: Names of cells, which may hold `*`.
    """

    limit: int | None = None
    fast: bool = False
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses what excludes each other."""
        if self.limit is not None and self.fast:
            raise DistillbenchError("`limit` and `fast` exclude each other")

    def __bool__(self) -> bool:
        return self.is_cut or bool(self.only)

    @property
    def is_cut(self) -> bool:
        """Whether only some problems of each benchmark are asked."""
        return self.limit is not None or self.fast

    @property
    def folder(self) -> str:
        """The folder of its report, in that of the whole; empty for the whole."""
        parts = [f"limit-{self.limit}"] if self.limit is not None else []
        parts += ["fast"] if self.fast else []
        parts += [file_name(f"only-{chr(10).join(sorted(set(self.only)))}")] if self.only else []
        return ",".join(parts)

    @property
    def options(self) -> str:
        """How the command line says it; empty for the whole."""
        parts = [f"--limit {self.limit}"] if self.limit is not None else []
        parts += ["--fast"] if self.fast else []
        return " ".join([*parts, *(f"--only {shlex.quote(name)}" for name in self.only)])

    def plain(self) -> dict[str, Any]:
        """It as JSON holds it."""
        return {"limit": self.limit, "fast": self.fast, "only": list(self.only)}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """It, from what `plain` gave."""
        return cls(plain["limit"], plain["fast"], tuple(plain["only"]))


#: All of a matrix.
WHOLE = Subset()
